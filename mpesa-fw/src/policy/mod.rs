//! What the admin wrote: read, checked, and resolved to a [`model::Policy`].
//!
//! One way: `source` reads files and refuses those that others could have written, `document` parses YAML
//! and keeps places, `decode` makes the model of it, `lint` looks at the model for what is valid and
//! doubtful. Each reports all that it finds; nothing is loaded unless nothing is wrong.

use std::path::Path;

use time::{Date, OffsetDateTime};

mod claims;
mod covers;
mod decode;
mod document;
mod fields;
mod finding;
mod limits;
mod lint;
pub mod model;
mod names;
mod owners;
mod ports;
mod prefix;
mod protocol;
mod report;
mod resolvers;
mod rules;
mod set_file;
mod sets;
mod source;
mod suggest;
mod text;
mod texts;

use source::Origin;

pub use finding::{Finding, PolicyErrors, Severity};
pub use report::Findings;
pub use source::Permissions;
pub use texts::{Text, Texts};

/// A valid policy.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What it says.
    pub policy: model::Policy,
    /// What somebody should look at, in the order of the files. Where there is too much to show, the last one says how
    /// much more there is.
    pub warnings: Vec<Finding>,
    /// Warnings that there are, shown or not.
    pub total: usize,
    /// The files that were read.
    pub texts: Texts,
}

/// Reads the rules file at `path` and every file that it names.
///
/// # Errors
/// All errors of all files.
pub fn load(path: &Path, permissions: Permissions) -> Result<Loaded, PolicyErrors> {
    load_keeping(Findings::Shown, path, permissions)
}

/// As [`load`], and with as many findings as are wanted.
///
/// # Errors
/// All errors of all files.
pub fn load_keeping(
    findings: Findings,
    path: &Path,
    permissions: Permissions,
) -> Result<Loaded, PolicyErrors> {
    let today = OffsetDateTime::now_utc().date();
    load_with(report::Report::keeping(findings), path, Origin::Files(permissions), today)
}

/// As [`load`], of what was kept of the files: nothing is read from the file system.
///
/// # Errors
/// All errors of all files: this version of the program may want more of a policy than the one that kept it.
pub fn load_kept(path: &Path, texts: &Texts) -> Result<Loaded, PolicyErrors> {
    load_with(report::Report::default(), path, Origin::Kept(texts), OffsetDateTime::now_utc().date())
}

/// As [`load`], with the day that decides whether a set has expired.
///
/// # Errors
/// All errors of all files.
pub fn load_on(path: &Path, permissions: Permissions, today: Date) -> Result<Loaded, PolicyErrors> {
    load_with(report::Report::default(), path, Origin::Files(permissions), today)
}

fn load_with(
    mut report: report::Report,
    path: &Path,
    origin: Origin<'_>,
    today: Date,
) -> Result<Loaded, PolicyErrors> {
    let mut sources = source::Sources::new(origin);
    let rules = source::Named::by_user(path);
    let decoded = decode::policy(&rules, &mut sources, &mut report);
    let Some((mut policy, sets)) = decoded.filter(|_| !report.has_errors()) else {
        let errors = report.finish().err();
        let errors = errors.unwrap_or_else(|| unreachable!("what is not decoded is reported"));
        return Err(PolicyErrors { is_passing: sources.saw_change(), ..errors });
    };
    let mut is_passing = false;
    lint::unused(&sets, &mut report);
    policy.sets = sets.sets;
    let texts = match sources.finish() {
        Ok(source::Whole { digest, texts }) => {
            policy.files = texts.0.iter().map(|text| text.path.clone()).collect();
            policy.source_digest = digest;
            texts
        }
        Err((message, hint)) => {
            report.error(report::Span::whole(0), message).hint(hint);
            is_passing = true;
            Texts::default()
        }
    };
    lint::lint(&policy, today, &mut report);
    let loaded = report.finish().map(|(warnings, total)| Loaded { policy, warnings, total, texts });
    loaded.map_err(|errors| PolicyErrors { is_passing, ..errors })
}
