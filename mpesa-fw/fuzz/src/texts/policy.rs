//! Target `policy`: a rules file and the files that it names, loaded, compiled, and asked about the addresses in it.
//!
//! An input is the rules file. From a line `-- feed.netset --` or `-- sets.yaml --` on it is that file.

use std::fs;

use mpesa_fw::{
    compile::{Registry, compile},
    policy::{Loaded, Permissions, PolicyErrors, Severity, load},
};
use tempfile::TempDir;

use super::{findings, probe};

/// In the order of an input.
const FILES: [&str; 3] = ["rules.yaml", "sets.yaml", "feed.netset"];

thread_local! {
    static DIRECTORY: TempDir = findings::directory();
}

pub fn run(data: &[u8]) {
    DIRECTORY.with(|directory| {
        let files = split(data);
        for name in FILES {
            let path = directory.path().join(name);
            match files.iter().find(|(known, _)| *known == name) {
                Some((_, bytes)) => fs::write(path, bytes).expect("a file"),
                None => _ = fs::remove_file(path),
            }
        }
        let rules = directory.path().join("rules.yaml");
        let [first, second] = [(); 2].map(|()| load(&rules, Permissions::Ignore));
        match (first, second) {
            (Err(errors), Err(again)) => {
                assert_eq!(errors, again, "read twice");
                refused(&errors, &files);
            }
            (Ok(loaded), Ok(again)) => {
                assert_eq!(
                    (&loaded.policy, &loaded.warnings),
                    (&again.policy, &again.warnings),
                    "read twice"
                );
                assert!(loaded.warnings.iter().all(|warning| warning.severity == Severity::Warning));
                findings::check(&loaded.warnings, &files);
                accepted(&loaded, &again);
            }
            (first, second) => panic!("read twice: {first:?}, {second:?}"),
        }
    });
}

/// The files in an input. Of two of one name the last counts.
fn split(data: &[u8]) -> Vec<(&'static str, &[u8])> {
    let (mut name, mut from, mut at) = (FILES[0], 0, 0);
    let mut files: Vec<(&'static str, &[u8])> = Vec::new();
    for line in data.split_inclusive(|byte| *byte == b'\n') {
        let heads = |name: &&&str| format!("-- {name} --").as_bytes() == line.trim_ascii_end();
        if line.starts_with(b"-- ")
            && let Some(next) = FILES[1..].iter().find(heads)
        {
            files.push((name, &data[from..at]));
            (name, from) = (next, at + line.len());
        }
        at += line.len();
    }
    files.push((name, &data[from..]));
    files.reverse();
    files
}

fn refused(errors: &PolicyErrors, files: &[(&str, &[u8])]) {
    assert!(!errors.findings.is_empty());
    assert!(errors.findings.iter().all(|error| error.severity == Severity::Error));
    findings::check(&errors.findings, files);
    let shown = errors.to_string();
    let (last, count) = (shown.lines().last().unwrap_or_default(), errors.findings.len());
    assert!(last.starts_with(&format!("{count} error")), "{last}");
}

/// What was accepted compiles, to the same each time, and the tables say what the policy says.
fn accepted(loaded: &Loaded, again: &Loaded) {
    let assignment = match Registry::new().assign(&loaded.policy) {
        Ok(assignment) => assignment,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let compiled = compile(&loaded.policy, &assignment.slots);
    let twice = Registry::new().assign(&again.policy).expect("as before");
    assert_eq!(compiled, compile(&again.policy, &twice.slots), "compiled twice");
    let compiled = match compiled {
        Ok(compiled) => compiled,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    // After other rules have taken the first places.
    if let Ok(later) = assignment.registry.assign(&loaded.policy) {
        assert_eq!(
            compile(&loaded.policy, &later.slots).map(|compiled| compiled.digest),
            Ok(compiled.digest)
        );
    }
    probe::tables(&loaded.policy, &compiled);
}
