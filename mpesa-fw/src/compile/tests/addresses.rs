//! Addresses: what the tables say is what a walk over the prefixes says.

use std::net::IpAddr;

use mpesa_fw_common::{
    Address, Family, RuleSet,
    settings::feature,
    tables::{AddressClass, AddressTable, look_up},
};

use crate::compile::{
    Compiled,
    testing::{any, compiled, destination, inline, policy, prefixes, service, set, sets},
};

fn class(compiled: &Compiled, table: AddressTable, address: &str) -> AddressClass {
    let address: IpAddr = address.parse().expect("an address");
    let family = if address.is_ipv4() {
        Family::V4
    } else {
        Family::V6
    };
    look_up(compiled, table, family, &Address::from(address)).expect("the tables are whole")
}

fn source_rules(compiled: &Compiled, address: &str) -> RuleSet {
    class(compiled, AddressTable::Source, address).rules
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
    policy
        .sets
        .push(set("office", prefixes(&["10.1.0.0/16", "2c0f:fe38::/32"])));
    policy.ingress.services = vec![
        service("site", any()),
        service("api", inline(&["10.0.0.0/8"])),
        service("callbacks", sets(&[0])),
        service("ssh", inline(&["10.1.2.3/32", "2c0f:fe38::7/128"])),
    ];
    let compiled = compiled(&policy);
    assert_eq!(
        compiled.settings.features,
        feature::SOURCE4 | feature::SOURCE6
    );
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
        assert_eq!(
            source_rules(&compiled, address),
            RuleSet(rules),
            "{address}"
        );
    }
}

#[test]
fn destinations_have_their_own_table() {
    let mut policy = policy();
    policy.egress.allow = vec![destination("dns", inline(&["10.0.0.2/32"]))];
    let compiled = compiled(&policy);
    assert_eq!(compiled.settings.features, feature::DESTINATION4);
    assert_eq!(
        class(&compiled, AddressTable::Destination, "10.0.0.2").rules,
        RuleSet(1)
    );
    assert_eq!(
        class(&compiled, AddressTable::Destination, "10.0.0.3").rules,
        RuleSet::NONE
    );
}
