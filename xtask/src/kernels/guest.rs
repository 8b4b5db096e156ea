//! One guest from power-on to power-off.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};

use crate::process::shown;

/// Seconds after the time for tests after which a guest is ended, by the clock of this machine; what it has answered by then
/// is kept.
const PATIENCE: u64 = 900;

/// The guest's clock goes by the instructions that it has run, a nanosecond each, and jumps over idle time: how busy this
/// machine is changes how long a run takes, never what is in time in the guest (by this machine's clock kernels panicked
/// over a timer that did not tick and agents were given up as not ready). That is for one processor: a second one spins for
/// minutes until the first has brought it up. Without the features that make a kernel copy and clear by single bytes, which
/// are quick in a processor and slow here, nor a fifth level of page tables.
const MACHINE: [&str; 16] = [
    "-accel",
    "tcg,thread=single",
    "-icount",
    "shift=0,sleep=off",
    "-cpu",
    "max,erms=off,fsrm=off,la57=off",
    "-smp",
    "1",
    "-m",
    "3G",
    "-nodefaults",
    "-no-reboot",
    "-display",
    "none",
    "-serial",
    "stdio",
];

/// A kernel that panics ends; one that has work for its mitigations is slow enough without them.
const COMMAND_LINE: &str = "console=ttyS0 quiet panic=-1 mitigations=off net.ifnames=0";

/// The two NICs and what connects them; smoke.sh knows their addresses.
const NICS: [&str; 8] = [
    "-netdev",
    "hubport,id=a,hubid=1",
    "-device",
    "virtio-net-pci,netdev=a,mac=52:54:00:00:00:0a,romfile=",
    "-netdev",
    "hubport,id=b,hubid=1",
    "-device",
    "virtio-net-pci,netdev=b,mac=52:54:00:00:00:0b,romfile=",
];

/// What the machine is, in one text.
pub(crate) fn machine() -> String {
    format!("{} {} {COMMAND_LINE}\n", MACHINE.join(" "), NICS.join(" "))
}

/// Boots, and waits for the end. What the guest says goes to `console`.
///
/// # Errors
/// QEMU can't be started, or is not done in time.
pub(crate) fn boot(kernel: &Path, initramfs: &Path, console: &Path, minutes: u64) -> Result<()> {
    let log = File::create(console).with_context(|| format!("cannot make {}", console.display()))?;
    let errors = log.try_clone().context("cannot share the log")?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("no time of day")?.as_secs();
    let command_line = format!("{COMMAND_LINE} mpesa_fw.until={}", now + minutes * 60);
    let patience = (minutes * 60 + PATIENCE).to_string();
    // `timeout` ends it, and is told when this process dies.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "timeout", "--kill-after=10", &patience]);
    command.arg("qemu-system-x86_64").args(MACHINE).args(NICS);
    command.arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs).args(["-append", &command_line]);
    println!("console: {}", console.display());
    let status = command
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .status()
        .with_context(|| format!("cannot run `{}`", shown(&command)))?;
    match status.code() {
        Some(0) => Ok(()),
        Some(124) => bail!("the guest was still running after {patience} seconds and was ended"),
        _ => bail!("QEMU: {status}"),
    }
}
