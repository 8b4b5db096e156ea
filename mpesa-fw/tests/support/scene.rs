//! One protected host whose datapath is tampered with, and a clock at its log.

#![allow(dead_code, reason = "each test program uses its own part")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use mpesa_fw_common::ABI_VERSION;
use testbed::{Answer, Curl, Firewall, Started, holds, ok};

use crate::support::{FENCE, Field, SOON, WEB, policy};

/// What is promised.
pub(crate) const NOTICED: Duration = Duration::from_secs(2);

/// One protected host, and the ways to hurt it.
pub(crate) struct Scene<'a> {
    pub(crate) field: &'a Field,
    pub(crate) firewall: Firewall<'a>,
    pub(crate) agent: Started,
    told: usize,
}

impl<'a> Scene<'a> {
    pub(crate) fn new(field: &'a Field, more: &[&str]) -> Result<Self> {
        let firewall = field.firewall()?;
        firewall.policy(&policy(&[WEB, FENCE], &[]))?;
        let agent = firewall.start(more)?;
        // The first look has been.
        std::thread::sleep(testbed::here(Duration::from_millis(1200)));
        Ok(Self { field, firewall, agent, told: 0 })
    }

    pub(crate) fn pins(&self) -> PathBuf {
        self.firewall.bpffs.join(format!("abi-{ABI_VERSION}"))
    }

    pub(crate) fn generation(&self) -> Result<PathBuf> {
        let entries = fs::read_dir(self.pins())?.filter_map(Result::ok).map(|entry| entry.path());
        let is_generation =
            |path: &PathBuf| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("generation-"));
        entries.into_iter().find(is_generation).context("a generation")
    }

    /// Tells what the log has said of tampering since the last time, and how long it took from now. Nobody asks the agent
    /// anything meanwhile.
    pub(crate) fn noticed(&mut self, kind: &str, place: &str) -> Result<String> {
        let begun = Instant::now();
        let mut line = None;
        holds(&format!("{kind} at {place}"), NOTICED, || {
            let log = self.agent.process.log();
            let told = log.lines().filter(|line| line.contains("tampering: ")).skip(self.told);
            line = told.map(str::to_owned).find(|line| {
                line.contains(&format!("kind=\"{kind}\"")) && line.contains(&format!("place={place}"))
            });
            line.is_some()
        })
        .with_context(|| self.agent.process.log())?;
        self.told = self.agent.process.log().lines().filter(|line| line.contains("tampering: ")).count();
        println!("{kind} at {place}: noticed after {} ms", begun.elapsed().as_millis());
        line.context("it was there")
    }

    pub(crate) fn counted(&self, kind: &str) -> Result<f64> {
        Ok(self.firewall.metrics()?.sum("mpesa_fw_tampering_total", &[("kind", kind)]))
    }

    pub(crate) fn is_enforced(&self) -> bool {
        Curl::http(self.field.host.place.v4, 80).from(&self.field.safaricom.namespace).is_ok()
            && Curl::http(self.field.host.place.v4, 80).from(&self.field.attacker.namespace)
                == Answer::Silence
    }

    /// Protection is back, by packets and by what is said.
    pub(crate) fn restored(&self) -> Result<()> {
        holds("protection", SOON, || {
            self.firewall.metrics().is_ok_and(|metrics| metrics.sum("mpesa_fw_enforcing", &[]) == 2.0)
        })?;
        ensure!(self.is_enforced(), "packets are judged again");
        holds("a record that says so", SOON, || {
            self.firewall.status().is_ok_and(|status| {
                status["tampering"].as_array().is_some_and(|all| all.iter().all(|one| one["mended"] == true))
            })
        })
        .with_context(|| self.firewall.ask(["status"]).map(|ran| ran.stdout).unwrap_or_default())
    }

    pub(crate) fn bpftool(&self, arguments: &[&str]) -> Result<String> {
        ok(self.field.host.namespace.command("bpftool").args(arguments))
    }

    pub(crate) fn link_id(&self, name: &str) -> Result<String> {
        let pin = self.pins().join("links").join(name);
        let shown = self.bpftool(&["link", "show", "pinned", &pin.to_string_lossy()])?;
        Ok(shown.split(':').next().unwrap_or_default().trim().to_owned())
    }

    /// Puts another program into a link, and lives until its standard input ends.
    pub(crate) fn intruder(&self, link: &Path, kind: &str) -> Result<std::process::Child> {
        let mut python = self.python(&["replace", &link.to_string_lossy(), kind]);
        let mut intruder = python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut done = [0; 4];
        std::io::Read::read_exact(intruder.stdout.as_mut().context("piped")?, &mut done)?;
        Ok(intruder)
    }

    pub(crate) fn python(&self, arguments: &[&str]) -> std::process::Command {
        let mut python = self.field.host.namespace.command("python3");
        python.args(["-c", include_str!("tamper.py")]).args(arguments);
        python
    }
}
