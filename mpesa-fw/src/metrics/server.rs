//! `/metrics`, `/healthz`, `/readyz`. Any local user may ask: a client costs one of a few places for a few seconds, who
//! says nothing loses it to the next, and the kernel is asked a few times a second at most, so that nobody keeps the agent
//! from its work, nor idle clients Prometheus from its counts. One who connects without end does, as on any port: then the scrape fails,
//! which is an alert of its own.

use std::{
    any::Any,
    collections::VecDeque,
    future::{Future, pending},
    io,
    net::{SocketAddr, TcpListener},
    panic::{AssertUnwindSafe, resume_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context as Waker, Poll},
    time::Duration,
};

use anyhow::Context as _;
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use futures_util::FutureExt as _;
use prometheus::{Registry, TextEncoder};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::{Sleep, sleep},
};

use super::AgentCollector;
use crate::agent::{Agent, beside};

/// Clients at the same time.
const CLIENTS: usize = 16;
/// How long a connection may last: a scrape takes milliseconds, and Prometheus gives up after 10 s unless told otherwise.
const PATIENCE: Duration = Duration::from_secs(10);
/// Before an address that could not be had is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// Between one look at the kernel and the next.
const PAUSE: Duration = Duration::from_millis(100);

#[derive(Clone)]
struct Shared {
    agent: Arc<Agent>,
    registry: Registry,
    turns: Turns,
}

/// What a thread panicked with.
type Panic = Box<dyn Any + Send>;

/// Of whoever asks the kernel, one at a time.
#[derive(Clone)]
struct Turns {
    turn: Arc<Semaphore>,
    /// Hears of panics, which end the agent.
    defects: mpsc::UnboundedSender<Panic>,
}

impl Turns {
    fn new() -> (Self, mpsc::UnboundedReceiver<Panic>) {
        let (defects, heard) = mpsc::unbounded_channel();
        (Self { turn: Arc::new(Semaphore::new(1)), defects }, heard)
    }

    /// Runs `f` when it is its turn, on a thread that may block.
    async fn take<R: Send + 'static>(&self, f: impl FnOnce() -> R + Send + 'static) -> R {
        let turn = Arc::clone(&self.turn).acquire_owned().await;
        let (answer, answered) = oneshot::channel();
        let defects = self.defects.clone();
        // A task of its own: the turn goes on where the client goes away meanwhile.
        tokio::spawn(async move {
            match AssertUnwindSafe(beside(f)).catch_unwind().await {
                Ok(result) => drop(answer.send(result)),
                Err(panic) => drop(defects.send(panic)),
            }
            sleep(PAUSE).await;
            drop(turn);
        });
        match answered.await {
            Ok(result) => result,
            Err(_) => pending().await, // a defect: the agent ends
        }
    }
}

/// Takes a few clients at a time. Where all places are taken the oldest client loses its own, so that idle connections
/// don't keep a scrape waiting, however many there are.
struct Bounded {
    listener: tokio::net::TcpListener,
    places: Arc<Semaphore>,
    /// To send a client away; the oldest first. Some are gone already.
    clients: VecDeque<oneshot::Sender<()>>,
}

impl Bounded {
    fn new(listener: tokio::net::TcpListener) -> Self {
        Self { listener, places: Arc::new(Semaphore::new(CLIENTS)), clients: VecDeque::new() }
    }

    fn make_room(&mut self) {
        self.clients.retain(|client| !client.is_closed());
        if self.places.available_permits() == 0
            && let Some(oldest) = self.clients.pop_front()
        {
            let _ = oldest.send(()); // or it has gone meanwhile
        }
    }
}

