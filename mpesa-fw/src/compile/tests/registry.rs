//! Whatever policies come and go, names keep their positions.

use std::collections::{BTreeMap, BTreeSet};

use mpesa_fw_common::{
    Direction,
    counter::{COUNTER_SLOTS, SLOT_EGRESS_NONE, SLOT_INGRESS_NONE},
    state::NameSlot,
    tables::{NAMES, WATCHED_SETS},
};
use proptest::{collection::vec, prelude::*, sample::subsequence};

use crate::{
    compile::{
        Assignment, Registry, RegistryError, RegistryRows, RowOwner,
        testing::{any as anywhere, destination, policy, prefixes, service, set},
    },
    policy::model::Policy,
};

/// A policy with these services, destinations, watched sets and DNS names.
fn of_names(services: &[u32], destinations: &[u32], sets: &[u32], names: &[u32]) -> Policy {
    let mut policy = policy();
    policy.ingress.services = services.iter().map(|n| service(&format!("rule-{n}"), anywhere())).collect();
    policy.egress.allow =
        destinations.iter().map(|n| destination(&format!("rule-{n}"), anywhere())).collect();
    policy.sets = sets.iter().map(|n| set(&format!("set-{n}"), Vec::new())).collect();
    for set in &mut policy.sets {
        set.watch = prefixes(&["10.0.0.0/8"]);
    }
    let names: Vec<String> = names.iter().map(|n| format!("{n}.example.net")).collect();
    if let Some(first) = policy.egress.allow.first_mut() {
        first.names = names;
    }
    policy
}

fn any_policy() -> impl Strategy<Value = Policy> {
    let some = |of: u32, most: usize| subsequence((0..of).collect::<Vec<_>>(), 0..=most).prop_shuffle();
    (some(100, 64), some(100, 64), some(90, 64), some(400, 256))
        .prop_map(|(services, destinations, sets, names)| of_names(&services, &destinations, &sets, &names))
}

type Owners = BTreeMap<u32, (Direction, String)>;

fn owners<'a>(rows: impl Iterator<Item = RowOwner<'a>>) -> Owners {
    rows.map(|owner| (owner.row, (owner.direction, owner.name.to_owned()))).collect()
}

/// What must hold of one kind of position across an assignment.
fn check(before: &Owners, after: &Owners, fresh: &BTreeSet<u32>, room: usize) -> Result<(), TestCaseError> {
    let distinct: BTreeSet<_> = after.values().collect();
    prop_assert_eq!(distinct.len(), after.len(), "a name has two positions");
    prop_assert!(after.keys().all(|row| (*row as usize) < room));
    let changed: BTreeSet<u32> =
        after.iter().filter(|(row, owner)| before.get(row) != Some(owner)).map(|(row, _)| *row).collect();
    prop_assert_eq!(&changed, fresh, "fresh is what changed its owner");
    let given_away = changed.iter().any(|row| before.contains_key(row));
    prop_assert!(!given_away || after.len() == room, "a position was given away while others were free");
    prop_assert!(before.keys().all(|row| after.contains_key(row)), "a position was given up");
    for (row, owner) in before {
        let moved = after.iter().any(|(other, name)| name == owner && other != row);
        prop_assert!(!moved, "{:?} has moved", owner);
    }
    Ok(())
}

