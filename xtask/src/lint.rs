//! `cargo xtask lint`: formatting, clippy and docs, warnings being errors; and that README.md says of kernels what was seen.

use std::process::Command;

use anyhow::{Result, bail};

use crate::kernels;
use crate::process::{self, run as run_command, shown};
use crate::toolchain;

/// The crate that is no member of the workspace.
const EBPF: &str = "mpesa-fw-ebpf/Cargo.toml";
/// Another; what is in it is compiled by the tests, but for libFuzzer's entry points.
const FUZZ: &str = "mpesa-fw/fuzz/Cargo.toml";

const CLIPPY: [&str; 3] = ["clippy", "--workspace", "--all-targets"];
const DENY: [&str; 3] = ["--", "-D", "warnings"];

/// Runs every check, also after one that failed.
///
/// # Errors
/// Names the checks that failed.
pub(crate) fn run() -> Result<()> {
    let mut checks = vec![
        cargo(["fmt", "--all", "--check"]),
        cargo(["fmt", "--check", "--manifest-path", EBPF]),
        cargo(["fmt", "--check", "--manifest-path", FUZZ]),
        clippy_without_object(),
        docs(),
        clippy_ebpf(),
    ];
    match toolchain::find().and_then(|_| toolchain::linker()) {
        Ok(_) => checks.push(cargo(CLIPPY.into_iter().chain(DENY))),
        Err(missing) => println!("skipped: clippy with the eBPF object: {missing}"),
    }
    let mut failed = Vec::new();
    for mut check in checks {
        println!("lint: {}", shown(&check));
        if run_command(&mut check).is_err() {
            failed.push(shown(&check));
        }
    }
    println!("lint: the table of kernels in README.md");
    if let Err(error) = kernels::check_readme() {
        failed.push(format!("{error:#}"));
    }
    if !failed.is_empty() {
        bail!("these checks failed:\n  {}", failed.join("\n  "));
    }
    Ok(())
}

fn cargo<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Command {
    let mut cargo = process::cargo();
    cargo.args(arguments);
    cargo
}

/// As on a machine that has no eBPF toolchain. Of what is compiled otherwise there, most is in these.
fn clippy_without_object() -> Command {
    let mut cargo = cargo(["clippy", "--package", "mpesa-fw", "--lib", "--bins"].into_iter().chain(DENY));
    cargo.env("MPESA_FW_SKIP_EBPF", "1");
    cargo
}

fn docs() -> Command {
    let mut cargo = cargo(["doc", "--workspace", "--no-deps"]);
    cargo.env("MPESA_FW_SKIP_EBPF", "1").env("RUSTDOCFLAGS", "-D warnings");
    cargo
}

/// Checked as if for the host: the toolchain of the object seldom has clippy, and clippy's `core` for
/// bpfel-unknown-none would have to be built first. Nothing is linked, so it doesn't matter that it could not run.
fn clippy_ebpf() -> Command {
    let mut cargo = cargo(["clippy", "--manifest-path", EBPF, "--target-dir", "target/ebpf-lint"]);
    // The crate uses unstable features (asm for BPF); a register of the host has other widths than one of BPF.
    cargo.args(DENY).args(["-A", "asm_sub_register"]).env("RUSTC_BOOTSTRAP", "1");
    cargo
}
