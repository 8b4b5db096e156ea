//! Traffic that never stops: clients that are allowed and must not lose a packet, and clients that are denied and must
//! not get one through.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream, UdpSocket},
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    thread::{self, sleep},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use testbed::{
    Host, eventually, place,
    serve::{TcpEcho, UdpEcho},
};

use super::{Field, SOON};

/// A service that the allowed client asks.
pub const ASKED: &str = "{ name: asked, protocol: udp, ports: [5300], from: [196.201.214.200] }";
/// A service that is there and not for the denied client.
pub const CLOSED: &str = "{ name: closed, protocol: udp, ports: [5400], from: [203.0.113.1] }";
/// Where this host has a connection to.
pub const KEPT: &str = "{ name: kept, ports: [5000], to: [192.0.2.80] }";

/// Between two packets of a client.
const PACE: Duration = Duration::from_millis(2);
/// A connection that is silent for longer is lost: retransmissions of TCP bridge less.
const SILENCE: Duration = Duration::from_secs(8);

/// What the clients saw.
#[derive(Debug, Default)]
pub struct Traffic {
    sent: AtomicU64,
    answered: AtomicU64,
    /// Packets of the denied client that arrived at the host.
    pub intruders: AtomicU64,
    /// Packets of the host to where it may not send that arrived there.
    pub leaked: AtomicU64,
    kept: AtomicU64,
    broken: AtomicBool,
    hold: AtomicBool,
    stop: AtomicBool,
}

impl Traffic {
    /// Lets traffic flow while `work` is done. `work` begins when every client has been heard.
    pub fn during(field: &Field, work: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        let api = field.network.add(place::API)?;
        let _servers = (UdpEcho::start(&field.host.namespace, 5300)?, TcpEcho::start(&api.namespace, 5000)?);
        let (host, there): (SocketAddr, SocketAddr) =
            ((field.host.place.v4, 5300).into(), (api.place.v4, 5000).into());
        let socket = |place: &Host, port| -> Result<UdpSocket> {
            let socket = place.namespace.inside(|| UdpSocket::bind(("0.0.0.0", port)))?;
            socket.set_read_timeout(Some(Duration::from_millis(50)))?;
            Ok(socket)
        };
        let (client, denied, outward) =
            (socket(&field.safaricom, 0)?, socket(&field.attacker, 0)?, socket(&field.host, 0)?);
        let (closed, drop_box) = (socket(&field.host, 5400)?, socket(&api, 5001)?);
        let stream = field.host.namespace.inside(|| TcpStream::connect_timeout(&there, SOON))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE))?;
        client.connect(host)?;
        // Not connected: the agent ends connected sockets that may not send.
        let (closed_port, drop_box_port): (SocketAddr, SocketAddr) =
            ((field.host.place.v4, 5400).into(), (api.place.v4, 5001).into());

        let traffic = Self::default();
        thread::scope(|scope| {
            // Also where `work` panics: the scope waits for every client.
            let _end = End(&traffic);
            scope.spawn(|| traffic.ask(&client));
            scope.spawn(|| traffic.hear(&client));
            scope.spawn(|| traffic.knock(&denied, closed_port));
            scope.spawn(|| traffic.knock(&outward, drop_box_port));
            scope.spawn(|| traffic.count(&closed, &traffic.intruders));
            scope.spawn(|| traffic.count(&drop_box, &traffic.leaked));
            scope.spawn(|| traffic.keep(stream));
            let heard = eventually("every client", SOON, || {
                let moves = |count: &AtomicU64| count.load(SeqCst) > 5;
                [&traffic.answered, &traffic.intruders, &traffic.leaked, &traffic.kept]
                    .into_iter()
                    .all(moves)
                    .then_some(())
            });
            heard.and_then(|()| work(&traffic))
        })
    }

    fn on(&self) -> bool {
        !self.stop.load(SeqCst)
    }

    fn ask(&self, client: &UdpSocket) {
        while self.on() {
            if !self.hold.load(SeqCst) {
                // Counted before it can be answered.
                self.sent.fetch_add(1, SeqCst);
                if client.send(b"?").is_err() {
                    self.sent.fetch_sub(1, SeqCst);
                }
            }
            sleep(PACE);
        }
    }

    fn hear(&self, client: &UdpSocket) {
        while self.on() {
            if client.recv(&mut [0; 8]).is_ok() {
                self.answered.fetch_add(1, SeqCst);
            }
        }
    }

    fn knock(&self, denied: &UdpSocket, at: SocketAddr) {
        while self.on() {
            // Egress answers a denied sender with an error.
            let _ = denied.send_to(b"!", at);
            sleep(PACE);
        }
    }

    fn count(&self, socket: &UdpSocket, count: &AtomicU64) {
        while self.on() {
            if socket.recv(&mut [0; 8]).is_ok() {
                count.fetch_add(1, SeqCst);
            }
        }
    }

    fn keep(&self, mut stream: TcpStream) {
        while self.on() {
            let spoken = stream.write_all(b"x").and_then(|()| stream.read_exact(&mut [0]));
            if spoken.is_err() {
                self.broken.store(true, SeqCst);
                return;
            }
            self.kept.fetch_add(1, SeqCst);
            sleep(PACE);
        }
    }

    /// How many packets of the allowed client were never answered so far; none is under way any more.
    pub fn lost(&self) -> Result<u64> {
        self.hold.store(true, SeqCst);
        sleep(2 * PACE);
        let begun = Instant::now();
        let lost = || {
            let answered = self.answered.load(SeqCst);
            self.sent.load(SeqCst) - answered
        };
        // A busy machine answers late; what is lost stays lost.
        let mut before = lost();
        while before > 0 && begun.elapsed() < Duration::from_secs(2) {
            sleep(Duration::from_millis(60));
            let now = lost();
            if now == before && begun.elapsed() > Duration::from_millis(300) {
                break;
            }
            before = now;
        }
        let lost = lost();
        self.hold.store(false, SeqCst);
        ensure!(self.sent.load(SeqCst) > 0, "the client sends");
        Ok(lost)
    }

    /// Fails if the connection of this host broke or stands still.
    pub fn connection(&self) -> Result<()> {
        let before = self.kept.load(SeqCst);
        eventually("the host's own connection", SILENCE, || {
            (self.kept.load(SeqCst) > before || self.broken.load(SeqCst)).then_some(())
        })
        .context("a connection that egress permits stands still")?;
        ensure!(!self.broken.load(SeqCst), "a connection that egress permits was lost");
        Ok(())
    }

    /// Packets that got through although they are denied, inwards and outwards.
    pub fn through(&self) -> (u64, u64) {
        (self.intruders.load(SeqCst), self.leaked.load(SeqCst))
    }
}

/// Ends the traffic when it goes.
struct End<'t>(&'t Traffic);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, SeqCst);
    }
}
