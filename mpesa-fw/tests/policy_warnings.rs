//! What is valid and doubtful.

use std::{fs, path::Path};

use mpesa_fw::policy::{Loaded, Permissions, load_on};
use time::macros::date;

fn load(text: &str) -> Loaded {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("rules.yaml");
    fs::write(&path, text).expect("a file");
    load_path(&path)
}

fn load_path(path: &Path) -> Loaded {
    match load_on(path, Permissions::Ignore, date!(2026 - 11 - 23)) {
        Ok(loaded) => loaded,
        Err(errors) => panic!("{errors}"),
    }
}

fn warnings(text: &str) -> Vec<(usize, String)> {
    let Loaded { warnings, total: _, policy: _, texts: _ } = load(text);
    warnings.into_iter().map(|finding| (finding.line, finding.message)).collect()
}

/// Services stand on lines 5 and on, destinations two lines after the last of them.
fn policy(sets: &str, services: &[&str], allow: &[&str]) -> String {
    let list = |rules: &[&str]| rules.iter().map(|rule| format!("  {{ {rule} }},\n")).collect::<String>();
    format!(
        "version: 1\ninterfaces: [eth0]\nsets: {{ {sets} }}\ningress: {{ default: drop, services: [\n{}  ] }}\negress: {{ default: drop, allow: [\n{}  ] }}\n",
        list(services),
        list(allow)
    )
}

fn only(text: &str, line: usize, part: &str) {
    let warnings = warnings(text);
    assert!(
        warnings.len() == 1 && warnings[0].0 == line && warnings[0].1.contains(part),
        "expected {part:?} on line {line}: {warnings:#?}\n{text}"
    );
}

#[test]
fn egress_to_everywhere() {
    only(&policy("", &[], &["name: web, to: [any], ports: [443]"]), 7, "any address");
    for pieces in ["0.0.0.0/0", "0.0.0.0/1, 128.0.0.0/1", "\"2000::/3\"", "wide"] {
        let rule = format!("name: web, to: [{pieces}], ports: [443]");
        let sets = if pieces == "wide" { "wide: [0.0.0.0/2, 64.0.0.0/2, 128.0.0.0/1]" } else { "" };
        only(&policy(sets, &[], &[&rule]), 7, "any address");
    }
    assert_eq!(warnings(&policy("", &[], &["name: web, to: [0.0.0.0/1], ports: [443]"])), []);
}

#[test]
fn networks_as_name_servers() {
    let name = "name: daraja, to: [api.safaricom.co.ke], ports: [443]";
    let lists = |rule: &str| {
        let policy = load(&policy("", &[], &[name, rule])).policy;
        policy.egress.allow[1].lists_resolvers(&policy.sets)
    };
    let network = "name: dns, to: [10.0.0.1, 10.0.1.0/24], protocol: [udp, tcp], ports: [53]";
    only(
        &policy("", &[], &[name, network]),
        8,
        "every host of 10.0.1.0/24 may say where `api.safaricom.co.ke`",
    );
    assert!(lists(network));
    assert_eq!(warnings(&policy("", &[], &[network])), [], "without a name nobody says where it leads");
    for (rule, is_list) in [
        ("name: dns, to: [10.0.0.1], protocol: udp, ports: [53]", true),
        ("name: infra, to: [10.0.0.1, \"fd00::1\"], protocol: udp, ports: any", true),
        ("name: lan, to: [10.0.0.0/8], protocol: [tcp, udp], ports: any", false),
        ("name: lan, to: [10.0.0.0/8], protocol: udp, ports: [\"50-60\"]", false),
        ("name: dns, to: [10.0.0.1], ports: [53]", false),
    ] {
        assert_eq!((lists(rule), warnings(&policy("", &[], &[name, rule]))), (is_list, vec![]), "{rule}");
    }
    let halves = "name: dns, to: [0.0.0.0/1, 128.0.0.0/1], protocol: udp, ports: [53]";
    only(&policy("", &[], &[name, halves]), 8, "any address");
    assert!(!lists(halves));
}

#[test]
fn names_that_a_company_gives_to_its_customers() {
    let rule = |name| format!("name: web, to: [\"{name}\"], ports: [443]");
    let dns = "name: dns, to: [10.0.0.1], protocol: udp, ports: [53]";
    only(&policy("", &[], &[dns, &rule("*.github.io")]), 8, "many customers");
    for name in ["*.me.github.io", "me.github.io", "*.safaricom.co.ke"] {
        assert_eq!(warnings(&policy("", &[], &[dns, &rule(name)])), [], "{name}");
    }
}

#[test]
fn a_limit_on_a_provider() {
    let sets = "safaricom: { addresses: [196.201.214.200], source: Daraja }";
    let service = "name: callbacks, ports: [443], from: [safaricom], limit: { new_connections: 50/s }";
    only(&policy(sets, &[service], &[]), 5, "limits the set `safaricom`");
}

#[test]
fn a_set_wider_than_its_source() {
    let service = "name: callbacks, ports: [443], from: [safaricom]";
    let set = |addresses| format!("safaricom: {{ addresses: [{addresses}], source: Daraja }}");
    only(&policy(&set("196.201.214.0/24, 196.201.213.0/24"), &[service], &[]), 3, "may be wider");
    only(&policy(&set("\"2001:db8::/64\""), &[service], &[]), 3, "may be wider");
    assert_eq!(warnings(&policy(&set("196.201.214.200"), &[service], &[])), []);
    let own = "safaricom: { addresses: [10.0.0.0/8] }";
    assert_eq!(warnings(&policy(own, &[service], &[])), []);
}

