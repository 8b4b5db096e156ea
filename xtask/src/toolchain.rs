//! What the eBPF object is built with, and how to tell that it is there.
//!
//! `mpesa-fw/build.rs` includes this file, so that the build and `cargo xtask setup` can never disagree. It uses
//! nothing but the standard library for that reason.

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Names a rustup toolchain to use before all others.
pub(crate) const TOOLCHAIN_VARIABLE: &str = "MPESA_FW_EBPF_TOOLCHAIN";

/// The nightly that set-up downloads where Debian's compiler is not to be had: its LLVM is the linker's.
pub(crate) const PINNED_NIGHTLY: &str = "nightly-2026-05-20";

/// The rustup name that set-up gives to Debian's compiler. It comes first: what the verifier accepts depends on the
/// code that the compiler makes, and this is the one that every test here runs with.
pub(crate) const LINKED: &str = "ebpf";

/// The newest bitcode that the linker reads: the linker is built against this LLVM.
pub(crate) const LLVM: u32 = 22;

/// The first thing found to be missing for building the object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Missing {
    /// No `rustup` on the path.
    Rustup,
    /// No toolchain with the source of `core` and an LLVM that the linker can read; what was seen of each.
    Toolchain(Vec<String>),
    /// No `bpf-linker` on the path, or one that does not start.
    Linker(String),
}

impl fmt::Display for Missing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rustup => formatter.write_str("`rustup` is not on the PATH"),
            Self::Toolchain(seen) => write!(
                formatter,
                "no Rust toolchain has the source of `core` (rust-src) and LLVM {LLVM} or older: {}",
                seen.join(", ")
            ),
            Self::Linker(why) => write!(formatter, "`bpf-linker` cannot be run: {why}"),
        }
    }
}

/// A toolchain that can build the object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Toolchain {
    /// Its name for `rustup run`.
    pub(crate) name: String,
    /// What `rustc -V` says.
    pub(crate) version: String,
}

/// The toolchain that builds the object: the first usable one of [`candidates`].
///
/// # Errors
/// [`Missing::Rustup`] or [`Missing::Toolchain`].
pub(crate) fn find() -> Result<Toolchain, Missing> {
    if output("rustup", ["--version"]).is_err() {
        return Err(Missing::Rustup);
    }
    let mut seen = Vec::new();
    for name in candidates() {
        match probe(&name) {
            Ok(version) => return Ok(Toolchain { name, version }),
            Err(why) => seen.push(format!("{name}: {why}")),
        }
    }
    Err(Missing::Toolchain(seen))
}

/// What `bpf-linker --version` says.
///
/// # Errors
/// [`Missing::Linker`].
pub(crate) fn linker() -> Result<String, Missing> {
    output("bpf-linker", ["--version"]).map_err(Missing::Linker)
}

/// Names for `rustup run`, best first.
fn candidates() -> Vec<String> {
    let chosen = env::var(TOOLCHAIN_VARIABLE).ok().filter(|name| !name.is_empty());
    match chosen {
        Some(name) => vec![name],
        None => [LINKED, PINNED_NIGHTLY, "nightly"].map(String::from).to_vec(),
    }
}

/// The version of toolchain `name` if it can build the object, else why it can't.
fn probe(name: &str) -> Result<String, String> {
    let about = output("rustup", ["run", name, "rustc", "-vV"]).map_err(|_| String::from("not installed"))?;
    let llvm = about
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "))
        .and_then(|version| version.split('.').next()?.parse::<u32>().ok())
        .ok_or_else(|| String::from("does not say its LLVM version"))?;
    if llvm > LLVM {
        return Err(format!("its LLVM is {llvm}, newer than the linker's"));
    }
    let sysroot = output("rustup", ["run", name, "rustc", "--print", "sysroot"])?;
    if !core_source(Path::new(sysroot.trim())).is_file() {
        return Err(String::from("has no rust-src"));
    }
    Ok(about.lines().next().unwrap_or(name).to_owned())
}

/// Where a toolchain with `rust-src` keeps the crate `core`.
fn core_source(sysroot: &Path) -> PathBuf {
    sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs")
}

/// Standard output of a command that ends well, else why it did not.
fn output<const N: usize>(program: &str, arguments: [&str; N]) -> Result<String, String> {
    let output = Command::new(program)
        .args(arguments.map(OsStr::new))
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}
