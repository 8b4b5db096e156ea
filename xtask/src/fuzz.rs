//! `cargo xtask fuzz`: inputs that nobody thought of, and what becomes of those that break something.
//!
//! A run begins with what is kept in the tree (`mpesa-fw/fuzz/corpora`, `crashes`) and works below `target/fuzz`. What it
//! has learnt goes back into the tree with `--keep`, an input that broke something with `--add`; `cargo test` replays both.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::process::{self, is_root, shown};
use crate::setup;

#[path = "../../mpesa-fw/fuzz/src/corpus.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests, which need the rest")]
mod corpus;

/// The crate, from the top of the tree.
const FUZZ: &str = "mpesa-fw/fuzz";
/// Work of this and other runs.
const WORK: &str = "target/fuzz";
/// libFuzzer needs unstable flags of the compiler.
pub(crate) const TOOLCHAIN: &str = "nightly";

/// What is kept of one target at most.
const KEPT_INPUTS: usize = 300;
const KEPT_BYTES: usize = 300 << 10;

/// Seconds that one input may take, and megabytes that the program may hold.
const PATIENCE: &str = "-timeout=10";
const MEMORY: &str = "-rss_limit_mb=2048";

/// What to fuzz, and for how long.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only this target (all of them one after the other; `kernel` and `dns` only as root)
    #[arg(long, value_enum)]
    target: Option<Target>,
    /// How long each target is run
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Put what was learnt into the tree: the smallest inputs that reach everything
    #[arg(long)]
    keep: bool,
    /// Put this input into the tree, as one that broke something, and don't run anything
    #[arg(long, value_name = "FILE", requires_all = ["target", "why"])]
    add: Option<PathBuf>,
    /// What the input of --add broke, in one line
    #[arg(long)]
    why: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Target {
    /// One frame: parser and decision
    Packet,
    /// Frames, time, reloads: what no history may break
    Sequence,
    /// The same, host against the programs in this kernel
    Kernel,
    /// Whatever a name server answers: host against an independent parser, and against the programs in this kernel
    Dns,
    /// Rules files and what they name
    Policy,
    /// Set files
    #[value(name = "set_file")]
    SetFile,
    /// Messages of the control socket, from either side
    Control,
}

impl Target {
    const ALL: [Self; 7] =
        [Self::Packet, Self::Sequence, Self::Kernel, Self::Dns, Self::Policy, Self::SetFile, Self::Control];

    /// Whether it loads programs.
    const fn needs_root(self) -> bool {
        matches!(self, Self::Kernel | Self::Dns)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Packet => "packet",
            Self::Sequence => "sequence",
            Self::Kernel => "kernel",
            Self::Dns => "dns",
            Self::Policy => "policy",
            Self::SetFile => "set_file",
            Self::Control => "control",
        }
    }

    /// Options of libFuzzer.
    const fn options(self) -> &'static [&'static str] {
        match self {
            Self::Packet => &["-max_len=400"],
            Self::Sequence | Self::Kernel => &["-max_len=300"],
            Self::Dns => &["-max_len=2401"],
            Self::Policy => &["-max_len=4096", "-dict=mpesa-fw/fuzz/policy.dict"],
            Self::SetFile => &["-max_len=2048"],
            Self::Control => &["-max_len=2048"],
        }
    }

    fn work(self, what: &str) -> PathBuf {
        Path::new(WORK).join(what).join(self.name())
    }

    fn file(self, directory: &str) -> PathBuf {
        process::workspace().join(FUZZ).join(directory).join(format!("{}.txt", self.name()))
    }
}

/// Fuzzes; whether nothing was broken.
///
/// # Errors
/// Something that fuzzing needs is missing, or a file can't be written.
pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    std::env::set_current_dir(process::workspace()).context("cannot enter the workspace")?;
    if let (Some(file), Some(target)) = (&arguments.add, arguments.target) {
        return add(target, file, arguments.why.as_deref().unwrap_or_default()).map(|()| true);
    }
    setup::fuzzing()?;
    let mut broken = Vec::new();
    for target in Target::ALL {
        if arguments.target.is_some_and(|only| only != target) {
            continue;
        }
        if target.needs_root() && !is_root() {
            println!("skipped: {}: not root", target.name());
            continue;
        }
        if !fuzz(target, arguments.seconds)? {
            broken.push(target.name());
        } else if arguments.keep {
            keep(target)?;
        }
    }
    if !broken.is_empty() {
        println!("\nbroken: {}", broken.join(", "));
    }
    Ok(broken.is_empty())
}

