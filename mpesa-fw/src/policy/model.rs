//! A policy as its author meant it: validated, every name resolved to what it stands for.
//! Nothing here knows of YAML or of the kernel.

use std::{fmt, num::NonZeroU64, ops::RangeInclusive, path::PathBuf, time::Duration};

use ipnet::IpNet;
use mpesa_fw_common::{
    limit::{LimitPer, LimitWhat},
    settings::{Mode, Verdict},
};
use serde::Serialize;
use time::Date;

/// A validated policy. Its services and destinations are in file order, at most 64 each, their names unique.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Grows with every signed change.
    pub serial: Option<u64>,
    /// Whether verdicts are carried out.
    pub mode: Mode,
    /// Interfaces to protect: names, globs, or `default`. Never empty.
    pub interfaces: Vec<InterfacePattern>,
    /// All address sets, in file order, included files first.
    pub sets: Vec<AddressSet>,
    /// Rules for packets towards this host.
    pub ingress: Ingress,
    /// Rules for packets from this host.
    pub egress: Egress,
    /// Every file that was read, in the order of reading, the rules file first; a set file that two sets name is here twice.
    pub files: Vec<PathBuf>,
    /// SHA-256 over those files in that order, of each its length (u64, little-endian) and its contents.
    pub source_digest: [u8; 32],
}

/// One entry of `interfaces:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InterfacePattern {
    /// The interface that holds the default route.
    Default,
    /// Exactly this name.
    Name(String),
    /// `*` and `?` as in a shell; never matches `lo`, veth or bridges.
    Glob(String),
}

/// Named addresses with a provenance.
#[derive(Clone, Debug, PartialEq)]
pub struct AddressSet {
    /// Unique among sets.
    pub name: String,
    /// Prefixes, host bits clear; single addresses are /32 or /128.
    pub prefixes: Vec<IpNet>,
    /// Where the addresses were copied from.
    pub source: Option<String>,
    /// When that was last compared.
    pub checked: Option<Date>,
    /// After this day: a warning, a metric, an alert; never a drop.
    pub expires: Option<Date>,
    /// A drop from here means "the provider may have moved".
    pub watch: Vec<IpNet>,
    /// Where it stands.
    pub at: Location,
}

/// `ingress:`
#[derive(Clone, Debug, PartialEq)]
pub struct Ingress {
    /// For packets that no service claims.
    pub default: Verdict,
    /// In file order.
    pub services: Vec<Service>,
}

/// A rule for packets towards this host.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Unique within ingress; the label on every count.
    pub name: String,
    /// Protocols with their ports or types; never empty.
    pub claims: Vec<Claim>,
    /// Local addresses that receive it; empty: all.
    pub to: Vec<IpNet>,
    /// Sources that may send it.
    pub from: Addresses,
    /// How much a source, or all of them, may send.
    pub limit: Option<Limit>,
    /// Whose sockets may answer; empty: everybody's.
    pub by: Vec<Owner>,
    /// Where it stands.
    pub at: Location,
}

/// `egress:`
#[derive(Clone, Debug, PartialEq)]
pub struct Egress {
    /// For packets that no destination claims.
    pub default: Verdict,
    /// Whether programs hear at once, when they connect or send, that they may not.
    pub refuses_attempts: bool,
    /// In file order.
    pub allow: Vec<Destination>,
}

/// A rule for packets from this host.
#[derive(Clone, Debug, PartialEq)]
pub struct Destination {
    /// Unique within egress; the label on every count.
    pub name: String,
    /// Protocols with their ports or types; never empty.
    pub claims: Vec<Claim>,
    /// Where it may go by address. May be empty where `names` is not.
    pub to: Addresses,
    /// Where it may go by DNS name: lower case, no trailing dot, all below `example.com` as `*.example.com`.
    pub names: Vec<String>,
    /// Whose sockets may send; empty: everybody's, and what is forwarded.
    pub by: Vec<Owner>,
    /// Where it stands.
    pub at: Location,
}

/// Whose sockets a rule is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// A systemd unit by its full name, `payments.service`, with all of its sub-groups; of a template, `payments@.service`,
    /// every instance.
    Unit(String),
    /// A user by name or number.
    User(String),
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unit(unit) => write!(f, "unit {unit}"),
            Self::User(user) => write!(f, "user {user}"),
        }
    }
}

/// Addresses of a rule, its sets already resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct Addresses {
    /// `any` is among them: every address of both families.
    pub any: bool,
    /// Prefixes written in the rule itself.
    pub prefixes: Vec<IpNet>,
    /// Positions in [`Policy::sets`].
    pub sets: Vec<usize>,
}

impl Addresses {
    /// Its prefixes, those of its sets last. None: no address, or `any`.
    pub fn prefixes<'p>(&'p self, sets: &'p [AddressSet]) -> impl Iterator<Item = &'p IpNet> {
        self.prefixes.iter().chain(self.sets.iter().flat_map(|set| &sets[*set].prefixes))
    }
}

/// One protocol with what a rule claims of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// TCP to these ports.
    Tcp(Vec<RangeInclusive<u16>>),
    /// UDP to these ports.
    Udp(Vec<RangeInclusive<u16>>),
    /// ICMP of these types; empty: all.
    Icmp(Vec<u8>),
    /// ICMPv6 of these types; empty: all.
    Icmpv6(Vec<u8>),
    /// Another protocol as a whole, by its IANA number. Never 1, 6, 17 or 58.
    Other(u8),
}

/// All ports: `ports: any`. Port 0 is none.
pub const ALL_PORTS: RangeInclusive<u16> = 1..=u16::MAX;

/// `limit:` of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Connections or packets.
    pub what: LimitWhat,
    /// Each source or all together.
    pub per: LimitPer,
    /// How many in each `period`.
    pub rate: NonZeroU64,
    /// One second, minute or hour.
    pub period: Duration,
    /// How many at once; the rate unless the policy says otherwise.
    pub burst: NonZeroU64,
}

/// A place in a policy file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Location {
    /// As it was given or included.
    pub file: PathBuf,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
}
