//! unbound as the host's resolver, with records of its own: chains of aliases, big answers.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{namespace::Namespace, process::Process};

/// A running unbound that knows nothing but its own records.
#[derive(Debug)]
pub struct Unbound {
    _process: Process,
    /// A `resolv.conf` that points to it.
    pub resolv_conf: PathBuf,
}

impl Unbound {
    /// Starts it on an address of a namespace. `records` are lines of a zone file, names with their final dot.
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
        let directory = scratch.join(format!("unbound-{}", namespace.name()));
        fs::create_dir_all(&directory).with_context(|| format!("could not make {}", directory.display()))?;
        let write = |name: &str, text: String| {
            let path = directory.join(name);
            fs::write(&path, text).with_context(|| format!("could not write {}", path.display()))?;
            Ok::<_, anyhow::Error>(path)
        };
        let resolv_conf =
            write("resolv.conf", format!("nameserver {address}\noptions timeout:1 attempts:2\n"))?;
        let soa =
            format!("{zone} 60 IN SOA ns.{zone} admin.{zone} 1 60 60 60 60\n{zone} 60 IN NS ns.{zone}\n");
        let records = write("zone", soa + &records.join("\n") + "\n")?;
        let configuration = format!(
            "server:\n interface: {address}\n access-control: 0.0.0.0/0 allow\n access-control: ::/0 allow\n \
             username: \"\"\n chroot: \"\"\n directory: \"{directory}\"\n pidfile: \"\"\n use-syslog: no\n verbosity: 1\n \
             module-config: \"iterator\"\n do-daemonize: no\n num-threads: 1\n\
             remote-control:\n control-enable: no\n\
             auth-zone:\n name: \"{zone}\"\n zonefile: \"{zonefile}\"\n for-downstream: yes\n for-upstream: yes\n",
            directory = directory.display(),
            zonefile = records.display(),
        );
        let configuration = write("unbound.conf", configuration)?;
        let mut command = namespace.command("unbound");
        command.arg("-d").arg("-c").arg(configuration);
        let mut process = Process::spawn(command, "unbound", &directory)?;
        process.wait_for_log("start of service", Duration::from_secs(10))?;
        Ok(Self { _process: process, resolv_conf })
    }
}
