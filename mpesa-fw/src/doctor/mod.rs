//! What keeps the firewall from doing its work, or will: looked for before it is attached and while it runs.
//!
//! Each module looks at one thing and says what it found. Nothing here changes anything.

mod bypass;
mod clock;
mod ipsec;
mod kernel;
mod names;
mod network;
mod owners;
mod rules;
mod tampering;
mod traffic;

use std::path::PathBuf;

use serde::Serialize;

use crate::{
    agent::{Listeners, Status},
    policy::model::Policy,
};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Packets are lost, or let in, or nobody would know: to be mended.
    Wrong,
    /// Second best, or for somebody to decide.
    Note,
    /// Looked at, and as it should be.
    Fine,
}

impl Level {
    /// The word for people.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Wrong => "WRONG",
            Self::Note => "note",
            Self::Fine => "fine",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at, in one word.
    pub about: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What was found.
    pub what: String,
    /// Why it matters; empty where nothing is to be done.
    pub why: String,
    /// What to do; empty where nothing is.
    pub advice: String,
}

impl Finding {
    fn fine(about: &'static str, what: impl Into<String>) -> Self {
        Self { about, level: Level::Fine, what: what.into(), why: String::new(), advice: String::new() }
    }

    fn note(about: &'static str, what: impl Into<String>, why: &str, advice: &str) -> Self {
        Self { about, level: Level::Note, what: what.into(), why: why.into(), advice: advice.into() }
    }

    fn wrong(about: &'static str, what: impl Into<String>, why: &str, advice: &str) -> Self {
        Self { about, level: Level::Wrong, what: what.into(), why: why.into(), advice: advice.into() }
    }
}

/// What is looked at.
pub struct Subject {
    /// The rules file.
    pub rules: PathBuf,
    /// Directory of pins.
    pub bpffs: PathBuf,
    /// The agent's answer; or why there is none.
    pub status: Result<Box<Status>, String>,
    /// Likewise of what listens.
    pub listeners: Result<Listeners, String>,
}

/// Looks at everything, the worst first.
pub async fn examine(subject: &Subject) -> Vec<Finding> {
    let (policy, mut findings) = rules::examine(&subject.rules);
    findings.extend(kernel::examine(&subject.bpffs));
    findings.extend(owners::cgroups());
    findings.extend(clock::examine());
    findings.extend(network::examine(policy.as_ref(), subject.status.as_deref().ok()).await);
    if let Some(policy) = &policy {
        findings.extend(names::examine(policy).await);
        findings.extend(owners::examine(policy));
        findings.extend(ipsec::examine(policy));
    }
    findings.extend(bypass::examine(&subject.bpffs, subject.status.as_deref().ok()));
    findings.extend(traffic::examine(subject, policy.as_ref()));
    findings.sort_by_key(|finding| finding.level);
    findings
}

/// Every prefix that may send to a service with a port.
fn callers(policy: &Policy) -> Vec<ipnet::IpNet> {
    let services = policy.ingress.services.iter();
    services
        .filter(|service| !service.from.any)
        .flat_map(|service| service.from.prefixes(&policy.sets).copied())
        .collect()
}
