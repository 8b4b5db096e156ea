//! What `docs/PROOF.md` names is there: a list of tests is worth nothing once they have other names.

use std::{fs, path::Path};

use crate::process::workspace;

/// All text of the sources that a name before `::` stands for.
fn sources(place: &str) -> String {
    let tests = workspace().join("mpesa-fw/tests");
    let file = match (place.strip_prefix("common/"), place.strip_prefix("xtask/")) {
        (Some(rest), _) => workspace().join("mpesa-fw-common/src").join(rest),
        (_, Some(rest)) => workspace().join("xtask/src").join(rest),
        (None, None) if place.ends_with(".rs") => workspace().join("mpesa-fw/src").join(place),
        (None, None) => tests.join(format!("{place}.rs")),
    };
    if file.exists() { read(&file) } else { all_below(&tests.join(place)) }
}

fn all_below(directory: &Path) -> String {
    let entries = fs::read_dir(directory).into_iter().flatten();
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.map(|path| if path.is_dir() { all_below(&path) } else { read(&path) }).collect()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Whether a function of this name is marked as a test.
fn has_test(text: &str, name: &str) -> bool {
    let text = text.replace("test(flavor = \"current_thread\")]", "test]");
    let marked = text.split("test]").skip(1); // `#[tokio::test]` too
    marked
        .filter_map(|rest| rest.split("fn ").nth(1))
        .any(|function| function.starts_with(&format!("{name}(")))
}

#[test]
fn every_test_case_and_defect_that_the_proof_names_is_there() {
    let proof = read(&workspace().join("docs/PROOF.md"));
    let catalogue = all_below(&workspace().join("mpesa-fw/tests/decision/catalogue"));
    let defects = read(&workspace().join("xtask/src/mutants/table.yaml"));
    // What stands between two backticks, behind the paragraph that explains these names.
    let (_, lists) = proof.split_once("\n## ").expect("a first heading");
    let (mut seen, mut missing) = (0, Vec::new());
    for named in lists.split('`').skip(1).step_by(2) {
        let is_there = if let Some(case) = named.strip_prefix("catalogue ") {
            catalogue.contains(case)
        } else if let Some(text) = named.strip_prefix("mutant ") {
            defects.contains(text)
        } else if let Some((place, test)) = named.split_once("::") {
            has_test(&sources(place), test)
        } else {
            continue;
        };
        seen += 1;
        if !is_there {
            missing.push(named);
        }
    }
    assert!(seen > 100, "{seen} names were found");
    assert!(missing.is_empty(), "docs/PROOF.md names what is not there: {missing:#?}");
}
