//! For any policy, the tables say of any address what a walk over the policy's lists says.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use mpesa_fw_common::{
    Family, RuleSet,
    tables::{
        AddressClass, AddressTable, BUCKETS, Block4, Bucket, IDS_PER_BLOCK, INDEX_LEN, OUTSIDE_V4,
        OUTSIDE_V6, RANGES_PER_BLOCK, Range4, SCANNED, Tables,
    },
};
use proptest::{collection::vec, prelude::*};

use super::class;
use crate::{
    compile::{
        AddressTables, Compiled, Slots, compile,
        testing::{destination, policy, service, set, slots},
    },
    policy::model::{Addresses, Policy},
};

/// Few values, so that prefixes nest, touch and repeat.
fn group() -> impl Strategy<Value = u16> {
    prop_oneof![Just(0), Just(1), Just(0x7fff), Just(0x8000), Just(0xfffe), Just(0xffff), any::<u16>()]
}

fn prefix4() -> impl Strategy<Value = IpNet> {
    (group(), group(), 0..=32u8).prop_map(|(high, low, length)| {
        let bits = (u32::from(high) << 16) | u32::from(low);
        IpNet::V4(Ipv4Net::new(bits.into(), length).expect("a length").trunc())
    })
}

/// Prefixes that share their first `shared` groups.
fn prefix6(shared: usize) -> impl Strategy<Value = IpNet> {
    (prop::array::uniform8(group()), (shared * 16) as u8..=128).prop_map(move |(mut groups, length)| {
        groups[..shared].copy_from_slice(&[0x2c0f, 0xfe38, 1, 0, 0xffff, 2, 3][..shared]);
        IpNet::V6(Ipv6Net::new(groups.into(), length).expect("a length").trunc())
    })
}

fn list(shared: usize, most: usize) -> impl Strategy<Value = Vec<IpNet>> {
    vec(prop_oneof![prefix4(), prefix6(shared)], 0..most)
}

fn addresses(shared: usize, sets: usize) -> impl Strategy<Value = Addresses> {
    (
        prop::bool::weighted(0.1),
        list(shared, 6),
        prop::sample::subsequence((0..sets).collect::<Vec<_>>(), 0..=sets),
    )
        .prop_map(|(any, prefixes, sets)| Addresses { any, prefixes, sets })
}

/// A policy of small lists.
fn any_policy() -> impl Strategy<Value = Policy> {
    (0..=7usize, 0..4usize).prop_flat_map(|(shared, count)| {
        let sets = vec((list(shared, 12), list(shared, 3)), count);
        let services = vec((addresses(shared, count), list(shared, 3)), 0..8);
        let destinations = vec(addresses(shared, count), 0..8);
        (sets, services, destinations).prop_map(|(sets, services, destinations)| {
            let mut policy = policy();
            for (n, (prefixes, watch)) in sets.into_iter().enumerate() {
                policy.sets.push(set(&format!("set-{n}"), prefixes));
                policy.sets[n].watch = watch;
            }
            for (n, (from, to)) in services.into_iter().enumerate() {
                policy.ingress.services.push(service(&format!("service-{n}"), from));
                policy.ingress.services[n].to = to;
            }
            for (n, to) in destinations.into_iter().enumerate() {
                policy.egress.allow.push(destination(&format!("destination-{n}"), to));
            }
            policy
        })
    })
}

/// The policy's answer, found by walking its lists.
fn walk(policy: &Policy, slots: &Slots, table: AddressTable, address: IpAddr) -> AddressClass {
    let listed = |prefixes: &[IpNet]| prefixes.iter().any(|prefix| prefix.contains(&address));
    let satisfied = |addresses: &Addresses| {
        addresses.any
            || listed(&addresses.prefixes)
            || addresses.sets.iter().any(|n| listed(&policy.sets[*n].prefixes))
    };
    let rules: Vec<bool> = match table {
        AddressTable::Source => policy.ingress.services.iter().map(|s| satisfied(&s.from)).collect(),
        AddressTable::Local => {
            policy.ingress.services.iter().map(|s| s.to.is_empty() || listed(&s.to)).collect()
        }
        AddressTable::Destination => policy.egress.allow.iter().map(|d| satisfied(&d.to)).collect(),
    };
    let watching = policy.sets.iter().filter(|set| table == AddressTable::Source && listed(&set.watch));
    AddressClass {
        rules: RuleSet(rules.iter().enumerate().map(|(n, yes)| u64::from(*yes) << n).sum()),
        watch: watching.map(|set| 1 << slots.sets[&set.name]).sum(),
    }
}

