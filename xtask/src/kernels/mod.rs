//! `cargo xtask kernels`: boots the kernels of Debian's releases in QEMU, with the firewall and its kernel tests inside,
//! and keeps a table of what each of them can do.
//!
//! A guest is one initramfs: a Debian root with the programs that the tests use, the kernel's modules, and what was
//! built here. It has two NICs that QEMU connects with each other, and its serial console is the only way out: lines
//! that begin with `@@ ` are answers ([`mod@answers`]), the rest is for people. Everything fetched is kept below `target/`.

mod answers;
mod archive;
mod build;
mod guest;
mod image;
mod kept;
mod release;
mod summary;
mod table;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::process::{self, is_root, target};
use crate::setup;

use answers::Answers;
use build::Built;
use release::Release;

/// Where the table is kept, below the workspace.
const RESULTS: &str = "docs/KERNELS.md";

/// Which kernels, and what to keep.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only this version (5.10, 6.1, 6.12, 7.2); the table is printed and not kept
    #[arg(long, value_name = "VERSION")]
    only: Option<Release>,
    /// Only the scenario on veth and virtio-net, without the test programs; the table is printed and not kept
    #[arg(long)]
    smoke: bool,
    /// For each kernel: no test is begun later than that; the rest is said to be skipped
    #[arg(long, value_name = "MINUTES", default_value_t = 15)]
    minutes: u64,
    /// Boot also what was booted before with the very same programs and kept its promises
    #[arg(long)]
    fresh: bool,
    /// Keep the initramfs of each guest (a gigabyte), to boot it by hand
    #[arg(long)]
    keep: bool,
}

/// Boots each kernel, prints the table, and keeps it if it was a whole run; whether all that is promised passed.
///
/// # Errors
/// When something can't be fetched, built or started.
pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    if std::env::consts::ARCH != "x86_64" {
        bail!("the guests are x86_64, and this machine is {}", std::env::consts::ARCH);
    }
    if !is_root() {
        bail!("the guests' root is made by debootstrap: run `cargo xtask kernels` as root");
    }
    setup::emulation()?;
    let built = build::programs(!arguments.smoke)?;
    let root = image::root()?;

    let mut runs = Vec::new();
    for release in Release::ALL {
        if arguments.only.is_some_and(|only| only != release) {
            continue;
        }
        runs.push((release, answers(release, &built, &root, arguments)?));
    }

    let table = table::markdown(&runs);
    println!("\n{table}");
    if arguments.only.is_none() && !arguments.smoke {
        let path = process::workspace().join(RESULTS);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        }
        fs::write(&path, &table).with_context(|| format!("cannot write {RESULTS}"))?;
        summary::keep(&process::workspace(), &table)?;
        println!("kept in {RESULTS}, and in short in README.md");
    } else {
        println!("(not kept: not a whole run)");
    }
    Ok(runs.iter().all(|(release, answers)| answers.keeps_promise(*release)))
}

/// What a kernel answers: now, or before if nothing has changed since.
fn answers(release: Release, built: &Built, root: &Path, arguments: &Arguments) -> Result<Answers> {
    let directory = directory(release)?;
    let kernel = archive::kernel(release, &directory)?;
    println!("\n== Linux {release}: {}", kernel.name);
    let console = directory.join(if arguments.smoke { "console-smoke.log" } else { "console.log" });
    let digest = kept::digest(&kernel, root, built, arguments.minutes)?;
    if !arguments.fresh && kept::is_of(&console, &digest) {
        println!("booted before with the very same inside (--fresh boots it again): {}", console.display());
        let answers = read(&console)?;
        answers.report(release);
        return Ok(answers);
    }
    kept::forget(&console)?;
    let initramfs = image::initramfs(&directory, &[root, &kernel.modules], built)?;
    let ended = guest::boot(&kernel.image, &initramfs, &console, arguments.minutes);
    if !arguments.keep {
        fs::remove_file(&initramfs).with_context(|| format!("cannot remove {}", initramfs.display()))?;
    }
    let mut answers = read(&console)?;
    if let Err(error) = ended {
        answers.broke(&format!("{error:#}"));
    }
    answers.report(release);
    if answers.keeps_promise(release) {
        kept::keep(&console, &digest)?;
    }
    Ok(answers)
}

fn read(console: &Path) -> Result<Answers> {
    let text = fs::read(console).with_context(|| format!("cannot read {}", console.display()))?;
    Ok(Answers::read(&String::from_utf8_lossy(&text)))
}

/// Whether README.md says of the kernels what the results say.
pub(crate) fn check_readme() -> Result<()> {
    summary::check(&process::workspace())
}

/// Everything of one kernel.
fn directory(release: Release) -> Result<PathBuf> {
    let directory = base().join(release.to_string());
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    Ok(directory)
}

/// Everything of this verb.
fn base() -> PathBuf {
    target().join("kernels")
}
