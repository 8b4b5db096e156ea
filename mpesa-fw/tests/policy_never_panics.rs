//! Whatever a rules file holds, the loader answers.

use std::{fs, path::Path};

use mpesa_fw::policy::{Permissions, load};
use proptest::prelude::*;

fn answer(bytes: &[u8], set_file: &[u8]) {
    let directory = tempfile::tempdir().expect("a directory");
    let rules = directory.path().join("rules.yaml");
    fs::write(&rules, bytes).expect("a file");
    fs::write(directory.path().join("feed.netset"), set_file).expect("a file");
    match load(&rules, Permissions::Ignore) {
        Ok(loaded) => loaded.warnings.iter().for_each(|warning| assert!(!warning.to_string().is_empty())),
        Err(errors) => assert!(!errors.findings.is_empty() && !errors.to_string().contains('\x1b')),
    }
}

/// A shipped policy with pieces of it replaced by what a hand that slips, or an attacker, would write.
fn spoilt() -> impl Strategy<Value = String> {
    let pieces = prop_oneof![
        Just(String::new()),
        "[ \\[\\]{}:,#&*!|>'\"%@`?\\-\n\t\r~<]{1,4}",
        "[a-z0-9./:*-]{1,12}",
        any::<char>().prop_map(String::from),
        Just("\n  - ".to_owned()),
        Just("[".repeat(300)),
        Just("{a: ".repeat(300)),
        Just("- ".repeat(300)),
    ];
    let edits = prop::collection::vec((any::<prop::sample::Index>(), 0usize..12, pieces), 1..6);
    edits.prop_map(|edits| {
        let mut text: Vec<char> = include_str!("../../rules/dedicated.yaml")
            .replace("include: [safaricom.yaml]", "# include")
            .replace("  admins:", "  safaricom: { file: feed.netset }\n  admins:")
            .chars()
            .collect();
        for (at, length, piece) in edits {
            let at = at.index(text.len() + 1);
            let end = (at + length).min(text.len());
            text.splice(at..end, piece.chars());
        }
        text.into_iter().collect()
    })
}

proptest! {
    #[test]
    fn on_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        answer(&bytes, b"192.0.2.1\n");
    }

    #[test]
    fn on_any_text(text in "\\PC{0,40}(\n\\PC{0,40}){0,10}") {
        answer(text.as_bytes(), b"192.0.2.1\n");
    }

    #[test]
    fn on_a_spoilt_policy(text in spoilt()) {
        answer(text.as_bytes(), b"192.0.2.1\n");
    }

    #[test]
    fn on_any_set_file(bytes in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(&b"0123456789./:#\n"[..])], 0..400)) {
        let rules = fs::read(Path::new("tests/bad_policies/set-file-empty.yaml")).expect("a file");
        answer(&String::from_utf8_lossy(&rules).replace("parts/empty.netset", "feed.netset").into_bytes(), &bytes);
    }
}
