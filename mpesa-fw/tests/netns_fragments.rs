//! Fragments: a packet in pieces is judged like a whole one, and pieces alone get nowhere.

mod support;

use anyhow::Result;
use support::{FENCE, Field, NEVER, OUT_FENCE, SOON, drops, passed_since, policy};
use testbed::{place, serve::UdpEcho};

const ECHO: &str =
    "{ name: echo, protocol: udp, ports: [5000], from: [196.201.214.200, \"2001:db8:0:214::200\"] }";

#[test]
#[ignore = "needs root and a kernel"]
fn fragmented_datagrams_are_served() -> Result<()> {
    let field = Field::new()?;
    let _echo = (UdpEcho::start(&field.host.namespace, 5000)?, UdpEcho::start(&field.host.namespace, 5001)?);
    let (firewall, _agent) = field.protected(&policy(&[ECHO], &[]))?;
    let text = vec![b'x'; 5000];
    for address in field.addresses() {
        let before = firewall.metrics()?;
        let heard = UdpEcho::ask(&field.safaricom.namespace, address, 5000, &text, SOON)?;
        assert_eq!(heard.as_ref().map(Vec::len), Some(text.len()), "{address}: both ways in pieces");
        assert_eq!(UdpEcho::ask(&field.safaricom.namespace, address, 5001, &text, NEVER)?, None);
        assert_eq!(UdpEcho::ask(&field.attacker.namespace, address, 5000, &text, NEVER)?, None);
        let now = firewall.metrics()?;
        assert_eq!(
            passed_since(&now, &before, "ingress", "echo"),
            4,
            "later pieces are charged like the first"
        );
        // Of four pieces each: the first by its ports, the others because the first did not pass.
        let expected =
            [("ingress - no_service", 1), ("ingress echo source_not_allowed", 1), ("ingress - fragment", 6)];
        assert_eq!(now.drops_since(&before), drops(expected));
    }
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn datagrams_to_a_destination_may_be_fragmented() -> Result<()> {
    let field = Field::new()?;
    let api = field.network.add(place::API)?;
    let _echo = UdpEcho::start(&api.namespace, 5000)?;
    let to = "{ name: api, protocol: udp, ports: [5000], to: [192.0.2.80, \"2001:db8:0:80::80\"] }";
    let (firewall, _agent) = field.protected(&policy(&[], &[to]))?;
    for address in [api.place.v4.into(), std::net::IpAddr::from(api.place.v6)] {
        let heard = UdpEcho::ask(&field.host.namespace, address, 5000, &[b'x'; 5000], SOON)?;
        assert_eq!(heard.map(|heard| heard.len()), Some(5000), "{address}");
    }
    assert_eq!(firewall.metrics()?.sum("mpesa_fw_dropped_packets_total", &[]), 0.0);
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn pieces_alone_do_not_pass() -> Result<()> {
    let field = Field::new()?;
    let web = "{ name: web, ports: [80], from: [any] }";
    let (firewall, _agent) = field.protected(&policy(&[ECHO, web, FENCE], &[]))?;
    let before = firewall.metrics()?;
    let frames = [
        ("later, without a first", "to_host()/IP(src=S4,dst=H4,id=1,frag=185,proto=17)/Raw(b'x'*64)"),
        (
            "later v6, without a first",
            "to_host()/IPv6(src=S6,dst=H6)/IPv6ExtHdrFragment(offset=185,m=0,id=1,nh=17)/Raw(b'x'*64)",
        ),
        (
            "first",
            "to_host()/IP(src=S4,dst=H4,id=2,flags='MF')/UDP(sport=5,dport=5000,len=1500,chksum=1)/Raw(b'x'*64)",
        ),
        ("later, of the first", "to_host()/IP(src=S4,dst=H4,id=2,frag=185,proto=17)/Raw(b'x'*64)"),
        ("later, other identification", "to_host()/IP(src=S4,dst=H4,id=3,frag=185,proto=17)/Raw(b'x'*64)"),
        (
            "later, other source",
            "to_host()/IP(src='198.51.100.66',dst=H4,id=2,frag=185,proto=17)/Raw(b'x'*64)",
        ),
        ("tiny first", "to_host()/IP(src=S4,dst=H4,id=4,flags='MF',proto=17)/Raw(b'\\x00\\x05\\x13\\x88')"),
        ("later, of the tiny first", "to_host()/IP(src=S4,dst=H4,id=4,frag=1,proto=17)/Raw(b'x'*64)"),
        (
            "tiny first v6",
            "to_host()/IPv6(src=S6,dst=H6)/IPv6ExtHdrFragment(offset=0,m=1,id=4,nh=17)/Raw(b'\\x00\\x05\\x13\\x88')",
        ),
        ("tcp first", "to_host()/IP(src=S4,dst=H4,id=5,flags='MF')/TCP(sport=5,dport=80)/Raw(b'x'*60)"),
        ("tcp later", "to_host()/IP(src=S4,dst=H4,id=5,frag=10,proto=6)/Raw(b'x'*64)"),
        (
            "tcp tiny first",
            "to_host()/IP(src=S4,dst=H4,id=6,flags='MF',proto=6)/Raw(bytes(TCP(sport=5,dport=80))[:8])",
        ),
        (
            "tcp at offset 1",
            "to_host()/IP(src=S4,dst=H4,id=6,frag=1,proto=6)/Raw(bytes(TCP(sport=5,dport=80))[8:])",
        ),
        (
            "atomic",
            "to_host()/IPv6(src=S6,dst=H6)/IPv6ExtHdrFragment(offset=0,m=0,id=7)/UDP(sport=5,dport=5000)",
        ),
        (
            "atomic tcp",
            "to_host()/IPv6(src=S6,dst=H6)/IPv6ExtHdrFragment(offset=0,m=0,id=8)/TCP(sport=5,dport=80)",
        ),
    ];
    assert_eq!(field.wire()?.send(&frames)?, ["first", "later, of the first", "atomic", "atomic tcp"]);
    let moved = firewall.metrics()?.drops_since(&before);
    assert_eq!(moved.values().sum::<u64>(), 11, "{moved:?}");
    assert!(moved.keys().all(|kind| kind.ends_with(" fragment")), "{moved:?}");
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn a_flood_of_first_fragments_opens_nothing() -> Result<()> {
    let field = Field::new()?;
    let (firewall, _agent) = field.protected(&policy(&[ECHO, FENCE], &[]))?;
    let mut wire = field.wire()?;
    let flood = "[to_host()/IP(src=S4,dst=H4,id=n,flags='MF')/UDP(sport=5,dport=5000,len=1500,chksum=1)/Raw(b'x'*64) for n in range(1,3000)]";
    wire.throw(&[flood])?;
    let later = "to_host()/IP(src='198.51.100.66',dst=H4,id=7,frag=185,proto=17)/Raw(b'x'*64)";
    assert!(wire.send(&[("later of another", later)])?.is_empty());
    assert_eq!(firewall.metrics()?.sum("mpesa_fw_flows", &[]), 0.0);
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn pieces_from_the_host_are_judged_too() -> Result<()> {
    let field = Field::new()?;
    let to = "{ name: api, protocol: udp, ports: [5000], to: [192.0.2.80] }";
    let (firewall, _agent) = field.protected(&policy(&[], &[to, OUT_FENCE]))?;
    let before = firewall.metrics()?;
    let frames = [
        (
            "first",
            "to_router()/IP(src=H4,dst='192.0.2.80',id=2,flags='MF')/UDP(sport=5,dport=5000,len=1500,chksum=1)/Raw(b'x'*64)",
        ),
        ("later", "to_router()/IP(src=H4,dst='192.0.2.80',id=2,frag=185,proto=17)/Raw(b'x'*64)"),
        ("later alone", "to_router()/IP(src=H4,dst='192.0.2.80',id=3,frag=185,proto=17)/Raw(b'x'*64)"),
        (
            "first elsewhere",
            "to_router()/IP(src=H4,dst='198.18.0.99',id=4,flags='MF')/UDP(sport=5,dport=5000,len=1500,chksum=1)/Raw(b'x'*64)",
        ),
        ("later elsewhere", "to_router()/IP(src=H4,dst='198.18.0.99',id=4,frag=185,proto=17)/Raw(b'x'*64)"),
    ];
    assert_eq!(field.wire_out()?.send(&frames)?, ["first", "later"]);
    let expected = [("egress - fragment", 2), ("egress api destination_not_allowed", 1)];
    assert_eq!(firewall.metrics()?.drops_since(&before), drops(expected));
    Ok(())
}
