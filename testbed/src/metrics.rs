//! What `/metrics` says.

use std::{collections::BTreeMap, str::FromStr};

use anyhow::{Context as _, Error, Result};

/// One line of `/metrics`.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Name of the metric.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

/// All lines of one scrape.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    /// In the order of the text.
    pub samples: Vec<Sample>,
}

/// Dropped packets, by `direction rule reason` (`-` where no rule claims the packet). Without zeros.
pub type Drops = BTreeMap<String, u64>;

impl Metrics {
    /// Sum over the samples of that name which have all these labels; 0 if there is none.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).fold(0.0, |sum, sample| sum + sample.value)
    }

    /// Whether there is such a sample.
    #[must_use]
    pub fn has(&self, name: &str, labels: &[(&str, &str)]) -> bool {
        self.matching(name, labels).next().is_some()
    }

    /// Packets that passed and were charged to this rule.
    #[must_use]
    pub fn passed(&self, direction: &str, rule: &str) -> f64 {
        self.sum("mpesa_fw_passed_packets_total", &[("direction", direction), ("rule", rule)])
    }

    /// Packets that were dropped, charged to this rule, for this reason.
    #[must_use]
    pub fn dropped(&self, direction: &str, rule: &str, reason: &str) -> f64 {
        self.sum(
            "mpesa_fw_dropped_packets_total",
            &[("direction", direction), ("rule", rule), ("reason", reason)],
        )
    }

    /// The drops since an earlier scrape: the closed world, so that a test can say "these and no others".
    #[must_use]
    pub fn drops_since(&self, before: &Self) -> Drops {
        self.moved("mpesa_fw_dropped_packets_total", before)
    }

    /// What would have been dropped since an earlier scrape.
    #[must_use]
    pub fn would_drops_since(&self, before: &Self) -> Drops {
        self.moved("mpesa_fw_would_drop_packets_total", before)
    }

    /// Counters (`_total`) that are smaller than in an earlier scrape, or gone though they had counted.
    #[must_use]
    pub fn went_back(&self, before: &Self) -> Vec<String> {
        let counters = before.samples.iter().filter(|sample| sample.name.ends_with("_total"));
        let smaller = counters.filter(|sample| {
            let now =
                self.samples.iter().find(|other| other.name == sample.name && other.labels == sample.labels);
            now.map_or(0.0, |now| now.value) < sample.value
        });
        smaller.map(|sample| format!("{}{:?} was {}", sample.name, sample.labels, sample.value)).collect()
    }

    fn moved(&self, name: &str, before: &Self) -> Drops {
        let mut moved = Drops::new();
        let by_rule = |sample: &Sample| {
            let label = |key: &str| {
                sample.labels.get(key).map(String::as_str).filter(|value| !value.is_empty()).unwrap_or("-")
            };
            format!("{} {} {}", label("direction"), label("rule"), label("reason"))
        };
        for sample in self.matching(name, &[]) {
            *moved.entry(by_rule(sample)).or_default() += sample.value as u64;
        }
        for sample in before.matching(name, &[]) {
            let count = moved.entry(by_rule(sample)).or_default();
            *count = count.saturating_sub(sample.value as u64);
        }
        moved.retain(|_, count| *count > 0);
        moved
    }

    fn matching<'a>(&'a self, name: &'a str, labels: &'a [(&str, &str)]) -> impl Iterator<Item = &'a Sample> {
        let has = |sample: &Sample| {
            labels.iter().all(|(key, value)| sample.labels.get(*key).is_some_and(|have| have == value))
        };
        self.samples.iter().filter(move |sample| sample.name == name && has(sample))
    }
}

impl FromStr for Metrics {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        Ok(Self { samples: lines.map(sample).collect::<Result<_>>()? })
    }
}

/// `name{key="value",...} 1.5`; the values of our labels hold no quotes and no commas.
fn sample(line: &str) -> Result<Sample> {
    let (series, value) = line.rsplit_once(' ').with_context(|| format!("no value in {line:?}"))?;
    let value = value.parse().with_context(|| format!("no number in {line:?}"))?;
    let (name, labels) = match series.split_once('{') {
        None => (series, BTreeMap::new()),
        Some((name, labels)) => {
            let labels = labels.strip_suffix('}').with_context(|| format!("no closing brace in {line:?}"))?;
            let pairs = labels.split(',').filter(|pair| !pair.is_empty()).map(|pair| {
                let (key, value) = pair.split_once('=').with_context(|| format!("no label in {line:?}"))?;
                Ok((key.trim().to_owned(), value.trim().trim_matches('"').to_owned()))
            });
            (name, pairs.collect::<Result<_>>()?)
        }
    };
    Ok(Sample { name: name.to_owned(), labels, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "# HELP x y\n# TYPE mpesa_fw_dropped_packets_total counter\n\
        mpesa_fw_dropped_packets_total{interface=\"eth0\",direction=\"ingress\",rule=\"\",reason=\"no_service\"} 3\n\
        mpesa_fw_flows 2\n";

    #[test]
    fn reads_what_prometheus_reads() {
        let metrics: Metrics = BEFORE.parse().expect("valid");
        assert_eq!(metrics.sum("mpesa_fw_flows", &[]), 2.0);
        assert_eq!(metrics.dropped("ingress", "", "no_service"), 3.0);
        assert_eq!(metrics.dropped("egress", "", "no_service"), 0.0);
        assert!("mpesa_fw_flows".parse::<Metrics>().is_err());
    }

    #[test]
    fn tells_what_moved() {
        let before: Metrics = BEFORE.parse().expect("valid");
        let after: Metrics = BEFORE.replace("} 3", "} 5").parse().expect("valid");
        assert_eq!(after.drops_since(&before), Drops::from([("ingress - no_service".to_owned(), 2)]));
        assert_eq!(before.went_back(&after).len(), 1);
        assert!(after.went_back(&before).is_empty());
    }
}