/// The borders of a prefix: both sides of each.
fn borders(prefix: &IpNet) -> [IpAddr; 4] {
    match prefix {
        IpNet::V4(net) => {
            let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
            [first.wrapping_sub(1), first, last, last.wrapping_add(1)].map(|bits| IpAddr::V4(bits.into()))
        }
        IpNet::V6(net) => {
            let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
            [first.wrapping_sub(1), first, last, last.wrapping_add(1)].map(|bits| IpAddr::V6(bits.into()))
        }
    }
}

fn all_prefixes(policy: &Policy) -> impl Iterator<Item = &IpNet> {
    let sets = policy.sets.iter().flat_map(|set| set.prefixes.iter().chain(&set.watch));
    let services = policy.ingress.services.iter().flat_map(|s| s.from.prefixes.iter().chain(&s.to));
    sets.chain(services).chain(policy.egress.allow.iter().flat_map(|d| &d.to.prefixes))
}

/// The ranges of all buckets in their order. Checks what lies around them on the way.
fn out_of_blocks(index: &[Bucket], blocks: &[Block4]) -> Result<Vec<Range4>, TestCaseError> {
    let laid = blocks.as_flattened();
    let mut all = Vec::new();
    let mut next = 0usize;
    for Bucket { begin, count } in index.iter().filter(|bucket| bucket.count != 0) {
        let (begin, count) = (*begin as usize, *count as usize);
        prop_assert!((next..next + RANGES_PER_BLOCK).contains(&begin), "packed");
        prop_assert!(laid[next..begin].iter().all(|range| *range == Range4::PADDING));
        all.extend_from_slice(&laid[begin..begin + count]);
        next = begin + count;
        let blocks = next.div_ceil(RANGES_PER_BLOCK) - begin / RANGES_PER_BLOCK;
        prop_assert_eq!(blocks, count.div_ceil(RANGES_PER_BLOCK), "as few as they fit in");
        if count as u32 > SCANNED {
            next = below_root(laid, begin, count)?;
        }
    }
    prop_assert!(laid[next..].iter().all(|range| *range == Range4::PADDING));
    prop_assert!(laid.len() - next <= RANGES_PER_BLOCK);
    Ok(all)
}

/// Checks the nodes above the leaves that start at `begin`; where the tree ends.
fn below_root(laid: &[Range4], begin: usize, count: usize) -> Result<usize, TestCaseError> {
    let mut below = laid[begin..begin + count].to_vec();
    let mut end = begin;
    while below.len() > 1 {
        let (here, next) = (&laid[end..], end + below.len().next_multiple_of(RANGES_PER_BLOCK));
        prop_assert!(here.starts_with(&below), "the first range of each child");
        prop_assert!(laid[end + below.len()..next].iter().all(|range| *range == Range4::PADDING));
        below = laid[end..next].iter().step_by(RANGES_PER_BLOCK).copied().collect();
        end = next;
    }
    Ok(end)
}

