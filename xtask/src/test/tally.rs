//! Adds up what several runs of libtest print.

use std::{collections::BTreeMap, fmt};

/// Lines of what a failed test said that are repeated at the end: enough for a panic or an error with its causes.
const REPEATED: usize = 20;

/// Tests passed, failed and skipped.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    passed: usize,
    failures: Vec<String>,
    /// Failed, and passed when they were run again.
    unsteady: Vec<String>,
    /// Name and reason.
    ignored: Vec<(String, String)>,
    /// Failures that a `test result` line counts beyond those named so far.
    named: usize,
    /// A test whose line was torn by what it printed past libtest.
    torn: Option<String>,
    /// What failed tests said, by their names.
    said: BTreeMap<String, Vec<String>>,
    /// Whose words are being read.
    speaker: Option<String>,
}

impl Tally {
    /// Takes in one line of output.
    pub(crate) fn read(&mut self, line: &str) {
        self.hear(line);
        if let Some(rest) = line.strip_prefix("test result: ") {
            let failed = count(rest, " failed");
            self.passed += count(rest, " passed");
            for nameless in self.named..failed {
                self.failures.push(format!("a test without a name ({})", nameless + 1));
            }
            self.named = 0;
        } else if let Some(rest) = line.strip_prefix("test ") {
            if let Some(name) = rest.strip_suffix(" ... FAILED") {
                self.failures.push(name.to_owned());
                self.named += 1;
            } else if let Some((name, reason)) = rest.split_once(" ... ignored") {
                let reason = reason.trim_start_matches(", ");
                self.ignored.push((name.to_owned(), reason.to_owned()));
            } else {
                self.torn = rest.split_once(" ... ").map(|(name, _)| name.to_owned());
            }
        } else if let Some(part) = line.strip_prefix("left out: ") {
            let (what, why) = part.split_once(": ").unwrap_or((part, ""));
            let part = (format!("a part of a test: {what}"), why.to_owned());
            if !self.ignored.contains(&part) {
                self.ignored.push(part);
            }
        } else if line == "FAILED"
            && let Some(name) = self.torn.take()
        {
            self.failures.push(name);
            self.named += 1;
        }
    }

    /// Keeps the beginning of what a failed test said, up to its backtrace.
    fn hear(&mut self, line: &str) {
        if let Some(name) = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----")) {
            self.speaker = Some(name.to_owned());
        } else if ["stack backtrace:", "Stack backtrace:", "failures:"].contains(&line.trim()) {
            self.speaker = None;
        } else if let Some(name) = &self.speaker
            && !line.trim().is_empty()
        {
            let said = self.said.entry(name.clone()).or_default();
            if said.len() < REPEATED {
                said.push(line.to_owned());
            }
        }
    }

    /// Counts something that failed as a whole.
    pub(crate) fn fail(&mut self, what: String) {
        self.failures.push(what);
    }

    /// Counts something that was not run.
    pub(crate) fn skip(&mut self, what: String, why: String) {
        self.ignored.push((what, why));
    }

    /// Counts something that passed as a whole.
    pub(crate) fn pass(&mut self) {
        self.passed += 1;
    }

    /// Counts a test that failed as passed: it was run again.
    pub(crate) fn passed_again(&mut self, name: &str) {
        if let Some(at) = self.failures.iter().position(|failure| failure == name) {
            self.unsteady.push(self.failures.remove(at));
            self.passed += 1;
        }
    }

    /// Forgets the ignored tests: they are about to be run.
    pub(crate) fn take_ignored(&mut self) {
        self.ignored.clear();
    }

    /// Says by name what failed, and why, and what was skipped.
    pub(crate) fn report(&self) {
        if !self.ignored.is_empty() {
            println!("\nskipped:");
            for (name, reason) in &self.ignored {
                println!("  {name}: {}", if reason.is_empty() { "no reason given" } else { reason });
            }
        }
        self.report_said("unsteady (failed beside others, passed alone; to be mended):", &self.unsteady);
        self.report_said("failed:", &self.failures);
    }

    fn report_said(&self, title: &str, tests: &[String]) {
        if !tests.is_empty() {
            println!("\n{title}");
        }
        for test in tests {
            println!("  {test}");
            for line in self.said.get(test).into_iter().flatten() {
                println!("      {line}");
            }
        }
    }

    /// How many passed.
    pub(crate) fn passed(&self) -> usize {
        self.passed
    }

    /// What failed, by name.
    pub(crate) fn failures(&self) -> &[String] {
        &self.failures
    }

    /// What was skipped, and why.
    pub(crate) fn skipped(&self) -> &[(String, String)] {
        &self.ignored
    }

    /// How many failed.
    pub(crate) fn failed(&self) -> usize {
        self.failures.len()
    }
}

