//! The agent answers. A client that hangs, floods or talks nonsense costs one of a few places for a few seconds.

use std::{
    os::fd::{AsFd, AsRawFd},
    sync::Arc,
    time::Duration,
};

use nix::{
    sys::socket::{MsgFlags, getsockopt, send, sockopt::PeerCredentials},
    unistd::geteuid,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::timeout,
};

use super::{
    Listener, follow,
    protocol::{Answer, Call, LINE_LIMIT, Refusal, Reply, Request, VERSION},
};
use crate::agent::{Agent, Asked, Depth, EventRecord, Following, Kind, ReloadRequest, Status, Wanted};

/// Clients at the same time.
const CLIENTS: usize = 16;
/// For a client to say what it wants, and to take the answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whoever answers requests.
pub trait Answers: Send + Sync + 'static {
    /// Answers one.
    fn answer(self: Arc<Self>, request: Request) -> impl Future<Output = Result<Answer, Refusal>> + Send;

    /// Answers [`Request::Follow`]: the last events, and those to come.
    ///
    /// # Errors
    /// There is no such event, or no room.
    fn follow(
        &self,
        _last: usize,
        _wanted: Option<Wanted>,
        _frames: Option<Depth>,
    ) -> Result<(Vec<EventRecord>, Following), Refusal> {
        Err(Refusal { kind: Kind::Refused, message: "nothing is to be followed here".into(), help: None })
    }
}

/// Serves until cancelled. `detached` hears of it when the datapath was detached and the answer was sent.
///
/// # Errors
/// The socket can't be used.
pub async fn serve<A: Answers>(
    listener: &Listener,
    agent: Arc<A>,
    detached: mpsc::Sender<()>,
) -> std::io::Result<()> {
    let socket = UnixListener::from_std(listener.socket.try_clone()?)?;
    let places = Arc::new(Semaphore::new(CLIENTS));
    let mut clients = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            Some(ended) = clients.join_next() => {
                if let Err(error) = ended && let Ok(panic) = error.try_into_panic() {
                    std::panic::resume_unwind(panic); // a defect ends the agent, wherever it shows
                }
                continue;
            }
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // No file descriptors left, most likely: give some time to come back.
                tracing::error!(%error, "a client of the control socket could not be accepted");
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        if let Err(why) = may_ask(&stream) {
            tracing::warn!(%why, "a client of the control socket was refused");
            send_away(&stream, why);
            continue;
        }
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tracing::warn!("too many clients of the control socket at the same time: one was sent away");
            continue;
        };
        let (agent, detached) = (Arc::clone(&agent), detached.clone());
        clients.spawn(async move {
            if let Err(error) = attend(stream, agent, detached, place).await {
                tracing::debug!(%error, "a client of the control socket went away");
            }
        });
    }
}

/// Root, and the user that the agent runs as. The kernel vouches for the peer (`SO_PEERCRED`).
fn may_ask(stream: &UnixStream) -> Result<(), String> {
    let peer = getsockopt(&stream.as_fd(), PeerCredentials).map_err(|error| error.to_string())?;
    if peer.uid() == 0 || peer.uid() == geteuid().as_raw() {
        return Ok(());
    }
    Err(format!("user {} (process {}) may not talk to the agent", peer.uid(), peer.pid()))
}

/// Tells a stranger why, without reading what it asks and without waiting for it: it costs none of the places.
fn send_away(stream: &UnixStream, message: String) {
    let refusal = Refusal { kind: Kind::Failed, message, help: Some("run this as root".into()) };
    let Ok(mut reply) = serde_json::to_vec(&Reply { version: VERSION, outcome: Err(refusal) }) else {
        return;
    };
    reply.push(b'\n');
    // The buffer of a new connection has room for it. A stranger that is gone needs no answer.
    let _ = send(stream.as_raw_fd(), &reply, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL);
}

