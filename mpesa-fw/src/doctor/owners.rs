//! Whether the units and users of the rules are there, and the cgroups by which units are told.

use std::fs;

use super::Finding;
use crate::{
    agent::owners::of_policy,
    datapath::cgroup_root,
    policy::model::{Owner, Policy},
};

const ABOUT: &str = "owners";

/// What the firewall loses on a host that has only cgroup v1.
pub(super) fn cgroups() -> Option<Finding> {
    let error = cgroup_root().err()?;
    Some(Finding::wrong(
        "cgroups",
        error.to_string(),
        "units are not known, and what only they may do is denied; completed connections are not counted; nobody is refused at connect, \
         nor ways round TC",
        "boot with `systemd.unified_cgroup_hierarchy=1` (the default of systemd since 243), or `mount -t cgroup2 cgroup2 /mnt`, where \
         units will have groups only if systemd makes them there",
    ))
}

pub(super) fn examine(policy: &Policy) -> Vec<Finding> {
    let (owners, error) = of_policy(policy);
    let units_are_known = error.is_none();
    let mut findings: Vec<Finding> = owners
        .iter()
        .filter(|(owner, _)| units_are_known || matches!(owner, Owner::User(_)))
        .map(|(owner, present)| one(owner, *present))
        .collect();
    let has_owned_services = policy.ingress.services.iter().any(|service| !service.by.is_empty());
    findings.extend(has_owned_services.then(cookies).flatten());
    // That there are no cgroups is said by itself.
    if let (Some(error), Ok(_)) = (error, cgroup_root()) {
        findings.push(Finding::wrong(
            ABOUT,
            format!("units can't be looked for: {error}"),
            "what only units may do is denied",
            "run this as root",
        ));
    }
    findings
}

/// Whose a listener is, is noted from an answer that is no SYN cookie: where all are, it never is.
fn cookies() -> Option<Finding> {
    const ALWAYS: &str = "2";
    let how = fs::read_to_string("/proc/sys/net/ipv4/tcp_syncookies").ok()?;
    (how.trim() == ALWAYS).then(|| {
        Finding::wrong(
            ABOUT,
            "net.ipv4.tcp_syncookies is 2: each SYN is answered by cookie",
            "a service with `by` answers nobody before it has answered once without",
            "`sysctl -w net.ipv4.tcp_syncookies=1` (the default): cookies when there are too many SYNs",
        )
    })
}

fn one(owner: &Owner, present: usize) -> Finding {
    match (owner, present) {
        (_, 1..) => Finding::fine(ABOUT, format!("{owner} is there")),
        (Owner::User(_), 0) => Finding::wrong(
            ABOUT,
            format!("there is no {owner}"),
            "what only that user may do nobody may",
            "is the name misspelt, or the user gone? `getent passwd` lists them; take who is gone out of `by`",
        ),
        (Owner::Unit(_), 0) => Finding::note(
            ABOUT,
            format!("{owner} does not run"),
            "what only it may do nobody may, until it starts",
            "is the name misspelt? `systemctl list-units --all` has all; one that a user made (`systemctl --user`) never counts",
        ),
    }
}
