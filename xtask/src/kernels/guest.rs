//! One guest from power-on to power-off.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::process::shown;

/// Seconds after which a guest is ended.
const PATIENCE: &str = "1800";

/// Two processors, so that what races in the field has the chance to race here.
const MACHINE: [&str; 14] = [
    "-accel",
    "tcg,thread=multi",
    "-cpu",
    "max",
    "-smp",
    "2",
    "-m",
    "4G",
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

/// Boots, and waits for the end. What the guest says goes to `console`.
///
/// # Errors
/// QEMU can't be started, or is not done in time.
pub(crate) fn boot(kernel: &Path, initramfs: &Path, console: &Path) -> Result<()> {
    let log = File::create(console).with_context(|| format!("cannot make {}", console.display()))?;
    let errors = log.try_clone().context("cannot share the log")?;
    // `timeout` ends it, and is told when this process dies.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "nice", "-n", "10", "timeout", "--kill-after=10", PATIENCE]);
    command.arg("qemu-system-x86_64").args(MACHINE).args(NICS);
    command.arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs).args(["-append", COMMAND_LINE]);
    println!("console: {}", console.display());
    let status = command
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .status()
        .with_context(|| format!("cannot run `{}`", shown(&command)))?;
    match status.code() {
        Some(0) => Ok(()),
        Some(124) => bail!("the guest was still running after {PATIENCE} seconds and was ended"),
        _ => bail!("QEMU: {status}"),
    }
}
