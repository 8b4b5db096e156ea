//! Nanoseconds for packets of each kind that is not simply denied: what passes, what belongs to a flow, what is cut in
//! pieces, what nobody asked for.

use std::fmt;

use anyhow::{Result, ensure};
use mpesa_fw::compile::Compiled;
use mpesa_fw_common::{
    Address, DropReason, Family,
    counter::SLOT_INGRESS_NONE,
    packet::protocol,
    settings::Direction,
    state::{FLOWS_CAPACITY, FRAGMENTS_CAPACITY, FlowKey, FragmentKey},
};

use crate::{
    datapath::{Arguments, compiled, slot},
    kernel::{Counted, Kernel, Probe, TC_PASS, XDP_DROP, XDP_PASS},
    packet, rounds,
    sample::against,
    sets::{PrefixSet, Spread},
    traffic::{Number, PLACES, Traffic, Varied, source_at, target_at},
};

/// The set may reach services and be reached.
const RULES: &str = r#"
version: 1
mode: enforce
interfaces: [eth0]
sets:
  safaricom: { addresses: [196.201.214.200, "2c0f:fe38::200"] }
  partners: { file: feed.netset }
ingress:
  default: drop
  services:
    - { name: callbacks, ports: [443], from: [safaricom] }
    - { name: partners, ports: [8443], from: [partners] }
    - { name: bulk, protocol: udp, ports: [5000], from: [partners] }
egress:
  default: drop
  allow:
    - { name: dns, to: [10.0.0.2], protocol: [udp, tcp], ports: [53] }
    - { name: peers, to: [partners], ports: [8443] }
"#;

// Positions in RULES.
const CALLBACKS: usize = 0;
const PARTNERS: usize = 1;
const BULK: usize = 2;
const DNS: usize = 0;
const PEERS: usize = 1;

const PARTNERS_PORT: u16 = 8443;
const BULK_PORT: u16 = 5000;
/// No rule knows it.
const UNCLAIMED_PORT: u16 = 7000;

/// Flows, each with a local port and a peer of its own; the peers are in 198.18.0.0/18, which no rule allows. Powers of two.
const MANY: u16 = 1 << 14;
/// As many as a cache of the first level holds.
const FEW: u16 = 1 << 4;
const FIRST_LOCAL_PORT: u16 = 0xc000;
const PEERS_OF_FLOWS: u32 = 198 << 24 | 18 << 16;
/// Datagrams of which the first fragment passed, from 198.18.0.0/20: half of what there is room for.
const DATAGRAMS: u16 = 1 << 12;
const FIRST_IDENTIFICATION: u16 = 0x1000;

const IDENTIFICATION_AT: u64 = 14 + 4;
const SOURCE_PORT_AT: u64 = 14 + 20;
const TARGET_PORT_AT: u64 = 14 + 22;

/// What is rated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A SYN to a service, from within the set.
    Allowed,
    /// A segment from the peer of one of so many flows.
    Reply(u16),
    /// A segment to the peer of one of so many flows.
    Sent(u16),
    /// A SYN that opens a flow to somebody within the set.
    Opening,
    /// A SYN to a port that no service claims.
    NoService,
    /// A denied SYN behind six extension headers.
    ExtensionHeaders,
    /// The first fragment of a datagram that is allowed.
    FirstFragment,
    /// A later one of a datagram whose first fragment passed.
    LaterFragment,
    /// A later one of which no first was seen.
    StrayFragment,
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Reply(flows) => return write!(formatter, "inbound, of one of {flows} flows"),
            Self::Sent(flows) => return write!(formatter, "outbound, of one of {flows} flows"),
            Self::Allowed => "callback, allowed: its source is in the set",
            Self::Opening => "outbound, opens a flow to an address in the set",
            Self::NoService => "to a port that no service claims, dropped",
            Self::ExtensionHeaders => "denied, behind six extension headers",
            Self::FirstFragment => "first fragment, allowed: its source is in the set",
            Self::LaterFragment => "later fragment, its first one passed",
            Self::StrayFragment => "later fragment, no first one was seen, dropped",
        })
    }
}

/// What is rated, family by family (`true`: IPv4).
const ROWS: [(Kind, bool); 13] = [
    (Kind::Allowed, true),
    (Kind::FirstFragment, true),
    (Kind::Opening, true),
    (Kind::Reply(MANY), true),
    (Kind::Reply(FEW), true),
    (Kind::Sent(MANY), true),
    (Kind::Sent(FEW), true),
    (Kind::NoService, true),
    (Kind::LaterFragment, true),
    (Kind::StrayFragment, true),
    (Kind::Allowed, false),
    (Kind::ExtensionHeaders, false),
    (Kind::NoService, false),
];

