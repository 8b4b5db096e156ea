//! Builds the eBPF object and leaves it as `$OUT_DIR/mpesa-fw`, where `datapath::object` includes it.
//!
//! The programs need another target, another toolchain and their own flags, so cargo is run once more, with a target
//! directory of its own below `OUT_DIR` (two cargos in one directory would wait for each other). aya-build does nearly
//! this, but takes neither flags nor a working directory, and can't be given `RUSTC_BOOTSTRAP` without `unsafe`.
//!
//! With `MPESA_FW_SKIP_EBPF=1` nothing is built and `cfg(mpesa_fw_no_object)` is set: user space can then be checked
//! and linted on a machine without an eBPF toolchain.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[path = "../xtask/src/toolchain.rs"]
mod toolchain;

use toolchain::{TOOLCHAIN_VARIABLE, Toolchain};

/// The command that mends whatever is missing.
const MEND: &str = "cargo xtask setup";

const TARGET: &str = "bpfel-unknown-none";

const SKIP_VARIABLE: &str = "MPESA_FW_SKIP_EBPF";

/// The package and the binary that it builds.
const PACKAGE: &str = "mpesa-fw-ebpf";
const BINARY: &str = "mpesa-fw";

/// Relative to the package root, where cargo runs this program. Everything that ends up in the object.
const SOURCES: [&str; 8] = [
    "../Cargo.toml",
    "../mpesa-fw-common/Cargo.toml",
    "../mpesa-fw-common/src",
    "../mpesa-fw-ebpf/Cargo.lock",
    "../mpesa-fw-ebpf/Cargo.toml",
    "../mpesa-fw-ebpf/src",
    "../xtask/src/toolchain.rs",
    "build.rs",
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

fn main() {
    println!("cargo::rustc-check-cfg=cfg(mpesa_fw_no_object)");
    for source in SOURCES {
        println!("cargo::rerun-if-changed={source}");
    }
    for variable in [SKIP_VARIABLE, TOOLCHAIN_VARIABLE] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    if env::var_os(SKIP_VARIABLE).is_some_and(|value| value == "1") {
        println!("cargo::rustc-cfg=mpesa_fw_no_object");
        return;
    }
    if let Err(why) = build() {
        // One line for each fact; cargo prints it under "custom build command failed".
        eprintln!("\nThe eBPF object of mpesa-fw was not built: {why}\n");
        std::process::exit(1);
    }
}

fn build() -> Result<(), String> {
    let mend = |missing: toolchain::Missing| format!("{missing}\nMend it with: {MEND}");
    let toolchain = toolchain::find().map_err(mend)?;
    toolchain::linker().map_err(mend)?;

    let out = PathBuf::from(variable("OUT_DIR")?);
    let target = out.join("ebpf-target");
    let mut cargo = cargo(&toolchain, &target)?;
    let status = cargo.status().map_err(|error| format!("{cargo:?}: {error}"))?;
    if !status.success() {
        return Err(format!("{} with {}: {status}; its messages are above", PACKAGE, toolchain.version));
    }

    let built = target.join(TARGET).join("release").join(BINARY);
    let object = out.join(BINARY);
    fs::copy(&built, &object)
        .map(drop)
        .map_err(|error| format!("copying {} to {}: {error}", built.display(), object.display()))
}

fn cargo(toolchain: &Toolchain, target: &Path) -> Result<Command, String> {
    let architecture = variable("CARGO_CFG_TARGET_ARCH")?;
    if variable("CARGO_CFG_TARGET_ENDIAN")? != "little" {
        return Err(format!("{architecture} is big-endian; only {TARGET} is supported"));
    }
    // aya-ebpf picks the layout of pt_regs and the like by this cfg.
    let architecture = if architecture.starts_with("riscv64") { "riscv64" } else { &architecture };
    let mut flags = vec![format!("--cfg=bpf_target_arch=\"{architecture}\"")];
    flags.extend(FLAGS.map(String::from));

    let mut cargo = Command::new("rustup");
    cargo
        .args(["run", &toolchain.name, "cargo", "build", "--release", "--quiet"])
        .args(["-Z", "build-std=core", "--target", TARGET, "--target-dir"])
        .arg(target)
        .current_dir(Path::new("..").join(PACKAGE))
        // `-Z` on a compiler that is not a nightly.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        // What the outer cargo (and clippy in it) set for the host.
        .env_remove("RUSTC")
        .env_remove("RUSTDOC")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("CARGO_BUILD_TARGET");
    Ok(cargo)
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|error| format!("{name}: {error}"))
}
