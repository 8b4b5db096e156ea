//! `mpesa-fw detach`

use std::path::Path;

use super::{arguments::BPFFS, failure::Failure, output::print};
use crate::{
    agent::Options,
    control::{Answer, Client, ClientError, Request},
    datapath,
};

/// Stops judging: by the agent, or from the pins where none answers.
pub(super) fn detach(runtime_dir: &Path, bpffs: Option<&Path>) -> Result<(), Failure> {
    let removed = match Client::new(&Options::control_socket(runtime_dir)).ask(Request::Detach) {
        Ok(Answer::Detached(removed)) => {
            let mut removed = removed;
            // The agent has pins of its own; others may be meant besides.
            if let Some(bpffs) = bpffs.filter(|bpffs| bpffs.is_dir()) {
                removed.extend(datapath::detach(bpffs)?);
            }
            removed
        }
        Ok(Answer::Status(_) | Answer::Events(_) | Answer::Reloaded(_)) => {
            return Err(Failure::internal("the agent answered another question"));
        }
        Err(ClientError::NotThere(_) | ClientError::Broken { .. }) => {
            datapath::detach(bpffs.unwrap_or(Path::new(BPFFS)))?
        }
        Err(error @ (ClientError::Forbidden { .. } | ClientError::Refused(_))) => return Err(error.into()),
    };
    if removed.is_empty() {
        return print("nothing was attached\n");
    }
    let lines: String = removed.iter().map(|what| format!("{what}\n")).collect();
    print(&format!("{lines}no packet is judged any more\n"))
}
