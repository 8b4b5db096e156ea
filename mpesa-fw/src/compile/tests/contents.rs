//! Settings, rule information, names, digest, and what does not fit.

use std::{num::NonZeroU64, time::Duration};

use ipnet::{IpNet, Ipv4Net};
use mpesa_fw_common::{
    Direction, Family, Mode, RuleSet, Verdict,
    counter::{SLOT_EGRESS_NONE, SLOT_INGRESS_NONE},
    limit::{LimitPer, LimitWhat},
    settings::feature,
    tables::{
        AddressTable, CLAIMS_LEN, NAMES, RULE_INFO_LEN, RULES, RuleIndex, RuleInfo, Tables, WATCHED_SETS,
    },
};

use super::class;
use crate::{
    compile::{
        CompileError, Slots, compile,
        testing::{any, compiled, destination, inline, policy, prefixes, service, set, sets, slots},
    },
    policy::model::{Addresses, Limit, Policy},
};

fn nowhere() -> Addresses {
    Addresses { any: false, prefixes: Vec::new(), sets: Vec::new() }
}

/// Something of everything.
fn rich() -> Policy {
    let mut policy = policy();
    policy.sets = vec![
        set("partners", prefixes(&["192.0.2.0/24"])),
        set("safaricom", prefixes(&["196.201.214.200/32"])),
    ];
    policy.sets[0].watch = prefixes(&["192.0.0.0/16"]);
    policy.sets[1].watch = prefixes(&["196.201.208.0/20"]);
    policy.ingress.services = vec![service("callbacks", sets(&[1])), service("site", any())];
    policy.ingress.services[1].limit = Some(Limit {
        what: LimitWhat::NewConnections,
        per: LimitPer::Service,
        rate: NonZeroU64::new(20).expect("not zero"),
        period: Duration::from_secs(1),
        burst: NonZeroU64::new(40).expect("not zero"),
    });
    policy.egress.allow =
        vec![destination("daraja", nowhere()), destination("dns", inline(&["10.0.0.2/32"]))];
    policy.egress.allow[0].names =
        vec!["sandbox.safaricom.co.ke".to_owned(), "api.safaricom.co.ke".to_owned()];
    policy.egress.allow[1].names = vec!["api.safaricom.co.ke".to_owned()];
    policy
}

/// Other slots than an empty registry gives.
fn other_slots() -> Slots {
    Slots {
        rules: [
            ((Direction::Ingress, "callbacks".to_owned()), 90),
            ((Direction::Ingress, "site".to_owned()), 91),
            ((Direction::Egress, "daraja".to_owned()), 9),
            ((Direction::Egress, "dns".to_owned()), 8),
        ]
        .into(),
        sets: [("partners".to_owned(), 63), ("safaricom".to_owned(), 0)].into(),
        names: [("sandbox.safaricom.co.ke".to_owned(), 0), ("api.safaricom.co.ke".to_owned(), 255)].into(),
    }
}

#[test]
fn settings_say_what_the_policy_uses() {
    let mut policy = rich();
    policy.mode = Mode::Observe;
    policy.egress.default = Verdict::Pass;
    let compiled = compiled(&policy);
    let sparse = AddressTable::Source.sparse(Family::V4) | AddressTable::Destination.sparse(Family::V4);
    let used = feature::SOURCE4 | feature::DESTINATION4 | feature::LIMITS | feature::NAMES | sparse;
    assert_eq!(compiled.features(), used);
    assert!(compiled.observes());
    assert!(!compiled.default_passes(Direction::Ingress));
    assert!(compiled.default_passes(Direction::Egress));
    assert_eq!(compiled.names_only(), RuleSet(0b01));
    assert_eq!((compiled.generation(), compiled.limit_seed(), compiled.settings.trace), (0, 0, 0));
}

#[test]
fn tables_have_the_sizes_of_their_maps() {
    let tables = compiled(&rich()).tables;
    assert_eq!(tables.claims.each_ref().map(Vec::len), [CLAIMS_LEN; 2]);
    assert_eq!(tables.rule_info.len(), RULE_INFO_LEN);
    assert_eq!(tables.name_rules.len(), NAMES);
    let local = &tables.address[AddressTable::Local as usize];
    assert_eq!((local.index4.len(), local.ranges4.len(), local.classes.len()), (1, 1, 2));
    assert_eq!((local.index6.len(), local.starts6.len(), local.ids6.len()), (1, 1, 1));
}

#[test]
fn rule_info_has_slots_and_limits() {
    let compiled = compile(&rich(), &other_slots()).expect("it fits");
    let info = |direction, n| {
        compiled.rule_info(direction, RuleIndex::new(n).unwrap_or(RuleIndex::NONE)).expect("a rule")
    };
    let unlimited = |counter_slot| RuleInfo { counter_slot, ..RuleInfo::default() };
    assert_eq!(info(Direction::Ingress, 0), unlimited(90));
    assert_eq!(
        info(Direction::Ingress, 1),
        RuleInfo {
            limit_interval: 50_000_000,
            limit_tolerance: 1_950_000_000,
            limit_what: LimitWhat::NewConnections as u32,
            limit_per: LimitPer::Service as u32,
            counter_slot: 91,
            reserved: 0,
        }
    );
    assert_eq!(info(Direction::Egress, 1), unlimited(8));
    assert_eq!(info(Direction::Ingress, 64), unlimited(SLOT_INGRESS_NONE));
    assert_eq!(info(Direction::Egress, 64), unlimited(SLOT_EGRESS_NONE));
    assert_eq!(info(Direction::Egress, 63), unlimited(SLOT_EGRESS_NONE));
}