/// Attends to one client, over the socket or what stands in its place: one line is read and one is written. `place` is given
/// back when that is done; who follows events after that has a place among the followers.
///
/// # Errors
/// The client hangs, or is gone.
pub async fn attend<A: Answers, P>(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    agent: Arc<A>,
    detached: mpsc::Sender<()>,
    place: P,
) -> std::io::Result<()> {
    let mut line = Vec::new();
    let limit = LINE_LIMIT as u64 + 1;
    let mut reader = BufReader::new((&mut stream).take(limit));
    timeout(PATIENCE, reader.read_until(b'\n', &mut line)).await??;
    if line.is_empty() {
        return Ok(()); // somebody looked whether an agent answers
    }
    let mut following = None;
    let outcome = match request(&line) {
        Ok(Request::Follow { last, wanted, frames }) => {
            agent.follow(last, wanted, frames).map(|(last, rest)| {
                following = Some(rest);
                Answer::Following(last)
            })
        }
        Ok(request) => agent.answer(request).await,
        Err(refusal) => Err(refusal),
    };
    let ends = matches!(outcome, Ok(Answer::Detached(_)));
    let mut reply = serde_json::to_vec(&Reply { version: VERSION, outcome })?;
    reply.push(b'\n');
    if let Some(following) = following {
        timeout(PATIENCE, stream.write_all(&reply)).await??;
        drop(place);
        return follow::tell(stream, following).await;
    }
    let sent = timeout(PATIENCE, async {
        stream.write_all(&reply).await?;
        stream.shutdown().await
    })
    .await;
    if ends {
        let _ = detached.send(()).await;
    }
    sent??;
    Ok(())
}

fn request(line: &[u8]) -> Result<Request, Refusal> {
    let no =
        |message: String, help: &str| Refusal { kind: Kind::Invalid, message, help: Some(help.to_owned()) };
    if line.len() > LINE_LIMIT {
        return Err(no(
            format!("a request is longer than {LINE_LIMIT} bytes"),
            "use `mpesa-fw` to talk to the agent",
        ));
    }
    // The version first: a newer client may ask for what this agent does not know.
    #[derive(serde::Deserialize)]
    struct Version {
        version: u32,
    }
    let version = serde_json::from_slice::<Version>(line).map_err(|error| {
        no(format!("a request can't be understood: {error}"), "use `mpesa-fw` to talk to the agent")
    })?;
    if version.version != VERSION {
        return Err(no(
            format!(
                "the client speaks version {} of the control socket, this agent {VERSION}",
                version.version
            ),
            "use the `mpesa-fw` that belongs to the agent, or restart the agent",
        ));
    }
    let call: Call = serde_json::from_slice(line).map_err(|error| {
        no(format!("a request can't be understood: {error}"), "use `mpesa-fw` to talk to the agent")
    })?;
    Ok(call.request)
}

impl Answers for Agent {
    async fn answer(self: Arc<Self>, request: Request) -> Result<Answer, Refusal> {
        match request {
            Request::Status => {
                let snapshot = self.snapshot_beside().await?;
                let trial = self.trial_status().await;
                let callers = self.last_callers().await;
                Ok(Answer::Status(Box::new(Status::new(snapshot, trial, callers))))
            }
            Request::Reload { rules, force, caller, confirm_within } => {
                let policy = rules.map_or(Asked::SameFile, Asked::File);
                let confirm_within = confirm_within.map(Duration::from_secs);
                let request = ReloadRequest { policy, force, caller, confirm_within };
                Ok(Answer::Reloaded(Box::new(self.reload(request).await?)))
            }
            Request::Rollback { generation, force, caller, confirm_within } => {
                let policy = generation.map_or(Asked::Back, Asked::Generation);
                let confirm_within = confirm_within.map(Duration::from_secs);
                let request = ReloadRequest { policy, force, caller, confirm_within };
                Ok(Answer::Reloaded(Box::new(self.reload(request).await?)))
            }
            Request::Confirm { generation } => {
                Ok(Answer::Confirmed(Box::new(self.confirm(generation).await?)))
            }
            Request::Trial => Ok(Answer::Trial(self.trial_status().await.map(Box::new))),
            Request::Generations => Ok(Answer::Generations(self.generations().await)),
            Request::Why(question) => Ok(Answer::Why(Box::new(self.why(*question).await?))),
            Request::Judge(batch) => Ok(Answer::Judged(Box::new(self.judge_frames(*batch).await?))),
            Request::Diff(request) => Ok(Answer::Difference(Box::new(self.difference(request).await?))),
            Request::Events { last, wanted } => {
                Ok(Answer::Events(self.last_events(last, &wanted.unwrap_or_default())?))
            }
            // Without a stream to follow them in.
            Request::Follow { last, wanted, frames: _ } => {
                Ok(Answer::Following(self.last_events(last, &wanted.unwrap_or_default())?))
            }
            Request::Audit { since, rule } => {
                Ok(Answer::Audit(Box::new(self.egress_audit(since, rule).await?)))
            }
            Request::Listeners => Ok(Answer::Listeners(self.listeners().await?.bounded())),
            Request::Detach { bpffs } => Ok(Answer::Detached(self.detach(bpffs.as_deref()).await?)),
        }
    }