fn wide<T: Into<u32> + Copy>(positions: &[T]) -> BTreeSet<u32> {
    positions.iter().map(|position| (*position).into()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn names_keep_their_positions(policies in vec((any_policy(), any::<bool>()), 1..8)) {
        let mut registry = Registry::new();
        for (policy, restart) in policies {
            let Assignment { registry: next, slots, fresh } = registry.assign(&policy).expect("there is room");
            check(&owners(registry.rules()), &owners(next.rules()), &wide(&fresh.counter_rows), COUNTER_SLOTS)?;
            check(&owners(registry.sets()), &owners(next.sets()), &wide(&fresh.watch_bits), WATCHED_SETS)?;
            check(&owners(registry.names()), &owners(next.names()), &wide(&fresh.name_slots), NAMES)?;

            let in_use: BTreeMap<_, _> = next
                .rules()
                .filter(|owner| owner.in_use && !owner.name.is_empty())
                .map(|owner| ((owner.direction, owner.name.to_owned()), owner.row))
                .collect();
            prop_assert_eq!(&in_use, &slots.rules, "in use is what the policy has");
            prop_assert!(slots.rules.values().all(|row| *row > SLOT_EGRESS_NONE));

            let again = next.assign(&policy).expect("there is room");
            prop_assert_eq!(&again.slots, &slots);
            prop_assert_eq!(again.fresh, Default::default());
            registry = if restart { Registry::from_rows(&next.to_rows()) } else { next };
            prop_assert_eq!(registry.assign(&policy).expect("there is room").slots, slots);
        }
    }

    #[test]
    fn rows_that_make_no_sense_are_free(
        rows in vec((vec(prop_oneof![Just(0u8), Just(b'a'), any::<u8>()], 0..4), 0..4u8, 0..4u8), 0..200),
        policy in any_policy(),
    ) {
        let rows: Vec<NameSlot> = rows
            .into_iter()
            .map(|(name, direction, status)| {
                let mut row = NameSlot { direction, status, ..NameSlot::default() };
                row.name[..name.len()].copy_from_slice(&name);
                row
            })
            .collect();
        let registry = Registry::from_rows(&RegistryRows { rules: rows.clone(), sets: rows.clone(), names: rows });
        let Assignment { registry: next, fresh, .. } = registry.assign(&policy).expect("there is room");
        check(&owners(registry.rules()), &owners(next.rules()), &wide(&fresh.counter_rows), COUNTER_SLOTS)?;
        check(&owners(registry.names()), &owners(next.names()), &wide(&fresh.name_slots), NAMES)?;
        prop_assert_eq!(Registry::from_rows(&next.to_rows()).to_rows(), next.to_rows());
    }
}

fn assign(registry: &Registry, services: &[u32]) -> Assignment {
    registry.assign(&of_names(services, &[], &[], &[])).expect("there is room")
}

#[test]
fn rows_without_a_rule_are_the_first_two() {
    let registry = Registry::new();
    let rows: Vec<_> = registry.rules().map(|owner| (owner.row, owner.direction, owner.name)).collect();
    assert_eq!(
        rows,
        [(SLOT_INGRESS_NONE, Direction::Ingress, ""), (SLOT_EGRESS_NONE, Direction::Egress, "")]
    );
    assert_eq!(registry.to_rows().rules.len(), COUNTER_SLOTS);
}

#[test]
fn a_rule_that_comes_back_has_its_row_again() {
    let first = assign(&Registry::new(), &[1, 2, 3]);
    let second = assign(&first.registry, &[3, 4]);
    let gone: Vec<_> =
        second.registry.rules().filter(|owner| !owner.in_use).map(|owner| owner.name.to_owned()).collect();
    assert_eq!(gone, ["rule-1", "rule-2"]);
    let third = assign(&second.registry, &[4, 2]);
    let row =
        |assignment: &Assignment, name: &str| assignment.slots.rules[&(Direction::Ingress, name.to_owned())];
    assert_eq!(row(&third, "rule-2"), row(&first, "rule-2"));
    assert_eq!(third.fresh, Default::default());
}

#[test]
fn the_same_name_in_both_directions_is_two_rules() {
    let assignment = Registry::new().assign(&of_names(&[1], &[1], &[], &[])).expect("there is room");
    assert_eq!(assignment.slots.rules.values().copied().collect::<Vec<_>>(), [2, 3]);
}

#[test]
fn who_has_been_gone_for_longest_gives_way() {
    let numbers = |from: u32, count: u32| (from..from + count).collect::<Vec<_>>();
    let (a, b, c, d) = (numbers(0, 40), numbers(100, 40), numbers(200, 40), numbers(300, 60));
    let mut assignment = assign(&Registry::new(), &[a.clone(), b.clone()].concat());
    for services in [a.clone(), c.clone(), [c.clone(), d].concat()] {
        assignment = assign(&assignment.registry, &services);
    }
    // 38 of the 158 rows were free: 22 of the last 60 rules need one of `b`, gone for longer than `a`.
    let left: BTreeSet<String> = assignment.registry.rules().map(|owner| owner.name.to_owned()).collect();
    let count = |rules: &[u32]| rules.iter().filter(|n| left.contains(&format!("rule-{n}"))).count();
    assert_eq!((count(&a), count(&b), count(&c)), (40, 40 - 22, 40));
}

#[test]
fn what_still_runs_gives_way_last() {
    let (a, b) = ((0..64).collect::<Vec<_>>(), (100..164).collect::<Vec<_>>());
    let first = assign(&Registry::new(), &a[..50]);
    let second = assign(&first.registry, &b);
    let third = assign(&second.registry, &a[50..].iter().copied().chain(200..250).collect::<Vec<_>>());
    let rows_of_b: BTreeSet<u32> = second.slots.rules.values().copied().collect();
    assert!(third.fresh.counter_rows.iter().all(|row| !rows_of_b.contains(row)));
}

#[test]
fn damaged_rows_are_free() {
    let row = |name: &[u8], direction, status| {
        let mut row = NameSlot { direction, status, ..NameSlot::default() };
        row.name[..name.len()].copy_from_slice(name);
        row
    };
    let damaged = [
        row(b"", 0, 0),
        row(b"", 1, 1),
        row(b"", 0, 1),
        row(b"free", 0, 0),
        row(b"unknown-status", 0, 3),
        row(b"unknown-direction", 2, 1),
        row(b"not-utf8-\xff", 0, 1),
        row(b"padding\0not-zero", 0, 1),
        row(b"good", 1, 2),
        row(b"good", 1, 1),
        row(&[b'a'; 254], 0, 1),
    ];
    let registry = Registry::from_rows(&RegistryRows { rules: damaged.to_vec(), ..RegistryRows::default() });
    let read: Vec<_> =
        registry.rules().skip(2).map(|owner| (owner.row, owner.name.len(), owner.in_use)).collect();
    assert_eq!(read, [(8, 4, false), (10, 254, true)]);
}

#[test]
fn what_does_not_fit_is_refused() {
    let sets: Vec<u32> = (0..65).collect();
    let error = Registry::new().assign(&of_names(&[], &[], &sets, &[])).expect_err("too many");
    assert_eq!(
        error.to_string(),
        "the policy has 65 sets with `watch`, 64 fit: watch a wider prefix in one set instead"
    );

    let names: Vec<u32> = (0..257).collect();
    let error = Registry::new().assign(&of_names(&[], &[1], &[], &names)).expect_err("too many");
    assert!(matches!(error, RegistryError::Full { wanted: 257, room: 256, .. }), "{error}");

    let mut policy = policy();
    policy.ingress.services.push(service(&"a".repeat(255), anywhere()));
    let error = Registry::new().assign(&policy).expect_err("too long");
    assert!(matches!(error, RegistryError::NameTooLong { length: 255, room: 254, .. }), "{error}");
}
