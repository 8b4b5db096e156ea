//! What a guest boots from: cpio archives, one behind the other.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::base;
use super::build::{Built, LEFT_OUT_TESTS};
use crate::deb;
use crate::process::{capture, run};

/// The release whose programs the guests run; the oldest that the package is for.
const SUITE: &str = "bookworm";

/// What the tests and the scripts use.
const INCLUDE: &str = "--include=bpftool,curl,dnsmasq-base,ethtool,iproute2,iputils-ping,jq,kmod,nftables,\
                       nginx-light,openssh-client,openssh-server,openssl,procps,python3-scapy,tcpdump";

/// Directories of that root that no test looks into.
const SUPERFLUOUS: [&str; 9] = [
    "usr/share/doc",
    "usr/share/info",
    "usr/share/javascript",
    "usr/share/locale",
    "usr/share/man",
    "usr/share/nodejs",
    "var/cache/apt",
    "var/lib/apt/lists",
    "var/lib/dpkg/info",
];

/// The scripts that run in the guest.
pub(crate) const SCRIPTS: [(&str, &str); 3] = [
    ("init", include_str!("init.sh")),
    ("kernels/guest.sh", include_str!("guest.sh")),
    ("kernels/smoke.sh", include_str!("smoke.sh")),
];

/// Modules that no guest has a device for.
const MODULES: &str = "find lib/modules -not -path '*/kernel/sound/*' -not -path '*/kernel/drivers/gpu/*' \
                       -not -path '*/kernel/drivers/scsi/*' -not -path '*/kernel/drivers/infiniband/*' \
                       -not -path '*/kernel/fs/*' -not -name vmlinuz";

/// The root that all guests share, made once.
pub(crate) fn root() -> Result<PathBuf> {
    let archive = base().join("root.cpio");
    if archive.is_file() {
        return Ok(archive);
    }
    println!("making a {SUITE} root with what the tests use (two minutes)");
    fs::create_dir_all(base()).with_context(|| format!("cannot make {}", base().display()))?;
    let root = tempfile::Builder::new()
        .prefix("root-")
        .tempdir_in(base())
        .context("cannot make a directory for the root")?;
    capture(
        Command::new("debootstrap")
            .args(["--variant=minbase", INCLUDE, SUITE])
            .arg(root.path())
            .arg(deb::mirror()?),
    )?;
    for directory in SUPERFLUOUS {
        let path = root.path().join(directory);
        if path.is_dir() {
            fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    pack("find .", root.path(), &archive)?;
    Ok(archive)
}

/// Packs the modules below `root`.
pub(crate) fn pack_modules(root: &Path, archive: &Path) -> Result<()> {
    pack(MODULES, root, archive)
}

/// The archives with what was built and the scripts behind them, in the kernel's directory.
pub(crate) fn initramfs(directory: &Path, archives: &[&Path], built: &Built) -> Result<PathBuf> {
    let own = tempfile::tempdir_in(directory).context("cannot make a directory for what was built")?;
    let place = own.path().join("kernels");
    fs::create_dir(&place).with_context(|| format!("cannot make {}", place.display()))?;
    for (name, text) in SCRIPTS {
        let path = own.path().join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).context("cannot set a mode")?;
    }
    let mut list = String::new();
    for (name, program) in &built.tests {
        stripped(program, &place.join(name))?;
        list.push_str(&format!("{name}\n"));
    }
    fs::write(place.join("tests.list"), list).context("cannot write the list of tests")?;
    let left_out: String =
        LEFT_OUT_TESTS.iter().map(|(program, test, _)| format!("{program} {test}\n")).collect();
    fs::write(place.join("left.list"), left_out).context("cannot write the list of tests left out")?;
    stripped(&built.agent, &place.join("mpesa-fw"))?;
    // The tests start the agent by the path that it was built at.
    if let Some(path) = built.expected_at.strip_prefix("/").ok().map(|path| own.path().join(path)) {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        }
        symlink("/kernels/mpesa-fw", &path).with_context(|| format!("cannot link {}", path.display()))?;
    }
    let packed = directory.join("built.cpio");
    pack("find .", own.path(), &packed)?;

    let path = directory.join("initramfs");
    let mut whole = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    for archive in archives.iter().copied().chain([packed.as_path()]) {
        let mut part = File::open(archive).with_context(|| format!("cannot open {}", archive.display()))?;
        io::copy(&mut part, &mut whole).with_context(|| format!("cannot write {}", path.display()))?;
    }
    fs::remove_file(&packed).with_context(|| format!("cannot remove {}", packed.display()))?;
    Ok(path)
}

/// Copies a program without its debug information.
fn stripped(program: &Path, to: &Path) -> Result<()> {
    run(Command::new("strip").arg("--strip-debug").arg("-o").arg(to).arg(program))
}

/// Packs what `find` (a shell command, run in `root`) names; in two steps, so that an interrupted one is not taken for whole.
fn pack(find: &str, root: &Path, archive: &Path) -> Result<()> {
    let partial = archive.with_extension("partial");
    run(Command::new("sh")
        .arg("-euc")
        .arg(format!("cd \"$1\"; {find} | cpio --create --format=newc --quiet >\"$2\""))
        .arg("pack")
        .arg(root)
        .arg(std::path::absolute(&partial).context("no current directory")?))?;
    fs::rename(&partial, archive).with_context(|| format!("cannot rename {}", partial.display()))
}
