//! Who reaches which port of the host, with curl and UDP sockets.

mod support;

use std::net::IpAddr;

use anyhow::Result;
use support::{Field, NEVER, SOON, WEB, kinds, passed_since, policy, settled};
use testbed::{Answer, Curl, serve::UdpEcho};

#[test]
#[ignore = "needs root and a kernel"]
fn allowed_sources_pass_and_others_are_dropped() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80, 81])?;
    let (firewall, _agent) = field.protected(&policy(&[WEB], &[]))?;
    for address in field.addresses() {
        let before = firewall.metrics()?;
        assert!(Curl::http(address, 80).from(&field.safaricom.namespace).is_ok(), "{address}");
        let now = firewall.metrics()?;
        assert_eq!(kinds(&now.drops_since(&before)), [] as [&str; 0]);
        assert!(passed_since(&now, &before, "ingress", "web") >= 4, "SYN, ACK, request, FIN");

        assert_eq!(Curl::http(address, 80).from(&field.attacker.namespace), Answer::Silence);
        assert_eq!(Curl::http(address, 81).from(&field.safaricom.namespace), Answer::Silence);
        let drops = firewall.metrics()?.drops_since(&now);
        assert_eq!(kinds(&drops), ["ingress - no_service", "ingress web source_not_allowed"]);
    }
    // The agent's own port is on loopback, which nothing touches.
    assert_eq!(firewall.namespace.get(testbed::Firewall::METRICS, "/healthz")?.0, 200);
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn udp_services_answer_without_state() -> Result<()> {
    let field = Field::new()?;
    let _echo = (UdpEcho::start(&field.host.namespace, 5000)?, UdpEcho::start(&field.host.namespace, 5001)?);
    let service =
        "{ name: echo, protocol: udp, ports: [5000], from: [196.201.214.200, \"2001:db8:0:214::200\"] }";
    let (firewall, _agent) = field.protected(&policy(&[service], &[]))?;
    for address in field.addresses() {
        let ask = |place: &testbed::Host, port| UdpEcho::ask(&place.namespace, address, port, b"?", NEVER);
        let heard = UdpEcho::ask(&field.safaricom.namespace, address, 5000, b"?", SOON)?;
        assert_eq!(heard.as_deref(), Some(&b"?"[..]));
        assert_eq!(ask(&field.safaricom, 5001)?, None);
        assert_eq!(ask(&field.attacker, 5000)?, None);
    }
    let metrics = firewall.metrics()?;
    assert_eq!(metrics.sum("mpesa_fw_flows", &[]), 0.0, "what outsiders send makes no state");
    assert_eq!(metrics.passed("ingress", "echo"), 2.0);
    assert_eq!(metrics.dropped("ingress", "echo", "source_not_allowed"), 2.0);
    assert_eq!(metrics.dropped("ingress", "", "no_service"), 2.0);
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn port_ranges_hold_at_both_ends() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[7999, 8000, 8003, 8004])?;
    let (_firewall, _agent) =
        field.protected(&policy(&["{ name: range, ports: [\"8000-8003\"], from: [any] }"], &[]))?;
    let answer = |port| Curl::http(field.host.place.v4, port).from(&field.attacker.namespace);
    assert!(answer(8000).is_ok() && answer(8003).is_ok());
    assert_eq!((answer(7999), answer(8004)), (Answer::Silence, Answer::Silence));
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn the_first_service_that_allows_is_charged() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let site = "{ name: site, ports: [80], from: [any] }";
    let (firewall, _agent) = field.protected(&policy(&[WEB, site], &[]))?;
    let get = |place: &testbed::Host| Curl::http(field.host.place.v4, 80).from(&place.namespace).is_ok();
    assert!(get(&field.safaricom));
    let first = settled(&firewall)?;
    assert!(first.passed("ingress", "web") > 0.0);
    assert_eq!(first.passed("ingress", "site"), 0.0);
    assert!(get(&field.attacker));
    let second = firewall.metrics()?;
    assert_eq!(second.passed("ingress", "web"), first.passed("ingress", "web"));
    assert!(second.passed("ingress", "site") > 0.0);
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn a_service_with_a_local_address_is_only_there() -> Result<()> {
    let field = Field::new()?;
    field
        .host
        .namespace
        .sh("ip address add 203.0.113.11/24 dev eth0; ip address add 2001:db8:0:113::11/64 dev eth0 nodad")?;
    let _web = field.web(&[80])?;
    let service = "{ name: web, ports: [80], from: [any], to: [203.0.113.11, \"2001:db8:0:113::11\"] }";
    let (firewall, _agent) = field.protected(&policy(&[service], &[]))?;
    let get = |address: &str| {
        Curl::http(address.parse::<IpAddr>().expect("an address"), 80).from(&field.safaricom.namespace)
    };
    assert!(get("203.0.113.11").is_ok());
    assert!(get("2001:db8:0:113::11").is_ok());
    let before = firewall.metrics()?;
    assert_eq!(get("203.0.113.10"), Answer::Silence);
    assert_eq!(get("2001:db8:0:113::10"), Answer::Silence);
    assert_eq!(kinds(&firewall.metrics()?.drops_since(&before)), ["ingress web source_not_allowed"]);
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn sets_come_from_files_of_any_size() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let firewall = field.firewall()?;
    // Every second /28 of 100.64.0.0/10, and Safaricom at the end.
    let feed =
        (0..20_000u32).map(|i| format!("100.{}.{}.{}/28\n", 64 + (i >> 11), (i >> 3) & 255, (i & 7) * 32));
    let feed: String = feed.collect();
    firewall.write(
        "feed.netset",
        &format!("# a public feed\n{feed}\n196.201.214.0/24 # ours\n2001:db8:0:214::/64\n"),
    )?;
    let rules = policy(&["{ name: web, ports: [80], from: [partners] }"], &[]);
    firewall.policy(&rules.replace("ingress:", "sets:\n  partners: { file: feed.netset }\ningress:"))?;
    let _agent = firewall.start(&[])?;
    for address in field.addresses() {
        assert!(Curl::http(address, 80).from(&field.safaricom.namespace).is_ok(), "{address}");
        assert_eq!(Curl::http(address, 80).from(&field.attacker.namespace), Answer::Silence, "{address}");
    }
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn default_pass_keeps_claimed_ports_closed() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80, 81])?;
    let rules = policy(&[WEB], &[]).replace("default: drop", "default: pass");
    let (firewall, _agent) = field.protected(&rules)?;
    assert!(Curl::http(field.host.place.v4, 81).from(&field.attacker.namespace).is_ok());
    assert_eq!(Curl::http(field.host.place.v4, 80).from(&field.attacker.namespace), Answer::Silence);
    assert!(Curl::http(field.host.place.v4, 80).from(&field.safaricom.namespace).is_ok());
    let metrics = firewall.metrics()?;
    assert!(metrics.passed("ingress", "") > 0.0);
    assert!(metrics.dropped("ingress", "web", "source_not_allowed") > 0.0);
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn observe_mode_counts_and_drops_nothing() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80, 81])?;
    let _outside = support::web(&field.network, &field.attacker, &[443])?;
    let rules = policy(&[WEB], &[]).replace("mode: enforce", "mode: observe");
    let (firewall, mut agent) = field.protected(&rules)?;
    agent.process.wait_for_log("observing", SOON)?;
    let before = firewall.metrics()?;
    for port in [80, 81] {
        assert!(Curl::http(field.host.place.v4, port).from(&field.attacker.namespace).is_ok());
    }
    assert!(Curl::http(field.attacker.place.v4, 443).from(&field.host.namespace).is_ok());
    let now = firewall.metrics()?;
    assert_eq!(kinds(&now.drops_since(&before)), [] as [&str; 0]);
    let would = now.would_drops_since(&before);
    // Replies of services to whom they do not allow count too, as what they are: packets to nowhere.
    for kind in ["ingress web source_not_allowed", "ingress - no_service", "egress - no_destination"] {
        assert!(would.contains_key(kind), "{kind} of {would:?}");
    }
    assert_eq!(now.sum("mpesa_fw_enforcing", &[]), 0.0);
    assert!(now.has("mpesa_fw_generation_info", &[("mode", "observe")]));
    assert!(firewall.ask(["status"])?.stdout.contains("observing"));
    Ok(())
}