/// The closing line.
impl fmt::Display for Tally {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { passed, failures, unsteady: _, ignored, named: _, torn: _, said: _, speaker: _ } = self;
        write!(formatter, "{passed} passed, {} failed, {} skipped", failures.len(), ignored.len())
    }
}

/// The number before `label` in "ok. 4 passed; 0 failed; 1 ignored; ...".
fn count(line: &str, label: &str) -> usize {
    line.split(';')
        .find_map(|part| part.trim_end().strip_suffix(label)?.rsplit(' ').next()?.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(output: &str) -> Tally {
        let mut tally = Tally::default();
        output.lines().for_each(|line| tally.read(line));
        tally
    }

    #[test]
    fn several_runs_are_added_up() {
        let tally = tally(
            "running 3 tests\n\
             test a ... ok\n\
             test b::c ... FAILED\n\
             test d ... ignored, needs root and a kernel\n\
             failures:\n    b::c\n\
             test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.02s\n\
             test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.02s\n",
        );
        assert_eq!(tally.to_string(), "13 passed, 1 failed, 1 skipped");
        assert_eq!(tally.failures, ["b::c"]);
        assert_eq!(tally.ignored, [("d".to_owned(), "needs root and a kernel".to_owned())]);
    }

    #[test]
    fn a_failure_whose_line_was_torn_by_other_output_still_counts() {
        let tally =
            tally("test a ... something printed\nFAILED\ntest result: FAILED. 0 passed; 1 failed; 0 ignored");
        assert_eq!(tally.to_string(), "0 passed, 1 failed, 0 skipped");
    }

    #[test]
    fn the_beginning_of_what_a_failed_test_said_is_kept() {
        let tally = tally(
            "test a ... FAILED\ntest b ... FAILED\n\nfailures:\n\n\
             ---- a stdout ----\n\nthread 'a' panicked at a.rs:1:1:\n799\nstack backtrace:\n   0: begin\n\n\
             ---- b stdout ----\nError: no\n\nCaused by:\n    nothing\n\n\nfailures:\n    a\n    b\n\n\
             test result: FAILED. 0 passed; 2 failed; 0 ignored",
        );
        assert_eq!(tally.said["a"], ["thread 'a' panicked at a.rs:1:1:", "799"]);
        assert_eq!(tally.said["b"], ["Error: no", "Caused by:", "    nothing"]);
    }

    #[test]
    fn a_part_that_is_left_out_is_skipped_with_its_reason_and_the_test_keeps_its_name() {
        let tally = tally(
            "test a ... \nleft out: --tc tcx: this kernel has no TCX (Linux 6.6)\nok\n\
             test b ... \nleft out: --tc tcx: this kernel has no TCX (Linux 6.6)\nFAILED\n\
             test result: FAILED. 1 passed; 1 failed; 0 ignored",
        );
        assert_eq!(tally.to_string(), "1 passed, 1 failed, 1 skipped");
        assert_eq!(tally.failures, ["b"]);
        let why = "this kernel has no TCX (Linux 6.6)";
        assert_eq!(tally.skipped(), [("a part of a test: --tc tcx".to_owned(), why.to_owned())]);
    }

    #[test]
    fn a_test_that_passes_when_it_is_run_again_is_passed_and_remembered() {
        let mut tally =
            tally("test a ... FAILED\ntest b ... FAILED\ntest result: FAILED. 1 passed; 2 failed; 0 ignored");
        tally.passed_again("b");
        tally.passed_again("c");
        assert_eq!(tally.to_string(), "2 passed, 1 failed, 0 skipped");
        assert_eq!((tally.failures, tally.unsteady), (vec!["a".to_owned()], vec!["b".to_owned()]));
    }

    #[test]
    fn ignored_tests_that_are_run_later_are_not_skipped() {
        let mut tally = tally("test a ... ignored\ntest result: ok. 0 passed; 0 failed; 1 ignored");
        tally.take_ignored();
        tally.read("test a ... ok");
        tally.read("test result: ok. 1 passed; 0 failed; 0 ignored");
        assert_eq!(tally.to_string(), "1 passed, 0 failed, 0 skipped");
    }
}
