//! Target `control`: what a client sends to the agent, and what an agent answers. The first byte says who talks, and in
//! pieces of what size; the rest is what is on the wire, after which the sender hangs up.

use std::{
    io::{self, Read, Write},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use mpesa_fw::agent::{Depth, EventRecord, Following, Kind, Wanted};
use mpesa_fw::control::{Answer, Answers, LINE_LIMIT, Refusal, Reply, Request, VERSION, attend, exchange};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    runtime::{Builder, Runtime},
    sync::mpsc,
};

/// Of the first byte: an agent talks, not a client.
const AGENT: u8 = 0x80;
/// Of the first byte: what is sent is sent again and again, without an end.
const ENDLESS: u8 = 0x40;
/// What a reader may take beyond the line that it reads: a buffer.
const READ_AHEAD: usize = 16 << 10;
/// Longest answer that a client takes.
const ANSWER_LIMIT: usize = 16 * LINE_LIMIT;

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
}

pub fn run(data: &[u8]) {
    let Some((shape, bytes)) = data.split_first() else {
        return;
    };
    let chunk = [1, 7, 64, 4096][usize::from(shape & 3)];
    let endless = shape & ENDLESS != 0 && !bytes.is_empty();
    let chunk = if endless { 4096 } else { chunk };
    // So that a piece is not one byte.
    let sent = if endless { bytes.repeat(4096usize.div_ceil(bytes.len())) } else { bytes.to_vec() };
    let peer = Peer { bytes: sent, sent: 0, chunk, endless, heard: Vec::new() };
    if shape & AGENT == 0 { client(peer, bytes) } else { agent(peer, bytes) }
}

/// A client says something to the server.
fn client(mut peer: Peer, said: &[u8]) {
    let asked = Arc::new(Asked::default());
    let (detached, mut ended) = mpsc::channel(1);
    let done = RUNTIME.with(|runtime| runtime.block_on(attend(&mut peer, Arc::clone(&asked), detached, ())));
    assert!(peer.sent <= LINE_LIMIT + READ_AHEAD, "{} bytes were read", peer.sent);
    let line = peer.first_line(LINE_LIMIT + 1);
    let asked = asked.0.lock().expect("nobody panics with it").take();
    if line.is_empty() {
        assert!(done.is_ok() && peer.heard.is_empty() && asked.is_none());
        return;
    }
    done.expect("the client is there until the end");
    let reply = only_line(&peer.heard);
    assert_eq!(reply.version, VERSION);
    // A second opinion on what was asked: the same bytes as JSON without a form.
    let json = serde_json::from_slice::<Value>(&line).ok().filter(|_| line.len() <= LINE_LIMIT);
    match (&asked, reply.outcome) {
        (Some(request), outcome) => {
            let json = json.expect("what is no JSON asks for nothing");
            assert_eq!(json["version"], VERSION);
            assert_eq!(json.as_object().map(serde_json::Map::len), Some(2), "{json}");
            let meant = serde_json::to_value(request).expect("it came out of JSON");
            assert!(says(&json["request"], &meant), "{json}, but {request:?}");
            assert_eq!(matches!(outcome, Ok(Answer::Detached(_))), ended.try_recv().is_ok());
        }
        (None, Ok(answer)) => panic!("{answer:?} to nothing"),
        (None, Err(refusal)) => {
            assert!(refusal.help.is_some() && !refusal.message.is_empty());
            assert!(refusal.message.chars().count() < 1000, "a long answer to {} bytes", said.len());
            assert!(!refusal.message.contains('\x1b'), "{refusal:?}");
        }
    }
}