impl Kind {
    /// Whether the prefixes are searched for it.
    const fn searches(self) -> bool {
        match self {
            Self::Allowed | Self::Opening | Self::ExtensionHeaders | Self::FirstFragment => true,
            Self::Reply(_) | Self::Sent(_) | Self::NoService | Self::LaterFragment | Self::StrayFragment => {
                false
            }
        }
    }

    /// What it may take more than parsing.
    fn target(self) -> Option<f64> {
        matches!(self, Self::Reply(MANY) | Self::Sent(MANY)).then_some(60.0)
    }

    const fn direction(self) -> Direction {
        match self {
            Self::Sent(_) | Self::Opening => Direction::Egress,
            Self::Allowed
            | Self::Reply(_)
            | Self::NoService
            | Self::ExtensionHeaders
            | Self::FirstFragment
            | Self::LaterFragment
            | Self::StrayFragment => Direction::Ingress,
        }
    }

    /// The least, parsing, and the program itself.
    fn probes(self, counted: Counted) -> [Probe; 3] {
        let ingress = if counted.dropped.is_some() { XDP_DROP } else { XDP_PASS };
        match self.direction() {
            Direction::Ingress => [
                Probe { name: "bench_bare", answer: XDP_DROP },
                Probe { name: "bench_parse", answer: XDP_DROP },
                Probe { name: "bench_ingress", answer: ingress },
            ],
            Direction::Egress => ["bench_bare_tc", "bench_parse_tc", "bench_egress"]
                .map(|name| Probe { name, answer: TC_PASS }),
        }
    }

    /// As what its packets must be counted.
    fn counted(self, compiled: &Compiled) -> Counted {
        let rule = |direction, rule| slot(compiled, direction, rule);
        let (slot, dropped) = match self {
            Self::Allowed => (rule(Direction::Ingress, PARTNERS), None),
            Self::Reply(_) => (SLOT_INGRESS_NONE, None),
            Self::Sent(_) => (rule(Direction::Egress, DNS), None),
            Self::Opening => (rule(Direction::Egress, PEERS), None),
            Self::NoService => (SLOT_INGRESS_NONE, Some(DropReason::NoService)),
            Self::ExtensionHeaders => {
                (rule(Direction::Ingress, CALLBACKS), Some(DropReason::SourceNotAllowed))
            }
            Self::FirstFragment | Self::LaterFragment => (rule(Direction::Ingress, BULK), None),
            Self::StrayFragment => (SLOT_INGRESS_NONE, Some(DropReason::Fragment)),
        };
        Counted { slot, dropped }
    }

    fn traffic(self, set: &PrefixSet) -> Result<Traffic> {
        let v4 = set.v4;
        let within_set = |at| Varied { at, places: set.members(PLACES), in_turn: true, random: [0; 2] };
        let one_of = |count: u16, at| Varied {
            at,
            places: vec![[PEERS_OF_FLOWS.into(), 0]; 256],
            in_turn: false,
            random: [u64::from(count - 1), 0],
        };
        let local_port = |flows: u16, at| Some(Number { at, fixed: FIRST_LOCAL_PORT, random: flows - 1 });
        let anywhere = |packet| Traffic::from(packet, &set.sources()[0]);
        Ok(match self {
            Self::Allowed => Traffic {
                v4,
                packet: packet::syn(v4, PARTNERS_PORT)?,
                address: within_set(source_at(v4)),
                number: None,
            },
            Self::Reply(flows) => Traffic {
                v4,
                packet: packet::segment(true, UNCLAIMED_PORT)?,
                address: one_of(flows, source_at(v4)),
                number: local_port(flows, TARGET_PORT_AT),
            },
            Self::Sent(flows) => Traffic {
                v4,
                packet: packet::segment(false, UNCLAIMED_PORT)?,
                address: one_of(flows, target_at(v4)),
                number: local_port(flows, SOURCE_PORT_AT),
            },
            Self::Opening => Traffic {
                v4,
                packet: packet::opening(PARTNERS_PORT)?,
                address: within_set(target_at(v4)),
                number: Some(Number { at: SOURCE_PORT_AT, fixed: 0x8000, random: 0x7fff }),
            },
            Self::NoService => anywhere(packet::syn(v4, UNCLAIMED_PORT)?),
            Self::ExtensionHeaders => anywhere(packet::behind_extension_headers(packet::PORT)?),
            Self::FirstFragment => Traffic {
                v4,
                packet: packet::fragment(BULK_PORT, true)?,
                address: within_set(source_at(v4)),
                number: Some(Number { at: IDENTIFICATION_AT, fixed: 0, random: 0xffff }),
            },
            Self::LaterFragment => Traffic {
                v4,
                packet: packet::fragment(BULK_PORT, false)?,
                address: one_of(DATAGRAMS, source_at(v4)),
                number: Some(Number {
                    at: IDENTIFICATION_AT,
                    fixed: FIRST_IDENTIFICATION,
                    random: DATAGRAMS - 1,
                }),
            },
            Self::StrayFragment => anywhere(packet::fragment(BULK_PORT, false)?),
        })
    }

