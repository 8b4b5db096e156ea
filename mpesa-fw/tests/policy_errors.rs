//! What the loader says of each wrong policy in `bad_policies/`, as an admin sees it.
//!
//! A new one: put the file there, run with `INSTA_UPDATE=always`, and read the snapshot as if it were your
//! server: is the place right, does the hint help?

use std::path::{Path, PathBuf};

use mpesa_fw::policy::{Permissions, Severity, load};

fn wrong() -> Vec<PathBuf> {
    let directory = Path::new("tests/bad_policies");
    let mut files: Vec<PathBuf> = std::fs::read_dir(directory)
        .expect("the directory is part of the repository")
        .map(|entry| entry.expect("a directory entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    files
}

#[test]
fn every_wrong_policy_is_explained() {
    let files = wrong();
    assert!(files.len() >= 40, "{} files", files.len());
    for path in files {
        let errors = match load(&path, Permissions::Ignore) {
            Ok(_) => panic!("{} was loaded", path.display()),
            Err(errors) => errors,
        };
        for finding in &errors.findings {
            assert_eq!(finding.severity, Severity::Error);
            assert!(finding.hint.is_some() || !finding.message.is_empty(), "{}: {finding}", path.display());
        }
        let name = path.file_stem().expect("it has an extension").to_string_lossy().into_owned();
        insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(name, errors.to_string());
        });
    }
}

#[test]
fn findings_are_json_too() {
    let errors = load(Path::new("tests/bad_policies/version-two.yaml"), Permissions::Ignore)
        .expect_err("a version that is not known");
    insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!("json", serde_json::to_string_pretty(&errors).expect("plain data"));
    });
}