/// An agent answers a client.
fn agent(mut peer: Peer, said: &[u8]) {
    let reply = exchange(&mut peer, Request::Status);
    assert!(peer.sent <= ANSWER_LIMIT + READ_AHEAD, "{} bytes were read", peer.sent);
    let asked = String::from_utf8(peer.heard.clone()).expect("JSON");
    assert_eq!(asked, format!("{{\"version\":{VERSION},\"request\":\"status\"}}\n"));
    match reply {
        Ok(reply) => {
            let again = serde_json::to_vec(&reply).expect("it came out of JSON");
            let back: Reply = serde_json::from_slice(&again).expect("what we write we read");
            assert_eq!(serde_json::to_vec(&back).expect("likewise"), again);
            assert_eq!(format!("{:?}", back.outcome), format!("{:?}", reply.outcome));
        }
        Err(error) => assert!(error.to_string().chars().count() < 1000, "{} bytes: {error}", said.len()),
    }
}

/// Whether every word of `json` is in what it was taken for. A key that is left out is null there; serde takes a list
/// for the fields in their order, and `{"status": null}` for `"status"`.
fn says(json: &Value, meant: &Value) -> bool {
    match (json, meant) {
        (Value::Object(json), Value::Object(meant)) => {
            json.iter().all(|(key, value)| meant.get(key).is_some_and(|meant| says(value, meant)))
                && meant.iter().all(|(key, value)| json.contains_key(key) || value.is_null())
        }
        (Value::Array(json), Value::Object(meant)) => {
            json.len() == meant.len()
                && json.iter().all(|value| meant.values().any(|meant| says(value, meant)))
        }
        (Value::Object(json), Value::String(meant)) => {
            json.len() == 1 && json.get(meant).is_some_and(Value::is_null)
        }
        (json, meant) => json == meant,
    }
}

fn only_line(heard: &[u8]) -> Reply {
    let (last, line) = heard.split_last().expect("an answer");
    assert!(*last == b'\n' && !line.contains(&b'\n'), "one line");
    serde_json::from_slice(line).expect("a reply")
}

/// Notes what it is asked for.
#[derive(Default)]
struct Asked(Mutex<Option<Request>>);

impl Answers for Asked {
    async fn answer(self: Arc<Self>, request: Request) -> Result<Answer, Refusal> {
        *self.0.lock().expect("nobody panics with it") = Some(request.clone());
        if matches!(request, Request::Detach { .. }) {
            return Ok(Answer::Detached(vec!["eth0".into()]));
        }
        Ok(Answer::Events(Vec::new()))
    }

    fn follow(
        &self,
        last: usize,
        wanted: Option<Wanted>,
        frames: Option<Depth>,
    ) -> Result<(Vec<EventRecord>, Following), Refusal> {
        *self.0.lock().expect("nobody panics with it") = Some(Request::Follow { last, wanted, frames });
        Err(Refusal { kind: Kind::Refused, message: "no room".into(), help: None })
    }
}

/// The other end of the socket.
struct Peer {
    bytes: Vec<u8>,
    sent: usize,
    chunk: usize,
    endless: bool,
    heard: Vec<u8>,
}

impl Peer {
    /// What comes next, at most `room` bytes; empty: the end.
    fn next(&mut self, room: usize) -> &[u8] {
        if self.bytes.is_empty() || (!self.endless && self.sent == self.bytes.len()) {
            return &[];
        }
        let from = self.sent % self.bytes.len();
        let count = room.min(self.chunk).min(self.bytes.len() - from);
        self.sent += count;
        &self.bytes[from..from + count]
    }

    /// What a reader of a line gets, of a stream cut after `limit` bytes.
    fn first_line(&self, limit: usize) -> Vec<u8> {
        let repeated = if self.endless { limit.div_ceil(self.bytes.len()) } else { 1 };
        let stream = self.bytes.iter().copied().cycle().take(limit.min(self.bytes.len() * repeated));
        let mut line = Vec::new();
        for byte in stream {
            line.push(byte);
            if byte == b'\n' {
                break;
            }
        }
        line
    }
}

impl Read for &mut Peer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let next = Peer::next(self, buffer.len());
        buffer[..next.len()].copy_from_slice(next);
        Ok(next.len())
    }
}

impl Write for &mut Peer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.heard.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsyncRead for Peer {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = buffer.remaining();
        buffer.put_slice(self.next(room));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Peer {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.heard.extend(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
