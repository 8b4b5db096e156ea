//! What a guest said on its console.

use std::collections::BTreeMap;

use super::release::Release;
use crate::test::Tally;

/// Begins a line that is meant for this verb.
const MARK: &str = "@@ ";

/// The steps of the scenario on one interface that decide whether the kernel's cell is a yes, in order.
pub(crate) const STEPS: [&str; 26] = [
    "link",
    "link_out",
    "start",
    "allowed",
    "denied",
    "denied_counted",
    "egress_allowed",
    "egress_denied",
    "egress_told",
    "ping_denied",
    "egress_counted",
    "reload",
    "dead",
    "dead_allowed",
    "dead_denied",
    "dead_egress",
    "again",
    "again_allowed",
    "again_denied",
    "again_counted",
    "detach",
    "open_again",
    "jumbo_start",
    "jumbo_allowed",
    "jumbo_denied",
    "jumbo_detach",
];

/// Everything that one guest answered.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    /// The last word of each key.
    values: BTreeMap<String, String>,
    /// What the agent said of itself, by the interface's kind; each once.
    notes: Vec<String>,
    /// How many instructions the verifier looked at, by the program; in their order.
    verified: Vec<(String, u32)>,
    /// Tests by program.
    tests: Vec<Program>,
    /// Why the run itself is not whole.
    broken: Vec<String>,
}

/// What one test program said.
#[derive(Debug, Default)]
pub(crate) struct Program {
    pub(crate) name: String,
    pub(crate) tally: Tally,
    /// How long its tests took.
    pub(crate) seconds: u32,
}

impl Answers {
    /// Reads a console.
    pub(crate) fn read(console: &str) -> Self {
        let mut answers = Self::default();
        for line in console.lines() {
            // A kernel's message may stand in front.
            let line = line.trim_end_matches('\r');
            match line.find(MARK).map(|at| &line[at + MARK.len()..]) {
                Some(answer) => answers.take(answer),
                None => {
                    if let Some(program) = answers.tests.last_mut() {
                        program.tally.read(line);
                    }
                    if line.ends_with(" that a test run can't have") && line.contains(" cases, ") {
                        answers.values.insert(String::from("catalogue"), line.to_owned());
                    }
                    answers.verified.extend(verified(line));
                }
            }
        }
        if answers.value("end") != Some("ok") {
            answers.broke("the guest did not come to its end");
        }
        answers
    }

    fn take(&mut self, answer: &str) {
        let (key, value) = answer.split_once(' ').unwrap_or((answer, ""));
        if key.ends_with(".note") {
            if !self.notes.iter().any(|note| note == value) {
                self.notes.push(value.to_owned());
            }
        } else if let Some(what) = key.strip_prefix("missing.") {
            self.broke(&format!("{what}: {value}"));
        } else if key == "program" {
            self.tests.push(Program { name: value.to_owned(), ..Program::default() });
        } else if key == "test" {
            self.ended(value);
        } else {
            self.values.insert(key.to_owned(), value.to_owned());
        }
    }

    /// Takes in how the process of one test ended: its name, exit code and seconds.
    fn ended(&mut self, value: &str) {
        let mut words = value.split(' ');
        let (name, code) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let Some(Program { tally, seconds, .. }) = self.tests.last_mut() else { return };
        *seconds += words.next().and_then(|took| took.parse::<u32>().ok()).unwrap_or(0);
        let is_told = tally.failures().iter().any(|failure| failure == name);
        match code {
            "0" => {}
            "124" | "137" => tally.fail(format!("{name}: not done in its time")),
            "late" => tally.skip(name.to_owned(), String::from("not begun: the time of the run was over")),
            _ if is_told => {}
            _ => tally.fail(format!("{name}: ended with {code} without a word")),
        }
    }

    /// Says that the run is not whole.
    pub(crate) fn broke(&mut self, why: &str) {
        self.broken.push(why.to_owned());
    }

    pub(crate) fn value(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    /// Whether a step of the scenario went well; none: it was not come to.
    pub(crate) fn step(&self, kind: &str, step: &str) -> Option<bool> {
        self.value(&format!("{kind}.{step}")).map(|value| value == "ok")
    }

    /// The steps of a scenario that failed or were not come to.
    pub(crate) fn lacking(&self, kind: &str) -> Vec<&'static str> {
        STEPS.into_iter().filter(|step| self.step(kind, step) != Some(true)).collect()
    }

    pub(crate) fn notes(&self) -> &[String] {
        &self.notes
    }

    pub(crate) fn verified(&self) -> &[(String, u32)] {
        &self.verified
    }

    pub(crate) fn tests(&self) -> &[Program] {
        &self.tests
    }

    /// What the agent said when it refused to start, if its exit code was the one for that.
    pub(crate) fn refusal(&self) -> Option<&str> {
        (self.value("veth.exit") == Some("4")).then(|| self.value("veth.refusal")).flatten()
    }

