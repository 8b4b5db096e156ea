//! The agent under test: its directories in a testbed, its rules file, and questions to it.

use std::{
    ffi::{OsStr, OsString},
    fs,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{
    command::{Ran, ok, run, written_by_another},
    metrics::Metrics,
    namespace::Namespace,
    network::Network,
    process::Process,
    wait::eventually,
};

const START: Duration = Duration::from_secs(20);

/// One installation of the firewall in one namespace. Its paths outlive agents that are killed.
#[derive(Debug)]
pub struct Firewall<'a> {
    /// The namespace that it protects.
    pub namespace: &'a Namespace,
    /// The mpesa-fw binary.
    pub binary: PathBuf,
    /// What it runs on; `rules.yaml`, `bpffs`, `runtime`, `state` and logs are below.
    pub directory: PathBuf,
    /// What stands in for `/etc/resolv.conf`, if anything.
    pub resolv_conf: Option<PathBuf>,
    /// Where it serves metrics, inside its namespace; [`METRICS`](Self::METRICS) unless changed.
    pub metrics: SocketAddr,
    /// Its directory for pins.
    pub bpffs: PathBuf,
    /// Added to the environment of the agent and of commands.
    pub environment: Vec<(&'static str, OsString)>,
}

/// A running agent.
#[derive(Debug)]
pub struct Started {
    /// Its process; the log is what it wrote.
    pub process: Process,
}

impl<'a> Firewall<'a> {
    /// Where it serves metrics if not told otherwise.
    pub const METRICS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9477);

    /// Makes the directories and mounts a bpffs for it.
    ///
    /// # Errors
    /// One of them can't be made.
    pub fn new(network: &Network, namespace: &'a Namespace, binary: impl Into<PathBuf>) -> Result<Self> {
        let name = namespace.name();
        let directory = network.scratch.directory(name)?;
        network.scratch.directory(&format!("{name}/state"))?;
        network.scratch.bpffs(&format!("{name}/bpffs"))?;
        let bpffs = directory.join("bpffs/mpesa-fw");
        Ok(Self {
            namespace,
            binary: binary.into(),
            directory,
            resolv_conf: None,
            metrics: Self::METRICS,
            bpffs,
            environment: Vec::new(),
        })
    }

    /// Puts a copy of the program at `to`, by another process: one that this process has open for writing may be held open by a child of another test (ETXTBSY).
    ///
    /// # Errors
    /// It can't be written there.
    pub fn copy_program(&self, to: &Path) -> Result<()> {
        ok(Command::new("cp").arg(&self.binary).arg(to)).map(drop)
    }

    /// A file (0600) beside the rules file.
    ///
    /// # Errors
    /// It can't be written.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.directory.join(name);
        written_by_another(&path, text.as_bytes())?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).context("could not set the mode")?;
        Ok(path)
    }

    /// Writes the rules file.
    ///
    /// # Errors
    /// It can't be written.
    pub fn policy(&self, yaml: &str) -> Result<()> {
        self.write("rules.yaml", yaml).map(drop)
    }

    /// `mpesa-fw run` with the paths of this installation, then `more`.
    #[must_use]
    pub fn run_command(&self, more: &[&str]) -> Command {
        let mut command = match &self.resolv_conf {
            Some(resolv_conf) => self.namespace.command_resolving(resolv_conf, &self.binary),
            None => self.namespace.command(&self.binary),
        };
        command.arg("run").arg("--rules").arg(self.directory.join("rules.yaml"));
        command.arg("--metrics").arg(self.metrics.to_string());
        command.arg("--state-dir").arg(self.directory.join("state"));
        command.arg("--runtime-dir").arg(self.runtime());
        command.arg("--bpffs").arg(&self.bpffs).args(more);
        // The guard would otherwise look at the connection of whoever runs the tests.
        command.env_remove("SSH_CONNECTION").env_remove("SSH_CLIENT").env_remove("NOTIFY_SOCKET");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts an agent and waits until it says `enforcing` or `observing` and answers scrapes.
    ///
    /// # Errors
    /// It ends before, or takes too long; the message holds its log.
    pub fn start(&self, more: &[&str]) -> Result<Started> {
        self.ready(self.spawn(more)?)
    }

    /// Likewise, an agent with no more than the unit of the package lets it have.
    ///
    /// # Errors
    /// Likewise.
    pub fn start_with_capabilities_of_the_unit(&self) -> Result<Started> {
        self.ready(self.spawn_by(|agent| {
            let mut command = self.namespace.command("setpriv");
            command.args(["--bounding-set", "-all,+bpf,+net_admin,+perfmon", "--no-new-privs"]);
            // What is in front of the agent enters the namespace, which this has done already.
            let arguments = agent.get_args().skip_while(|argument| *argument != self.binary.as_os_str());
            command.args(arguments).env_remove("NOTIFY_SOCKET");
            command
        })?)
    }

    fn ready(&self, mut started: Started) -> Result<Started> {
        let ready = eventually("/readyz", START, || {
            let ready = self.namespace.get(self.metrics, "/readyz").is_ok_and(|(status, _)| status == 200);
            (ready || !started.process.running()).then_some(ready)
        });
        if !matches!(ready, Ok(true)) {
            anyhow::bail!("the agent did not become ready; its log:\n{}", started.process.log());
        }
        Ok(started)
    }

    /// Starts an agent and does not wait.
    ///
    /// # Errors
    /// It can't be started.
    pub fn spawn(&self, more: &[&str]) -> Result<Started> {
        Ok(Started { process: Process::spawn(self.run_command(more), "agent", &self.directory)? })
    }

    /// Likewise, by a command that is made of the usual one.
    ///
    /// # Errors
    /// Likewise.
    pub fn spawn_by(&self, made: impl FnOnce(Command) -> Command) -> Result<Started> {
        Ok(Started { process: Process::spawn(made(self.run_command(&[])), "agent", &self.directory)? })
    }

    /// Runs an agent that is expected to end by itself.
    ///
    /// # Errors
    /// It can't be started.
    pub fn run(&self, more: &[&str]) -> Result<Ran> {
        run(&mut self.run_command(more))
    }

    /// One of the commands that ask the agent, in its namespace, with its runtime directory.
    ///
    /// # Errors
    /// It can't be started.
    pub fn ask<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Result<Ran> {
        run(&mut self.ask_command(arguments))
    }

    /// The command of [`ask`](Self::ask).
    #[must_use]
    pub fn ask_command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = self.namespace.command(&self.binary);
        command.arg("--runtime-dir").arg(self.runtime()).args(arguments);
        command.env_remove("SSH_CONNECTION").env_remove("SSH_CLIENT");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Writes the rules file and asks for a reload, even where that cuts who was let in before: the guard has tests of its own.
    ///
    /// # Errors
    /// It can't be written, or the reload fails.
    pub fn reload(&self, yaml: &str) -> Result<String> {
        self.policy(yaml)?;
        let ran = self.ask(["reload", "--force"])?;
        anyhow::ensure!(ran.code == Some(0), "reload ended with {:?}: {}", ran.code, ran.text());
        Ok(ran.stdout)
    }

    /// Scrapes the agent.
    ///
    /// # Errors
    /// It does not answer, or not in Prometheus' format.
    pub fn metrics(&self) -> Result<Metrics> {
        let (status, text) = self.namespace.get(self.metrics, "/metrics")?;
        anyhow::ensure!(status == 200, "/metrics answers {status}: {text}");
        text.parse()
    }

    /// `mpesa-fw status --format json`.
    ///
    /// # Errors
    /// No agent answers, or not with JSON.
    pub fn status(&self) -> Result<serde_json::Value> {
        let ran = self.ask(["status", "--format", "json"])?;
        serde_json::from_str(&ran.stdout)
            .with_context(|| format!("status ended with {:?}: {}", ran.code, ran.text()))
    }

    /// Its directory for the control socket.
    #[must_use]
    pub fn runtime(&self) -> PathBuf {
        self.directory.join("runtime")
    }

    /// Where logs of its servers may go too.
    #[must_use]
    pub fn logs(&self) -> &Path {
        &self.directory
    }
}
