//! Debian packages, installed without starting what they bring.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::process::{capture, is_root, on_path, run};

/// Keeps packages from starting services; see there.
const QUIETLY: &str = include_str!("quietly.sh");

/// The file that invoke-rc.d and deb-systemd-invoke ask.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Waits for another apt that is at work (a fresh machine upgrades itself), and draws no progress bars.
const OPTIONS: [&str; 4] = ["-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Use-Pty=0"];

/// Services that come with packages of ours. One that this set-up brought is not started at the next boot either.
const SERVICES: [(&str, &str); 3] =
    [("nginx-light", "nginx"), ("openssh-server", "ssh"), ("prometheus", "prometheus")];

/// Installs those of `packages` that are missing.
///
/// # Errors
/// When some are missing and this is not Debian, or not root, or apt fails.
pub(crate) fn install(purpose: &str, packages: &[&'static str]) -> Result<()> {
    if !on_path("dpkg-query") || !on_path("apt-get") {
        bail!(
            "{purpose}: only Debian and its kin are supported; install the like of: {}",
            packages.join(" ")
        );
    }
    let missing = missing(packages)?;
    if missing.is_empty() {
        println!("ok: {purpose}: {} Debian packages already there", packages.len());
        return Ok(());
    }
    println!("install: {purpose}: {}", missing.join(" "));
    if !is_root() {
        bail!(
            "{purpose}: these Debian packages are missing and installing them needs root: {}",
            missing.join(" ")
        );
    }
    if missing.iter().any(|package| !has_candidate(package)) {
        println!("install: apt-get update");
        run(apt_get().arg("update").arg("-qq"))?;
    }
    let unknown: Vec<&str> = missing.iter().copied().filter(|package| !has_candidate(package)).collect();
    if !unknown.is_empty() {
        bail!("{purpose}: no apt source of this machine has {}", unknown.join(", "));
    }
    // The lists may be older than the archive, and a fetch then fails for a version that is gone.
    if quietly(&missing).is_err() {
        println!("install: apt-get update, and once more");
        run(apt_get().arg("update").arg("-qq"))?;
        quietly(&missing)?;
    }
    leave_disabled(&missing);
    Ok(())
}

/// Unpacks a package below `directory` without installing it, unless that was done before.
///
/// # Errors
/// When it can't be fetched or unpacked.
pub(crate) fn unpack(purpose: &str, package: &str, directory: &Path) -> Result<()> {
    if directory.exists() {
        println!("ok: {purpose}: {package} already unpacked");
        return Ok(());
    }
    println!("install: {purpose}: {package}, unpacked in {}", directory.display());
    if !has_candidate(package) {
        run(apt_get().arg("update").arg("-qq"))?;
    }
    let above = directory.parent().context("a directory to unpack in has one above it")?;
    fs::create_dir_all(above).with_context(|| format!("cannot make {}", above.display()))?;
    let downloads = tempfile::tempdir_in(above).context("cannot make a directory for downloads")?;
    // As root: apt's own user may not write here.
    run(apt_get()
        .args(["download", "-qq", "-o", "APT::Sandbox::User=root", package])
        .current_dir(downloads.path()))?;
    let unpacked = downloads.path().join("unpacked");
    for entry in fs::read_dir(downloads.path()).context("cannot read the downloads")? {
        let package = entry.context("cannot read the downloads")?.path();
        run(Command::new("dpkg-deb").arg("--extract").arg(&package).arg(&unpacked))?;
    }
    fs::rename(&unpacked, directory).with_context(|| format!("cannot make {}", directory.display()))
}

/// Those that dpkg doesn't hold installed.
fn missing(packages: &[&'static str]) -> Result<Vec<&'static str>> {
    let mut missing = Vec::new();
    for package in packages {
        let mut query = Command::new("dpkg-query");
        query.args(["--show", "--showformat=${db:Status-Status}\\n", package]);
        // A name that dpkg never heard of makes it fail. One of several architectures is enough.
        let installed =
            capture(&mut query).is_ok_and(|states| states.lines().any(|state| state == "installed"));
        if !installed && !replaced(package) {
            missing.push(*package);
        }
    }
    Ok(missing)
}

/// Whether another package brings the same program.
fn replaced(package: &str) -> bool {
    match package {
        // Any flavour of nginx does.
        "nginx-light" => on_path("nginx"),
        _ => false,
    }
}

fn has_candidate(package: &str) -> bool {
    capture(Command::new("apt-cache").args(["policy", package])).is_ok_and(|policy| {
        policy.lines().any(|line| line.contains("Candidate:") && !line.contains("(none)"))
    })
}

fn quietly(packages: &[&str]) -> Result<()> {
    run(Command::new("sh")
        .args(["-c", QUIETLY, "quietly", "apt-get", "install", "-qq", "--yes", "--no-install-recommends"])
        .args(OPTIONS)
        .args(packages)
        .env("POLICY", POLICY)
        .env("DEBIAN_FRONTEND", "noninteractive"))
}

fn apt_get() -> Command {
    let mut apt_get = Command::new("apt-get");
    apt_get.args(OPTIONS).env("DEBIAN_FRONTEND", "noninteractive");
    apt_get
}

/// What was not started now is not started at boot.
fn leave_disabled(installed: &[&str]) {
    if !on_path("systemctl") {
        return;
    }
    for (package, service) in SERVICES {
        if installed.contains(&package)
            && capture(Command::new("systemctl").args(["disable", "--quiet", service])).is_ok()
        {
            println!("ok: {service}.service left stopped and disabled");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::ExitStatus;

    fn quietly(policy: &Path, script: &str) -> ExitStatus {
        Command::new("sh")
            .args(["-c", QUIETLY, "quietly", "sh", "-c", script])
            .env("POLICY", policy)
            .status()
            .unwrap()
    }

    #[test]
    fn services_are_refused_meanwhile_and_nothing_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let policy = directory.path().join("policy-rc.d");
        assert!(quietly(&policy, "\"$POLICY\" nginx start; test $? = 101").success());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_failure_is_told_and_the_former_file_is_back() {
        let directory = tempfile::tempdir().unwrap();
        let policy = directory.path().join("policy-rc.d");
        fs::write(&policy, "the admin's own").unwrap();
        assert_eq!(quietly(&policy, "exit 7").code(), Some(7));
        assert_eq!(fs::read_to_string(&policy).unwrap(), "the admin's own");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_signal_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let policy = directory.path().join("policy-rc.d");
        assert_eq!(quietly(&policy, "kill -TERM $PPID; sleep 1").code(), Some(143));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn one_that_was_killed_outright_says_no_no_more_and_is_cleared_by_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let policy = directory.path().join("policy-rc.d");
        assert!(!quietly(&policy, "kill -KILL $PPID").success());
        assert!(Command::new(&policy).args(["nginx", "start"]).status().unwrap().success());
        assert!(quietly(&policy, "true").success());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