    /// Whether the kernel did all that is promised of it: everything, or a refusal with a message.
    pub(crate) fn keeps_promise(&self, release: Release) -> bool {
        if !self.broken.is_empty() {
            return false;
        }
        if !release.is_promised() {
            return self.refusal().is_some_and(|refusal| refusal.contains("too old"))
                && self.step("veth", "nothing_left") == Some(true);
        }
        ["veth", "virtio"].iter().all(|kind| self.lacking(kind).is_empty())
            && self.tests.iter().all(|program| program.tally.failed() == 0)
    }

    /// Says what is not as promised.
    pub(crate) fn report(&self, release: Release) {
        for why in &self.broken {
            println!("Linux {release}: {why}");
        }
        if let Some(refusal) = self.refusal() {
            println!("Linux {release}: refused: {refusal}");
        }
        for kind in ["veth", "virtio"] {
            let lacking = self.lacking(kind);
            if !lacking.is_empty() {
                println!("Linux {release}: {kind}: not seen: {}", lacking.join(", "));
            }
        }
        for Program { name, tally, seconds } in &self.tests {
            println!("Linux {release}: {name}: {tally} ({seconds} s)");
            tally.report();
        }
        if let Some(seconds) = self.value("seconds.all") {
            println!("Linux {release}: {seconds} s in all");
        }
    }
}

/// A line of `kernel_verifier`: a program, and how many instructions.
fn verified(line: &str) -> Option<(String, u32)> {
    let (program, instructions) = line.strip_prefix("verifier: ")?.split_once(' ')?;
    Some((program.to_owned(), instructions.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONSOLE: &str = "[    0.1] noise\r\n@@ kernel 6.1.0-50\r\n@@ veth.start ok\r\n@@ veth.denied FAILED\r\n\
        @@ veth.note eth0: second best\r\n@@ virtio.note eth0: second best\r\n\
        @@ program decision\r\ntest a ... ok\r\nverifier: ingress_xdp 4711\r\ntest b ... FAILED\r\n\
        test result: FAILED. 1 passed; 1 failed; 0 ignored\r\n@@ test b 101 7\r\n\
        @@ program netns_x\r\n@@ test c 124 600\r\n[   9.9] late @@ end ok\r\n";

    #[test]
    fn answers_are_told_from_noise() {
        let answers = Answers::read(CONSOLE);
        assert_eq!(answers.value("kernel"), Some("6.1.0-50"));
        assert_eq!(
            (answers.step("veth", "start"), answers.step("veth", "denied")),
            (Some(true), Some(false))
        );
        assert_eq!(answers.step("veth", "reload"), None);
        assert_eq!(answers.notes(), ["eth0: second best"]);
        assert_eq!(answers.verified(), [(String::from("ingress_xdp"), 4711)]);
        let tests: Vec<_> =
            answers.tests().iter().map(|test| (test.name.as_str(), test.tally.to_string())).collect();
        assert_eq!(
            tests,
            [
                ("decision", String::from("1 passed, 1 failed, 0 skipped")),
                ("netns_x", String::from("0 passed, 1 failed, 0 skipped"))
            ]
        );
        assert!(answers.broken.is_empty() && !answers.keeps_promise(Release::V6_1));
    }

    #[test]
    fn what_was_said_is_kept_however_the_next_test_ends() {
        let answers = Answers::read(
            "@@ program a\ntest w ... ok\ntest result: ok. 1 passed; 0 failed\n@@ test w 0 20\n\
             test x ... FAILED\ntest result: FAILED. 0 passed; 1 failed\n@@ test x 101 5\n\
             test y ... @@ test y 124 180\n@@ test z late 0\n@@ program b\n@@ test ? 1 0\ntest cut ... ",
        );
        let told: Vec<_> = answers.tests().iter().map(|test| (test.tally.passed(), test.seconds)).collect();
        assert_eq!(told, [(1, 205), (0, 0)]);
        let failures: Vec<_> = answers.tests().iter().flat_map(|test| test.tally.failures()).collect();
        assert_eq!(failures, ["x", "y: not done in its time", "?: ended with 1 without a word"]);
        let skipped = answers.tests()[0].tally.skipped();
        assert_eq!(skipped, [("z".to_owned(), "not begun: the time of the run was over".to_owned())]);
        assert!(!answers.keeps_promise(Release::V6_1));
    }

    #[test]
    fn a_guest_that_stopped_half_way_keeps_no_promise() {
        let refused =
            "@@ veth.exit 4\n@@ veth.nothing_left ok\n@@ veth.refusal error: it is too old: it lacks x\n";
        assert!(!Answers::read(refused).keeps_promise(Release::V5_10));
        let answers = Answers::read(&format!("{refused}@@ end ok\n"));
        assert!(answers.keeps_promise(Release::V5_10) && !answers.keeps_promise(Release::V6_1));
    }
}
