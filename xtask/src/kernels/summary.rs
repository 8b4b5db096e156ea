//! The table in short. It stands in the file with the results and, word by word the same, in README.md: what is promised
//! there is what was seen.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::RESULTS;
use super::answers::Answers;
use super::release::Release;
use super::table::{tests, value};

const README: &str = "README.md";

const BEGIN: &str = "<!-- made by `cargo xtask kernels`, not by hand -->\n";
const END: &str = "<!-- end -->\n";

/// One line a kernel, between the marks.
pub(crate) fn block(runs: &[(Release, Answers)]) -> String {
    let mut text = format!(
        "{BEGIN}| Linux | Debian | the firewall | ingress: veth, virtio-net | egress | `bpf_loop`, ring buffer | tests there |\n|---|---|---|---|---|---|---|\n"
    );
    for (release, answers) in runs {
        let _ = write!(text, "| {release} | {} | {} |", release.debian(), works(*release, answers));
        let _ = match answers.refusal() {
            Some(_) => writeln!(text, " – | – | – | – |"),
            None => writeln!(
                text,
                " {}, {} | {} | {}, {} | {} |",
                value(answers, "veth.ingress"),
                value(answers, "virtio.ingress"),
                value(answers, "veth.egress"),
                value(answers, "bpf_loop"),
                value(answers, "ring_buffer"),
                tests(answers)
            ),
        };
    }
    text.push_str(END);
    text
}

/// Only what the run has seen is said to work.
fn works(release: Release, answers: &Answers) -> &'static str {
    if !answers.keeps_promise(release) {
        "**not as promised**"
    } else if answers.refusal().is_some() {
        "refused, with a message"
    } else {
        "works"
    }
}

/// Puts the block of `results` into the README.
pub(crate) fn keep(workspace: &Path, results: &str) -> Result<()> {
    let path = workspace.join(README);
    let readme = read(&path)?;
    let old = between(&readme)
        .with_context(|| format!("{README} has no place for the table of kernels: {BEGIN}"))?;
    let new = between(results).context("the results have no table in short")?;
    fs::write(&path, readme.replace(old, new)).with_context(|| format!("cannot write {README}"))
}

/// Whether the README says what the results say.
pub(crate) fn check(workspace: &Path) -> Result<()> {
    let (readme, results) = (read(&workspace.join(README))?, read(&workspace.join(RESULTS))?);
    match (between(&readme), between(&results)) {
        (Some(ours), Some(theirs)) if ours == theirs => Ok(()),
        _ => bail!(
            "the table of kernels in {README} is not the one in {RESULTS}: copy what stands there between the marks"
        ),
    }
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The block with its marks.
fn between(text: &str) -> Option<&str> {
    let begin = text.find(BEGIN)?;
    let length = text[begin..].find(END)? + END.len();
    Some(&text[begin..begin + length])
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFUSED: &str = "@@ veth.exit 4\n@@ veth.nothing_left ok\n@@ veth.refusal error: it is too old: it lacks x\n@@ end ok\n";

    #[test]
    fn what_was_not_seen_is_not_promised() {
        let text = block(&[
            (Release::V5_10, Answers::read(REFUSED)),
            (Release::V6_1, Answers::read("@@ veth.egress clsact\n@@ bpf_loop yes\n@@ end ok\n")),
        ]);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[3], "| 5.10 | 11 | refused, with a message | – | – | – | – |");
        assert_eq!(
            lines[4],
            "| 6.1 | 12 | **not as promised** | not seen, not seen | clsact | yes, not seen | not run |"
        );
    }

    #[test]
    fn the_readme_takes_the_block_over_and_is_told_from_another() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        fs::create_dir(at.join("docs")).unwrap();
        fs::write(at.join(README), format!("before\n{BEGIN}old\n{END}behind\n")).unwrap();
        let results = format!("# Results\n{BEGIN}new\n{END}more\n");
        fs::write(at.join(RESULTS), &results).unwrap();
        assert!(check(at).is_err());
        keep(at, &results).unwrap();
        check(at).unwrap();
        assert_eq!(
            fs::read_to_string(at.join(README)).unwrap(),
            format!("before\n{BEGIN}new\n{END}behind\n")
        );
        fs::write(at.join(README), "no place").unwrap();
        assert!(keep(at, &results).is_err() && check(at).is_err());
    }
}
