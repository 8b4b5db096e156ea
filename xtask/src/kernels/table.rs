//! The table, made of the answers and of nothing else.

use std::fmt::Write as _;

use super::answers::{Answers, Program};
use super::build::{LEFT_OUT, LEFT_OUT_TESTS};
use super::release::Release;
use super::summary;
use crate::test::Tally;

/// What the cells mean; the beginning of the file.
const METHOD: &str = include_str!("method.md");

/// A row: what it is called, and how it is made of the answers.
type Row = (&'static str, fn(&Answers) -> String);

const ROWS: [Row; 18] = [
    ("kernel", |answers| value(answers, "kernel")),
    ("BTF", |answers| value(answers, "btf")),
    ("ring buffer", |answers| value(answers, "ring_buffer")),
    ("`bpf_loop`", |answers| value(answers, "bpf_loop")),
    ("TCX", |answers| value(answers, "tcx")),
    ("the programs load", loads),
    ("instructions that the verifier looks at, of 1,000,000", verifier),
    ("ingress on a veth", |answers| value(answers, "veth.ingress")),
    ("ingress on virtio-net", |answers| value(answers, "virtio.ingress")),
    ("… at MTU 9000 on a veth", |answers| value(answers, "veth.jumbo_ingress")),
    ("… at MTU 9000 on virtio-net", |answers| value(answers, "virtio.jumbo_ingress")),
    ("egress", |answers| value(answers, "veth.egress")),
    ("scenario on a veth", |answers| scenario(answers, "veth")),
    ("scenario on virtio-net", |answers| scenario(answers, "virtio")),
    ("stays in force when the agent is killed", |answers| {
        both(answers, &["dead", "dead_allowed", "dead_denied", "dead_egress"])
    }),
    ("at least three reloads under 2,000 pings, none lost", |answers| both(answers, &["reload"])),
    ("catalogue by `BPF_PROG_TEST_RUN`", |answers| test(answers, "decision", "the_catalogue_in_the_kernel")),
    ("test programs", tests),
];

/// The whole file: in short, then one column a kernel, then what each of them said.
pub(crate) fn markdown(runs: &[(Release, Answers)]) -> String {
    let mut text = format!("{METHOD}\n{}\n| |", summary::block(runs));
    for (release, _) in runs {
        let _ = write!(text, " {release} |");
    }
    text.push_str("\n|---|");
    text.push_str(&"---|".repeat(runs.len()));
    for (title, cell) in ROWS {
        let _ = write!(text, "\n| {title} |");
        for (_, answers) in runs {
            let _ = write!(text, " {} |", cell(answers));
        }
    }
    text.push('\n');
    for (release, answers) in runs {
        said(&mut text, *release, answers);
    }
    text.push_str("\n## Not run in the guests\n\n");
    for (program, why) in LEFT_OUT {
        let _ = writeln!(text, "- `{program}`: {why}.");
    }
    for (program, test, why) in LEFT_OUT_TESTS {
        let _ = writeln!(text, "- `{program}`, `{test}`: {why}.");
    }
    text
}

/// What the agent said of that kernel, and what failed.
fn said(text: &mut String, release: Release, answers: &Answers) {
    let _ = write!(text, "\n## Linux {release}\n\n");
    match answers.refusal() {
        Some(refusal) => {
            let _ = writeln!(text, "The agent ends with exit code 4 and says: {refusal}");
        }
        None if answers.notes().is_empty() => text.push_str("The agent says nothing of second best.\n"),
        None => {
            text.push_str("The agent says (`status`):\n");
            for note in answers.notes() {
                let _ = writeln!(text, "- {note}");
            }
        }
    }
    if answers.tests().is_empty() {
        return;
    }
    if !answers.verified().is_empty() {
        let each: Vec<_> = answers.verified().iter().map(|(program, n)| format!("`{program}` {n}")).collect();
        let _ = writeln!(text, "\nInstructions that the verifier looked at: {}.", each.join(", "));
    }
    text.push_str("\n| test program | passed | failed | skipped | seconds |\n|---|---|---|---|---|\n");
    for Program { name, tally, seconds } in answers.tests() {
        let (passed, failed, skipped) = (tally.passed(), tally.failed(), tally.skipped().len());
        let _ = writeln!(text, "| `{name}` | {passed} | {failed} | {skipped} | {seconds} |");
    }
    list(text, "Failed", answers, |tally| tally.failures().iter().map(|what| format!("`{what}`")).collect());
    list(text, "Skipped", answers, |tally| {
        tally.skipped().iter().map(|(what, why)| format!("{what}: {why}")).collect()
    });
}

/// Lines of the test programs, by the program.
fn list(text: &mut String, title: &str, answers: &Answers, lines: fn(&Tally) -> Vec<String>) {
    let mut is_first = true;
    for Program { name, tally, .. } in answers.tests() {
        for line in lines(tally) {
            if is_first {
                let _ = writeln!(text, "\n{title}:");
                is_first = false;
            }
            let _ = writeln!(text, "- `{name}`: {line}");
        }
    }
}

pub(crate) fn value(answers: &Answers, key: &str) -> String {
    match answers.value(key) {
        Some("") | None => String::from("not seen"),
        Some(value) => value.replace('_', " "),
    }
}

fn loads(answers: &Answers) -> String {
    match answers.step("veth", "start") {
        Some(true) => String::from("yes"),
        Some(false) if answers.refusal().is_some() => String::from("refused, with a message"),
        Some(false) => String::from("no"),
        None => String::from("not seen"),
    }
}

/// The program that costs most.
fn verifier(answers: &Answers) -> String {
    match answers.verified().iter().max_by_key(|(_, instructions)| instructions) {
        Some((program, instructions)) => format!("at most {instructions} (`{program}`)"),
        None => String::from("not seen"),
    }
}

fn scenario(answers: &Answers, kind: &str) -> String {
    let lacking = answers.lacking(kind);
    let all = super::answers::STEPS.len();
    match lacking.first() {
        None => format!("{all} of {all} steps"),
        Some(first) => format!("{} of {all} steps (not: {first} …)", all - lacking.len()),
    }
}

/// Whether these steps went well on both kinds of interface.
fn both(answers: &Answers, steps: &[&str]) -> String {
    let seen: Vec<_> = ["veth", "virtio"]
        .iter()
        .flat_map(|kind| steps.iter().map(move |step| answers.step(kind, step)))
        .collect();
    if seen.iter().all(|step| *step == Some(true)) {
        String::from("yes")
    } else if seen.contains(&Some(false)) {
        String::from("no")
    } else {
        String::from("not seen")
    }
}

/// One test, with what it counted.
fn test(answers: &Answers, program: &str, name: &str) -> String {
    let Some(program) = answers.tests().iter().find(|test| test.name == program) else {
        return String::from("not run");
    };
    if program.tally.failures().iter().any(|failure| failure.contains(name)) {
        return String::from("no");
    }
    answers.value("catalogue").map_or_else(|| String::from("not seen"), str::to_owned)
}

/// All test programs together.
pub(crate) fn tests(answers: &Answers) -> String {
    if answers.tests().is_empty() {
        return String::from("not run");
    }
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for Program { tally, .. } in answers.tests() {
        passed += tally.passed();
        failed += tally.failed();
        skipped += tally.skipped().len();
    }
    format!("{passed} passed, {failed} failed, {skipped} skipped")
}
