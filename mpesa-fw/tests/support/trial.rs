//! A policy that nobody would confirm, on trial.

use std::{process::Command, time::Duration};

use anyhow::{Result, ensure};
use testbed::{Answer, Curl, Firewall, Ran, Started, run};

use super::{Field, WEB, policy};

/// Lets the attacker in and keeps Safaricom out: nobody would confirm that.
pub const WRONG: &str = "{ name: web, ports: [80], from: [198.51.100.66] }";
/// For a trial that nobody confirms.
pub const SHORT: &str = "5s";
/// For a trial that must not end by itself.
pub const LONG: &str = "600s";
/// Deadline, the watchdog's grace, and a slow machine.
pub const TAKEN_BACK: Duration = Duration::from_secs(30);

pub fn safaricom_is_let_in(field: &Field) -> bool {
    Curl::http(field.host.place.v4, 80).from(&field.safaricom.namespace).is_ok()
}

pub fn right(field: &Field) -> bool {
    safaricom_is_let_in(field)
        && Curl::http(field.host.place.v4, 80).from(&field.attacker.namespace) == Answer::Silence
}

pub fn wrong(field: &Field) -> bool {
    Curl::http(field.host.place.v4, 80).from(&field.attacker.namespace).is_ok()
        && Curl::http(field.host.place.v4, 80).from(&field.safaricom.namespace) == Answer::Silence
}

/// Puts the wrong policy on trial.
pub fn on_trial(firewall: &Firewall<'_>, window: &str) -> Result<Ran> {
    firewall.policy(&policy(&[WRONG], &[]))?;
    let ran = firewall.ask(["reload", "--force", "--confirm-within", window])?;
    ensure!(ran.code == Some(0), "{}", ran.text());
    Ok(ran)
}

pub fn said(ran: &Ran, code: i32, what: &str) -> Result<()> {
    ensure!(ran.code == Some(code) && ran.text().contains(what), "not {code} and {what:?}: {}", ran.text());
    Ok(())
}

/// Processes that wait for the end of a trial of this firewall.
pub fn watchdogs(firewall: &Firewall<'_>) -> Result<Vec<String>> {
    let pattern = format!("{} watchdog", firewall.runtime().display());
    Ok(run(Command::new("pgrep").args(["-f", &pattern]))?.stdout.lines().map(str::to_owned).collect())
}

pub fn kill_watchdogs(firewall: &Firewall<'_>) -> Result<()> {
    for pid in watchdogs(firewall)? {
        run(Command::new("kill").args(["-9", &pid]))?;
    }
    Ok(())
}

pub fn started<'f>(field: &'f Field) -> Result<(testbed::serve::Nginx, Firewall<'f>, Started)> {
    let web = field.web(&[80])?;
    let (firewall, agent) = field.protected(&policy(&[WEB], &[]))?;
    ensure!(right(field));
    Ok((web, firewall, agent))
}