/// Runs one target; whether nothing was broken.
fn fuzz(target: Target, seconds: u64) -> Result<bool> {
    let (inputs, broken) = (target.work("corpus"), target.work("broken"));
    for directory in [&inputs, &broken] {
        fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    }
    for (number, input) in kept(target)?.iter().enumerate() {
        fs::write(inputs.join(format!("kept-{number}")), input).context("cannot write an input")?;
    }
    let before = files(&broken)?;
    let mut command = cargo_fuzz("run", target);
    command.arg(&inputs).args(["--", PATIENCE, MEMORY, "-print_final_stats=1", "-reload=0"]);
    command.args([format!("-max_total_time={seconds}"), format!("-artifact_prefix={}/", broken.display())]);
    command.args(target.options());
    println!("\n== {}: {}", target.name(), shown(&command));
    if command.status().with_context(|| format!("cannot run `{}`", shown(&command)))?.success() {
        return Ok(true);
    }
    let new: Vec<PathBuf> = files(&broken)?.into_iter().filter(|file| !before.contains(file)).collect();
    if new.is_empty() {
        bail!("`{}` failed without an input that shows it; see above", shown(&command));
    }
    for input in new {
        let (name, input) = (target.name(), input.display());
        println!(
            "\n{name} was broken by {input}\n\
             again:     rustup run {TOOLCHAIN} cargo fuzz run --fuzz-dir {FUZZ} --target-dir {WORK} --sanitizer none {name} {input}\n\
             smaller:   the same with `tmin` for `run`\n\
             as a test: cargo xtask fuzz --target {name} --add {input} --why \"what it broke\"\n\
             The last writes it to {FUZZ}/crashes/{name}.txt, which `cargo test` replays."
        );
    }
    Ok(false)
}

fn cargo_fuzz(verb: &str, target: Target) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", TOOLCHAIN, "cargo", "fuzz", verb, "--fuzz-dir", FUZZ, "--target-dir", WORK]);
    // Nothing here is unsafe that AddressSanitizer could see, and it halves the speed.
    command.args(["--sanitizer", "none", target.name()]);
    command
}

/// Replaces what is kept of a target by the smallest inputs that reach as much.
fn keep(target: Target) -> Result<()> {
    let inputs = target.work("corpus");
    let mut command = cargo_fuzz("cmin", target);
    // By what is reached, not by how often: a tenth of the inputs.
    command.arg(&inputs).args(["--", "-use_counters=0", PATIENCE, MEMORY]);
    process::run(&mut command)?;
    let mut kept = Vec::new();
    for file in files(&inputs)? {
        kept.push(fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?);
    }
    kept.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
    let mut text = String::new();
    let count = kept.len().min(KEPT_INPUTS);
    for n in 0..count {
        // Of too many, some of each length.
        let line = corpus::line(&kept[n * kept.len() / count]);
        if text.len() + line.len() < KEPT_BYTES {
            let _ = writeln!(text, "{line}");
        }
    }
    let path = target.file("corpora");
    println!(
        "{}: {} of {} inputs kept in {}",
        target.name(),
        text.lines().count(),
        kept.len(),
        path.display()
    );
    write(&path, &text)
}

/// Puts an input into the tree that broke something.
fn add(target: Target, file: &Path, why: &str) -> Result<()> {
    let input = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let path = target.file("crashes");
    let mut text = fs::read_to_string(&path).unwrap_or_default();
    let _ = write!(text, "# {}\n{}\n", why.replace('\n', " "), corpus::line(&input));
    write(&path, &text)?;
    println!("added to {}; `cargo test -p mpesa-fw` replays it", path.display());
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// What the tree keeps of a target.
fn kept(target: Target) -> Result<Vec<Vec<u8>>> {
    let mut inputs = Vec::new();
    for directory in corpus::KEPT {
        let path = target.file(directory);
        let text = fs::read_to_string(&path).unwrap_or_default();
        match corpus::parse(&text) {
            Ok(parsed) => inputs.extend(parsed),
            Err(line) => bail!("{}:{line} is no input", path.display()),
        }
    }
    Ok(inputs)
}

fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    let mut files: Vec<PathBuf> =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    files.retain(|file| file.is_file());
    files.sort();
    Ok(files)
}