#[test]
fn an_expired_set() {
    let service = "name: callbacks, ports: [443], from: [safaricom]";
    let set =
        |day| format!("safaricom: {{ addresses: [196.201.214.200], checked: 2026-08-08, expires: {day} }}");
    only(&policy(&set("2026-11-22"), &[service], &[]), 3, "expired on 2026-11-22");
    assert_eq!(warnings(&policy(&set("2026-11-23"), &[service], &[])), [], "the last day is good");
}

#[test]
fn an_unused_set() {
    let service = "name: ssh, ports: [22], from: [admins]";
    only(&policy("admins: [192.0.2.1], old: [192.0.2.2]", &[service], &[]), 3, "no rule uses the set `old`");
    let local = "name: site, ports: [80], from: [any], to: [own]";
    assert_eq!(warnings(&policy("own: [192.0.2.1]", &[local], &[])), [], "`to` of a service uses it");
}

#[test]
fn an_address_twice() {
    let service = "name: ssh, ports: [22], from: [admins]";
    only(&policy("admins: [192.0.2.1, 192.0.2.1]", &[service], &[]), 3, "twice");
}

#[test]
fn any_and_others() {
    only(&policy("", &["name: site, ports: [80], from: [any, 192.0.2.1]"], &[]), 5, "other entries useless");
}

#[test]
fn a_rule_that_an_earlier_one_covers() {
    for (earlier, later) in [
        ("ports: [443], from: [any]", "ports: [443], from: [192.0.2.1]"),
        ("ports: [\"400-500\"], from: [any]", "ports: [443, \"450-460\"], from: [any]"),
        ("ports: [\"400-450\", \"451-500\"], from: [any]", "ports: [\"440-460\"], from: [any]"),
        ("ports: any, from: [192.0.2.0/25, 192.0.2.128/25]", "ports: [1], from: [192.0.2.0/24]"),
        ("ports: any, from: [\"2001:db8::/32\"]", "ports: [1], from: [\"2001:db8:1::/48\"]"),
        ("protocol: [tcp, udp], ports: [53], from: [a]", "protocol: udp, ports: [53], from: [a]"),
        ("protocol: udp, ports: [53], from: [a, b]", "protocol: udp, ports: [53], from: [b, 192.0.2.1]"),
        ("protocol: icmp, from: [any]", "protocol: icmp, types: [echo-request], from: [any]"),
        ("protocol: 47, from: [any]", "protocol: 47, from: [any]"),
        ("ports: [80], from: [any]", "ports: [80], from: [any], to: [10.0.0.5]"),
        ("ports: [80], from: [any], to: [10.0.0.0/8]", "ports: [80], from: [any], to: [10.0.0.5]"),
        ("ports: [80], from: [any]", "ports: [80], from: [any], limit: { packets: 1/s }"),
    ] {
        let (earlier, later) = (format!("name: one, {earlier}"), format!("name: two, {later}"));
        let user = "name: user, ports: [9], from: [a, b]";
        let sets = "a: [192.0.2.1], b: [192.0.2.2]";
        only(&policy(sets, &[user, &earlier, &later], &[]), 7, "`two` is useless: `one` on line 6");
    }
}

#[test]
fn rules_that_are_not_covered() {
    for (earlier, later) in [
        ("ports: [443], from: [192.0.2.1]", "ports: [443], from: [any]"),
        ("ports: [443], from: [any], limit: { packets: 1/s }", "ports: [443], from: [192.0.2.1]"),
        ("ports: [443], from: [any], to: [10.0.0.5]", "ports: [443], from: [any]"),
        ("ports: [443], from: [any]", "protocol: udp, ports: [443], from: [any]"),
        ("protocol: icmp, types: [echo-request], from: [any]", "protocol: icmp, from: [any]"),
        ("ports: [443], from: [192.0.2.0/25]", "ports: [443], from: [192.0.2.0/24]"),
        ("ports: [443], from: [0.0.0.0/0]", "ports: [443], from: [\"::/0\"]"),
    ] {
        let (earlier, later) = (format!("name: one, {earlier}"), format!("name: two, {later}"));
        assert_eq!(warnings(&policy("", &[&earlier, &later], &[])), [], "{earlier} / {later}");
    }
}

#[test]
fn destinations_are_covered_by_name_and_by_address() {
    let covered = [
        "name: one, to: [api.example.net, 192.0.2.0/24], ports: [443]",
        "name: two, to: [192.0.2.1, API.example.net], ports: [443]",
    ];
    only(&policy("", &[], &covered), 8, "`two` is useless");
    let other = [covered[0], "name: two, to: [www.example.net], ports: [443]"];
    assert_eq!(warnings(&policy("", &[], &other)), []);
}

#[test]
fn warnings_are_shown_as_errors_are() {
    let text = policy("", &[], &["name: web, to: [any], ports: [443]"]);
    let warning = load(&text).warnings.remove(0).to_string();
    assert!(
        warning.starts_with("warning: ") && warning.contains("^^^") && warning.contains("= hint: "),
        "{warning}"
    );
}