/// The lay-out that [`Bucket`] and [`AddressTables`] promise, beyond what a look-up notices.
fn well_formed(compiled: &Compiled, table: AddressTable) -> Result<(), TestCaseError> {
    let AddressTables { index4, ranges4, index6, starts6, ids6, classes } =
        &compiled.tables.address[table as usize];
    let shift = compiled.window(table).shift + if compiled.window(table).low == 0 { 64 } else { 0 };
    let ranges4 = out_of_blocks(&index4[..index4.len().min(BUCKETS)], ranges4)?;
    let starts4: Vec<u128> = ranges4.iter().map(|range| u128::from(range.0 >> 16)).collect();
    let ids4: Vec<u16> = ranges4.iter().map(|range| range.class()).collect();
    let starts6: Vec<u128> =
        starts6.iter().map(|[high, low]| (u128::from(*high) << 64) | u128::from(*low)).collect();
    let all_index = [
        (index4, &starts4, ids4.as_slice(), 16, Family::V4),
        (index6, &starts6, ids6.as_flattened(), shift, Family::V6),
    ];
    for (index, starts, ids, shift, family) in all_index {
        if compiled.features() & table.feature(family) == 0 {
            prop_assert!(index.len() == 1 && starts.len() <= 1);
            continue;
        }
        prop_assert_eq!(index.len(), INDEX_LEN);
        let (index, marks) = index.split_at(BUCKETS);
        let outside = Bucket::uniform(if matches!(family, Family::V4) { OUTSIDE_V4 } else { OUTSIDE_V6 });
        for (i, bucket) in (0u32..).zip(index) {
            let mark = marks[Bucket::place_of_mark(i) as usize - BUCKETS].has_mark(i);
            prop_assert_eq!(mark, *bucket != outside);
        }
        let mut next = 0;
        for Bucket { begin, count } in index.iter().filter(|bucket| bucket.count != 0) {
            prop_assert!(matches!(family, Family::V4) || *begin == next, "buckets are packed");
            let span = next as usize..(next + count) as usize;
            next += count;
            prop_assert_eq!(starts[span.start] & ((1 << shift) - 1), 0, "starts where the bucket does");
            prop_assert!(starts[span.clone()].is_sorted_by(|a, b| a < b));
            prop_assert!(ids[span.clone()].is_sorted_by(|a, b| a != b), "neighbours differ");
            prop_assert!(ids[span].iter().all(|id| usize::from(*id) < classes.len()));
        }
        prop_assert!((next as usize) <= starts.len() && ids.len() <= next as usize + IDS_PER_BLOCK);
    }
    Ok(())
}

fn agree(policy: &Policy, probes: impl Iterator<Item = IpAddr>) -> Result<(), TestCaseError> {
    let slots = slots(policy);
    let compiled = compile(policy, &slots).expect("it fits");
    for table in AddressTable::ALL {
        well_formed(&compiled, table)?;
    }
    for address in probes {
        for table in AddressTable::ALL {
            prop_assert_eq!(
                class(&compiled, table, address),
                walk(policy, &slots, table, address),
                "{:?} {}",
                table,
                address
            );
        }
    }
    Ok(())
}

fn anywhere() -> impl Strategy<Value = Vec<IpAddr>> {
    vec(
        prop_oneof![
            any::<u32>().prop_map(|bits| IpAddr::V4(bits.into())),
            any::<u128>().prop_map(|bits| IpAddr::V6(bits.into()))
        ],
        32,
    )
}

proptest! {
    #[test]
    fn small_lists(policy in any_policy(), anywhere in anywhere()) {
        agree(&policy, all_prefixes(&policy).flat_map(borders).chain(anywhere))?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn long_lists(
        (first, second) in (0..=7usize).prop_flat_map(|shared| {
            let long = || vec(prop_oneof![prefix4(), prefix6(shared)], 12..1000);
            (long(), long())
        }),
        anywhere in anywhere(),
        seed in any::<usize>(),
    ) {
        let mut policy = policy();
        policy.sets = vec![set("first", first), set("second", second)];
        policy.ingress.services = vec![
            service("both", Addresses { any: false, prefixes: Vec::new(), sets: vec![0, 1] }),
            service("one", Addresses { any: false, prefixes: Vec::new(), sets: vec![1] }),
        ];
        // A walk is slow: some of the borders, other ones each time.
        let some = all_prefixes(&policy).skip(seed % 7).step_by(7).flat_map(borders);
        agree(&policy, some.chain(anywhere))?;
    }
}
