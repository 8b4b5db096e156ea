//! Builds the eBPF object and leaves it as `$OUT_DIR/mpesa-fw`, where `datapath::object` includes it.
//!
//! The programs need another target, another toolchain and their own flags, so cargo is run once more, with a target
//! directory of its own, `ebpf` beside those of the profiles (two cargos in one directory would wait for each other; one
//! for each profile would build the same object again, which takes minutes). aya-build does nearly this, but takes neither flags nor a working directory, and can't be given `RUSTC_BOOTSTRAP` without `unsafe`.
//!
//! With `MPESA_FW_SKIP_EBPF=1` nothing is built and `cfg(mpesa_fw_no_object)` is set: user space can then be checked
//! and linted on a machine without an eBPF toolchain.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

#[path = "../xtask/src/object.rs"]
mod object;
#[path = "../xtask/src/toolchain.rs"]
mod toolchain;

use toolchain::TOOLCHAIN_VARIABLE;

/// The command that mends whatever is missing.
const MEND: &str = "cargo xtask setup";

const SKIP_VARIABLE: &str = "MPESA_FW_SKIP_EBPF";

/// Relative to the package root, where cargo runs this program. Everything that ends up in the object.
const SOURCES: [&str; 9] = [
    "../Cargo.toml",
    "../mpesa-fw-common/Cargo.toml",
    "../mpesa-fw-common/src",
    "../mpesa-fw-ebpf/Cargo.lock",
    "../mpesa-fw-ebpf/Cargo.toml",
    "../mpesa-fw-ebpf/src",
    "../xtask/src/object.rs",
    "../xtask/src/toolchain.rs",
    "build.rs",
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
    // <target directory>/<profile>/build/<package>/out: one directory for all profiles, which have the same object.
    let shared = out.ancestors().nth(4).ok_or_else(|| format!("OUT_DIR is {}", out.display()))?;
    let target = shared.join("ebpf");
    if variable("CARGO_CFG_TARGET_ENDIAN")? != "little" {
        return Err(format!("big-endian; only {} is supported", object::TARGET));
    }
    let architecture = variable("CARGO_CFG_TARGET_ARCH")?;
    let mut cargo = object::cargo(&toolchain, &architecture, Path::new(".."), &target);
    let status = cargo.status().map_err(|error| format!("{cargo:?}: {error}"))?;
    if !status.success() {
        return Err(format!(
            "{} with {}: {status}; its messages are above",
            object::PACKAGE,
            toolchain.version
        ));
    }

    let built = object::built(&target);
    let object = out.join(object::BINARY);
    fs::copy(&built, &object)
        .map(drop)
        .map_err(|error| format!("copying {} to {}: {error}", built.display(), object.display()))
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|error| format!("{name}: {error}"))
}
