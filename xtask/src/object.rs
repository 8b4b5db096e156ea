//! How the eBPF object is built.
//!
//! `mpesa-fw/build.rs` includes this file, so that what `cargo xtask bench` rates is built like what the agent carries. It
//! uses nothing but the standard library for that reason.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::toolchain::Toolchain;

/// What the programs are built for.
pub(crate) const TARGET: &str = "bpfel-unknown-none";
/// The package of the programs.
pub(crate) const PACKAGE: &str = "mpesa-fw-ebpf";
/// The object that it builds.
pub(crate) const BINARY: &str = "mpesa-fw";

/// The profile of `mpesa-fw-ebpf/Cargo.toml`, whatever the environment or a configuration file of the user says. Compiled in other
/// pieces the programs inline other functions, and then need more stack than the kernel allows.
const PROFILE: [&str; 6] = [
    "profile.release.codegen-units=1",
    "profile.release.debug-assertions=false",
    "profile.release.incremental=false",
    "profile.release.lto=true",
    "profile.release.opt-level=3",
    "profile.release.overflow-checks=false",
];

const FLAGS: [&str; 4] = [
    // Line numbers in the verifier's log, and what `--btf` is made of.
    "-Cdebuginfo=2",
    "-Clink-arg=--btf",
    // Packet headers are not aligned; the kernel allows such access on every platform that sets
    // CONFIG_HAVE_EFFICIENT_UNALIGNED_ACCESS. A fifth fewer instructions.
    "-Clink-arg=--cpu-features=+allows-misaligned-mem-access",
    // 32-bit instructions and jumps (Linux 5.1).
    "-Ctarget-cpu=v3",
];

/// The command that builds the object below `target`, on a machine of this architecture; `workspace` holds the package.
pub(crate) fn cargo(toolchain: &Toolchain, architecture: &str, workspace: &Path, target: &Path) -> Command {
    // aya-ebpf picks the layout of pt_regs and the like by this cfg.
    let architecture = if architecture.starts_with("riscv64") { "riscv64" } else { architecture };
    let mut flags = vec![format!("--cfg=bpf_target_arch=\"{architecture}\"")];
    flags.extend(FLAGS.map(String::from));

    let mut cargo = Command::new("rustup");
    cargo
        .args(["run", &toolchain.name, "cargo", "build", "--release", "--quiet"])
        .args(["-Z", "build-std=core", "--target", TARGET, "--target-dir"])
        .arg(target)
        .current_dir(workspace.join(PACKAGE))
        // `-Z` on a compiler that is not a nightly.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        // What the outer cargo (and clippy in it) set for the host.
        .env_remove("RUSTC")
        .env_remove("RUSTDOC")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("CARGO_BUILD_TARGET")
        // Outranks the profile.
        .env("CARGO_INCREMENTAL", "0");
    for setting in PROFILE {
        cargo.args(["--config", setting]);
    }
    cargo
}

/// Where that command leaves the object.
pub(crate) fn built(target: &Path) -> PathBuf {
    target.join(TARGET).join("release").join(BINARY)
}
