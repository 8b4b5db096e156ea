//! `cargo xtask setup`: installs what is missing, says each step, does nothing the second time.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::fuzz;
use crate::process::{self, capture, run as run_command};
use crate::toolchain::{self, LINKED, LLVM, Missing, PINNED_NIGHTLY, TOOLCHAIN_VARIABLE};

mod debian;

/// The linker that reads what [`toolchain::LLVM`] writes. The next one wants LLVM 23, which no compiler here emits.
const LINKER: &str = "0.13.0";

/// What makes the Debian package.
const CARGO_DEB: &str = "3.8.0";

/// What runs the fuzz targets.
const CARGO_FUZZ: &str = "0.13.2";

/// Seconds after which a download by rustup is given up: where only package registries can be reached it may hang.
const PATIENCE: &str = "240";

/// Debian packages for building: a C linker for host programs.
const TO_BUILD: [&str; 3] = ["ca-certificates", "gcc", "libc6-dev"];

/// Debian packages that the demo and the tests use.
const TO_TEST: [&str; 20] = [
    "bpftool",        // what the kernel has loaded, seen by somebody else
    "curl",           // the client of the demo
    "debootstrap",    // the root in which the package is tried
    "dnsmasq-base",   // a resolver of our own
    "ethtool",        // offloads of a veth
    "iproute2",       // namespaces, veth, foreign programs on an interface
    "iputils-ping",   // echo
    "jq",             // JSON output read by somebody else
    "iptables",       // what Docker writes with it
    "nftables",       // coexistence, guests behind NAT
    "nginx-light",    // the callback host
    "openssh-client", // the lock-out guard
    "openssh-server", //
    "openssl",        // its certificate
    "procps",         // what the agent uses
    "prometheus",     // scrapes, and promtool
    "python3-scapy",  // odd packets
    "tcpdump",        // what was on the wire
    "tshark",         // reads what was captured
    "unbound",        // another resolver
];

/// Debian packages that boot other kernels.
const TO_EMULATE: [&str; 6] = [
    "binutils",               // strip and readelf
    "cpio",                   // what a kernel boots from
    "debian-archive-keyring", // what the kernels are signed with
    "debootstrap",            // the root of the guests
    "kmod",                   // dependencies of modules
    "qemu-system-x86",        // the machine
];

/// Debian packages that the bench uses besides.
const TO_RATE: [&str; 2] = [
    "linux-perf", // which functions of the kernel the programs call
    "xdp-tools",  // xdp-filter, another firewall
];

/// A compiler with the source of `core` (rustup's stable comes without).
const COMPILER: [&str; 3] = ["cargo-web", "rust-web-src", "rustc-web"];

/// What the linker is built against.
const LLVM_LIBRARIES: [&str; 2] = ["libpolly-22-dev", "llvm-22-dev"];

/// Installs what is missing for building, testing and showing mpesa-fw.
///
/// # Errors
/// When something is missing that can't be installed; the error says what and why.
pub(crate) fn run() -> Result<()> {
    debian::install("the host build", &TO_BUILD)?;
    debian::install("tests and demo", &TO_TEST)?;
    // Not installed: it would take over the machine's /etc/resolv.conf.
    let stub = debian::unpack("tests", "systemd-resolved", &process::target().join("systemd-resolved"));
    if let Err(error) = stub {
        println!("note: systemd-resolved is left out of the tests: {error:#}");
    }
    compiler()?;
    linker()
}

/// Installs what boots other kernels.
///
/// # Errors
/// When it can't be installed.
pub(crate) fn emulation() -> Result<()> {
    debian::install("other kernels", &TO_EMULATE)
}

/// Installs what the bench compares with and looks with.
///
/// # Errors
/// When it can't be installed.
pub(crate) fn rating() -> Result<()> {
    debian::install("the bench", &TO_RATE)
}

/// Installs the tool that makes the Debian package.
///
/// # Errors
/// When it can't be installed.
pub(crate) fn packaging() -> Result<()> {
    let installed = capture(process::cargo().args(["deb", "--version"]));
    if installed.is_ok_and(|version| version.trim().ends_with(CARGO_DEB)) {
        ok(&format!("cargo-deb {CARGO_DEB}"));
        return Ok(());
    }
    install("cargo-deb", &format!("cargo-deb@{CARGO_DEB} (from source, a few minutes)"));
    run_command(process::cargo().args(["install", "--locked", "--quiet", &format!("cargo-deb@{CARGO_DEB}")]))
}

