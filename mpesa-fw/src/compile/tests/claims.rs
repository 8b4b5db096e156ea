//! Claims: what the table says is what each rule's claims say.

use std::ops::RangeInclusive;

use mpesa_fw_common::{
    RuleSet,
    tables::{CLAIMS_LEN, ClaimIndex},
};
use proptest::{collection::vec, prelude::*};

use crate::{
    compile::testing::{any as anywhere, compiled, destination, policy, service},
    policy::model::{ALL_PORTS, Claim},
};

fn ports() -> impl Strategy<Value = Vec<RangeInclusive<u16>>> {
    let range = (1..=u16::MAX, 1..=u16::MAX).prop_map(|(a, b)| a.min(b)..=a.max(b));
    let one = prop_oneof![Just(1), Just(443), Just(u16::MAX)].prop_map(|port| port..=port);
    vec(prop_oneof![range, one, Just(ALL_PORTS)], 1..4)
}

fn claim() -> impl Strategy<Value = Claim> {
    prop_oneof![
        ports().prop_map(Claim::Tcp),
        ports().prop_map(Claim::Udp),
        vec(any::<u8>(), 0..4).prop_map(Claim::Icmp),
        vec(any::<u8>(), 0..4).prop_map(Claim::Icmpv6),
        any::<u8>().prop_map(Claim::Other),
    ]
}

/// Whether a claim covers an element, each kind asked for itself.
fn covers(claim: &Claim, index: ClaimIndex) -> bool {
    let in_ports = |ports: &[RangeInclusive<u16>], first: ClaimIndex| {
        let port = index.0.checked_sub(first.0).and_then(|port| u16::try_from(port).ok());
        port.is_some_and(|port| ports.iter().any(|range| range.contains(&port)))
    };
    let in_types = |types: &[u8], of: fn(u8) -> ClaimIndex| {
        (0..=255).any(|kind| of(kind) == index && (types.is_empty() || types.contains(&kind)))
    };
    match claim {
        Claim::Tcp(ports) => in_ports(ports, ClaimIndex::tcp(0)),
        Claim::Udp(ports) => in_ports(ports, ClaimIndex::udp(0)),
        Claim::Icmp(types) => in_types(types, ClaimIndex::icmp),
        Claim::Icmpv6(types) => in_types(types, ClaimIndex::icmpv6),
        Claim::Other(number) => ClaimIndex::protocol(*number) == index,
    }
}

fn interesting() -> impl Iterator<Item = u32> {
    let ports = [0, 1, 2, 442, 443, 444, 32768, 65534, 65535];
    let behind = 2 * 65536..CLAIMS_LEN as u32;
    ports.into_iter().flat_map(|port| [port, 65536 + port]).chain(behind)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn of_any_rules(rules in vec(vec(claim(), 1..4), 0..6), other in vec(0..2 * 65536u32, 8)) {
        let mut policy = policy();
        for (n, claims) in rules.iter().enumerate() {
            policy.ingress.services.push(service(&format!("service-{n}"), anywhere()));
            policy.ingress.services[n].claims.clone_from(claims);
        }
        let compiled = compiled(&policy);
        for index in interesting().chain(other) {
            let claiming = rules.iter().enumerate().filter(|(_, claims)| claims.iter().any(|claim| covers(claim, ClaimIndex(index))));
            let expected = RuleSet(claiming.map(|(n, _)| 1 << n).sum());
            prop_assert_eq!(compiled.tables.claims[0][index as usize], expected, "element {}", index);
        }
        prop_assert!(compiled.tables.claims[1].iter().all(|rules| rules.is_empty()));
    }
}

#[test]
fn all_ports_are_without_port_0() {
    let mut policy = policy();
    policy.egress.allow.push(destination("out", anywhere()));
    policy.egress.allow[0].claims = vec![Claim::Udp(vec![ALL_PORTS])];
    let claims = &compiled(&policy).tables.claims[1];
    assert_eq!(claims.len(), CLAIMS_LEN);
    assert_eq!(claims.iter().filter(|rules| !rules.is_empty()).count(), 65535);
    assert!(claims[ClaimIndex::udp(0).0 as usize].is_empty());
    assert!(!claims[ClaimIndex::udp(65535).0 as usize].is_empty());
}
