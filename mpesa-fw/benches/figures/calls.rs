//! Which functions of the kernel the ingress program calls, listed from the loaded program, and which of them a packet that
//! it denies comes by: the CPU is sampled while nothing else arrives. (The function tracer would count them; virtual
//! machines and locked down kernels refuse it.)

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use testbed::{Network, Process, holds, ok};

use crate::flood::Flood;

/// Denied packets a call of the generator.
const PACKETS: u32 = 1_000_000;
/// For how long they are sent.
const LONG: Duration = Duration::from_secs(4);
/// Samples a second; no divisor of anything that happens regularly.
const FREQUENCY: &str = "4999";
const PATIENCE: Duration = Duration::from_secs(20);
/// Samples of a thousand in the program that a helper may have and still pass for none: about 1,000 packets in a million
/// are sent an event or refill the bucket.
const FEW: f64 = 2.0;

/// Prints them. The sender runs on `cpu` already.
pub(crate) fn table(network: &Network, bpffs: &Path, flood: &mut Flood, cpu: usize) -> Result<()> {
    let listed = listed(bpffs)?;
    let samples = samples(network.scratch.path(), cpu, || {
        network.router.inside(|| {
            let begin = Instant::now();
            while begin.elapsed() < LONG {
                flood.send(PACKETS)?;
            }
            Ok(())
        })
    })?;
    let own: u64 =
        samples.iter().filter(|(name, _)| name.contains("_ingress_xdp")).map(|(_, count)| count).sum();
    ensure!(own > 100, "the program was seen in {own} samples of {}", samples.values().sum::<u64>());
    println!(
        "| function of the kernel that the loaded `ingress_xdp` calls | places | samples, beside {own} in the program |"
    );
    println!("|---|---|---|");
    let mut seen = 0;
    for (function, places) in &listed.kernel {
        let there = samples.get(function).copied().unwrap_or(0);
        seen += there;
        println!("| `{function}` | {places} | {there} |");
    }
    println!("| (functions of its own) | {} | |", listed.own);
    let share = seen as f64 / own as f64 * 1e3;
    println!(
        "\n{} instructions, {} places that call a helper which is not inlined. Denied packets spend {share:.1} thousandths of the \
         program's time in them (none of them is on the deny path: {}).",
        listed.instructions,
        listed.kernel.values().sum::<usize>(),
        if share <= FEW { "met" } else { "**missed**" }
    );
    Ok(())
}

/// Calls in a program, as the kernel runs it.
struct Listed {
    instructions: usize,
    /// By name: places.
    kernel: BTreeMap<String, usize>,
    /// Of functions of the program.
    own: usize,
}

/// `bpftool prog dump xlated`: what the verifier has inlined is no call there any more.
fn listed(bpffs: &Path) -> Result<Listed> {
    let dump = ok(Command::new("bpftool").args(["prog", "dump", "xlated", "pinned"]).arg(pinned(bpffs)?))?;
    let mut listed = Listed { instructions: 0, kernel: BTreeMap::new(), own: 0 };
    for line in dump.lines() {
        // `  12: (85) call bpf_name#1234`, or of a function of its own `call pc+12#bpf_prog_…_F`.
        let Some((_, instruction)) = line.trim().split_once(": (") else { continue };
        listed.instructions += 1;
        if let Some((_, called)) = instruction.split_once(") call ") {
            let name = called.split('#').next().unwrap_or(called).trim();
            if name.starts_with("pc") {
                listed.own += 1;
            } else {
                *listed.kernel.entry(name.to_owned()).or_default() += 1;
            }
        }
    }
    ensure!(listed.instructions > 100, "bpftool lists {} instructions:\n{dump}", listed.instructions);
    Ok(listed)
}

/// The pin of the newest generation's program.
pub(crate) fn pinned(bpffs: &Path) -> Result<PathBuf> {
    let mut newest = None;
    for abi in fs::read_dir(bpffs).with_context(|| format!("list {}", bpffs.display()))? {
        for entry in fs::read_dir(abi?.path())? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let number =
                name.strip_prefix("generation-").and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
            newest = newest.max(number.map(|number| (number, entry.path())));
        }
    }
    match newest {
        Some((_, generation)) => Ok(generation.join("ingress_xdp")),
        None => bail!("no generation is pinned below {}", bpffs.display()),
    }
}

/// Where the CPU was, by function, while `work` ran: samples of the kernel's clock.
fn samples(directory: &Path, cpu: usize, work: impl FnOnce() -> Result<()>) -> Result<BTreeMap<String, u64>> {
    let data = directory.join("perf.data");
    let mut perf = Command::new("perf");
    perf.args(["record", "--quiet", "--event", "cpu-clock", "--freq", FREQUENCY, "--cpu", &cpu.to_string()]);
    perf.arg("--output").arg(&data);
    let mut recorder = Process::spawn(perf, "perf", directory).context("perf (Debian: linux-perf)")?;
    holds("perf to begin", PATIENCE, || data.exists() || !recorder.running())?;
    let worked = work();
    // It writes its file when it is interrupted; if it has ended before, the file is not there.
    let _ = recorder.signal(Signal::SIGINT);
    recorder.wait(PATIENCE)?;
    worked?;
    let script = ok(Command::new("perf").args(["script", "--fields", "ip,sym", "--input"]).arg(&data))
        .with_context(|| format!("perf recorded nothing: {}", recorder.log()))?;
    let mut samples = BTreeMap::new();
    for line in script.lines() {
        // `  ffffffff8150c500 bpf_name`
        if let Some(function) = line.split_whitespace().nth(1) {
            *samples.entry(function.to_owned()).or_default() += 1;
        }
    }
    Ok(samples)
}
