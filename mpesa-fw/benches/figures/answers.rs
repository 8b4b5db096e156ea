//! Nanoseconds for answers of name servers, which the ingress program reads.

use std::fmt;

use anyhow::{Result, ensure};
use mpesa_fw_common::{
    Address, Family,
    counter::SLOT_INGRESS_NONE,
    dns::{Answered, Learnt, PORT},
    packet::protocol,
    state::FlowKey,
};

use crate::{
    datapath::{Arguments, compiled},
    kernel::{Counted, Kernel, Probe, XDP_PASS},
    packet, rounds,
    sample::against,
    sets::{PrefixSet, Spread},
    traffic::{Traffic, Varied},
};

const RULES: &str = r#"
version: 1
mode: enforce
interfaces: [eth0]
ingress: { default: drop, services: [] }
egress:
  default: drop
  allow:
    - { name: dns, to: [10.0.0.2], protocol: udp, ports: [53] }
    - { name: mirror, to: [10.0.0.3], protocol: udp, ports: [53] }
    - { name: cloud, to: ["*.cloud.example.net", api.example.net], ports: [443] }
"#;
const RESOLVER: [u8; 4] = [10, 0, 0, 2];
/// No destination lists it: its answers pass, and are not read.
const OTHER_RESOLVER: [u8; 4] = [10, 0, 0, 9];
const LOCAL_PORT: u16 = 0xc000;
/// Where each address of an answer is one of 256.
const ADDRESSES: u32 = 198 << 24 | 18 << 16;
/// What an answer of one record may take more than one that is not read (the issue: parsing it, 1 µs).
const TARGET: f64 = 1000.0;

/// What is rated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Passes along its flow only.
    NotRead,
    /// To a name of the policy, with so many addresses.
    Allowed(u16),
    /// To a name of no rule, with so many addresses.
    Other(u16),
}

const ROWS: [Kind; 5] = [Kind::NotRead, Kind::Allowed(1), Kind::Allowed(16), Kind::Other(1), Kind::Other(16)];

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRead => formatter.write_str("of a server that no destination lists: not read"),
            Self::Allowed(count) => write!(formatter, "to a name of the policy, {count} address(es)"),
            Self::Other(count) => write!(formatter, "to a name of no rule, {count} address(es)"),
        }
    }
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::NotRead | Self::Allowed(_) => "ip-10-77-1-2.cloud.example.net",
            Self::Other(_) => "ip-10-77-1-2.cloud.example.org",
        }
    }

    const fn addresses(self) -> u16 {
        match self {
            Self::NotRead => 1,
            Self::Allowed(count) | Self::Other(count) => count,
        }
    }

    const fn resolver(self) -> [u8; 4] {
        match self {
            Self::NotRead => OTHER_RESOLVER,
            Self::Allowed(_) | Self::Other(_) => RESOLVER,
        }
    }

    /// The last of its addresses varies.
    fn traffic(self) -> Result<Traffic> {
        let packet = packet::answer(self.resolver(), LOCAL_PORT, self.name(), self.addresses())?;
        let at = packet.len() as u64 - 4;
        let places = (0..256_u64).map(|n| [u64::from(ADDRESSES) | n, 0]).collect();
        Ok(Traffic {
            v4: true,
            packet,
            address: Varied { at, places, in_turn: false, random: [0; 2] },
            number: None,
        })
    }
}

/// Rates all of it.
pub(crate) fn table(object: &[u8], arguments: &Arguments) -> Result<()> {
    println!("| answer | not read, ns | the program, ns | over not read |\n|---|---|---|---|");
    let compiled = compiled(&PrefixSet::new(true, Spread::Random, 12), RULES)?;
    let counted = Counted { slot: SLOT_INGRESS_NONE, dropped: None };
    let probe = Probe { name: "bench_ingress", answer: XDP_PASS };
    let load = |kind: Kind| -> Result<Kernel> {
        let mut kernel = Kernel::new(object, &compiled, &kind.traffic()?, &[probe], &[])?;
        let local = Address::from_v4_octets(packet::LOCAL4);
        let server = Address::from_v4_octets(kind.resolver());
        let flow = FlowKey::new(Family::V4, protocol::UDP, local, LOCAL_PORT, server, PORT);
        kernel.record_flows(std::iter::once(flow), 0)?;
        Ok(kernel)
    };
    for kind in ROWS {
        eprintln!("an answer {kind}");
        let (mut plain, mut kernel) = (load(Kind::NotRead)?, load(kind)?);
        let [plain, program] = rounds::pair([&mut plain, &mut kernel], probe, arguments)?;
        let (so, other) = kernel.counted(counted)?;
        let expected = rounds::packets(arguments);
        ensure!(so == expected && other == 0, "{so} passed and {other} others of {expected} packets");
        let answered = kernel.entries::<Answered>("ANSWERED")?;
        let learnt = kernel.entries::<Learnt>("LEARNT")?;
        let (read, allowed) = (kind != Kind::NotRead, matches!(kind, Kind::Allowed(_)));
        ensure!((answered > 200) == read && (learnt > 200) == allowed, "{answered} noted, {learnt} learnt");
        println!(
            "| {kind} | {} | {} | {} |",
            plain.least_and_median(),
            program.least_and_median(),
            against(
                program.over(&plain).median(),
                (kind == Kind::Allowed(1) || kind == Kind::Other(1)).then_some(TARGET)
            ),
        );
    }
    Ok(())
}
