//! The command line's end of the socket.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use super::protocol::{Answer, Call, LINE_LIMIT, Line, Refusal, Reply, Request, VERSION};

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
        let patience = if matches!(request, Request::Detach { .. }) { PATIENCE_TO_DETACH } else { PATIENCE };
        self.ask_within(request, patience)
    }

    /// As [`ask`](Self::ask), and waits no longer than that for each step.
    ///
    /// # Errors
    /// There is no answer in time, or it is no.
    pub fn ask_within(&self, request: Request, patience: Duration) -> Result<Answer, ClientError> {
        self.converse(request, patience).map(|(answer, _)| answer)
    }

    /// Asks for what does not end by itself, and waits for the beginning.
    ///
    /// # Errors
    /// There is none, or the answer is no.
    pub fn follow(&self, request: Request) -> Result<(Answer, Stream), ClientError> {
        let (answer, reader) = self.converse(request, PATIENCE)?;
        reader.get_ref().set_read_timeout(None).map_err(|error| self.broken(error))?;
        Ok((answer, Stream { reader, client: self.clone() }))
    }

    fn converse(
        &self,
        request: Request,
        patience: Duration,
    ) -> Result<(Answer, BufReader<UnixStream>), ClientError> {
        let stream = UnixStream::connect(&self.path).map_err(|error| self.not_connected(error))?;
        patient(&stream, patience).map_err(|error| self.broken(error))?;
        let mut reader = BufReader::new(stream);
        let reply = exchange_on(&mut reader, request).map_err(|error| self.broken(error))?;
        if reply.version != VERSION {
            let why =
                format!("it speaks version {} of the control socket, this client {VERSION}", reply.version);
            return Err(self.broken(io::Error::other(why)));
        }
        let answer = reply.outcome.map_err(ClientError::Refused)?;
        Ok((answer, reader))
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

/// What follows an answer that does not end by itself.
pub struct Stream {
    reader: BufReader<UnixStream>,
    client: Client,
}

impl Stream {
    /// Waits for the next line.
    ///
    /// # Errors
    /// The agent is gone, or talks nonsense.
    pub fn next_line(&mut self) -> Result<Line, ClientError> {
        let line = read_line(&mut self.reader).and_then(|line| match line.as_slice() {
            [] => Err(io::Error::other(
                "it hung up in the middle: it was killed, or nothing was read here for half a minute",
            )),
            line => Ok(serde_json::from_slice(line)?),
        });
        line.map_err(|error| self.client.broken(error))
    }

    /// A handle by which another thread can end it.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn hang_up(&self) -> io::Result<HangUp> {
        self.reader.get_ref().try_clone().map(HangUp)
    }
}

/// Ends a [`Stream`].
pub struct HangUp(UnixStream);

impl HangUp {
    /// Asks the agent to come to an end: what it has to tell still comes, then [`Line::Ended`]. An agent that does not answer
    /// is not waited for longer than `patience`, and the call takes that long.
    pub fn ask(&self, patience: Option<Duration>) {
        // It may be gone, and the stream with it.
        let _ = self.0.shutdown(Shutdown::Write);
        if let Some(patience) = patience {
            std::thread::sleep(patience);
            let _ = self.0.shutdown(Shutdown::Both);
        }
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
pub fn exchange(stream: impl Read + Write, request: Request) -> io::Result<Reply> {
    exchange_on(&mut BufReader::new(stream), request)
}

fn exchange_on(reader: &mut BufReader<impl Read + Write>, request: Request) -> io::Result<Reply> {
    let mut line = serde_json::to_vec(&Call { version: VERSION, request })?;
    line.push(b'\n');
    // An agent that answers no question of this user hangs up before it has read one, and has said why.
    let sent = reader.get_mut().write_all(&line);
    let heard = read_line(reader);
    match heard {
        Ok(answer) if !answer.is_empty() => Ok(serde_json::from_slice(&answer)?),
        heard => {
            sent.and(heard.map(drop))?;
            Err(io::Error::other("it hung up without an answer; its log says why"))
        }
    }
}

fn read_line(reader: &mut BufReader<impl Read>) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    reader.take(16 * LINE_LIMIT as u64).read_until(b'\n', &mut line)?;
    Ok(line)
}
