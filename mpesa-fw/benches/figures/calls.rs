//! Which functions of the kernel the ingress program calls for a packet that it denies: listed from the loaded program, and
//! counted by the function tracer.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use nix::mount::{MsFlags, mount};
use testbed::{Network, ok};

use crate::flood::Flood;

/// Denied packets that are traced.
const PACKETS: u32 = 10_000;
/// Packets before, so that no event is left to send.
const SPEND: u32 = 1_000;
/// The bucket is filled again about once a second, and then 64 events are sent: another try.
const TRIES: usize = 5;

/// Prints them.
pub(crate) fn table(network: &Network, bpffs: &Path, flood: &mut Flood) -> Result<()> {
    let listed = listed(bpffs)?;
    let tracer = Tracer::new(&network.scratch.directory("tracefs")?)?;
    let mut counts = BTreeMap::new();
    for _ in 0..TRIES {
        counts = network.router.inside(|| -> Result<_> {
            flood.send(SPEND)?;
            tracer.count(&listed, || flood.send(PACKETS).map(drop))
        })?;
        if counts.keys().all(|function| !function.contains("ringbuf")) {
            break;
        }
    }
    println!("| function of the kernel that the loaded `ingress_xdp` calls | places | calls for {PACKETS} denied packets |");
    println!("|---|---|---|");
    for (function, places) in &listed.kernel {
        let calls = if tracer.knows(function) {
            counts.get(function).copied().unwrap_or(0).to_string()
        } else {
            String::from("can't be traced")
        };
        println!("| `{function}` | {places} | {calls} |");
    }
    println!("| (functions of its own) | {} | |", listed.own);
    let traced: u64 = counts.values().sum();
    println!(
        "\nInstructions: {}. Calls of helpers that are not inlined: {} places, {traced} calls for {PACKETS} denied packets ({}).",
        listed.instructions,
        listed.kernel.values().sum::<usize>(),
        if traced == 0 { "none on the deny path: met" } else { "**missed**: none was wanted" }
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

/// The pin of the running generation's program.
fn pinned(bpffs: &Path) -> Result<PathBuf> {
    for abi in fs::read_dir(bpffs).with_context(|| format!("list {}", bpffs.display()))? {
        for entry in fs::read_dir(abi?.path())? {
            let path = entry?.path().join("ingress_xdp");
            if path.exists() {
                return Ok(path);
            }
        }
    }
    bail!("no ingress_xdp is pinned below {}", bpffs.display())
}

/// An instance of the function tracer; others are not disturbed.
struct Tracer {
    instance: PathBuf,
    traceable: String,
}

impl Tracer {
    fn new(at: &Path) -> Result<Self> {
        mount(Some("tracefs"), at, Some("tracefs"), MsFlags::empty(), None::<&str>).context("mount tracefs")?;
        let traceable = fs::read_to_string(at.join("available_filter_functions"))
            .context("the kernel has no function tracer")?;
        let instance = at.join(format!("instances/mpfw-{}", std::process::id()));
        fs::create_dir(&instance).with_context(|| format!("make {}", instance.display()))?;
        let tracer = Self { instance, traceable };
        tracer.write("buffer_size_kb", "16384")?;
        Ok(tracer)
    }

    fn knows(&self, function: &str) -> bool {
        self.traceable.lines().any(|line| line.split(' ').next() == Some(function))
    }

    /// Calls of the listed functions, by name, in this thread while `work` runs.
    fn count(&self, listed: &Listed, work: impl FnOnce() -> Result<()>) -> Result<BTreeMap<String, u64>> {
        let known: Vec<&str> =
            listed.kernel.keys().map(String::as_str).filter(|function| self.knows(function)).collect();
        self.write("tracing_on", "0")?;
        self.write("set_ftrace_filter", &known.join("\n"))?;
        self.write("set_ftrace_pid", &nix::unistd::gettid().to_string())?;
        self.write("current_tracer", "function")?;
        self.write("trace", "")?;
        self.write("tracing_on", "1")?;
        let worked = work();
        self.write("tracing_on", "0")?;
        self.write("current_tracer", "nop")?;
        worked?;
        let trace = fs::read_to_string(self.instance.join("trace")).context("read the trace")?;
        let mut counts = BTreeMap::new();
        for line in trace.lines().filter(|line| !line.starts_with('#')) {
            // `  task-12 [001] ..s2. 12.3: bpf_name <-caller`
            if let Some((_, rest)) = line.split_once(": ") {
                let function = rest.split(' ').next().unwrap_or(rest);
                *counts.entry(function.to_owned()).or_default() += 1;
            }
        }
        Ok(counts)
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        fs::write(self.instance.join(file), text).with_context(|| format!("write {text:?} to {file} of tracefs"))
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.instance);
    }
}
