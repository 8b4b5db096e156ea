//! `cargo xtask test`: runs every test that can run here, and says which could not.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context as _, Result};

use crate::process::{self, capture, is_root, on_path, shown};
use crate::{setup, toolchain};

mod programs;
#[cfg(test)]
mod proof;
mod tally;

pub(crate) use tally::Tally;

/// Seconds after which a run of tests is ended: one that hangs must not keep the rest from being reported.
const PATIENCE: &str = "1800";

/// Programs that the tests in network namespaces are clients, servers or witnesses with.
const PROGRAMS: [&str; 20] = [
    "bpftool",
    "curl",
    "dnsmasq",
    "ip",
    "iptables-nft",
    "nft",
    "nginx",
    "nsenter",
    "openssl",
    "ping",
    "prometheus",
    "promtool",
    "setpriv",
    "sshd",
    "ssh-keygen",
    "sysctl",
    "tc",
    "tcpdump",
    "unbound",
    "unshare",
];

/// What to test.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Arguments {
    /// Only the tests of this kind
    #[arg(long, value_enum)]
    only: Option<Kind>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// Parser, compile, decision: neither root nor a kernel
    Host,
    /// The real programs in this kernel, and real clients across network namespaces
    Kernel,
}

/// Runs the tests and prints the closing line; whether all passed.
///
/// # Errors
/// When cargo can't be run at all.
pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    let tally = tally(arguments)?;
    println!("\n{tally}");
    Ok(tally.failed() == 0)
}

/// Runs the tests and says by name what failed and what could not run.
///
/// # Errors
/// When cargo can't be run at all.
pub(crate) fn tally(arguments: &Arguments) -> Result<Tally> {
    if let Err(error) = setup::run() {
        println!("note: set-up is not complete: {error:#}");
    }
    let object = toolchain::find().and_then(|_| toolchain::linker());
    let hindrance = match &object {
        Err(missing) => Some(format!("{missing}; `cargo xtask setup` mends it")),
        Ok(_) => hindrance(),
    };

    let mut tally = Tally::default();
    if arguments.only != Some(Kind::Kernel) {
        let mut host = cargo_test(object.is_ok());
        host.arg("--workspace");
        run_one("host tests", &mut host, &mut tally)?;
    }
    if arguments.only != Some(Kind::Host) {
        match hindrance {
            None => {
                tally.take_ignored();
                println!("\n== tests with root and a kernel, programs side by side");
                if let Err(error) = programs::run_ignored(&mut tally) {
                    tally.fail(format!("tests with root and a kernel: {error:#}"));
                }
            }
            Some(why) => {
                println!("\n== tests with root and a kernel: not run: {why}");
                if arguments.only == Some(Kind::Kernel) {
                    tally.fail(format!("tests with root and a kernel: {why}"));
                }
            }
        }
    }
    tally.report();
    Ok(tally)
}

fn cargo_test(with_object: bool) -> Command {
    let cargo = process::cargo();
    let mut command = bounded(Path::new(cargo.get_program()));
    command.current_dir(process::workspace()).args(["test", "--no-fail-fast"]);
    if !with_object {
        command.env("MPESA_FW_SKIP_EBPF", "1");
    }
    command
}

/// A program that runs for a bounded time, and ends when the thread ends that started it.
///
/// `timeout` leads a process group of its own, so that it ends what the program started too. An interrupt at the
/// terminal doesn't reach that group, hence it is told when we die.
fn bounded(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "timeout", "--kill-after=10", PATIENCE]).arg(program);
    command
}

/// Counts a run that did not end well without a test that failed. `before`: how many had failed when it began.
fn ended(what: &str, status: ExitStatus, before: usize, tally: &mut Tally) {
    // 124 is what `timeout` answers. Otherwise: no build, or a test program that died before it could sum up.
    if status.code() == Some(124) {
        tally.fail(format!("{what}: still running after {PATIENCE} seconds"));
    } else if !status.success() && tally.failed() == before {
        tally.fail(format!("{what}: {status} without a failed test; see above"));
    }
}

/// Why tests with root and a kernel can't run here.
fn hindrance() -> Option<String> {
    if !is_root() {
        return Some(String::from("not root; run `cargo xtask test` as root"));
    }
    if let Some(program) = PROGRAMS.into_iter().find(|program| !on_path(program)) {
        return Some(format!("`{program}` is missing; `cargo xtask setup` installs it"));
    }
    if let Err(error) = capture(Command::new("unshare").args(["--net", "--mount", "true"])) {
        return Some(format!("no network namespaces: {error}"));
    }
    if let Err(error) = capture(Command::new("bpftool").args(["prog", "show"])) {
        return Some(format!("no BPF: {error}"));
    }
    None
}

/// Streams one run and adds it up.
fn run_one(what: &str, command: &mut Command, tally: &mut Tally) -> Result<()> {
    // Without what only bounds its time.
    let line = shown(command);
    println!(
        "\n== {what}: cargo {}",
        line.split_once("/cargo ").map_or(line.as_str(), |(_, arguments)| arguments)
    );
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot run `{}`", shown(command)))?;
    let before = tally.failed();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line.context("reading what the tests print")?;
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            tally.read(&line);
        }
    }
    let status = child.wait().context("waiting for cargo")?;
    ended(what, status, before, tally);
    Ok(())
}
