//! What fuzzing has kept, replayed through the very functions that the fuzz targets call.

use std::{collections::BTreeSet, fs, path::Path};

use crate::{corpus, packets};

fn replay(target: &str, run: fn(&[u8])) {
    for input in corpus::kept(Path::new("fuzz"), target) {
        println!("{target}: {}", corpus::line(&input)); // shown where it fails
        run(&input);
    }
}

#[test]
fn packets() {
    replay("packet", packets::packet::run);
}

#[test]
fn sequences() {
    replay("sequence", packets::sequence::run);
}

#[test]
fn answers() {
    replay("dns", packets::dns::on_host);
}

/// In the kernel also what was found by the host alone.
#[cfg(not(mpesa_fw_no_object))]
#[test]
#[ignore = "needs root and a kernel"]
fn host_and_kernel_agree_on_what_was_kept() {
    replay("kernel", packets::kernel::run);
    replay("dns", packets::dns::in_kernel);
    replay("sequence", |input| {
        for hook in [0, 1] {
            packets::kernel::run(&[&[hook], input].concat());
        }
    });
}

/// The fuzz crate is built on demand only, by a nightly compiler: what it shares with these tests must not ask for a module or
/// a library that it does not have.
#[test]
fn the_fuzz_crate_has_what_these_files_ask_for() {
    let directory = Path::new("fuzz/src");
    let root = fs::read_to_string(directory.join("lib.rs")).expect("the fuzz crate");
    let manifest = fs::read_to_string("fuzz/Cargo.toml").expect("its manifest");
    let mut files: Vec<_> = root.lines().filter_map(|line| line.strip_prefix("#[path = \"")).collect();
    files.retain_mut(|file| file.strip_suffix("\"]").map(|path| *file = path).is_some());
    assert!(files.len() > 4, "{files:?}");
    let is_shared =
        |library: &String| Path::new("tests/decision/kernel").join(format!("{library}.rs")).exists();
    let mut modules = BTreeSet::new();
    let mut libraries = BTreeSet::new();
    for file in files {
        let text = fs::read_to_string(directory.join(file)).expect(file);
        let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default().to_owned();
        for used in text.split("\nuse ").skip(1).filter_map(|rest| rest.split(';').next()) {
            let (first, rest) = used.split_once("::").unwrap_or((used, ""));
            if first == "crate" {
                modules.extend(roots(rest));
            } else if !["std", "super", "self", "core"].contains(&first) && !first.contains(' ') {
                libraries.insert(first.replace('_', "-"));
            }
        }
    }
    modules.retain(|module| {
        !root.lines().any(|line| line.trim_start_matches("pub ") == format!("mod {module};"))
    });
    assert!(modules.is_empty(), "fuzz/src/lib.rs has no {modules:?}");
    let has = |library: &String| manifest.lines().any(|line| line.starts_with(&format!("{library} =")));
    libraries.retain(|library| !has(library) && !is_shared(library));
    assert!(libraries.is_empty(), "fuzz/Cargo.toml has no {libraries:?}");
}

/// The first segments of what is used: one, or those of a list in braces.
fn roots(used: &str) -> Vec<String> {
    let Some(list) = used.strip_prefix('{') else {
        return vec![used.split("::").next().unwrap_or_default().trim().to_owned()];
    };
    let (mut depth, mut roots, mut root) = (0, Vec::new(), String::new());
    for letter in list.chars() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => roots.push(std::mem::take(&mut root)),
            _ if depth == 0 => root.push(letter),
            _ => {}
        }
    }
    roots.push(root);
    let first = |root: String| root.trim().split("::").next().unwrap_or_default().to_owned();
    roots.into_iter().map(first).filter(|root| !root.is_empty()).collect()
}
