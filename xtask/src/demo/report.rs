//! What was expected and what was seen.

use std::fmt;

use comfy_table::{Cell, CellAlignment, Table, presets::UTF8_FULL_CONDENSED};
use testbed::Metrics;

/// Everything that was tried, in order.
#[derive(Debug, Default)]
pub(super) struct Report {
    phases: Vec<Phase>,
    counts: Vec<[String; 5]>,
}

#[derive(Debug)]
struct Phase {
    title: &'static str,
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    case: &'static str,
    expected: &'static str,
    seen: String,
}

impl Report {
    /// Says what comes now.
    pub(super) fn phase(&mut self, title: &'static str) {
        println!("  {title}");
        self.phases.push(Phase { title, rows: Vec::new() });
    }

    /// Notes one case of the current phase.
    pub(super) fn check(&mut self, case: &'static str, expected: &'static str, seen: impl fmt::Display) {
        let row = Row { case, expected, seen: seen.to_string() };
        if !row.is_good() {
            println!("    not as expected: {case}: {}", row.seen);
        }
        if let Some(phase) = self.phases.last_mut() {
            phase.rows.push(row);
        }
    }

    /// Takes the packet counts from a scrape for the second table.
    pub(super) fn counts(&mut self, metrics: &Metrics) {
        for (name, verdict) in
            [("mpesa_fw_passed_packets_total", "passed"), ("mpesa_fw_dropped_packets_total", "dropped")]
        {
            for sample in metrics.samples.iter().filter(|sample| sample.name == name && sample.value > 0.0) {
                let label = |key: &str| sample.labels.get(key).cloned().unwrap_or_default();
                self.counts.push([
                    label("direction"),
                    label("rule"),
                    verdict.to_owned(),
                    label("reason"),
                    sample.value.to_string(),
                ]);
            }
        }
        self.counts.sort();
    }

    /// How many cases were not as expected.
    pub(super) fn differences(&self) -> usize {
        self.rows().filter(|row| !row.is_good()).count()
    }

    /// The closing line.
    pub(super) fn summary(&self) -> String {
        match self.differences() {
            0 => format!("{} of {0} cases as expected", self.rows().count()),
            wrong => format!("{wrong} of {} cases NOT as expected", self.rows().count()),
        }
    }

    fn rows(&self) -> impl Iterator<Item = &Row> {
        self.phases.iter().flat_map(|phase| &phase.rows)
    }
}

impl Row {
    fn is_good(&self) -> bool {
        self.seen == self.expected
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, phase) in self.phases.iter().enumerate() {
            let mut table = Table::new();
            table.load_preset(UTF8_FULL_CONDENSED).set_header(["", "case", "expected", "seen"]);
            for row in &phase.rows {
                table.add_row([if row.is_good() { "ok" } else { "NO" }, row.case, row.expected, &row.seen]);
            }
            writeln!(f, "{}. {}\n{table}\n", number + 1, phase.title)?;
        }
        let mut table = Table::new();
        table.load_preset(UTF8_FULL_CONDENSED).set_header([
            "direction",
            "rule",
            "verdict",
            "reason",
            "packets",
        ]);
        for [direction, rule, verdict, reason, packets] in &self.counts {
            let packets = Cell::new(packets).set_alignment(CellAlignment::Right);
            table.add_row([
                Cell::new(direction),
                Cell::new(rule),
                Cell::new(verdict),
                Cell::new(reason),
                packets,
            ]);
        }
        write!(f, "What /metrics counted\n{table}")
    }
}
