//! dnsmasq as the host's resolver, with names that a test can change.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use crate::{namespace::Namespace, process::Process};

/// A running dnsmasq that knows nothing but a hosts file.
#[derive(Debug)]
pub struct Dnsmasq {
    process: Process,
    hosts: PathBuf,
    /// A `resolv.conf` that points to it.
    pub resolv_conf: PathBuf,
}

impl Dnsmasq {
    /// Starts it on an address of a namespace. Its answers live `ttl` seconds.
    ///
    /// # Errors
    /// It is not there, or does not start.
    pub fn start(
        namespace: &Namespace,
        address: Ipv4Addr,
        scratch: &Path,
        ttl: u32,
        names: &[(&str, IpAddr)],
    ) -> Result<Self> {
        Self::start_with(namespace, address, scratch, ttl, names, &["--local=/#/"])
    }

    /// Likewise, with options instead of the one that makes it answer for every name by itself.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(
        namespace: &Namespace,
        address: Ipv4Addr,
        scratch: &Path,
        ttl: u32,
        names: &[(&str, IpAddr)],
        options: &[&str],
    ) -> Result<Self> {
        let directory = scratch.join(format!("dnsmasq-{}", namespace.name()));
        fs::create_dir_all(&directory).with_context(|| format!("could not make {}", directory.display()))?;
        let hosts = directory.join("hosts");
        let resolv_conf = directory.join("resolv.conf");
        fs::write(&resolv_conf, format!("nameserver {address}\noptions timeout:1 attempts:2\n"))
            .context("could not write resolv.conf")?;
        write_hosts(&hosts, names)?;
        let mut command = namespace.command("dnsmasq");
        command.args([
            "--no-daemon",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
            "--bind-interfaces",
        ]);
        command.args(["--log-facility=-", "--log-queries", "--pid-file="]).arg(format!("--local-ttl={ttl}"));
        command
            .args(options)
            .arg(format!("--listen-address={address}"))
            .arg(format!("--addn-hosts={}", hosts.display()));
        let mut process = Process::spawn(command, "dnsmasq", &directory)?;
        process.wait_for_log("read ", Duration::from_secs(10))?;
        Ok(Self { process, hosts, resolv_conf })
    }

    /// Answers with other addresses from now on.
    ///
    /// # Errors
    /// The file can't be written, or dnsmasq is gone.
    pub fn change(&self, names: &[(&str, IpAddr)]) -> Result<()> {
        write_hosts(&self.hosts, names)?;
        self.process.signal(Signal::SIGHUP)
    }

    /// Every query so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }
}

fn write_hosts(path: &Path, names: &[(&str, IpAddr)]) -> Result<()> {
    let lines: String = names.iter().map(|(name, address)| format!("{address} {name}\n")).collect();
    fs::write(path, lines).with_context(|| format!("could not write {}", path.display()))
}
