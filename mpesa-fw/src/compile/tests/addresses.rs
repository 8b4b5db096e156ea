//! Addresses: examples, and the edges of the address space.

use mpesa_fw_common::{
    Family, RuleSet,
    settings::feature,
    tables::{AddressTable, Window},
};

use super::class;
use crate::compile::{
    Compiled,
    testing::{any, compiled, destination, inline, policy, prefixes, service, set, sets},
};

fn ip(address: &str) -> std::net::IpAddr {
    address.parse().expect("an address")
}

fn source_rules(compiled: &Compiled, address: &str) -> RuleSet {
    class(compiled, AddressTable::Source, ip(address)).rules
}

/// The features without what says which indexes are sparse.
fn dense(compiled: &Compiled) -> u32 {
    let sparse = |table: AddressTable| table.sparse(Family::V4) | table.sparse(Family::V6);
    compiled.settings.features & !AddressTable::ALL.map(sparse).into_iter().fold(0, |all, bits| all | bits)
}

#[test]
fn an_empty_policy_has_no_ranges() {
    let compiled = compiled(&policy());
    assert_eq!(compiled.settings.features, 0);
    assert_eq!(source_rules(&compiled, "10.0.0.1"), RuleSet::NONE);
    assert_eq!(source_rules(&compiled, "::1"), RuleSet::NONE);
}

#[test]
fn nested_prefixes_add_up() {
    let mut policy = policy();
    policy.sets.push(set("office", prefixes(&["10.1.0.0/16", "2c0f:fe38::/32"])));
    policy.ingress.services = vec![
        service("site", any()),
        service("api", inline(&["10.0.0.0/8"])),
        service("callbacks", sets(&[0])),
        service("ssh", inline(&["10.1.2.3/32", "2c0f:fe38::7/128"])),
    ];
    let compiled = compiled(&policy);
    assert_eq!(dense(&compiled), feature::SOURCE4 | feature::SOURCE6);
    for (address, rules) in [
        ("9.255.255.255", 0b0001),
        ("10.0.0.0", 0b0011),
        ("10.1.0.0", 0b0111),
        ("10.1.2.2", 0b0111),
        ("10.1.2.3", 0b1111),
        ("10.1.2.4", 0b0111),
        ("10.2.0.0", 0b0011),
        ("11.0.0.0", 0b0001),
        ("2c0f:fe37:ffff:ffff:ffff:ffff:ffff:ffff", 0b0001),
        ("2c0f:fe38::", 0b0101),
        ("2c0f:fe38::7", 0b1101),
        ("2c0f:fe38:ffff:ffff:ffff:ffff:ffff:ffff", 0b0101),
        ("2c0f:fe39::", 0b0001),
        ("::", 0b0001),
    ] {
        assert_eq!(source_rules(&compiled, address), RuleSet(rules), "{address}");
    }
}

#[test]
fn destinations_have_their_own_table() {
    let mut policy = policy();
    policy.egress.allow = vec![destination("dns", inline(&["10.0.0.2/32"]))];
    let compiled = compiled(&policy);
    assert_eq!(dense(&compiled), feature::DESTINATION4);
    assert_eq!(class(&compiled, AddressTable::Destination, ip("10.0.0.2")).rules, RuleSet(1));
    assert_eq!(class(&compiled, AddressTable::Destination, ip("10.0.0.3")).rules, RuleSet::NONE);
}

/// One service from these prefixes; the rule must hold exactly inside.
fn check(list: &[&str], inside: &[&str], outside: &[&str]) -> Compiled {
    let mut policy = policy();
    policy.ingress.services = vec![service("site", inline(list))];
    let compiled = compiled(&policy);
    for address in inside {
        assert_eq!(source_rules(&compiled, address), RuleSet(1), "{address} in {list:?}");
    }
    for address in outside {
        assert_eq!(source_rules(&compiled, address), RuleSet::NONE, "{address} not in {list:?}");
    }
    compiled
}

const HIGHEST: &str = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";

#[test]
fn whole_spaces() {
    check(&["0.0.0.0/0"], &["0.0.0.0", "10.0.0.1", "255.255.255.255"], &["::", HIGHEST]);
    let compiled = check(&["::/0"], &["::", "2c0f::1", HIGHEST], &["0.0.0.0", "255.255.255.255"]);
    assert_eq!(compiled.settings.windows[0], Window::ALL);
    assert_eq!(compiled.tables.address[0].starts6.len(), 1, "uniform buckets need no ranges");
}

