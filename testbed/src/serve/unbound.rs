//! unbound as the host's resolver: with records of its own (chains of aliases, big answers), or in front of another.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{namespace::Namespace, process::Process};

/// A running unbound.
#[derive(Debug)]
pub struct Unbound {
    _process: Process,
    /// A `resolv.conf` that points to it.
    pub resolv_conf: PathBuf,
}

impl Unbound {
    /// Starts it on an address of a namespace, knowing nothing but its own records. `records` are lines of a zone file, names with their final dot.
    ///
    /// # Errors
    /// It is not there, or does not start.
    pub fn start(
        namespace: &Namespace,
        address: Ipv4Addr,
        scratch: &Path,
        zone: &str,
        records: &[String],
    ) -> Result<Self> {
        let soa =
            format!("{zone} 60 IN SOA ns.{zone} admin.{zone} 1 60 60 60 60\n{zone} 60 IN NS ns.{zone}\n");
        let records = write(&directory(namespace, scratch)?, "zone", &(soa + &records.join("\n") + "\n"))?;
        let zone = format!(
            "auth-zone:\n name: \"{zone}\"\n zonefile: \"{}\"\n for-downstream: yes\n for-upstream: yes\n",
            records.display(),
        );
        Self::start_with(namespace, address, scratch, &zone)
    }

    /// Starts it as one that asks another for everything, remembers what that says, and asks in mixed case so that
    /// answers are harder to forge.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn forwarding(
        namespace: &Namespace,
        address: Ipv4Addr,
        scratch: &Path,
        upstream: Ipv4Addr,
    ) -> Result<Self> {
        let zone = format!("forward-zone:\n name: \".\"\n forward-addr: {upstream}\n");
        Self::start_with(namespace, address, scratch, &zone)
    }

    fn start_with(namespace: &Namespace, address: Ipv4Addr, scratch: &Path, zone: &str) -> Result<Self> {
        let directory = directory(namespace, scratch)?;
        let resolv_conf = write(
            &directory,
            "resolv.conf",
            &format!("nameserver {address}\noptions timeout:1 attempts:2\n"),
        )?;
        let configuration = format!(
            "server:\n interface: {address}\n access-control: 0.0.0.0/0 allow\n access-control: ::/0 allow\n \
             username: \"\"\n chroot: \"\"\n directory: \"{directory}\"\n pidfile: \"\"\n use-syslog: no\n verbosity: 1\n \
             module-config: \"iterator\"\n do-daemonize: no\n num-threads: 1\n use-caps-for-id: yes\n\
             remote-control:\n control-enable: no\n{zone}",
            directory = directory.display(),
        );
        let configuration = write(&directory, "unbound.conf", &configuration)?;
        let mut command = namespace.command("unbound");
        command.arg("-d").arg("-c").arg(configuration);
        let mut process = Process::spawn(command, "unbound", &directory)?;
        process.wait_for_log("start of service", Duration::from_secs(10))?;
        Ok(Self { _process: process, resolv_conf })
    }
}

fn directory(namespace: &Namespace, scratch: &Path) -> Result<PathBuf> {
    let directory = scratch.join(format!("unbound-{}", namespace.name()));
    fs::create_dir_all(&directory).with_context(|| format!("could not make {}", directory.display()))?;
    Ok(directory)
}

fn write(directory: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let path = directory.join(name);
    fs::write(&path, text).with_context(|| format!("could not write {}", path.display()))?;
    Ok(path)
}
