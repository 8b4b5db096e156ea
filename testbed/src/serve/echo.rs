//! Servers that answer with what they were sent.

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};
use nix::sys::{
    socket::{setsockopt, sockopt::ReceiveTimeout},
    time::TimeVal,
};

use crate::namespace::Namespace;

/// How soon a server notices that it should end.
const TICK: Duration = Duration::from_millis(100);

/// A UDP server on a port of both families.
#[derive(Debug)]
pub struct UdpEcho {
    worker: Worker,
}

/// A TCP server on a port of both families: each connection gets back what it sends until it closes.
#[derive(Debug)]
pub struct TcpEcho {
    worker: Worker,
}

impl UdpEcho {
    /// Binds and serves.
    ///
    /// # Errors
    /// The port is taken.
    pub fn start(namespace: &Namespace, port: u16) -> Result<Self> {
        let socket = namespace
            .inside(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)))
            .with_context(|| format!("could not bind UDP {port}"))?;
        socket.set_read_timeout(Some(TICK)).context("no read timeout")?;
        let serve = move |stop: &AtomicBool| {
            let mut buffer = vec![0; 65536];
            while !stop.load(Ordering::Relaxed) {
                if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(&buffer[..length], from);
                }
            }
        };
        Ok(Self { worker: Worker::start(serve) })
    }

    /// Asks a UDP server from a namespace; `None` if nothing comes back.
    ///
    /// # Errors
    /// The question can't even be sent; a datagram that the firewall drops is EPERM here.
    pub fn ask(
        namespace: &Namespace,
        server: impl Into<IpAddr>,
        port: u16,
        text: &[u8],
        patience: Duration,
    ) -> std::io::Result<Option<Vec<u8>>> {
        let server = SocketAddr::new(server.into(), port);
        let any: IpAddr = if server.is_ipv6() {
            Ipv6Addr::UNSPECIFIED.into()
        } else {
            std::net::Ipv4Addr::UNSPECIFIED.into()
        };
        let socket = namespace.inside(|| UdpSocket::bind((any, 0)))?;
        socket.set_read_timeout(Some(patience))?;
        socket.send_to(text, server)?;
        let mut buffer = vec![0; 65536];
        match socket.recv_from(&mut buffer) {
            Ok((length, from)) if from == server => Ok(Some(buffer[..length].to_vec())),
            Ok(_) => Ok(None),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Ends it and frees the port.
    pub fn stop(self) {
        drop(self.worker);
    }
}

impl TcpEcho {
    /// Binds and serves.
    ///
    /// # Errors
    /// The port is taken.
    pub fn start(namespace: &Namespace, port: u16) -> Result<Self> {
        let listener = namespace
            .inside(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)))
            .with_context(|| format!("could not bind TCP {port}"))?;
        set_receive_timeout(&listener)?;
        let serve = move |stop: &AtomicBool| {
            thread::scope(|connections| {
                while !stop.load(Ordering::Relaxed) {
                    if let Ok((stream, _)) = listener.accept() {
                        connections.spawn(move || echo(stream, stop));
                    }
                }
            });
        };
        Ok(Self { worker: Worker::start(serve) })
    }

    /// Ends it and frees the port.
    pub fn stop(self) {
        drop(self.worker);
    }
}

fn echo(mut stream: std::net::TcpStream, stop: &AtomicBool) {
    let _ = stream.set_read_timeout(Some(TICK));
    let mut buffer = vec![0; 65536];
    while !stop.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => {
                if stream.write_all(&buffer[..length]).is_err() {
                    break;
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
    }
}

/// `accept` honours it too (socket(7)).
fn set_receive_timeout(socket: &impl AsFd) -> Result<()> {
    setsockopt(socket, ReceiveTimeout, &TimeVal::new(0, 100_000)).context("no receive timeout")
}

/// A thread that ends when its value is dropped.
#[derive(Debug)]
struct Worker {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    fn start(serve: impl FnOnce(&AtomicBool) + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        Self { stop, thread: Some(thread::spawn(move || serve(&told))) }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