impl axum::serve::Listener for Bounded {
    type Io = Client;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Client, SocketAddr) {
        let (stream, address) = axum::serve::Listener::accept(&mut self.listener).await;
        self.make_room();
        let Ok(place) = Arc::clone(&self.places).acquire_owned().await else {
            return pending().await; // never closed
        };
        let (send_away, sent_away) = oneshot::channel();
        self.clients.push_back(send_away);
        (Client { stream, end: Box::pin(sleep(PATIENCE)), sent_away, is_over: false, _place: place }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that ends after a while, or to make room, whatever the client does.
struct Client {
    stream: TcpStream,
    end: Pin<Box<Sleep>>,
    sent_away: oneshot::Receiver<()>,
    is_over: bool,
    _place: OwnedSemaphorePermit,
}

impl Client {
    fn stream(&mut self, waker: &mut Waker<'_>) -> io::Result<Pin<&mut TcpStream>> {
        if !self.is_over {
            let is_late = self.end.as_mut().poll(waker).is_ready();
            self.is_over = is_late || Pin::new(&mut self.sent_away).poll(waker).is_ready();
        }
        if self.is_over {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(Pin::new(&mut self.stream))
    }
}

impl AsyncRead for Client {
    fn poll_read(
        mut self: Pin<&mut Self>,
        waker: &mut Waker<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream(waker)?.poll_read(waker, buffer)
    }
}

impl AsyncWrite for Client {
    fn poll_write(mut self: Pin<&mut Self>, waker: &mut Waker<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stream(waker)?.poll_write(waker, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, waker: &mut Waker<'_>) -> Poll<io::Result<()>> {
        self.stream(waker)?.poll_flush(waker)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, waker: &mut Waker<'_>) -> Poll<io::Result<()>> {
        self.stream(waker)?.poll_shutdown(waker)
    }
}

/// Serves until cancelled. An address that can't be had is tried again and again, and the log and `status` say so: any user may take a
/// port above 1023 while no agent has it, which must keep no host without a firewall.
pub async fn keep_serving(address: SocketAddr, first: io::Result<TcpListener>, agent: Arc<Agent>) {
    let mut listener = first;
    loop {
        let why = match listener {
            Ok(listener) => {
                if agent.note_metrics(None) {
                    tracing::info!(%address, "metrics are served again");
                }
                match serve(listener, Arc::clone(&agent)).await {
                    Ok(()) => "the server ended".to_owned(),
                    Err(error) => format!("{error:#}"),
                }
            }
            Err(error) => {
                let help = if error.kind() == io::ErrorKind::AddrInUse {
                    "another program has that port (`ss -ltnp` shows which), and what it answers there is not of this firewall"
                } else if error.kind() == io::ErrorKind::AddrNotAvailable {
                    "this host has no such address (yet)"
                } else {
                    "choose another address with --metrics ADDRESS:PORT"
                };
                format!("{error}; {help}")
            }
        };
        let why = format!("metrics are not served on {address}: {why}");
        if agent.note_metrics(Some(why.clone())) {
            tracing::error!("{why}; tried again every second");
        }
        sleep(AGAIN).await;
        listener = TcpListener::bind(address);
    }
}

async fn serve(listener: TcpListener, agent: Arc<Agent>) -> anyhow::Result<()> {
    let registry = Registry::new();
    registry
        .register(Box::new(AgentCollector::new(Arc::clone(&agent))?))
        .context("metrics are not well-formed")?;
    let (turns, mut defects) = Turns::new();
    let routes = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(Shared { agent, registry, turns });
    listener.set_nonblocking(true).context("cannot use the socket for metrics")?;
    let listener =
        tokio::net::TcpListener::from_std(listener).context("cannot use the socket for metrics")?;
    tokio::select! {
        served = async { axum::serve(Bounded::new(listener), routes).await } => {
            served.context("the server for metrics ended")
        }
        Some(panic) = defects.recv() => resume_unwind(panic), // wherever it shows
    }
}

async fn metrics(State(shared): State<Shared>) -> Response {
    let registry = shared.registry.clone();
    let text = shared.turns.take(move || TextEncoder::new().encode_to_string(&registry.gather())).await;
    match text {
        Ok(text) if !text.is_empty() => ([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Ok(_) => (StatusCode::INTERNAL_SERVER_ERROR, "the counts can't be read; the log says why\n")
            .into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// Ready: every interface that the policy names is protected.
async fn ready(State(shared): State<Shared>) -> Response {
    let agent = Arc::clone(&shared.agent);
    if shared.turns.take(move || agent.is_ready()).await {
        return "ready\n".into_response();
    }
    (
        StatusCode::SERVICE_UNAVAILABLE,
        "not every interface of the policy is protected: see `mpesa-fw status`\n",
    )
        .into_response()
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpStream as StdStream,
        time::Instant,
    };

    use super::*;

    /// Many more than there are places; half of them begin to ask and don't go on.
    const IDLE: usize = 200;

    #[test]
    fn idle_clients_keep_nobody_waiting() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("it is bound");
            let routes = Router::new().route("/healthz", get(|| async { "ok\n" }));
            let client = tokio::task::spawn_blocking(move || {
                let idle: Vec<StdStream> = (0..IDLE).map(|n| connect(address, n % 2 == 0)).collect();
                let start = Instant::now();
                let mut asking = connect(address, false);
                asking
                    .write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                    .expect("sent");
                let mut answer = String::new();
                asking.read_to_string(&mut answer).expect("an answer");
                assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
                drop(idle);
                start.elapsed()
            });
            tokio::select! {
                served = async { axum::serve(Bounded::new(listener), routes).await } => panic!("{served:?}"),
                waited = client => assert!(waited.expect("it ends") < PATIENCE / 2),
            }
        });
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_defect_is_heard_of_and_takes_no_turn_from_others() {
        let (turns, mut defects) = Turns::new();
        let asking = turns.clone();
        let hangs = tokio::spawn(async move { asking.take(|| panic!("a defect")).await });
        let panic = defects.recv().await.expect("it was said");
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"a defect"));
        assert_eq!(turns.take(|| 7).await, 7);
        hangs.abort();
    }

    fn connect(address: SocketAddr, begins: bool) -> StdStream {
        let mut stream = StdStream::connect(address).expect("connected");
        if begins {
            stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: ").expect("sent");
        }
        stream
    }
}
