//! A process of its own that takes back a generation on trial when the agent can't: it was killed, or it hangs.
//!
//! It is this program once more, in a session of its own, started by the agent with each trial. It polls the record of the
//! trial and ends with it. A while after the deadline it does what the next start of an agent does.

use std::{
    env, io,
    process::{Command, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use tokio::time::sleep;

use super::{
    Agent, Options, clock,
    error::AgentError,
    lock::{Lock, LockError},
    trial::TrialRecord,
};
use crate::{datapath, sys};

/// The name of the hidden command.
pub const COMMAND: &str = "watchdog";
/// How often the record is read.
const POLL: Duration = Duration::from_millis(500);
/// For an agent that lives to take it back itself.
const GRACE: Duration = Duration::from_secs(1);
/// An agent that has not done so by then hangs, and is killed.
const PATIENCE: Duration = Duration::from_secs(20);
/// What the watchdog may need of the agent's environment.
const ENVIRONMENT: [&str; 3] = ["PATH", "MPESA_FW_LOG", "JOURNAL_STREAM"];

/// Starts one.
///
/// # Errors
/// There is no such program any more, or no process to be had.
pub(super) fn spawn(options: &Options) -> io::Result<()> {
    // The file may have been replaced by an upgrade: this is the one that runs.
    let mut command = Command::new("/proc/self/exe");
    command.arg("--runtime-dir").arg(&options.runtime_dir).arg(COMMAND).args(options.arguments());
    command.env_clear().envs(ENVIRONMENT.iter().filter_map(|name| Some((*name, env::var_os(name)?))));
    command.stdin(Stdio::null()).stdout(Stdio::null());
    // Signals to the agent's session and group are not meant for it.
    sys::lead_a_session(&mut command);
    let mut child = command.spawn()?;
    // Somebody has to hear of its end. When this process ends first, init does.
    std::thread::Builder::new().name("watchdog".into()).stack_size(64 * 1024).spawn(move || child.wait())?;
    Ok(())
}

/// What became of the trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Somebody else ended it: it was confirmed, taken back, or replaced by another.
    Without,
    /// The watchdog took it back.
    TakenBack,
}

/// Waits for the end of the trial that is on file. `is_alive`: whether an agent answers, within seconds.
///
/// # Errors
/// It is to be taken back and can't be.
pub async fn watch(options: Options, is_alive: impl Fn() -> bool) -> Result<Ended, AgentError> {
    let store = TrialRecord::store(&options.state_dir);
    let Some(first) = store.read::<TrialRecord>() else { return Ok(Ended::Without) };
    let deadline = Duration::from_nanos(first.deadline);
    loop {
        // Another trial has another watchdog.
        let goes_on =
            store.read::<TrialRecord>().is_some_and(|now| !now.taken_back && now.deadline == first.deadline);
        if !goes_on {
            return Ok(Ended::Without);
        }
        let late = Duration::from_nanos(clock::since_boot()).saturating_sub(deadline);
        if late < GRACE {
            sleep(POLL).await;
            continue;
        }
        match Lock::directory(&options.runtime_dir) {
            // Detached without the agent: there is nothing to take back.
            Ok(_) if !datapath::is_in_force(&options.bpffs) => return Ok(Ended::Without),
            Ok(lock) => {
                tracing::warn!("no agent is left, and nobody confirmed what is on trial: it is taken back");
                Agent::start(options, None).await?;
                drop(lock);
                return Ok(Ended::TakenBack);
            }
            Err(LockError::Held { pid: Some(pid), .. }) if late > PATIENCE => {
                // One that answers lives: it tries again and again, or knows better than the file.
                if is_alive() {
                    sleep(POLL).await;
                    continue;
                }
                tracing::error!(
                    pid,
                    "the agent should have taken back what is on trial and did not: it is killed"
                );
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                sleep(POLL).await;
            }
            Err(LockError::Held { .. }) => sleep(POLL).await,
            Err(error) => return Err(error.into()),
        }
    }
}
