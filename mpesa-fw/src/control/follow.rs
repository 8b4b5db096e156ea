//! The agent tells a client of events as they come.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

use super::protocol::Line;
use crate::agent::{Depth, EventRecord, Following, Told, Why, feed::QUEUE, hex};

/// For a client to read something, when nothing more fits between it and the agent. Its events are lost meanwhile, and
/// then so is its place.
const STALLED: Duration = Duration::from_secs(30);

/// Tells until the client closes its end or half of it, says anything more, or stops reading; or until there is nothing more
/// to follow. The last line says which.
///
/// # Errors
/// The client is gone, or hangs.
pub(super) async fn tell(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    following: Following,
) -> io::Result<()> {
    tell_patiently(stream, following, STALLED).await
}

async fn tell_patiently(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    mut following: Following,
    patience: Duration,
) -> io::Result<()> {
    let (mut from, to) = tokio::io::split(stream);
    let mut to = Teller { to, patience, depth: following.depth };
    let mut byte = [0];
    let why = loop {
        let told = tokio::select! {
            _ = from.read(&mut byte) => break Why::Asked,
            told = following.next() => told,
        };
        match told {
            Ok(told) => to.pass_on(told).await?,
            Err(why) => break why,
        }
    };
    // Those that come meanwhile would make it endless.
    for _ in 0..QUEUE {
        let Some(told) = following.waiting() else { break };
        to.pass_on(told).await?;
    }
    let suppressed = following.suppressed();
    if suppressed > 0 {
        to.say(&Line::Suppressed(suppressed)).await?;
    }
    to.say(&Line::Ended(why)).await?;
    timeout(patience, to.to.shutdown()).await?
}

struct Teller<W> {
    to: W,
    patience: Duration,
    depth: Option<Depth>,
}

impl<W: AsyncWrite + Unpin> Teller<W> {
    async fn pass_on(&mut self, told: Told) -> io::Result<()> {
        let line = match told {
            Told::Missed(events) => Line::Missed(events),
            Told::Event(occurrence) => match (&occurrence.record, &occurrence.frame, self.depth) {
                (EventRecord::Packet(event), Some(frame), Some(depth)) => {
                    Line::Packet { event: event.clone(), frame: hex(frame.cut(depth)) }
                }
                (event, _, _) => Line::Event(event.clone()),
            },
        };
        self.say(&line).await
    }

    async fn say(&mut self, line: &Line) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(line)?;
        bytes.push(b'\n');
        timeout(self.patience, self.to.write_all(&bytes)).await?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::{
        AgentError, PacketRecord, Selection,
        feed::{FOLLOWERS, Feed, Occurrence, Terms},
    };
    use time::OffsetDateTime;
    use tokio::{
        io::{BufReader, DuplexStream, Lines, duplex},
        task::yield_now,
    };

    const SHORT: Duration = Duration::from_millis(100);
    /// Bytes between the two: less than a line, so that nothing is lost from sight in it.
    const BUFFER: usize = 64;

    fn event(port: u16) -> Occurrence {
        Occurrence {
            frame: None,
            is_first: true,
            record: EventRecord::Packet(PacketRecord {
                time: OffsetDateTime::UNIX_EPOCH,
                interface: "eth0".into(),
                direction: "ingress".into(),
                rule: String::new(),
                reason: "no_service".into(),
                source: [198, 51, 100, 66].into(),
                source_port: 4000,
                target: [203, 0, 113, 10].into(),
                target_port: port,
                protocol: "tcp".into(),
                length: 74,
                dropped: true,
                program: None,
                asked_for: None,
                nearest: None,
                repeated: 0,
            }),
        }
    }

    fn all() -> Terms {
        Terms { selection: Selection::default(), depth: None, suppressed: Box::new(|| 0) }
    }

    fn run<T>(test: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(async { timeout(Duration::from_secs(30), test).await.expect("it comes to an end") })
    }

    /// A follower, and the client's end of its stream.
    fn follower(feed: &mut Feed) -> (tokio::task::JoinHandle<io::Result<()>>, DuplexStream) {
        let (ours, theirs) = duplex(BUFFER);
        let following = feed.follow(all()).unwrap();
        (tokio::spawn(tell_patiently(ours, following, SHORT)), theirs)
    }

    async fn next(lines: &mut Lines<BufReader<DuplexStream>>) -> Line {
        serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap()
    }

    #[test]
    fn one_that_does_not_read_loses_events_and_hears_how_many() {
        run(async {
            let mut feed = Feed::default();
            let (_told, theirs) = follower(&mut feed);
            yield_now().await;
            for port in 0..2000 {
                feed.tell(event(port));
            }
            let mut lines = tokio::io::AsyncBufReadExt::lines(BufReader::new(theirs));
            let (mut seen, mut missed) = (0, 0);
            while seen + missed < 2000 {
                match next(&mut lines).await {
                    Line::Event(EventRecord::Packet(packet)) => {
                        assert_eq!(u64::from(packet.target_port), seen, "in order, none twice");
                        seen += 1;
                    }
                    Line::Missed(events) => missed += events,
                    other @ (Line::Event(EventRecord::Attempt(_) | EventRecord::Listener(_))
                    | Line::Packet { .. }
                    | Line::Suppressed(_)
                    | Line::Ended(_)) => {
                        panic!("{other:?}")
                    }
                }
            }
            assert_eq!((seen, missed), (QUEUE as u64, 2000 - QUEUE as u64), "a queue of one size");
            feed.tell(event(7));
            assert_eq!(next(&mut lines).await, Line::Event(event(7).record), "and it goes on");
        });
    }

    #[test]
    fn one_that_hangs_is_let_go_and_its_place_is_free() {
        run(async {
            let mut feed = Feed::default();
            let followers: Vec<_> = (0..FOLLOWERS).map(|_| follower(&mut feed)).collect();
            assert!(matches!(feed.follow(all()), Err(AgentError::TooManyFollowers(8))));
            feed.tell(event(1));
            tokio::time::sleep(4 * SHORT).await;
            assert!(followers.iter().all(|(told, _)| told.is_finished()));
            assert!(feed.follow(all()).is_ok());
        });
    }

    #[test]
    fn half_a_close_and_the_end_of_the_agent_are_answered() {
        run(async {
            let mut feed = Feed::default();
            let (told, mut theirs) = follower(&mut feed);
            theirs.shutdown().await.unwrap();
            let mut said = String::new();
            theirs.read_to_string(&mut said).await.unwrap();
            assert_eq!(said, "{\"ended\":\"asked\"}\n");
            told.await.unwrap().unwrap();

            let (told, mut theirs) = follower(&mut feed);
            feed.tell(event(1));
            let places = feed.end(Why::Detached);
            said.clear();
            theirs.read_to_string(&mut said).await.unwrap();
            assert!(said.contains("no_service") && said.ends_with("{\"ended\":\"detached\"}\n"), "{said}");
            told.await.unwrap().unwrap();
            assert_eq!(places.available_permits(), FOLLOWERS);
        });
    }
}
