//! `cargo xtask deb`: the Debian package of the agent, with the eBPF object inside.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context as _, Result, bail};

use crate::process::{self, capture, run as run_command, shown};
use crate::setup;

mod root;

pub(crate) use root::mirror;

/// What the binary writes about itself: its arguments and where the package's list of assets expects the answer.
const WRITTEN: [(&[&str], &str); 4] = [
    (&["man"], "mpesa-fw.8"),
    (&["completions", "bash"], "mpesa-fw.bash"),
    (&["completions", "zsh"], "_mpesa-fw"),
    (&["completions", "fish"], "mpesa-fw.fish"),
];

/// How to make the package.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Also install, upgrade, remove and purge it in a Debian root of its own
    #[arg(long = "try")]
    tried: bool,
}

/// Makes the package and says where it is.
///
/// # Errors
/// When something is missing for it, the build fails, or the package doesn't behave.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    setup::run()?;
    // What it will be tried in takes a minute to make, most of it waiting for downloads: beside the build.
    let root = (arguments.tried && process::is_root()).then(|| thread::spawn(root::pristine));
    let built = build();
    let root = root.map(|making| making.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
    let package = built?;
    println!("package: {}", package.display());
    if !arguments.tried {
        return Ok(());
    }
    let Some(root) = root else { bail!("trying the package needs root (debootstrap, chroot)") };
    root::try_out(&root?, &package)
}

/// Makes the package and tries it.
///
/// # Errors
/// As [`run`].
pub(crate) fn build_and_try() -> Result<()> {
    run(&Arguments { tried: true })
}

/// Tests can make an agent die or fail at any step; whoever installs this package must not be able to.
fn without_fault_points(program: &Path) -> Result<()> {
    /// As in `mpesa_fw::fault`.
    const VARIABLE: &[u8] = b"MPESA_FW_FAULT_ORDERS";
    let bytes = fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    if bytes.windows(VARIABLE.len()).any(|window| window == VARIABLE) {
        bail!("{} has fault points: it was built with debug assertions", program.display());
    }
    Ok(())
}

fn build() -> Result<PathBuf> {
    setup::packaging()?;
    run_command(process::cargo().args(["build", "--release", "--locked", "--package", "mpesa-fw"]))?;

    let release = process::target().join("release");
    without_fault_points(&release.join("mpesa-fw"))?;
    let written = release.join("package");
    fs::create_dir_all(&written).with_context(|| format!("cannot make {}", written.display()))?;
    for (arguments, name) in WRITTEN {
        let mut command = Command::new(release.join("mpesa-fw"));
        let text = capture(command.args(arguments))?;
        if text.trim().is_empty() {
            bail!("`{}` printed nothing", shown(&command));
        }
        let path = written.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    // Debian Policy 12.1. Without a time stamp, so that the same page makes the same file.
    run_command(
        Command::new("gzip").args(["--force", "--best", "--no-name"]).arg(written.join(WRITTEN[0].1)),
    )?;

    let printed = capture(process::cargo().args(["deb", "--no-build", "--package", "mpesa-fw"]))?;
    let path = printed.lines().last().map(PathBuf::from).unwrap_or_default();
    if !path.is_file() {
        bail!("cargo-deb named no package, but said: {printed}");
    }
    Ok(path)
}
