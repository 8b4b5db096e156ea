//! The rules file and all that it names: owners, modes, mistakes, doubts.

use std::path::Path;

use super::{Finding, Level};
use crate::policy::{self, Permissions, model::Policy};

/// The policy, where there is a valid one.
pub(super) fn examine(rules: &Path) -> (Option<Policy>, Vec<Finding>) {
    let mistake = |finding: policy::Finding, level: Level| Finding {
        about: "rules",
        level,
        what: match finding.line {
            0 => format!("{}: {}", finding.file.display(), finding.message),
            line => format!("{}:{line}: {}", finding.file.display(), finding.message),
        },
        why: match level {
            Level::Wrong => "nothing of these rules would be loaded".to_owned(),
            Level::Note | Level::Fine => "it is loaded, and may not do what you mean".to_owned(),
        },
        advice: finding.hint.unwrap_or_else(|| format!("see `mpesa-fw check {}`", rules.display())),
    };
    match policy::load(rules, Permissions::Check) {
        Err(errors) => {
            let errors = errors.findings.into_iter();
            let wrong = errors.filter(|finding| finding.severity == policy::Severity::Error);
            (None, wrong.map(|finding| mistake(finding, Level::Wrong)).collect())
        }
        Ok(loaded) => {
            let what = format!("{} is valid, and nobody else can write it or what it names", rules.display());
            let mut findings = vec![Finding::fine("rules", what)];
            findings.extend(loaded.warnings.into_iter().map(|warning| mistake(warning, Level::Note)));
            (Some(loaded.policy), findings)
        }
    }
}
