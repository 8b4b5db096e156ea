//! The table of case, expected, seen.

use std::{fmt, time::Duration};

use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width, presets::UTF8_FULL_CONDENSED};

use crate::Part;

/// How many differing frames of a case are told.
const TOLD: usize = 5;

/// How a case ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// As expected.
    Ok,
    /// Not as expected.
    Different,
    /// It gets out, as this version says that it does. Where one is stopped, the case is [`Different`](Self::Different), so
    /// that the table learns of it.
    KnownGap,
    /// This kernel can't try it.
    Skipped,
}

/// One case in one mode.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) mode: &'static str,
    pub(crate) case: String,
    pub(crate) frames: usize,
    pub(crate) expected: String,
    pub(crate) seen: String,
    /// What exactly differs.
    pub(crate) differences: Vec<String>,
    pub(crate) status: Status,
}

/// Everything that was tried.
#[derive(Debug, Default)]
pub struct Report {
    rows: Vec<(&'static str, Row)>,
    times: Vec<(Part, Duration)>,
}

impl Report {
    pub(crate) fn add(&mut self, class: &'static str, row: Row) {
        self.rows.push((class, row));
    }

    pub(crate) fn took(&mut self, part: Part, time: Duration) {
        self.times.push((part, time));
    }

    /// Cases that were not as expected.
    #[must_use]
    pub fn differences(&self) -> usize {
        self.count(Status::Different)
    }

    /// Cases that ended so.
    #[must_use]
    pub fn count(&self, status: Status) -> usize {
        self.rows.iter().filter(|(_, row)| row.status == status).count()
    }

    /// What this kernel could not try, and why.
    pub fn skipped(&self) -> impl Iterator<Item = (String, &str)> {
        let skipped = self.rows.iter().filter(|(_, row)| row.status == Status::Skipped);
        // In a line of what was left out the first colon ends what it was.
        let what = |class: &str, case: &str| format!("{class} / {case}").replace(": ", ", ");
        skipped.map(move |(class, row)| (what(class, &row.case), row.seen.as_str()))
    }

    /// The closing line.
    #[must_use]
    pub fn summary(&self) -> String {
        let frames: usize = self.rows.iter().map(|(_, row)| row.frames).sum();
        format!(
            "{} cases ({frames} frames): {} as expected, {} different, {} known gaps, {} skipped",
            self.rows.len(),
            self.count(Status::Ok),
            self.differences(),
            self.count(Status::KnownGap),
            self.count(Status::Skipped)
        )
    }

    /// The rows that differ, for a test that failed.
    #[must_use]
    pub fn different(&self) -> String {
        let different = self.rows.iter().filter(|(_, row)| row.status == Status::Different);
        different
            .map(|(class, row)| {
                format!(
                    "{class} / {} ({}):\n  expected {}\n  seen     {}\n{}",
                    row.case,
                    row.mode,
                    row.expected,
                    row.seen,
                    row.differences.iter().take(TOLD).map(|what| format!("  {what}\n")).collect::<String>()
                )
            })
            .collect()
    }

    /// Classes in the order of their first row.
    fn classes(&self) -> Vec<&'static str> {
        let mut classes = Vec::new();
        for (class, _) in &self.rows {
            if !classes.contains(class) {
                classes.push(*class);
            }
        }
        classes
    }

    /// The rows of a class, those that differ in nothing but the mode as one.
    fn merged(&self, class: &str) -> Vec<(Row, String)> {
        let mut merged: Vec<(Row, String)> = Vec::new();
        for (_, row) in self.rows.iter().filter(|(of, row)| *of == class && row.mode != "no firewall") {
            let is_same = |other: &Row| {
                (&other.case, &other.expected, &other.seen, other.status)
                    == (&row.case, &row.expected, &row.seen, row.status)
            };
            match merged.iter_mut().find(|(other, _)| is_same(other)) {
                Some((_, modes)) => *modes = format!("{modes} {}", row.mode),
                None => merged.push((row.clone(), row.mode.to_owned())),
            }
        }
        merged
    }
}

impl Status {
    const fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Different => "NO",
            Self::KnownGap => "gap",
            Self::Skipped => "skipped",
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for class in self.classes() {
            let mut table = Table::new();
            table.load_preset(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
            table.set_width(180).set_header(["", "mode", "case", "frames", "expected", "seen"]);
            table.set_constraints([
                ColumnConstraint::ContentWidth,
                ColumnConstraint::UpperBoundary(Width::Fixed(10)),
                ColumnConstraint::UpperBoundary(Width::Fixed(50)),
                ColumnConstraint::ContentWidth,
            ]);
            let rows = self.merged(class);
            if rows.is_empty() {
                continue;
            }
            for (row, modes) in rows {
                let seen = if row.seen == row.expected { "the same".to_owned() } else { row.seen.clone() };
                let frames = row.frames.to_string();
                table.add_row([row.status.label(), &modes, &row.case, &frames, &row.expected, &seen]);
            }
            writeln!(f, "{class}\n{table}\n")?;
        }
        self.without_firewall(f)?;
        for (part, time) in &self.times {
            writeln!(f, "{}: {:.1} s", part.label(), time.as_secs_f32())?;
        }
        let different = self.different();
        if !different.is_empty() {
            writeln!(f, "\nnot as expected:\n{different}")?;
        }
        Ok(())
    }
}

impl Report {
    /// How many of the frames reach the stack where nothing stops them.
    fn without_firewall(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bare: Vec<_> = self.rows.iter().filter(|(_, row)| row.mode == "no firewall").collect();
        if bare.is_empty() {
            return Ok(());
        }
        let sent: usize = bare.iter().map(|(_, row)| row.frames).sum();
        let came: usize =
            bare.iter().filter_map(|(_, row)| row.seen.split(' ').next()?.parse::<usize>().ok()).sum();
        writeln!(f, "without a firewall the same witness sees {came} of {sent} frames\n")
    }
}
