//! Processes that stay until told to go.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};

use crate::wait::eventually;

/// A running child and the log it writes to. Dropping it kills it with all that it started.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it in a process group of its own; stdout and stderr go to `<logs>/<name>.log`, after what is there.
    ///
    /// # Errors
    /// It can't be started.
    pub fn spawn(mut command: Command, name: &str, logs: &Path) -> Result<Self> {
        let log = logs.join(format!("{name}.log"));
        let out = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("could not open {}", log.display()))?;
        let err = out.try_clone().context("could not share the log")?;
        command.stdin(Stdio::null()).stdout(out).stderr(err).process_group(0);
        let child = command.spawn().with_context(|| format!("could not start {command:?}"))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// Its process id. Commands made by [`Namespace`](crate::Namespace) replace themselves, so it is the program's own.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written so far.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Whether it still runs.
    pub fn running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal to it alone.
    ///
    /// # Errors
    /// It is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.leader(), signal).with_context(|| format!("could not send {signal} to {}", self.name))
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// It doesn't within that time.
    pub fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        let (name, child) = (&self.name, &mut self.child);
        eventually(&format!("the end of {name}"), within, || child.try_wait().ok().flatten())
    }

    /// Kills it at once (SIGKILL) and reaps it.
    ///
    /// # Errors
    /// It can't be reaped.
    pub fn kill(&mut self) -> Result<()> {
        let _ = killpg(self.leader(), Signal::SIGKILL);
        self.child.wait().with_context(|| format!("could not reap {}", self.name))?;
        Ok(())
    }

    /// Waits until its log holds `text`.
    ///
    /// # Errors
    /// It ends before, or it takes longer; the message holds the log.
    pub fn wait_for_log(&mut self, text: &str, within: Duration) -> Result<()> {
        enum Outcome {
            Said,
            Ended(ExitStatus),
        }
        let outcome = eventually(text, within, || {
            let ended = self.child.try_wait().ok().flatten();
            if self.log().contains(text) { Some(Outcome::Said) } else { ended.map(Outcome::Ended) }
        });
        match outcome {
            Ok(Outcome::Said) => Ok(()),
            Ok(Outcome::Ended(status)) => {
                bail!("{} ended ({status}) before it said {text:?}:\n{}", self.name, self.log())
            }
            Err(error) => bail!("{}: {error}; its log:\n{}", self.name, self.log()),
        }
    }

    fn leader(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An id that was reaped may be another's by now.
        if self.running() {
            let _ = self.kill();
        }
    }
}