#[test]
fn names_and_watch_bits_are_where_the_slots_say() {
    let compiled = compile(&rich(), &other_slots()).expect("it fits");
    assert_eq!(compiled.name_rules(0), Some(RuleSet(0b01)));
    assert_eq!(compiled.name_rules(255), Some(RuleSet(0b11)));
    assert_eq!(compiled.name_rules(1), Some(RuleSet::NONE));
    assert_eq!(compiled.name_rules(256), None);
    let watch =
        |address: &str| class(&compiled, AddressTable::Source, address.parse().expect("an address")).watch;
    assert_eq!(watch("192.0.3.1"), 1 << 63);
    assert_eq!(watch("196.201.209.1"), 1);
    assert_eq!(watch("196.201.224.0"), 0);
}

#[test]
fn the_digest_does_not_depend_on_slots() {
    let (a, b) = (compiled(&rich()), compile(&rich(), &other_slots()).expect("it fits"));
    assert_ne!(a.tables, b.tables);
    assert_eq!(a.digest, b.digest);
}

#[test]
fn the_digest_changes_with_what_decides() {
    let changes: [fn(&mut Policy); 12] = [
        |_| {},
        |policy| policy.source_digest[0] ^= 1,
        |policy| policy.mode = Mode::Observe,
        |policy| policy.ingress.default = Verdict::Pass,
        |policy| policy.egress.default = Verdict::Pass,
        |policy| policy.sets[1].prefixes = prefixes(&["196.201.214.201/32"]),
        |policy| policy.sets[1].watch = prefixes(&["196.201.208.0/21"]),
        |policy| policy.ingress.services[0].to = prefixes(&["10.0.0.5/32"]),
        |policy| policy.ingress.services[1].limit = None,
        |policy| policy.ingress.services.swap(0, 1),
        |policy| policy.egress.allow[0].names[0] = "other.safaricom.co.ke".to_owned(),
        |policy| policy.egress.allow[1].claims.clear(),
    ];
    let digests = changes.map(|change| {
        let mut policy = rich();
        change(&mut policy);
        compiled(&policy).digest
    });
    for (n, digest) in digests.iter().enumerate() {
        assert!(!digests[..n].contains(digest), "change {n} has the digest of another");
    }
}

#[test]
fn sixty_four_rules_fit() {
    let mut policy = policy();
    for n in 0..RULES {
        policy.ingress.services.push(service(&format!("service-{n}"), inline(&["10.0.0.0/8"])));
        policy.egress.allow.push(destination(&format!("destination-{n}"), any()));
    }
    let last = compiled(&policy);
    let rules = class(&last, AddressTable::Source, [10, 0, 0, 1].into()).rules;
    assert_eq!(rules, RuleSet::ALL);
    policy.ingress.services.push(service("one-too-many", any()));
    let error = compile(&policy, &Slots::default()).expect_err("it does not fit");
    assert_eq!(error, CompileError::TooManyRules { direction: Direction::Ingress, count: 65 });
}

#[test]
fn slots_of_another_policy_are_refused() {
    let error = compile(&rich(), &Slots::default()).expect_err("no slots");
    assert_eq!(error, CompileError::NoSlot { what: "rule", name: "callbacks".to_owned() });
    type Change = fn(&mut Slots);
    let changes: [(Change, &str); 4] = [
        (|slots| slots.names.retain(|name, _| name != "api.safaricom.co.ke"), "DNS name"),
        (|slots| slots.names.values_mut().for_each(|slot| *slot = 256), "DNS name"),
        (|slots| slots.sets.retain(|name, _| name != "partners"), "watched set"),
        (|slots| slots.sets.values_mut().for_each(|slot| *slot = 64), "watched set"),
    ];
    for (change, missing) in changes {
        let mut slots = slots(&rich());
        change(&mut slots);
        match compile(&rich(), &slots) {
            Err(CompileError::NoSlot { what, .. }) => assert_eq!(what, missing),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn too_many_watched_sets_are_refused() {
    let mut policy = policy();
    for n in 0..=WATCHED_SETS {
        policy.sets.push(set(&format!("set-{n}"), Vec::new()));
        policy.sets[n].watch = prefixes(&["10.0.0.0/8"]);
    }
    let error = compile(&policy, &Slots::default()).expect_err("it does not fit");
    assert_eq!(error, CompileError::TooManyWatchedSets { count: 65 });
}

/// A policy in which each of `count` addresses has a set of four rules of its own.
fn with_combinations(count: usize) -> Policy {
    let mut policy = policy();
    policy.ingress.services = (0..RULES).map(|n| service(&format!("service-{n}"), nowhere())).collect();
    let fours = (0..RULES)
        .flat_map(|a| (0..a).flat_map(move |b| (0..b).flat_map(move |c| (0..c).map(move |d| [a, b, c, d]))));
    for (bits, four) in (0u32..).zip(fours.take(count)) {
        let prefix = IpNet::V4(Ipv4Net::new((bits * 2).into(), 32).expect("a length"));
        for rule in four {
            policy.ingress.services[rule].from.prefixes.push(prefix);
        }
    }
    policy
}

#[test]
fn all_class_ids_can_be_used() {
    let most = with_combinations(65_536 - 2);
    let compiled = compiled(&most);
    assert_eq!(compiled.tables.address[0].classes.len(), 65_536);
    let last = class(&compiled, AddressTable::Source, std::net::Ipv4Addr::from(2 * (65_534 - 1)).into());
    assert_eq!(last.rules.0.count_ones(), 4);

    let error = compile(&with_combinations(65_536 - 1), &slots(&most)).expect_err("it does not fit");
    assert!(matches!(error, CompileError::TooManyClasses { count: 65_537, .. }), "{error}");
}
