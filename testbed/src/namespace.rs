//! One network namespace.

use std::{
    ffi::OsStr,
    fs::File,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{self, Command},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use nix::{
    fcntl::{Flock, FlockArg},
    sched::{CloneFlags, setns},
};

use crate::{command::ok, scratch::PREFIX};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A network namespace with a name of its own; dropping it removes it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// A new one, its loopback up.
    ///
    /// # Errors
    /// `ip netns` refuses (not root?).
    pub fn new(role: &str) -> Result<Self> {
        let name = format!("{PREFIX}{}-{}-{role}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        // The first `ip netns add` of a machine also mounts /run/netns; two at once would mount it twice.
        let path = std::env::temp_dir().join("mpesa-fw-testbed.lock");
        let file = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("could not open {}", path.display()))?;
        let lock = Flock::lock(file, FlockArg::LockExclusive)
            .map_err(|(_, error)| error)
            .context("could not lock")?;
        ok(Command::new("ip").args(["netns", "add", &name]))
            .context("could not make a network namespace (root?)")?;
        drop(lock);
        let namespace = Self { name };
        namespace.sh("ip link set lo up
             sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0
             sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.default.router_solicitations=0")?;
        Ok(namespace)
    }

    /// Its name under `/run/netns`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// A command that will run inside, and die with the thread that starts it.
    ///
    /// Not `ip netns exec`: that mounts a fresh /sys over the bpffs.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display()));
        command.args(["--", "setpriv", "--pdeathsig", "KILL", "--"]).arg(program).env("NO_COLOR", "1");
        command
    }

    /// Like [`command`](Self::command), with another `/etc/resolv.conf`: bound over it in a mount namespace of
    /// the command's own. What is mounted before stays visible there; nothing comes back out.
    #[must_use]
    pub fn command_resolving(&self, resolv_conf: &Path, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.command("unshare");
        command.args(["--mount", "--propagation", "private", "--", "sh", "-c"]);
        command.arg("mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"").arg(resolv_conf);
        command.args(["setpriv", "--pdeathsig", "KILL", "--"]).arg(program);
        command
    }

    /// Runs lines of shell inside; stops at the first that fails.
    ///
    /// # Errors
    /// One fails.
    pub fn sh(&self, script: &str) -> Result<String> {
        ok(self.command("sh").args(["-euc", script])).with_context(|| format!("in {}", self.name))
    }

    /// Calls `work` on a thread inside; sockets that it opens stay there wherever they go.
    ///
    /// # Panics
    /// The namespace can't be entered, or `work` panics.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let enter = || {
            let file = File::open(self.path()).expect("the namespace is there as long as its value");
            setns(file, CloneFlags::CLONE_NEWNET).expect("root may enter a network namespace");
            work()
        };
        thread::scope(|scope| {
            scope.spawn(enter).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// One HTTP GET from inside: status and body.
    ///
    /// # Errors
    /// Nobody listens there or answers in time.
    pub fn get(&self, address: SocketAddr, path: &str) -> Result<(u16, String)> {
        let patience = Duration::from_secs(5);
        let mut stream = self
            .inside(|| TcpStream::connect_timeout(&address, patience))
            .with_context(|| format!("could not connect to {address}"))?;
        stream.set_read_timeout(Some(patience)).context("no read timeout")?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")
            .context("could not ask")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).with_context(|| format!("no whole answer from {address}{path}"))?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").context("the answer has no end of header")?;
        let status =
            head.split(' ').nth(1).and_then(|code| code.parse().ok()).context("the answer has no status")?;
        Ok((status, body.to_owned()))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = ok(Command::new("ip").args(["netns", "delete", &self.name])) {
            eprintln!("could not remove the namespace {}: {error:#}", self.name);
        }
    }
}