/// Installs what fuzzing needs besides.
///
/// # Errors
/// When it can't be installed.
pub(crate) fn fuzzing() -> Result<()> {
    let nightly = capture(Command::new("rustup").args(["run", fuzz::TOOLCHAIN, "rustc", "--version"]));
    let nightly = nightly.with_context(|| {
        let name = fuzz::TOOLCHAIN;
        format!("fuzzing needs unstable flags of the compiler: `rustup toolchain install {name} --profile minimal`")
    })?;
    ok(&format!("fuzzing: {}", nightly.trim()));
    debian::install("fuzzing", &["g++"])?; // libFuzzer itself
    let installed = capture(process::cargo().args(["fuzz", "--version"]));
    if installed.is_ok_and(|version| version.trim().ends_with(CARGO_FUZZ)) {
        ok(&format!("cargo-fuzz {CARGO_FUZZ}"));
        return Ok(());
    }
    install("cargo-fuzz", &format!("cargo-fuzz@{CARGO_FUZZ} (from source, a minute)"));
    run_command(process::cargo().args([
        "install",
        "--locked",
        "--quiet",
        &format!("cargo-fuzz@{CARGO_FUZZ}"),
    ]))
}

/// A toolchain with the source of `core`.
fn compiler() -> Result<()> {
    match toolchain::find() {
        Ok(found) => {
            ok(&format!("eBPF compiler: {} (toolchain `{}`)", found.version, found.name));
            return Ok(());
        }
        Err(Missing::Rustup) => bail!("`rustup` is not on the PATH; install it as https://rustup.rs says"),
        Err(Missing::Toolchain(seen)) => {
            if let Some(name) = std::env::var_os(TOOLCHAIN_VARIABLE) {
                bail!(
                    "{TOOLCHAIN_VARIABLE} names a toolchain that cannot build the eBPF object ({}); \
                     unset it, or run `rustup toolchain install {} --component rust-src`",
                    seen.join(", "),
                    name.to_string_lossy()
                );
            }
        }
        Err(missing @ Missing::Linker(_)) => bail!("{missing}"),
    }
    if let Err(error) = debian_compiler() {
        println!("note: {error:#}; taking a nightly of rustup instead");
        install("eBPF compiler", &format!("{PINNED_NIGHTLY} with rust-src, by rustup"));
        run_command(
            Command::new("timeout")
                .args([PATIENCE, "rustup", "toolchain", "install", PINNED_NIGHTLY])
                .args(["--profile", "minimal", "--component", "rust-src", "--no-self-update"]),
        )?;
    }
    match toolchain::find() {
        Ok(found) => {
            println!("ok: eBPF compiler: {} (toolchain `{}`)", found.version, found.name);
            Ok(())
        }
        Err(missing) => bail!("after the installation {missing}"),
    }
}

/// Debian's compiler, under a name for rustup.
fn debian_compiler() -> Result<()> {
    debian::install("the eBPF compiler", &COMPILER)?;
    install("eBPF compiler", &format!("rustup toolchain link {LINKED} /usr"));
    run_command(Command::new("rustup").args(["toolchain", "link", LINKED, "/usr"]))
}

/// The linker that makes a BPF object of bitcode.
fn linker() -> Result<()> {
    let wanted = format!("bpf-linker {LINKER}");
    match toolchain::linker() {
        Ok(version) if version == wanted => {
            ok(&version);
            return Ok(());
        }
        Ok(version) => println!("note: {version} is here, {wanted} is what the object is built with"),
        Err(_) => {}
    }
    debian::install("the eBPF linker", &LLVM_LIBRARIES)?;
    install("bpf-linker", &format!("bpf-linker@{LINKER} against LLVM {LLVM} (from source, a minute)"));
    run_command(
        process::cargo()
            .env("LLVM_PREFIX", format!("/usr/lib/llvm-{LLVM}"))
            .args(["install", "--locked", "--quiet", "--force", "--no-default-features"])
            .args(["--features", &format!("llvm-{LLVM}"), &format!("bpf-linker@{LINKER}")]),
    )?;
    toolchain::linker()
        .map(|version| println!("ok: {version}"))
        .map_err(|missing| anyhow::anyhow!("{missing}"))
        .context("bpf-linker was installed, but is not found; is cargo's bin directory on the PATH?")
}

/// Says that a step has nothing to do.
fn ok(what: &str) {
    println!("ok: {what} already there");
}

/// Says that a step installs something.
fn install(what: &str, how: &str) {
    println!("install: {what}: {how}");
}
