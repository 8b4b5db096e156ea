//! Policies for tests, built from the model: start from [`policy`], push rules and sets made by the functions below.

use std::path::PathBuf;

use ipnet::IpNet;
use mpesa_fw_common::{Mode, Verdict};

use super::{Compiled, Registry, Slots, compile};
use crate::policy::model::{
    AddressSet, Addresses, Claim, Destination, Egress, Ingress, InterfacePattern, Location, Policy, Service,
};

/// Drops everything, has no rules.
pub(crate) fn policy() -> Policy {
    Policy {
        serial: None,
        mode: Mode::Enforce,
        interfaces: vec![InterfacePattern::Default],
        sets: Vec::new(),
        ingress: Ingress { default: Verdict::Drop, services: Vec::new() },
        egress: Egress { default: Verdict::Drop, refuses_attempts: false, allow: Vec::new() },
        files: vec![PathBuf::from("test.yaml")],
        source_digest: [7; 32],
    }
}

/// A set of these prefixes.
pub(crate) fn set(name: &str, prefixes: Vec<IpNet>) -> AddressSet {
    AddressSet {
        name: name.to_owned(),
        prefixes,
        source: None,
        checked: None,
        expires: None,
        watch: Vec::new(),
        at: location(),
    }
}

/// TCP 443 from these addresses.
pub(crate) fn service(name: &str, from: Addresses) -> Service {
    Service {
        name: name.to_owned(),
        claims: vec![Claim::Tcp(vec![443..=443])],
        to: Vec::new(),
        from,
        limit: None,
        by: Vec::new(),
        at: location(),
    }
}

/// TCP 443 to these addresses.
pub(crate) fn destination(name: &str, to: Addresses) -> Destination {
    Destination {
        name: name.to_owned(),
        claims: vec![Claim::Tcp(vec![443..=443])],
        to,
        names: Vec::new(),
        by: Vec::new(),
        at: location(),
    }
}

/// `any`.
pub(crate) fn any() -> Addresses {
    Addresses { any: true, prefixes: Vec::new(), sets: Vec::new() }
}

/// Prefixes written in a rule.
pub(crate) fn inline(list: &[&str]) -> Addresses {
    Addresses { any: false, prefixes: prefixes(list), sets: Vec::new() }
}

/// Sets by their positions.
pub(crate) fn sets(positions: &[usize]) -> Addresses {
    Addresses { any: false, prefixes: Vec::new(), sets: positions.to_vec() }
}

/// Parsed prefixes.
pub(crate) fn prefixes(list: &[&str]) -> Vec<IpNet> {
    list.iter().map(|prefix| prefix.parse().expect("a prefix")).collect()
}

/// Where nothing stands.
pub(crate) fn location() -> Location {
    Location { file: PathBuf::from("test.yaml"), line: 1, column: 1 }
}

/// Slots from an empty registry.
pub(crate) fn slots(policy: &Policy) -> Slots {
    Registry::new().assign(policy).expect("there is room").slots
}

/// Compiled with slots from an empty registry.
pub(crate) fn compiled(policy: &Policy) -> Compiled {
    compile(policy, &slots(policy)).expect("it fits")
}
