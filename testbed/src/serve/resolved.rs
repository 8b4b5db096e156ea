//! systemd-resolved as the host's stub resolver, without systemd and D-Bus around it.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{holds, namespace::Namespace, process::Process, run};

/// What it takes to start, at most.
const SOON: Duration = Duration::from_secs(10);

/// In mounts of its own: the settings, a directory to write to and its user, which a machine without the package lacks.
const ALONE: &str = r#"
mkdir -p /run/systemd
mount -t tmpfs none /run/systemd
mkdir /run/systemd/resolve
chown 64999:64999 /run/systemd/resolve
mount --bind "$1" /etc/systemd
{ grep -v ^systemd-resolve: /etc/passwd; echo systemd-resolve:x:64999:64999::/:/usr/sbin/nologin; } > "$1/passwd"
mount --bind "$1/passwd" /etc/passwd
exec setpriv --pdeathsig KILL -- "$0"
"#;

/// A running systemd-resolved.
#[derive(Debug)]
pub struct Resolved {
    _process: Process,
    /// A `resolv.conf` that points to it.
    pub resolv_conf: PathBuf,
}

impl Resolved {
    /// The address on loopback on which it answers.
    pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 53);

    /// The program: the machine's, or what `cargo xtask setup` unpacked below `target` (the package itself would take over
    /// the machine's `/etc/resolv.conf`). `None` where neither runs.
    #[must_use]
    pub fn program(target: &Path) -> Option<PathBuf> {
        let places = [
            "/lib/systemd/systemd-resolved".into(),
            target.join("systemd-resolved/lib/systemd/systemd-resolved"),
        ];
        places.into_iter().find(|program: &PathBuf| {
            program.is_file()
                && run(Command::new(program).arg("--version")).is_ok_and(|ran| ran.code == Some(0))
        })
    }

    /// Starts it in a namespace; it asks `upstream`.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(program: &Path, namespace: &Namespace, scratch: &Path, upstream: Ipv4Addr) -> Result<Self> {
        let directory = scratch.join(format!("resolved-{}", namespace.name()));
        fs::create_dir_all(&directory).with_context(|| format!("could not make {}", directory.display()))?;
        let write = |name: &str, text: String| {
            let path = directory.join(name);
            fs::write(&path, text).with_context(|| format!("could not write {}", path.display()))?;
            Ok::<_, anyhow::Error>(path)
        };
        let resolv_conf =
            write("resolv.conf", format!("nameserver {}\noptions timeout:1 attempts:2\n", Self::ADDRESS))?;
        write(
            "resolved.conf",
            format!("[Resolve]\nDNS={upstream}\nFallbackDNS=\nDNSSEC=no\nLLMNR=no\nMulticastDNS=no\n"),
        )?;
        let mut command = namespace.command("unshare");
        command
            .args(["--mount", "--propagation", "private", "--", "sh", "-euc", ALONE])
            .arg(program)
            .arg(&directory);
        let mut process = Process::spawn(command, "resolved", &directory)?;
        process.wait_for_log("Using system hostname", SOON)?;
        // It says so before it can be asked.
        let listens = || namespace.sh(&format!("ss -lnuH src {}:53", Self::ADDRESS));
        holds("systemd-resolved at its port", SOON, || listens().is_ok_and(|sockets| !sockets.is_empty()))?;
        Ok(Self { _process: process, resolv_conf })
    }
}
