//! The command line's end of the socket.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use super::protocol::{Answer, Call, LINE_LIMIT, Refusal, Reply, Request, VERSION};

/// A reload of a million prefixes takes seconds, and may stand behind another.
const PATIENCE: Duration = Duration::from_secs(120);
/// Whoever wants the firewall off has no time for an agent that hangs.
const PATIENCE_TO_DETACH: Duration = Duration::from_secs(20);

/// Asks the agent.
#[derive(Clone, Debug)]
pub struct Client {
    path: PathBuf,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No agent listens there.
    #[error("no agent answers on {}", .0.display())]
    NotThere(PathBuf),
    /// This user may not ask.
    #[error("user {uid} may not talk to the agent on {}", .path.display())]
    Forbidden {
        /// The socket.
        path: PathBuf,
        /// Who asked.
        uid: u32,
    },
    /// The agent hung up, hangs, or talks nonsense.
    #[error("the agent on {} did not answer: {source}", .path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// The agent says no.
    #[error("{}", .0.message)]
    Refused(Refusal),
}

impl Client {
    /// Will ask on `path`.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.into() }
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// There is none, or it is no.
    pub fn ask(&self, request: Request) -> Result<Answer, ClientError> {
        let stream = UnixStream::connect(&self.path).map_err(|error| self.not_connected(error))?;
        let patience = if matches!(request, Request::Detach { .. }) { PATIENCE_TO_DETACH } else { PATIENCE };
        let reply = patient(&stream, patience).and_then(|()| exchange(&stream, request));
        let reply = reply.map_err(|error| self.broken(error))?;
        if reply.version != VERSION {
            let why =
                format!("it speaks version {} of the control socket, this client {VERSION}", reply.version);
            return Err(self.broken(io::Error::other(why)));
        }
        reply.outcome.map_err(ClientError::Refused)
    }

    fn not_connected(&self, error: io::Error) -> ClientError {
        let path = self.path.clone();
        if error.kind() == io::ErrorKind::PermissionDenied {
            return ClientError::Forbidden { path, uid: nix::unistd::geteuid().as_raw() };
        }
        if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) {
            return ClientError::NotThere(path);
        }
        self.broken(error)
    }

    fn broken(&self, source: io::Error) -> ClientError {
        ClientError::Broken { path: self.path.clone(), source }
    }
}

fn patient(stream: &UnixStream, patience: Duration) -> io::Result<()> {
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))
}

/// Asks over the socket, or what stands in its place: one line is written and one is read.
///
/// # Errors
/// The other side hangs, is gone, or talks nonsense.
pub fn exchange(mut stream: impl Read + Write, request: Request) -> io::Result<Reply> {
    let mut line = serde_json::to_vec(&Call { version: VERSION, request })?;
    line.push(b'\n');
    // An agent that answers no question of this user hangs up before it has read one, and has said why.
    let sent = stream.write_all(&line);
    let mut answer = Vec::new();
    let heard = BufReader::new(stream).take(16 * LINE_LIMIT as u64).read_until(b'\n', &mut answer);
    if answer.is_empty() {
        sent.and(heard)?;
        return Err(io::Error::other("it hung up without an answer; its log says why"));
    }
    Ok(serde_json::from_slice(&answer)?)
}
