//! What ships in `rules/` loads, and says what its comments say.

use std::path::Path;

use ipnet::IpNet;
use mpesa_fw::policy::{Loaded, Permissions, load_on, model::Claim};
use mpesa_fw_common::settings::{Mode, Verdict};
use time::macros::date;

fn load(name: &str) -> Loaded {
    let path = Path::new("../rules").join(name);
    match load_on(&path, Permissions::Ignore, date!(2026 - 11 - 23)) {
        Ok(loaded) => loaded,
        Err(errors) => panic!("{errors}"),
    }
}

#[test]
fn dedicated() {
    let Loaded { policy, warnings, total: _, texts: _ } = load("dedicated.yaml");
    assert_eq!(warnings, []);
    assert_eq!(policy.mode, Mode::Observe);
    assert_eq!(policy.ingress.default, Verdict::Drop);
    assert_eq!(policy.egress.default, Verdict::Drop);
    let names: Vec<_> = policy.ingress.services.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(names, ["callbacks", "api", "ssh", "ping"]);
    let callbacks = &policy.ingress.services[0];
    assert_eq!(callbacks.claims, [Claim::Tcp(vec![443..=443, 8443..=8443])]);
    assert_eq!(callbacks.limit, None);
    let sets: Vec<_> = callbacks.from.sets.iter().map(|set| policy.sets[*set].name.as_str()).collect();
    assert_eq!(sets, ["safaricom"]);
    assert_eq!(policy.ingress.services[3].claims, [Claim::Icmp(vec![8]), Claim::Icmpv6(vec![128])]);
    let allow: Vec<_> = policy.egress.allow.iter().map(|rule| rule.name.as_str()).collect();
    assert_eq!(allow, ["daraja", "dns", "ntp"]);
    assert_eq!(policy.egress.allow[0].names, ["api.safaricom.co.ke", "sandbox.safaricom.co.ke"]);
    assert_eq!(policy.files, [Path::new("../rules/dedicated.yaml"), Path::new("../rules/safaricom.yaml")]);
}

#[test]
fn safaricom_is_the_twelve_published_hosts() {
    let policy = load("dedicated.yaml").policy;
    let set = policy.sets.iter().find(|set| set.name == "safaricom").expect("it is included");
    let published = [
        "196.201.214.200",
        "196.201.214.206",
        "196.201.214.207",
        "196.201.214.208",
        "196.201.213.44",
        "196.201.213.114",
        "196.201.212.69",
        "196.201.212.74",
        "196.201.212.127",
        "196.201.212.129",
        "196.201.212.136",
        "196.201.212.138",
    ];
    let mut published: Vec<IpNet> =
        published.iter().map(|host| format!("{host}/32").parse().expect("an address")).collect();
    let mut shipped = set.prefixes.clone();
    published.sort();
    shipped.sort();
    assert_eq!(shipped, published);
    assert_eq!(set.checked, Some(date!(2026 - 08 - 08)));
    assert_eq!(set.expires, Some(date!(2027 - 02 - 08)));
    assert_eq!(set.watch, ["196.201.208.0/20".parse::<IpNet>().expect("a prefix")]);
}

#[test]
fn shared_443_charges_safaricom_before_everybody() {
    let Loaded { policy, warnings, total: _, texts: _ } = load("shared-443.yaml");
    assert_eq!(warnings, []);
    assert_eq!(policy.mode, Mode::Observe);
    let services = &policy.ingress.services;
    assert_eq!((services[0].name.as_str(), services[1].name.as_str()), ("callbacks", "site"));
    assert!(services[1].from.any && services[0].limit.is_none());
}

#[test]
fn environments() {
    for (name, mode, hosts) in [
        ("local", Mode::Observe, vec!["sandbox.safaricom.co.ke"]),
        ("staging", Mode::Enforce, vec!["sandbox.safaricom.co.ke"]),
        ("production", Mode::Enforce, vec!["api.safaricom.co.ke"]),
    ] {
        let Loaded { policy, warnings, total: _, texts: _ } = load(&format!("environments/{name}.yaml"));
        assert_eq!(warnings, [], "{name}");
        assert_eq!(policy.mode, mode, "{name}");
        assert_eq!(policy.egress.allow[0].names, hosts, "{name}");
        assert!(
            policy
                .ingress
                .services
                .iter()
                .all(|service| { service.limit.is_none() || service.name != "callbacks" })
        );
    }
}

#[test]
fn line_ends_of_other_systems_mean_the_same() {
    let directory = tempfile::tempdir().expect("a directory");
    for name in ["dedicated.yaml", "safaricom.yaml"] {
        let text = std::fs::read_to_string(Path::new("../rules").join(name)).expect("a file");
        std::fs::write(directory.path().join(name), text.replace('\n', "\r\n")).expect("a file");
    }
    let path = directory.path().join("dedicated.yaml");
    let loaded = load_on(&path, Permissions::Ignore, date!(2026 - 11 - 23)).map(|loaded| loaded.policy);
    let (loaded, shipped) = (loaded.expect("it loads"), load("dedicated.yaml").policy);
    let names = |policy: &mpesa_fw::policy::model::Policy| {
        policy.ingress.services.iter().map(|service| service.claims.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(&loaded), names(&shipped));
    assert_eq!(loaded.sets[0].prefixes, shipped.sets[0].prefixes);
}
