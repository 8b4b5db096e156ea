//! Who may have written a file of the policy, and where it may lie.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::Path,
};

use mpesa_fw::policy::{Loaded, Permissions, PolicyErrors, load};
use tempfile::TempDir;

const RULES: &str = "version: 1\ninterfaces: [eth0]\ningress: { default: drop }\negress: { default: drop }\n";
const SETS: &str = "sets:\n  partners: [192.0.2.1]\n";

fn directory(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    for (name, text) in files {
        write(&directory.path().join(name), text, 0o640);
    }
    directory
}

fn write(path: &Path, text: &str, mode: u32) {
    fs::create_dir_all(path.parent().expect("it is in a directory")).expect("a directory");
    fs::write(path, text).expect("a file");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("its mode");
}

fn check(path: &Path) -> Result<Loaded, PolicyErrors> {
    load(path, Permissions::Check)
}

fn message(path: &Path) -> String {
    match check(path) {
        Ok(_) => panic!("{} was loaded", path.display()),
        Err(errors) => errors.to_string(),
    }
}

fn with_include(name: &str) -> String {
    format!("{RULES}include: [{name}]\n")
}

fn with_set_file(name: &str) -> String {
    format!("{RULES}sets: {{ partners: {{ file: {name} }} }}\n")
}

#[test]
fn group_and_others_may_not_write_any_file() {
    let directory = directory(&[("rules.yaml", &with_include("sets.yaml")), ("sets.yaml", SETS)]);
    let (rules, sets) = (directory.path().join("rules.yaml"), directory.path().join("sets.yaml"));
    assert!(check(&rules).is_ok());
    for file in [&rules, &sets] {
        for mode in [0o666, 0o660, 0o602, 0o622] {
            fs::set_permissions(file, fs::Permissions::from_mode(mode)).expect("its mode");
            let message = message(&rules);
            assert!(
                message.contains(&format!("mode {mode:04o}")) && message.contains("chmod 0640"),
                "{message}"
            );
            assert!(load(&rules, Permissions::Ignore).is_ok());
        }
        fs::set_permissions(file, fs::Permissions::from_mode(0o600)).expect("its mode");
    }
    assert!(check(&rules).is_ok());
}

#[test]
fn set_files_obey_the_same_rules() {
    let directory = directory(&[("rules.yaml", &with_set_file("feed.netset"))]);
    let rules = directory.path().join("rules.yaml");
    write(&directory.path().join("feed.netset"), "192.0.2.1\n", 0o666);
    assert!(message(&rules).contains("mode 0666"));
    write(&directory.path().join("feed.netset"), "192.0.2.1\n", 0o644);
    assert!(check(&rules).is_ok());
}

#[test]
fn files_of_other_users_are_refused() {
    let directory = directory(&[("rules.yaml", RULES)]);
    let rules = directory.path().join("rules.yaml");
    if chown(&rules, Some(12345), None).is_err() {
        return; // only root can give a file away
    }
    assert!(message(&rules).contains("belongs to user 12345"), "{}", message(&rules));
    assert!(load(&rules, Permissions::Ignore).is_ok());
}

#[test]
fn symlinks_may_not_leave_the_directory() {
    let outside = directory(&[("rules.yaml", RULES), ("sets.yaml", SETS), ("feed.netset", "192.0.2.1\n")]);
    let directory = directory(&[
        ("include.yaml", &with_include("sets.yaml")),
        ("file.yaml", &with_set_file("sub/feed.netset")),
    ]);
    let link = |target: &Path, name: &str| symlink(target, directory.path().join(name)).expect("a symlink");
    link(&outside.path().join("rules.yaml"), "rules.yaml");
    link(&outside.path().join("sets.yaml"), "sets.yaml");
    link(outside.path(), "sub");
    for name in ["rules.yaml", "include.yaml", "file.yaml"] {
        let path = directory.path().join(name);
        assert!(message(&path).contains("leaves its directory"), "{}", message(&path));
        assert!(load(&path, Permissions::Ignore).is_err(), "symlinks are part of a checkout");
    }
}

#[test]
fn symlinks_within_the_directory_are_fine() {
    let directory = directory(&[("v1/rules.yaml", RULES)]);
    let target = directory.path().join("v1/rules.yaml");
    symlink("v1/rules.yaml", directory.path().join("relative.yaml")).expect("a symlink");
    symlink(&target, directory.path().join("absolute.yaml")).expect("a symlink");
    assert!(check(&directory.path().join("relative.yaml")).is_ok());
    assert!(check(&directory.path().join("absolute.yaml")).is_ok());
    symlink("round.yaml", directory.path().join("round.yaml")).expect("a symlink");
    assert!(message(&directory.path().join("round.yaml")).contains("can't read"));
}

#[test]
fn includes_may_step_up_but_not_through_a_symlink() {
    let directory = directory(&[
        ("environments/production.yaml", &with_include("../sets.yaml")),
        ("environments/sneaky.yaml", &with_include("sub/../../sets.yaml")),
        ("sets.yaml", SETS),
    ]);
    fs::create_dir(directory.path().join("environments/sub")).expect("a directory");
    assert!(check(&directory.path().join("environments/production.yaml")).is_ok());
    assert!(check(&directory.path().join("environments/sneaky.yaml")).is_err());
}

#[test]
fn what_is_no_file_is_refused_at_once() {
    let directory = directory(&[]);
    let fifo = directory.path().join("fifo.yaml");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).expect("a FIFO");
    assert!(message(&fifo).contains("not a regular file"), "{}", message(&fifo));
    assert!(message(directory.path()).contains("is a directory"), "{}", message(directory.path()));
    assert!(message(Path::new("/")).contains("is a directory"), "{}", message(Path::new("/")));
    assert!(message(&directory.path().join("missing.yaml")).contains("No such file"));
    assert!(message(Path::new("")).contains("can't read") || !message(Path::new("")).is_empty());
}

#[test]
fn size_is_bounded() {
    let directory = directory(&[("rules.yaml", &format!("{RULES}# {}\n", "x".repeat(1 << 20)))]);
    assert!(message(&directory.path().join("rules.yaml")).contains("larger than 1 MiB"));
}

#[test]
fn the_digest_is_of_all_files() {
    let directory = directory(&[("rules.yaml", &with_include("sets.yaml")), ("sets.yaml", SETS)]);
    let rules = directory.path().join("rules.yaml");
    let digest = || check(&rules).map(|loaded| loaded.policy.source_digest).expect("a policy");
    let before = digest();
    assert_eq!(before, digest());
    write(&directory.path().join("sets.yaml"), "sets:\n  partners: [192.0.2.2]\n", 0o640);
    assert_ne!(before, digest());
}
