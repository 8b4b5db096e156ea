//! `mpesa-fw detach`

use std::{
    fs,
    io::ErrorKind,
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use super::{arguments::BPFFS, failure::Failure, output::print};
use crate::{
    agent::{
        Options,
        lock::{Lock, LockError},
    },
    control::{Answer, Client, ClientError, Request},
    datapath,
};

/// For an agent that has hung up to be gone: its lock goes a moment after its socket.
const GOING: Duration = Duration::from_secs(2);

/// Stops judging: by the agent, or from the pins where none has them.
pub(super) fn detach(runtime_dir: &Path, bpffs: Option<&Path>) -> Result<(), Failure> {
    let removed = match bpffs {
        // Pins that no agent has: the agent of `runtime_dir` is another one, and goes on.
        Some(pins) if !pins.is_dir() || Lock::directory(pins).is_ok() => from_pins(pins)?,
        _ => by_agent(runtime_dir, bpffs)?,
    };
    if removed.is_empty() {
        return print("nothing was attached\n");
    }
    let lines: String = removed.iter().map(|what| format!("{what}\n")).collect();
    print(&format!("{lines}no packet is judged any more\n"))
}

fn by_agent(runtime_dir: &Path, bpffs: Option<&Path>) -> Result<Vec<String>, Failure> {
    let pins = bpffs.unwrap_or(Path::new(BPFFS));
    let meant = bpffs.and_then(|pins| std::path::absolute(pins).ok());
    match Client::new(&Options::control_socket(runtime_dir)).ask(Request::Detach { bpffs: meant }) {
        Ok(Answer::Detached(removed)) => Ok(removed),
        Ok(_) => Err(Failure::another_answer()),
        Err(ClientError::NotThere(_) | ClientError::Broken { .. }) => from_pins(pins),
        Err(error @ (ClientError::Forbidden { .. } | ClientError::Refused(_))) => Err(error.into()),
    }
}

/// Under the lock of an agent: two that change hooks at a time would leave half of them. A directory that can't be read
/// is not one without pins.
fn from_pins(bpffs: &Path) -> Result<Vec<String>, Failure> {
    if let Err(error) = fs::read_dir(bpffs)
        && error.kind() == ErrorKind::PermissionDenied
    {
        return Err(Failure::system(
            format!("cannot read the pins in {}: {error}", bpffs.display()),
            "run this as root",
        ));
    }
    let _lock = if bpffs.is_dir() { Some(lock(bpffs)?) } else { None };
    Ok(datapath::detach(bpffs)?)
}

fn lock(bpffs: &Path) -> Result<Lock, Failure> {
    let deadline = Instant::now() + GOING;
    loop {
        match Lock::directory(bpffs) {
            Ok(lock) => return Ok(lock),
            Err(LockError::Held { .. }) if Instant::now() < deadline => sleep(Duration::from_millis(50)),
            Err(error @ LockError::Held { .. }) => {
                return Err(Failure::system(
                    format!("nothing was detached: {error}, and it does not answer"),
                    "if it has another --runtime-dir, say which; if it hangs, end it so that nobody starts it again \
                     (`systemctl stop mpesa-fw`; without systemd `kill -KILL` that process) and repeat this. One that goes on \
                     by itself detaches then, as it was asked to",
                ));
            }
            Err(error) => return Err(crate::agent::AgentError::from(error).into()),
        }
    }
}
