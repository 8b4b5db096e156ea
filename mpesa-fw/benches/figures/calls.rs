//! Which functions of the kernel the ingress program calls, listed from the loaded program, and which of them a packet that
//! it denies comes by: the CPU is sampled while that very program denies. (The function tracer would count them; some
//! kernels refuse it, as that of the machine on which this was written.)

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use testbed::{Network, ok};

use crate::frame::Frame;

/// Denied packets.
const PACKETS: u32 = 50_000_000;
/// Samples a second; no divisor of anything that happens regularly.
const FREQUENCY: &str = "4999";
/// Samples of a thousand in the program that helpers may have and still pass for none: the bucket is filled again about once a
/// second, and then 64 events are sent.
const FEW: f64 = 2.0;

/// Prints them, for packets like this one, from a source that is denied.
pub(crate) fn table(network: &Network, bpffs: &Path, frame: &Frame) -> Result<()> {
    let program = pinned(bpffs)?;
    let listed = listed(&program)?;
    let samples = samples(network.scratch.path(), &program, frame)?;
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
        "\n{} instructions, {} places that call a helper which is not inlined. {PACKETS} denied packets spent {share:.1} \
         thousandths of the program's time in them (none of them is on the deny path: {}).",
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
fn listed(program: &Path) -> Result<Listed> {
    let dump = ok(Command::new("bpftool").args(["prog", "dump", "xlated", "pinned"]).arg(program))?;
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

/// Where the CPU was, by function, while the program was given that frame again and again.
fn samples(directory: &Path, program: &Path, frame: &Frame) -> Result<BTreeMap<String, u64>> {
    let (data, packet) = (directory.join("perf.data"), directory.join("denied.bin"));
    fs::write(&packet, frame.with_source([41, 2, 3, 5]))
        .with_context(|| format!("write {}", packet.display()))?;
    let mut perf = Command::new("perf");
    perf.args(["record", "--quiet", "--event", "cpu-clock", "--freq", FREQUENCY, "--output"]).arg(&data);
    perf.args(["--", "bpftool", "prog", "run", "pinned"]).arg(program);
    perf.arg("data_in").arg(&packet).args(["repeat", &PACKETS.to_string()]);
    let said = ok(&mut perf)?;
    ensure!(said.contains("Return value: 1,"), "the packet is not dropped: {said}");
    let script = ok(Command::new("perf").args(["script", "--fields", "ip,sym", "--input"]).arg(&data))?;
    let mut samples = BTreeMap::new();
    for line in script.lines() {
        // `  ffffffff8150c500 bpf_name`
        if let Some(function) = line.split_whitespace().nth(1) {
            *samples.entry(function.to_owned()).or_default() += 1;
        }
    }
    Ok(samples)
}