    /// What the programs would have recorded before.
    fn prepare(self, kernel: &mut Kernel) -> Result<()> {
        let peer = |n: u16| Address::v4(PEERS_OF_FLOWS | u32::from(n));
        let local = Address::from_v4_octets(packet::LOCAL4);
        match self {
            Self::Reply(flows) | Self::Sent(flows) => kernel.record_flows(
                (0..flows).map(|n| {
                    FlowKey::new(
                        Family::V4,
                        protocol::TCP,
                        local,
                        FIRST_LOCAL_PORT | n,
                        peer(n),
                        UNCLAIMED_PORT,
                    )
                }),
                DNS as u8,
            ),
            Self::LaterFragment | Self::StrayFragment => kernel.record_fragments(
                (0..DATAGRAMS).map(|n| FragmentKey {
                    source: peer(n),
                    target: local,
                    id: u32::from(FIRST_IDENTIFICATION | n),
                    protocol: protocol::UDP,
                    direction: Direction::Ingress as u8,
                    reserved: [0; 2],
                }),
                BULK as u8,
            ),
            Self::Allowed
            | Self::Opening
            | Self::NoService
            | Self::ExtensionHeaders
            | Self::FirstFragment => Ok(()),
        }
    }

    /// What they must have recorded themselves: as many as there is room for, but for what each CPU holds back.
    fn check(self, kernel: &mut Kernel) -> Result<()> {
        let (recorded, room) = match self {
            Self::Opening => (kernel.flows()?, FLOWS_CAPACITY as usize),
            Self::FirstFragment => (kernel.fragments()?, FRAGMENTS_CAPACITY as usize),
            Self::Allowed
            | Self::Reply(_)
            | Self::Sent(_)
            | Self::NoService
            | Self::ExtensionHeaders
            | Self::LaterFragment
            | Self::StrayFragment => return Ok(()),
        };
        ensure!(recorded > room / 4 * 3, "{recorded} entries of {room} are recorded");
        Ok(())
    }
}

/// Rates all of it.
pub(crate) fn table(object: &[u8], arguments: &Arguments) -> Result<()> {
    println!(
        "| | packet | prefixes | bare, ns | parsed, ns | the program, ns | over parse | over bare |\n|---|---|---|---|---|---|---|---|"
    );
    for v4 in [true, false] {
        let sets: Vec<PrefixSet> =
            arguments.sizes().map(|size| PrefixSet::new(v4, Spread::Random, size)).collect();
        let policies = sets.iter().map(|set| compiled(set, RULES)).collect::<Result<Vec<_>>>()?;
        for (kind, _) in ROWS.into_iter().filter(|(_, of)| *of == v4) {
            for (set, compiled) in sets.iter().zip(&policies) {
                println!("{}", row(kind, object, set, compiled, arguments)?);
            }
        }
    }
    Ok(())
}

fn row(
    kind: Kind,
    object: &[u8],
    set: &PrefixSet,
    compiled: &Compiled,
    arguments: &Arguments,
) -> Result<String> {
    let (family, count) = (set.family(), set.prefixes.len());
    eprintln!("{family}, {kind}, {count} prefixes");
    let traffic = kind.traffic(set)?;
    let counted = kind.counted(compiled);
    let probes = kind.probes(counted);
    let mut kernel = Kernel::new(object, compiled, &traffic, &probes, &[])?;
    kind.prepare(&mut kernel)?;
    let samples = rounds::rate(&mut kernel, probes, arguments)?;
    let (so, other) = kernel.counted(counted)?;
    let expected = rounds::packets(arguments);
    ensure!(so == expected && other == 0, "{so} as expected and {other} others of {expected} packets");
    kind.check(&mut kernel)?;

    let [bare, parse, program] = &samples;
    Ok(format!(
        "| {family} | {kind} | {count}{} | {} | {} | {} | {} | {} |",
        if kind.searches() { "" } else { " (not searched)" },
        bare.least_and_median(),
        parse.least_and_median(),
        program.least_and_median(),
        against(program.over(parse).median(), kind.target()),
        against(program.over(bare).median(), None),
    ))
}
