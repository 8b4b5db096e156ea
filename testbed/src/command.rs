//! Commands that run to their end.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    sync::mpsc::{RecvTimeoutError, channel},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::wait::here;

/// Longer than anything here takes; a command that hangs is killed then.
const PATIENCE: Duration = Duration::from_secs(90);

/// How a command ended.
#[derive(Clone, Debug)]
pub struct Ran {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

impl Ran {
    /// stdout and stderr together, for assertions on what people read.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// Runs it to its end, whatever the exit code.
///
/// # Errors
/// It can't be started.
pub fn run(command: &mut Command) -> Result<Ran> {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("could not start {command:?}"))?;
    let pid = Pid::from_raw(child.id().cast_signed());
    let (finished, watch) = channel::<()>();
    let watchdog = thread::spawn(move || {
        if watch.recv_timeout(here(PATIENCE)) == Err(RecvTimeoutError::Timeout) {
            // The child is not yet reaped, so the id is still its own.
            let _ = kill(pid, Signal::SIGKILL);
        }
    });
    let output = child.wait_with_output().with_context(|| format!("could not wait for {command:?}"));
    drop(finished);
    let _ = watchdog.join();
    let output = output?;
    Ok(Ran {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Writes a file by another process. What this one opens for writing is held open, until they execute their program, by all
/// children that other tests start meanwhile; then the agent takes it for being changed, and nobody can execute it (ETXTBSY).
///
/// # Errors
/// It can't be written.
pub(crate) fn written_by_another(path: &Path, text: &[u8]) -> Result<()> {
    let what = || format!("could not write {}", path.display());
    let mut writer = Command::new("sh")
        .args(["-euc", "cat > \"$0\""])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .with_context(what)?;
    let written = writer.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(text));
    let status = writer.wait().with_context(what)?;
    written.with_context(what)?;
    if !status.success() {
        bail!("{}: {status}", what());
    }
    Ok(())
}

/// Runs it and returns its stdout.
///
/// # Errors
/// It can't be started, or ends with another code than 0.
pub fn ok(command: &mut Command) -> Result<String> {
    let ran = run(command)?;
    if ran.code != Some(0) {
        bail!("{command:?} ended with {:?}: {}", ran.code, ran.text().trim());
    }
    Ok(ran.stdout)
}
