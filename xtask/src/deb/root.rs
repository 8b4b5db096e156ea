//! A minimal Debian root in which the package is installed, run, upgraded and removed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::process::{capture, run, target};

/// The oldest release that the package is for.
const SUITE: &str = "bookworm";

/// Beyond the essential packages: what the unit is checked with, and what makes an interface to protect.
const INCLUDE: &str = "--include=systemd,iproute2";

/// Run inside the root.
const TRY: &str = include_str!("try.sh");

/// Boots the root, and what is run there then.
const BOOT: &str = include_str!("boot.sh");
const CHECKS: &str = include_str!("checks.sh");

/// Installs, runs, upgrades, removes and purges the package in a root like the pristine one, first by hand and then under
/// systemd.
///
/// # Errors
/// When any check fails.
pub(super) fn try_out(pristine: &Path, package: &Path) -> Result<()> {
    println!("trying the package in a {SUITE} root");
    let root = unpack(pristine, package)?;
    enter(root.path(), TRY)?;

    println!("trying the package in a {SUITE} root that systemd boots");
    let root = unpack(pristine, package)?;
    enter(root.path(), "dpkg --install /mpesa-fw.deb >/install.log 2>&1")?;
    fs::write(root.path().join("checks.sh"), CHECKS).context("cannot write into the root")?;
    checked(Command::new("sh").args(["-euc", BOOT, "boot"]).arg(root.path()))
}

/// A fresh root that holds the package as `/mpesa-fw.deb`.
fn unpack(pristine: &Path, package: &Path) -> Result<TempDir> {
    let root = tempfile::Builder::new()
        .prefix("package-root-")
        .tempdir_in(target())
        .context("cannot make a directory below target/")?;
    run(Command::new("tar")
        .arg("--extract")
        .arg("--file")
        .arg(pristine)
        .arg("--directory")
        .arg(root.path()))?;
    fs::copy(package, root.path().join("mpesa-fw.deb")).context("cannot copy the package into the root")?;
    Ok(root)
}

/// Runs a script in the root.
///
/// In namespaces of its own: nothing is attached to an interface of this machine or pinned in its bpffs, and the mounts
/// go when the last process does.
fn enter(root: &Path, script: &str) -> Result<()> {
    fs::write(root.join("script.sh"), script).context("cannot write into the root")?;
    checked(
        Command::new("unshare")
            .args(["--mount", "--propagation", "private", "--net", "--pid", "--fork", "--kill-child"])
            .args(["sh", "-euc", ENTER, "enter"])
            .arg(root),
    )
}

fn checked(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {:?}", command.get_program()))?;
    if !status.success() {
        bail!("the package does not behave; the failed check is above");
    }
    Ok(())
}

/// In the namespaces, outside the root.
const ENTER: &str = r#"
mount -t proc proc "$1/proc"
mount -t sysfs sysfs "$1/sys"
mount -t bpf -o mode=700 bpf "$1/sys/fs/bpf"
mount --bind /dev "$1/dev"
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root DEBIAN_FRONTEND=noninteractive \
    chroot "$1" sh -eu /script.sh
"#;

/// The root as debootstrap makes it, as a tar archive below `target/`, made once.
///
/// # Errors
/// When none can be made here.
pub(super) fn pristine() -> Result<PathBuf> {
    let archive = target().join(format!("debian-{SUITE}.tar"));
    if archive.is_file() {
        return Ok(archive);
    }
    let mirror = mirror()?;
    let root = tempfile::Builder::new()
        .prefix("debootstrap-")
        .tempdir_in(target())
        .context("cannot make a directory below target/")?;
    println!("making a minimal {SUITE} root (a minute)");
    capture(
        Command::new("debootstrap").args(["--variant=minbase", INCLUDE, SUITE]).arg(root.path()).arg(mirror),
    )?;
    // In two steps, so that an interrupted one is not taken for whole.
    let partial = archive.with_extension("partial");
    run(Command::new("tar")
        .arg("--create")
        .arg("--file")
        .arg(&partial)
        .arg("--directory")
        .arg(root.path())
        .arg("."))?;
    fs::rename(&partial, &archive).context("cannot rename the archive of the root")?;
    Ok(archive)
}

/// Where this machine gets its own Debian packages from.
///
/// # Errors
/// When its apt sources name no Debian archive.
pub(crate) fn mirror() -> Result<String> {
    let targets = capture(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(REPO_URI) $(RELEASE) $(COMPONENT)",
        "Created-By: Packages",
    ]))?;
    let sources: Vec<Vec<&str>> = targets.lines().map(|line| line.split(' ').collect()).collect();
    let of = |wanted: &dyn Fn(&str) -> bool| {
        sources.iter().find_map(|source| match source.as_slice() {
            [uri, release, "main"] if wanted(release) => Some((*uri).to_owned()),
            _ => None,
        })
    };
    // Another release's mirror, but not one of its updates or security, holds this release too.
    of(&|release| release == SUITE)
        .or_else(|| of(&|release| !release.contains(['-', '/'])))
        .context("the apt sources of this machine name no Debian archive with the component `main`")
}
