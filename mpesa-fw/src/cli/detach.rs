//! `mpesa-fw detach`

use std::{fs, io::ErrorKind, path::Path};

use super::{arguments::BPFFS, failure::Failure, output::print};
use crate::{
    agent::{Options, lock::Lock},
    control::{Answer, Client, ClientError, Request},
    datapath,
};

/// Stops judging: by the agent, or from the pins where none answers.
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
        Ok(Answer::Status(_) | Answer::Events(_) | Answer::Reloaded(_)) => {
            Err(Failure::internal("the agent answered another question"))
        }
        Err(ClientError::NotThere(_) | ClientError::Broken { .. }) => from_pins(pins),
        Err(error @ (ClientError::Forbidden { .. } | ClientError::Refused(_))) => Err(error.into()),
    }
}

/// A directory that can't be read is not one without pins.
fn from_pins(bpffs: &Path) -> Result<Vec<String>, Failure> {
    if let Err(error) = fs::read_dir(bpffs)
        && error.kind() == ErrorKind::PermissionDenied
    {
        return Err(Failure::system(
            format!("cannot read the pins in {}: {error}", bpffs.display()),
            "run this as root",
        ));
    }
    Ok(datapath::detach(bpffs)?)
}
