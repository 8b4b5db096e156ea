//! Frames that no honest client sends, made by scapy: which arrive behind the firewall, and as what they are counted.

mod support;

use anyhow::Result;
use support::{FENCE, Field, policy};
use testbed::{Curl, Wire, attach_foreign_xdp, holds, serve::UdpEcho};

/// UDP port 53 for Safaricom; the fence beside it.
const DNS: &str =
    "{ name: dns, protocol: udp, ports: [53], from: [196.201.214.200, \"2001:db8:0:214::200\"] }";

/// Sends frames to a host with [`DNS`] and asserts which arrive, and that exactly those drops are counted.
fn judged(frames: &[(&str, &str)], arrive: &[&str], counted: &[(&str, u64)]) -> Result<()> {
    let field = Field::new()?;
    // Somebody listens: an error from a closed port would be judged too.
    let _echo = UdpEcho::start(&field.host.namespace, 53)?;
    let (firewall, _agent) = field.protected(&policy(&[DNS, FENCE], &[]))?;
    let mut wire = field.wire()?;
    let before = firewall.metrics()?;
    assert_eq!(wire.send(frames)?, arrive);
    let moved = firewall.metrics()?.drops_since(&before);
    assert_eq!(moved, counted.iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect());
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn vlan_and_qinq_tags_are_walked() -> Result<()> {
    let frames = [
        ("one tag", "to_host()/Dot1Q(vlan=7)/IP(src=S4,dst=H4)/UDP(sport=5,dport=53)"),
        ("one tag, wrong port", "to_host()/Dot1Q(vlan=7)/IP(src=S4,dst=H4)/UDP(sport=5,dport=54)"),
        (
            "one tag, wrong source",
            "to_host()/Dot1Q(vlan=7)/IP(src='198.51.100.66',dst=H4)/UDP(sport=5,dport=53)",
        ),
        ("qinq", "to_host()/Dot1AD(vlan=7)/Dot1Q(vlan=8)/IPv6(src=S6,dst=H6)/UDP(sport=5,dport=53)"),
        (
            "qinq, wrong source",
            "to_host()/Dot1AD(vlan=7)/Dot1Q(vlan=8)/IPv6(src='2001:db8::66',dst=H6)/UDP(sport=5,dport=53)",
        ),
        ("priority tag", "to_host()/Dot1Q(vlan=0,prio=5)/IP(src=S4,dst=H4)/UDP(sport=5,dport=53)"),
        (
            "three tags",
            "to_host()/Dot1Q(vlan=7)/Dot1Q(vlan=8)/Dot1Q(vlan=9)/IP(src=S4,dst=H4)/UDP(sport=5,dport=53)",
        ),
        ("cut in a tag", "bytes(to_host())[:12]+b'\\x81\\x00\\x00'"),
    ];
    judged(
        &frames,
        &["one tag", "qinq", "priority tag"],
        &[
            ("ingress - no_service", 1),
            ("ingress dns source_not_allowed", 2),
            ("ingress - unknown_ethertype", 1),
            ("ingress - malformed", 1),
        ],
    )
}

#[test]
#[ignore = "needs root and a kernel"]
fn tags_that_were_taken_off_are_no_way_around() -> Result<()> {
    let field = Field::new()?;
    let _echo = UdpEcho::start(&field.host.namespace, 53)?;
    let firewall = field.firewall()?;
    // At TC ingress the kernel has taken the outer tag off, as a NIC with rx-vlan-offload does.
    attach_foreign_xdp(&field.host, firewall.bpffs.parent().expect("it has one"))?;
    firewall.policy(&policy(&[DNS, FENCE], &[]))?;
    let _agent = firewall.start(&[])?;
    let before = firewall.metrics()?;
    let frames = [
        "to_host()/Dot1Q(vlan=7)/IP(src=S4,dst=H4)/UDP(sport=5,dport=53)",
        "to_host()/Dot1Q(vlan=7)/IP(src=S4,dst=H4)/UDP(sport=5,dport=54)",
        "to_host()/Dot1AD(vlan=7)/Dot1Q(vlan=8)/IPv6(src=S6,dst=H6)/UDP(sport=5,dport=53)",
        "to_host()/Dot1AD(vlan=7)/Dot1Q(vlan=8)/IPv6(src='2001:db8::66',dst=H6)/UDP(sport=5,dport=53)",
        "to_host()/Dot1Q(vlan=7)/Dot1Q(vlan=8)/Dot1Q(vlan=9)/IP(src=S4,dst=H4)/UDP(sport=5,dport=53)",
    ];
    field.wire()?.send(&frames.map(|frame| ("frame", frame)))?;
    let expected = [
        ("ingress - no_service", 1),
        ("ingress dns source_not_allowed", 1),
        ("ingress - unknown_ethertype", 1),
    ];
    holds("the counts", support::SOON, || {
        firewall.metrics().is_ok_and(|now| {
            now.drops_since(&before) == support::drops(expected) && now.passed("ingress", "dns") == 2.0
        })
    })
}

#[test]
#[ignore = "needs root and a kernel"]
fn ipv4_options_do_not_hide_the_ports() -> Result<()> {
    let frames = [
        ("options", "to_host()/IP(src=S4,dst=H4,options=[IPOption_NOP()]*8)/UDP(sport=5,dport=53)"),
        (
            "options, wrong port",
            "to_host()/IP(src=S4,dst=H4,options=[IPOption_NOP()]*8)/UDP(sport=5,dport=54)",
        ),
        // With options of 40 bytes a parser with a fixed offset reads ports from them.
        (
            "ports in the options",
            "to_host()/IP(src=S4,dst=H4,options=[IPOption(b'\\x94\\x04\\x00\\x35')]*10)/UDP(sport=53,dport=54)",
        ),
    ];
    judged(&frames, &["options"], &[("ingress - no_service", 2)])
}

#[test]
#[ignore = "needs root and a kernel"]
fn ipv6_extension_chains_are_walked() -> Result<()> {
    let frames = [
        ("hop by hop", "to_host()/IPv6(src=S6,dst=H6)/IPv6ExtHdrHopByHop()/UDP(sport=5,dport=53)"),
        (
            "two options",
            "to_host()/IPv6(src=S6,dst=H6)/IPv6ExtHdrHopByHop()/IPv6ExtHdrDestOpt()/UDP(sport=5,dport=53)",
        ),
        (
            "wrong port behind options",
            "to_host()/IPv6(src=S6,dst=H6)/IPv6ExtHdrDestOpt()/UDP(sport=5,dport=54)",
        ),
        (
            "wrong source behind options",
            "to_host()/IPv6(src='2001:db8::66',dst=H6)/IPv6ExtHdrDestOpt()/UDP(sport=5,dport=53)",
        ),
        (
            "atomic fragment",
            "to_host()/IPv6(src=S6,dst=H6)/IPv6ExtHdrFragment(offset=0,m=0)/UDP(sport=5,dport=53)",
        ),
        (
            "atomic fragment, wrong port",
            "to_host()/IPv6(src=S6,dst=H6)/IPv6ExtHdrFragment(offset=0,m=0)/UDP(sport=5,dport=54)",
        ),
        (
            "endless options",
            "to_host()/reduce(lambda a, b: a/b, [IPv6ExtHdrDestOpt() for _ in range(12)], IPv6(src=S6,dst=H6))/UDP(sport=5,dport=53)",
        ),
        ("option past the end", "to_host()/IPv6(src=S6,dst=H6,nh=60)/Raw(b'\\x11\\xff'+b'\\x00'*14)"),
        ("sctp", "to_host()/IPv6(src=S6,dst=H6)/SCTP(sport=53,dport=53)"),
        ("experimental", "to_host()/IPv6(src=S6,dst=H6,nh=253)/Raw(b'x'*16)"),
    ];
    judged(
        &frames,
        &["hop by hop", "two options", "atomic fragment"],
        &[("ingress - no_service", 4), ("ingress dns source_not_allowed", 1), ("ingress - malformed", 2)],
    )
}

#[test]
#[ignore = "needs root and a kernel"]
fn what_cannot_be_parsed_is_dropped() -> Result<()> {
    let frames = [
        ("no IP header", "bytes(to_host())[:12]+b'\\x08\\x00\\x45'"),
        ("version 5", "to_host()/IP(version=5,src=S4,dst=H4)/UDP(sport=5,dport=53)"),
        ("header length 4", "to_host()/IP(ihl=4,src=S4,dst=H4)/UDP(sport=5,dport=53)"),
        ("header past the packet", "to_host()/IP(ihl=15,src=S4,dst=H4)/UDP(sport=5,dport=53)"),
        ("longer than the frame", "to_host()/IP(len=1000,src=S4,dst=H4)/UDP(sport=5,dport=53)"),
        ("shorter than its header", "to_host()/IP(len=10,src=S4,dst=H4)/UDP(sport=5,dport=53)"),
        ("no UDP header", "to_host()/IP(src=S4,dst=H4,proto=17)/Raw(b'\\x00\\x05\\x00\\x35')"),
        ("UDP length 3", "to_host()/IP(src=S4,dst=H4)/UDP(sport=5,dport=53,len=3)"),
        ("UDP longer than the packet", "to_host()/IP(src=S4,dst=H4)/UDP(sport=5,dport=53,len=900)"),
        ("no TCP header", "to_host()/IP(src=S4,dst=H4,proto=6)/Raw(b'x'*12)"),
        ("TCP offset 3", "to_host()/IP(src=S4,dst=H4)/TCP(dport=80,dataofs=3)"),
        ("IPv6 version 7", "to_host()/IPv6(version=7,src=S6,dst=H6)/UDP(sport=5,dport=53)"),
        ("IPv6 longer than the frame", "to_host()/IPv6(plen=900,src=S6,dst=H6)/UDP(sport=5,dport=53)"),
        ("IPv6 cut short", "bytes(to_host()/IPv6(src=S6,dst=H6))[:40]"),
    ];
    judged(&frames, &[], &[("ingress - malformed", frames.len() as u64)])
}

#[test]
#[ignore = "needs root and a kernel"]
fn impossible_sources_are_dropped() -> Result<()> {
    let frames = [
        ("own", "to_host()/IP(src=H4,dst=H4)/UDP(sport=5,dport=53)"),
        ("loopback", "to_host()/IP(src='127.0.0.1',dst=H4)/UDP(sport=5,dport=53)"),
        ("multicast", "to_host()/IP(src='224.0.0.5',dst=H4)/UDP(sport=5,dport=53)"),
        ("broadcast", "to_host()/IP(src='255.255.255.255',dst=H4)/UDP(sport=5,dport=53)"),
        ("this network", "to_host()/IP(src='0.0.0.9',dst=H4)/UDP(sport=5,dport=53)"),
        ("own v6", "to_host()/IPv6(src=H6,dst=H6)/UDP(sport=5,dport=53)"),
        ("own link-local", "to_host()/IPv6(src='fe80::2',dst=H6)/UDP(sport=5,dport=53)"),
        ("loopback v6", "to_host()/IPv6(src='::1',dst=H6)/UDP(sport=5,dport=53)"),
        ("multicast v6", "to_host()/IPv6(src='ff02::1',dst=H6)/UDP(sport=5,dport=53)"),
        ("unspecified v6", "to_host()/IPv6(src='::',dst=H6)/UDP(sport=5,dport=53)"),
    ];
    judged(&frames, &[], &[("ingress - spoofed", frames.len() as u64)])
}

#[test]
#[ignore = "needs root and a kernel"]
fn an_address_that_the_host_gets_later_is_its_own() -> Result<()> {
    let field = Field::new()?;
    let (firewall, _agent) =
        field.protected(&policy(&["{ name: dns, protocol: udp, ports: [53], from: [any] }", FENCE], &[]))?;
    let mut wire = field.wire()?;
    let frames = [("later", "to_host()/IP(src='203.0.113.77',dst=H4)/UDP(sport=5,dport=53)")];
    assert_eq!(wire.send(&frames)?, ["later"]);
    field.host.namespace.sh("ip address add 203.0.113.77/24 dev eth0")?;
    holds("the new address is the host's own", support::SOON, || {
        wire.send(&frames).is_ok_and(|seen| seen.is_empty())
    })?;
    field.host.namespace.sh("ip address delete 203.0.113.77/24 dev eth0")?;
    holds("it no longer is", support::SOON, || wire.send(&frames).is_ok_and(|seen| !seen.is_empty()))?;
    assert!(firewall.metrics()?.dropped("ingress", "", "spoofed") > 0.0);
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn link_layer_protocols_pass_and_unknown_ones_do_not() -> Result<()> {
    let frames = [
        ("arp", "to_host()/ARP(psrc='203.0.113.1',pdst=H4,hwsrc=PEER)"),
        ("lldp", "Ether(dst='01:80:c2:00:00:0e',type=0x88cc)/Raw(b'\\x00'*50)"),
        ("lacp", "Ether(dst='01:80:c2:00:00:02',type=0x8809)/Raw(b'\\x01'*50)"),
        ("eapol", "Ether(dst=HOST,type=0x888e)/Raw(b'x'*50)"),
        ("stp", "Dot3(dst='01:80:c2:00:00:00',src=PEER)/LLC(dsap=0x42,ssap=0x42,ctrl=3)/STP()"),
        ("mpls", "Ether(dst=HOST,type=0x8847)/Raw(b'x'*50)"),
        ("pppoe", "Ether(dst=HOST,type=0x8864)/Raw(b'x'*50)"),
    ];
    judged(&frames, &["arp", "lldp", "lacp", "eapol", "stp"], &[("ingress - unknown_ethertype", 2)])
}

#[test]
#[ignore = "needs root and a kernel"]
fn limits_hold_for_each_source() -> Result<()> {
    let field = Field::new()?;
    let limited = "{ name: dns, protocol: udp, ports: [53], from: [any], limit: { packets: 1/m, burst: 5, per: source } }";
    let (firewall, _agent) = field.protected(&policy(&[limited, FENCE], &[]))?;
    let mut wire = field.wire()?;
    let arrived = |wire: &mut Wire, source: &str| -> Result<usize> {
        let layer = if source.contains(':') { "IPv6" } else { "IP" };
        let target = if source.contains(':') { "H6" } else { "H4" };
        let frame = format!("to_host()/{layer}(src='{source}',dst={target})/UDP(sport=5,dport=53)");
        let frames: Vec<(&str, &str)> = (0..8).map(|_| ("frame", frame.as_str())).collect();
        Ok(wire.send(&frames)?.len())
    };
    assert_eq!(arrived(&mut wire, "198.51.100.66")?, 5);
    assert_eq!(arrived(&mut wire, "198.51.100.66")?, 0);
    assert_eq!(arrived(&mut wire, "198.51.100.67")?, 5, "another source has its own");
    assert_eq!(arrived(&mut wire, "2001:db8::1")?, 5);
    assert_eq!(arrived(&mut wire, "2001:db8::2")?, 0, "a /64 is one subscriber");
    let metrics = firewall.metrics()?;
    assert_eq!(metrics.dropped("ingress", "dns", "rate_limited"), 3.0 + 8.0 + 3.0 + 3.0 + 8.0);
    assert_eq!(metrics.passed("ingress", "dns"), 15.0);
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn limits_hold_for_a_service_as_a_whole_and_for_connections() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let whole = "{ name: dns, protocol: udp, ports: [53], from: [any], limit: { packets: 1/h, burst: 3, per: service } }";
    let site =
        "{ name: site, ports: [80], from: [any], limit: { new_connections: 1/m, burst: 2, per: source } }";
    let (firewall, _agent) = field.protected(&policy(&[whole, site, FENCE], &[]))?;
    let sources = (1..=6).map(|n| format!("to_host()/IP(src='198.51.100.{n}',dst=H4)/UDP(sport=5,dport=53)"));
    let sources: Vec<String> = sources.collect();
    let frames: Vec<(&str, &str)> = sources.iter().map(|frame| ("frame", frame.as_str())).collect();
    assert_eq!(field.wire()?.send(&frames)?.len(), 3);
    let get = || Curl::http(field.host.place.v4, 80).from(&field.safaricom.namespace);
    assert!(get().is_ok() && get().is_ok(), "packets of open connections are not charged");
    assert_eq!(get(), testbed::Answer::Silence);
    let metrics = firewall.metrics()?;
    assert_eq!(metrics.dropped("ingress", "dns", "rate_limited"), 3.0);
    assert!(metrics.dropped("ingress", "site", "rate_limited") >= 1.0);
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn a_flood_of_odd_frames_fills_no_table() -> Result<()> {
    let field = Field::new()?;
    let _echo = UdpEcho::start(&field.host.namespace, 53)?;
    let (firewall, _agent) = field.protected(&policy(&[DNS, FENCE], &[]))?;
    let mut wire = field.wire()?;
    // Headers with random contents: whatever they are, the agent and the service live, and no flow is made.
    let random = "[bytes(to_host())[:12]+b'\\x08\\x00'+os.urandom(n % 90) for n in range(400)]";
    wire.throw(&[
        random,
        &random.replace("\\x08\\x00", "\\x86\\xdd"),
        &random.replace("\\x08\\x00", "\\x81\\x00"),
    ])?;
    let heard = UdpEcho::ask(&field.safaricom.namespace, field.host.place.v4, 53, b"?", support::SOON)?;
    assert_eq!(heard.as_deref(), Some(&b"?"[..]));
    let metrics = firewall.metrics()?;
    assert_eq!(metrics.sum("mpesa_fw_flows", &[]), 0.0);
    assert!(
        metrics.dropped("ingress", "", "malformed") > 500.0,
        "{:?}",
        metrics.drops_since(&testbed::Metrics::default())
    );
    assert_eq!(metrics.sum("mpesa_fw_dropped_packets_total", &[("reason", "internal")]), 0.0);
    Ok(())
}
