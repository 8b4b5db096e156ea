//! `mpesa-fw check`

use serde::Serialize;

use super::{
    arguments::{CheckArguments, Format},
    failure::Failure,
    output::{print, print_json},
};
use crate::{
    agent::hex,
    compile::{self, Registry},
    policy::{self, Finding, Findings, Permissions, model::Policy},
};

/// What `check --format json` prints.
#[derive(Serialize)]
struct Report {
    valid: bool,
    errors: Vec<Finding>,
    warnings: Vec<Finding>,
    /// Errors, or where there are none warnings, that there are.
    total: usize,
    /// Why a valid policy can't be loaded all the same.
    does_not_fit: Option<String>,
    policy: Option<Summary>,
}

#[derive(Serialize)]
struct Summary {
    serial: Option<u64>,
    mode: &'static str,
    services: usize,
    destinations: usize,
    sets: usize,
    prefixes: usize,
    digest: String,
}

/// Checks a file as `run` would read it.
pub(super) fn check(arguments: &CheckArguments) -> Result<(), Failure> {
    let permissions = if arguments.ignore_permissions { Permissions::Ignore } else { Permissions::Check };
    let findings = match arguments.format.format {
        Format::Json => Findings::All,
        Format::Table => Findings::Shown,
    };
    let report = match policy::load_keeping(findings, &arguments.file, permissions) {
        Err(errors) => {
            if arguments.format.format == Format::Table {
                return Err(Failure::from(crate::agent::AgentError::Policy(errors)));
            }
            Report {
                valid: false,
                total: errors.total,
                errors: errors.findings,
                warnings: Vec::new(),
                does_not_fit: None,
                policy: None,
            }
        }
        Ok(loaded) => match digest(&loaded.policy) {
            Ok(digest) => {
                let policy = Some(Summary::new(&loaded.policy, digest));
                Report {
                    valid: true,
                    errors: Vec::new(),
                    warnings: loaded.warnings,
                    total: loaded.total,
                    does_not_fit: None,
                    policy,
                }
            }
            Err(error) => {
                let does_not_fit = Some(error.to_string());
                Report {
                    valid: false,
                    errors: Vec::new(),
                    warnings: loaded.warnings,
                    total: loaded.total,
                    does_not_fit,
                    policy: None,
                }
            }
        },
    };
    match arguments.format.format {
        Format::Json => print_json(&report)?,
        Format::Table => {
            for warning in &report.warnings {
                eprint_lossy(&format!("{warning}\n\n"));
            }
            if let Some(why) = &report.does_not_fit {
                eprint_lossy(&format!("error: {why}\n"));
            }
            if let Some(summary) = &report.policy {
                print(&summary.line(&arguments.file.display().to_string(), report.total))?;
            }
        }
    }
    if report.valid { Ok(()) } else { Err(Failure::said()) }
}

/// Compiles, as `run` would.
fn digest(policy: &Policy) -> Result<String, crate::agent::AgentError> {
    let assignment = Registry::new().assign(policy)?;
    Ok(hex(&compile::compile(policy, &assignment.slots)?.digest))
}

impl Summary {
    fn new(policy: &Policy, digest: String) -> Self {
        Self {
            serial: policy.serial,
            mode: policy.mode.label(),
            services: policy.ingress.services.len(),
            destinations: policy.egress.allow.len(),
            sets: policy.sets.len(),
            prefixes: policy.sets.iter().map(|set| set.prefixes.len()).sum(),
            digest,
        }
    }

    fn line(&self, file: &str, warnings: usize) -> String {
        let Self { serial: _, mode, services, destinations, sets, prefixes, digest } = self;
        let warned = match warnings {
            0 => String::new(),
            1 => ", 1 warning".to_owned(),
            n => format!(", {n} warnings"),
        };
        format!(
            "{file}: valid ({mode}; {services} services, {destinations} destinations, {sets} sets with {prefixes} \
             prefixes; digest {}){warned}\n",
            &digest[..12]
        )
    }
}

fn eprint_lossy(text: &str) {
    use std::io::Write as _;
    // Where stderr is closed the exit code has to do.
    let _ = std::io::stderr().write_all(text.as_bytes());
}