    fn follow(
        &self,
        last: usize,
        wanted: Option<Wanted>,
        frames: Option<Depth>,
    ) -> Result<(Vec<EventRecord>, Following), Refusal> {
        Ok(self.follow_events(last, &wanted.unwrap_or_default(), frames)?)
    }
}

#[cfg(test)]
#[expect(clippy::wildcard_enum_match_arm, reason = "what else can be asked does not matter here")]
mod tests {
    use super::*;
    use crate::control::{Client, ClientError};
    use std::{
        io::{Read, Write},
        os::unix::net::UnixStream as StdStream,
        path::{Path, PathBuf},
    };

    const EVENTS: Request = Request::Events { last: 0, wanted: None };
    const DEFECT: Request = Request::Events { last: 13, wanted: None };

    struct Echo;

    impl Answers for Echo {
        async fn answer(self: Arc<Self>, request: Request) -> Result<Answer, Refusal> {
            match request {
                Request::Events { last: 0, .. } => Ok(Answer::Events(Vec::new())),
                Request::Detach { .. } => Ok(Answer::Detached(vec!["eth0".into()])),
                Request::Events { last: 13, .. } => panic!("a defect"),
                _ => Err(Refusal { kind: Kind::Refused, message: "no".into(), help: None }),
            }
        }
    }

    /// Runs a server, and `client` on a thread beside it.
    fn with_server<R: Send + 'static>(client: impl FnOnce(&Path) -> R + Send + 'static) -> R {
        let dir = tempfile::tempdir().unwrap();
        let path: PathBuf = dir.path().join("control.sock");
        let listener = Listener::bind(&path).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let (detached, _ended) = mpsc::channel(1);
            let client = tokio::task::spawn_blocking(move || client(&path));
            tokio::select! {
                served = serve(&listener, Arc::new(Echo), detached) => panic!("{served:?}"),
                answer = client => answer.unwrap(),
            }
        })
    }

    fn raw(path: &Path, bytes: &[u8]) -> String {
        let mut stream = StdStream::connect(path).unwrap();
        // The server may hang up before it has read everything.
        let _ = stream.write_all(bytes);
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    }

    #[test]
    fn requests_are_answered() {
        with_server(|path| {
            let client = Client::new(path);
            assert_eq!(client.ask(EVENTS).unwrap(), Answer::Events(Vec::new()));
            assert_eq!(
                client.ask(Request::Detach { bpffs: None }).unwrap(),
                Answer::Detached(vec!["eth0".into()])
            );
            assert!(matches!(client.ask(Request::Status), Err(ClientError::Refused(r)) if r.message == "no"));
        });
    }

    #[test]
    fn nonsense_is_answered_and_does_no_harm() {
        with_server(|path| {
            assert!(raw(path, b"garbage\n").contains("can't be understood"));
            assert!(raw(path, b"\xff\xfe\x00\n").contains("can't be understood"));
            assert!(raw(path, b"{\"version\":1,\"request\":\"explode\"}\n").contains("can't be understood"));
            assert!(raw(path, b"{\"version\":99,\"request\":\"status\"}\n").contains("version 99"));
            assert!(Client::new(path).ask(EVENTS).is_ok());
        });
    }

    #[test]
    fn a_line_without_end_is_cut() {
        with_server(|path| {
            let answer = raw(path, &vec![b'['; LINE_LIMIT + 4096]);
            assert!(answer.is_empty() || answer.contains("longer than"), "{answer}");
            assert!(Client::new(path).ask(EVENTS).is_ok());
        });
    }

    #[test]
    fn clients_that_hang_are_bounded_and_let_go() {
        with_server(|path| {
            let hanging: Vec<StdStream> = (0..CLIENTS).map(|_| StdStream::connect(path).unwrap()).collect();
            std::thread::sleep(Duration::from_millis(200));
            assert!(Client::new(path).ask(EVENTS).is_err(), "every place is taken");
            std::thread::sleep(PATIENCE);
            assert!(Client::new(path).ask(EVENTS).is_ok(), "they were let go");
            drop(hanging);
        });
    }

    #[test]
    #[should_panic(expected = "a defect")]
    fn a_defect_ends_the_agent() {
        with_server(|path| {
            let _ = Client::new(path).ask(DEFECT);
            std::thread::sleep(Duration::from_secs(1));
        });
    }
}
