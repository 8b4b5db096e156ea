//! Large sets: right, and small.

use std::{collections::HashMap, net::IpAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use mpesa_fw_common::{
    RuleSet,
    tables::{AddressTable, BUCKETS, Bucket, INDEX_LEN, Tables, search4},
};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::class;
use crate::{
    compile::testing::{compiled, policy, service, set, sets},
    policy::model::Policy,
};

#[derive(Clone, Copy, Debug)]
enum Shape {
    /// Anywhere in IPv4.
    Random4,
    /// In 196.0.0.0/8, single addresses and small nets, many nested.
    Clustered4,
    /// Anywhere in 2000::/3.
    Random6,
    /// In 2c0f::/16, as an African provider's space.
    Clustered6,
}

impl Shape {
    const ALL: [Self; 4] = [Self::Random4, Self::Clustered4, Self::Random6, Self::Clustered6];

    fn prefix(self, random: &mut StdRng) -> IpNet {
        let v4 = |bits: u32, length| IpNet::V4(Ipv4Net::new(bits.into(), length).expect("a length").trunc());
        let v6 = |bits: u128, length| IpNet::V6(Ipv6Net::new(bits.into(), length).expect("a length").trunc());
        match self {
            Self::Random4 => v4(random.random(), random.random_range(20..=32)),
            Self::Clustered4 => {
                v4((196 << 24) | random.random_range(0..1 << 24), random.random_range(26..=32))
            }
            Self::Random6 => v6((1 << 125) | (random.random::<u128>() >> 3), random.random_range(32..=64)),
            Self::Clustered6 => {
                v6((0x2c0f << 112) | (random.random::<u128>() >> 16), random.random_range(32..=128))
            }
        }
    }

    fn prefixes(self, count: usize, seed: u64) -> Vec<IpNet> {
        let random = &mut StdRng::seed_from_u64(seed);
        (0..count).map(|_| self.prefix(random)).collect()
    }

    /// Most bytes a prefix, beyond the index.
    const fn most(self) -> usize {
        match self {
            Self::Random4 | Self::Clustered4 => 20,
            Self::Random6 | Self::Clustered6 => 48,
        }
    }
}

/// Two sets, of which one service uses one and another both.
fn of_sets(first: Vec<IpNet>, second: Vec<IpNet>) -> Policy {
    let mut policy = policy();
    policy.sets = vec![set("first", first), set("second", second)];
    policy.ingress.services = vec![service("both", sets(&[0, 1])), service("second", sets(&[1]))];
    policy
}

/// Rules by prefix, to be asked for every length: another way to the same answer.
struct ByLength(HashMap<IpNet, u64>);

impl ByLength {
    fn of(policy: &Policy) -> Self {
        let mut rules = HashMap::new();
        for (set, bits) in policy.sets.iter().zip([0b01, 0b11]) {
            for prefix in &set.prefixes {
                *rules.entry(*prefix).or_default() |= bits;
            }
        }
        Self(rules)
    }

    fn rules(&self, address: IpAddr) -> RuleSet {
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefixes = (0..=longest).filter_map(|length| Some(IpNet::new(address, length).ok()?.trunc()));
        RuleSet(prefixes.filter_map(|prefix| self.0.get(&prefix)).fold(0, |all, bits| all | bits))
    }
}

fn around(prefix: &IpNet) -> [IpAddr; 4] {
    let beside = |address: IpAddr, up: bool| match address {
        IpAddr::V4(v4) => IpAddr::V4(v4.to_bits().wrapping_add_signed(if up { 1 } else { -1 }).into()),
        IpAddr::V6(v6) => IpAddr::V6(v6.to_bits().wrapping_add_signed(if up { 1 } else { -1 }).into()),
    };
    let (first, last) = (prefix.network(), prefix.broadcast());
    [beside(first, false), first, last, beside(last, true)]
}

#[test]
fn a_hundred_thousand_prefixes_are_looked_up_right() {
    for shape in Shape::ALL {
        let policy = of_sets(shape.prefixes(90_000, 1), shape.prefixes(10_000, 2));
        let (compiled, expected) = (compiled(&policy), ByLength::of(&policy));
        let prefixes = policy.sets.iter().flat_map(|set| &set.prefixes);
        for address in prefixes.step_by(97).flat_map(around) {
            let found = class(&compiled, AddressTable::Source, address).rules;
            assert_eq!(found, expected.rules(address), "{shape:?} {address}");
        }
    }
}

/// Programs that may meet a flood search in another way than the others.
#[test]
fn all_ways_of_searching_agree() {
    for shape in [Shape::Random4, Shape::Clustered4] {
        for count in [1_000, 100_000] {
            let compiled = compiled(&of_sets(shape.prefixes(count, 7), Vec::new()));
            let buckets = &compiled.tables.address[AddressTable::Source as usize].index4[..BUCKETS];
            for (i, bucket) in (0u32..).zip(buckets).filter(|(_, bucket)| bucket.count != 0).step_by(31) {
                // The last address is no less than the padding.
                for low in (0..u32::from(u16::MAX)).step_by(127).chain([u32::from(u16::MAX)]) {
                    let bits = i << 16 | low;
                    let found = search4(&compiled, AddressTable::Source, *bucket, bits);
                    assert!(found.is_some());
                    assert_eq!(compiled.class4(AddressTable::Source, *bucket, bits), found);
                }
            }
        }
    }
}

#[test]
fn a_prefix_costs_few_bytes() {
    const COUNT: usize = 100_000;
    for shape in Shape::ALL {
        let policy = of_sets(shape.prefixes(COUNT, 3), Vec::new());
        let tables = &compiled(&policy).tables.address[AddressTable::Source as usize];
        let index = INDEX_LEN * size_of::<Bucket>();
        let each = (tables.size() - index) as f64 / COUNT as f64;
        println!("{shape:?}: {each:.1} bytes a prefix");
        assert!(each <= shape.most() as f64, "{shape:?}: {each:.1} bytes a prefix");
    }
}

#[test]
fn order_and_repetition_do_not_matter() {
    for shape in Shape::ALL {
        let prefixes = shape.prefixes(5_000, 4);
        let mut other = [prefixes.as_slice(), &prefixes[1_000..]].concat();
        other.reverse();
        let (a, b) = (compiled(&of_sets(prefixes, Vec::new())), compiled(&of_sets(other, Vec::new())));
        assert_eq!(a, b, "{shape:?}");
    }
}