#[test]
fn corners_of_the_spaces() {
    check(&["255.255.255.255/32"], &["255.255.255.255"], &["255.255.255.254", "0.0.0.0"]);
    check(&["0.0.0.0/32"], &["0.0.0.0"], &["0.0.0.1", "255.255.255.255"]);
    let top = format!("{HIGHEST}/128");
    check(&[&top], &[HIGHEST], &["ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe", "::"]);
    check(&["::/128"], &["::"], &["::1", HIGHEST]);
    check(&["::/128", &top], &["::", HIGHEST], &["::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe"]);
}

#[test]
fn the_window_begins_behind_what_all_prefixes_share() {
    let groups = |list: &[&str], inside: &[&str], outside: &[&str]| {
        let compiled = check(list, inside, outside);
        let [high, low] = compiled.settings.windows[0].mask;
        (high.count_ones() + low.count_ones()) / 16
    };
    let near = &["2c0e:ffff::", "2c10::", "2c0f:fe37:ffff::"];
    assert_eq!(groups(&["2c0f:fe38::/32", "2c0f:fe39::/32"], &["2c0f:fe38::", "2c0f:fe39:ffff::1"], near), 1);
    assert_eq!(groups(&["2c0f:fe38::/32"], &["2c0f:fe38::", "2c0f:fe38:ffff::1"], near), 2);
    assert_eq!(groups(&["2c0f:fe38::/31"], &["2c0f:fe38::", "2c0f:fe39:ffff::1"], near), 1);
    assert_eq!(groups(&["2c0f:fe38::1/128"], &["2c0f:fe38::1"], &["2c0f:fe38::2", "2c0f:fe38::"]), 7);
    assert_eq!(groups(&["2c0f::/15"], &["2c0e::", "2c0f:ffff::"], &["2c10::", "2c0d:ffff::"]), 0);
    assert_eq!(groups(&["2c0f:0:0:1::/64", "2c0f:0:0:1:8000::/65"], &["2c0f:0:0:1::"], &["2c0f:0:0:2::"]), 4);
}

#[test]
fn prefixes_that_say_nothing_new_make_no_ranges() {
    let mut policy = policy();
    let mut site = service("site", any());
    site.from.prefixes = prefixes(&["10.0.0.0/8", "2c0f::/16"]);
    policy.ingress.services = vec![site];
    let compiled = compiled(&policy);
    assert_eq!(compiled.settings.features, 0);
    assert_eq!(source_rules(&compiled, "10.0.0.1"), RuleSet(1));
    assert_eq!(source_rules(&compiled, "11.0.0.1"), RuleSet(1));
}

#[test]
fn neighbours_of_one_class_are_one_range() {
    let apart =
        check(&["10.0.0.0/25", "10.0.0.128/25", "10.0.1.0/24"], &["10.0.0.0", "10.0.1.255"], &["10.0.2.0"]);
    let joined = check(&["10.0.0.0/23"], &["10.0.0.0"], &["10.0.2.0"]);
    assert_eq!(apart.tables, joined.tables);
}

#[test]
fn the_local_address_counts_only_where_a_service_says_to() {
    let mut policy = policy();
    policy.ingress.services = vec![service("site", any()), service("callbacks", any())];
    assert_eq!(compiled(&policy).settings.features & feature::LOCAL, 0);
    policy.ingress.services[1].to = prefixes(&["10.0.0.5/32"]);
    let compiled = compiled(&policy);
    assert_eq!(dense(&compiled), feature::LOCAL | feature::LOCAL4);
    let local = |address| class(&compiled, AddressTable::Local, ip(address)).rules;
    assert_eq!(local("10.0.0.5"), RuleSet(0b11));
    assert_eq!(local("10.0.0.6"), RuleSet(0b01));
    assert_eq!(local("::1"), RuleSet(0b01));
}

#[test]
fn an_index_is_sparse_while_most_addresses_are_outside() {
    let sparse = |count: u32| {
        let list = (0..count).map(|n| format!("{}.{}.0.1/32", 1 + n / 256, n % 256)).collect::<Vec<_>>();
        let mut policy = policy();
        let list: Vec<&str> = list.iter().map(String::as_str).collect();
        policy.ingress.services = vec![service("a", inline(&list))];
        compiled(&policy).settings.features & feature::SPARSE_SOURCE4 != 0
    };
    assert!(sparse(1));
    assert!(sparse(4096));
    assert!(!sparse(4097));
}
