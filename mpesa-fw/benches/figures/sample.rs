//! What many runs of one thing amount to.

/// Figures of one kind, in the order in which they were taken.
#[derive(Clone, Debug)]
pub(crate) struct Sample(Vec<f64>);

impl Sample {
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn push(&mut self, figure: f64) {
        self.0.push(figure);
    }

    pub(crate) fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    pub(crate) const fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn min(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }

    pub(crate) fn max(&self) -> f64 {
        self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }

    /// The upper one of two in the middle.
    pub(crate) fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
    }

    /// Both, whole numbers.
    pub(crate) fn least_and_median(&self) -> String {
        format!("{:.0} / {:.0}", self.min(), self.median())
    }

    /// How much more these are than the others of the same round.
    pub(crate) fn over(&self, others: &Self) -> Self {
        Self(self.0.iter().zip(&others.0).map(|(figure, other)| figure - other).collect())
    }

    /// How many times these are the others of the same round.
    pub(crate) fn ratio(&self, others: &Self) -> Self {
        Self(self.0.iter().zip(&others.0).map(|(figure, other)| figure / other).collect())
    }

    /// The figure that so much of a hundred do not exceed.
    pub(crate) fn percentile(&self, percent: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
    }
}

/// A figure beside the least that it must be.
pub(crate) fn at_least(figure: f64, least: Option<f64>) -> String {
    match least {
        None => format!("{figure:.2}"),
        Some(least) if figure >= least => format!("{figure:.2} (at least {least}: met)"),
        Some(least) => format!("**{figure:.2}** (at least {least}: **missed**)"),
    }
}

/// A figure beside what it must reach.
pub(crate) fn against(figure: f64, most: Option<f64>) -> String {
    match most {
        None => format!("{figure:+.0}"),
        Some(most) if figure <= most => format!("{figure:+.0} (at most {most:+.0}: met)"),
        Some(most) => format!("**{figure:+.0}** (at most {most:+.0}: **missed**)"),
    }
}

/// What a figure must reach, and whether it does.
pub(crate) fn within(figure: f64, most: f64) -> String {
    if figure <= most { format!("{most}: met") } else { format!("{most}: **missed**") }
}
