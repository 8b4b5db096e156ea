//! Traffic that the host cannot live without passes whatever the policy says.

mod support;

use std::{
    io::{Read as _, Write as _},
    net::{TcpStream, UdpSocket},
};

use anyhow::Result;
use support::{FENCE, Field, OUT_FENCE, SOON, WEB, drops, policy};
use testbed::{Curl, Host, place, serve::TcpEcho};

#[test]
#[ignore = "needs root and a kernel"]
fn neighbours_are_found_again_under_default_drop() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let (firewall, _agent) = field.protected(&policy(&[WEB], &[]))?;
    for round in 0..3 {
        for address in field.addresses() {
            assert!(
                Curl::http(address, 80).from(&field.safaricom.namespace).is_ok(),
                "round {round}, {address}"
            );
        }
        // As after minutes: both sides have to ask again.
        field.host.namespace.sh("ip neighbour flush all")?;
        field.network.router.sh("ip neighbour flush all")?;
    }
    let metrics = firewall.metrics()?;
    assert_eq!(metrics.sum("mpesa_fw_dropped_packets_total", &[]), 0.0);
    assert!(metrics.passed("ingress", "") > 0.0, "ARP and ND belong to no rule");
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn dhcp_and_discovery_pass_towards_the_host() -> Result<()> {
    let field = Field::new()?;
    // The client: a closed port would answer with an error, which is judged too.
    let _client = field.host.namespace.inside(|| UdpSocket::bind("[::]:546"))?;
    let (firewall, _agent) = field.protected(&policy(&[FENCE], &[]))?;
    let before = firewall.metrics()?;
    let frames = [
        (
            "dhcp reply",
            "to_host()/IP(src='203.0.113.1',dst='255.255.255.255')/UDP(sport=67,dport=68)/BOOTP()/DHCP(options=['end'])",
        ),
        ("dhcp from elsewhere", "to_host()/IP(src='203.0.113.1',dst=H4)/UDP(sport=1067,dport=68)"),
        ("dhcp question to us", "to_host()/IP(src='0.0.0.0',dst='255.255.255.255')/UDP(sport=68,dport=67)"),
        (
            "dhcpv6 reply",
            "to_host()/IPv6(src='fe80::1',dst='fe80::2')/UDP(sport=547,dport=546)/DHCP6_Advertise()",
        ),
        ("dhcpv6 from afar", "to_host()/IPv6(src=S6,dst=H6)/UDP(sport=547,dport=546)/DHCP6_Advertise()"),
        ("solicitation", "to_host()/IPv6(src='fe80::1',dst=H6,hlim=255)/ICMPv6ND_NS(tgt=H6)"),
        ("solicitation from afar", "to_host()/IPv6(src=S6,dst=H6,hlim=254)/ICMPv6ND_NS(tgt=H6)"),
        (
            "duplicate address detection",
            "to_host()/IPv6(src='::',dst='ff02::1:ff00:10',hlim=255)/ICMPv6ND_NS(tgt=H6)",
        ),
        (
            "router advertisement",
            "to_host()/IPv6(src='fe80::1',dst='ff02::1',hlim=255)/ICMPv6ND_RA(routerlifetime=0)",
        ),
        (
            "router advertisement from afar",
            "to_host()/IPv6(src='fe80::1',dst='ff02::1',hlim=64)/ICMPv6ND_RA()",
        ),
        (
            "mld query",
            "to_host()/IPv6(src='fe80::1',dst='ff02::1',hlim=1)/IPv6ExtHdrHopByHop(options=[RouterAlert()])/ICMPv6MLQuery()",
        ),
    ];
    let arrive = [
        "dhcp reply",
        "dhcpv6 reply",
        "solicitation",
        "duplicate address detection",
        "router advertisement",
        "mld query",
    ];
    assert_eq!(field.wire()?.send(&frames)?, arrive);
    assert_eq!(firewall.metrics()?.drops_since(&before), drops([("ingress - no_service", 5)]));
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn dhcp_and_discovery_pass_from_the_host() -> Result<()> {
    let field = Field::new()?;
    let (firewall, _agent) = field.protected(&policy(&[], &[OUT_FENCE]))?;
    let before = firewall.metrics()?;
    let frames = [
        ("arp", "to_router()/ARP(psrc=H4,pdst='203.0.113.1',hwsrc=HOST)"),
        (
            "dhcp discover",
            "Ether(dst='ff:ff:ff:ff:ff:ff')/IP(src='0.0.0.0',dst='255.255.255.255')/UDP(sport=68,dport=67)/BOOTP()/DHCP(options=['end'])",
        ),
        ("dhcp from another port", "to_router()/IP(src=H4,dst='203.0.113.1')/UDP(sport=1068,dport=67)"),
        (
            "dhcpv6 solicit",
            "to_router()/IPv6(src='fe80::2',dst='ff02::1:2')/UDP(sport=546,dport=547)/DHCP6_Solicit()",
        ),
        (
            "solicitation",
            "to_router()/IPv6(src=H6,dst='ff02::1:ff00:1',hlim=255)/ICMPv6ND_NS(tgt='2001:db8:0:113::1')",
        ),
        ("router solicitation", "to_router()/IPv6(src='fe80::2',dst='ff02::2',hlim=255)/ICMPv6ND_RS()"),
        (
            "router advertisement",
            "to_router()/IPv6(src='fe80::2',dst='ff02::1',hlim=255)/ICMPv6ND_RA(routerlifetime=0)",
        ),
        ("unknown", "Ether(dst=PEER,type=0x1234)/Raw(b'x'*50)"),
    ];
    let arrive = ["arp", "dhcp discover", "dhcpv6 solicit", "solicitation", "router solicitation"];
    assert_eq!(field.wire_out()?.send(&frames)?, arrive);
    let expected = drops([("egress - no_destination", 2), ("egress - unknown_ethertype", 1)]);
    assert_eq!(firewall.metrics()?.drops_since(&before), expected);
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn icmp_errors_pass_only_for_permitted_peers() -> Result<()> {
    let field = Field::new()?;
    let (firewall, _agent) = field.protected(&policy(&[WEB, FENCE], &[]))?;
    let before = firewall.metrics()?;
    let frames = [
        (
            "unreachable for a client",
            "to_host()/IP(src='192.0.2.1',dst=H4)/ICMP(type=3,code=4)/IP(src=H4,dst=S4)/TCP(sport=80,dport=5555)",
        ),
        (
            "unreachable for a stranger",
            "to_host()/IP(src='192.0.2.1',dst=H4)/ICMP(type=3,code=4)/IP(src=H4,dst='198.51.100.66')/TCP(sport=80,dport=5555)",
        ),
        (
            "quote of another host",
            "to_host()/IP(src='192.0.2.1',dst=H4)/ICMP(type=3,code=4)/IP(src='203.0.113.99',dst=S4)/TCP(sport=80,dport=5555)",
        ),
        (
            "quote cut short",
            "to_host()/IP(src='192.0.2.1',dst=H4)/ICMP(type=3,code=4)/Raw(bytes(IP(src=H4,dst=S4,proto=6))[:20])",
        ),
        (
            "redirect",
            "to_host()/IP(src='203.0.113.1',dst=H4)/ICMP(type=5,code=1)/IP(src=H4,dst=S4)/TCP(sport=80,dport=5555)",
        ),
        (
            "too big for a client",
            "to_host()/IPv6(src='2001:db8::1',dst=H6)/ICMPv6PacketTooBig(mtu=1300)/IPv6(src=H6,dst=S6)/TCP(sport=80,dport=5555)",
        ),
        (
            "too big for a stranger",
            "to_host()/IPv6(src='2001:db8::1',dst=H6)/ICMPv6PacketTooBig(mtu=1300)/IPv6(src=H6,dst='2001:db8::66')/TCP(sport=80,dport=5555)",
        ),
        ("echo", "to_host()/IP(src=S4,dst=H4)/ICMP(type=8)"),
        ("echo reply", "to_host()/IP(src=S4,dst=H4)/ICMP(type=0)"),
    ];
    assert_eq!(field.wire()?.send(&frames)?, ["unreachable for a client", "too big for a client"]);
    assert_eq!(firewall.metrics()?.drops_since(&before), drops([("ingress - no_service", 7)]));
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn path_mtu_discovery_works_both_ways_round() -> Result<()> {
    let field = Field::new()?;
    let api = field.network.add(place::API)?;
    for place in [&api, &field.host] {
        place.namespace.sh("sysctl -qw net.ipv4.tcp_mtu_probing=0")?;
    }
    // Beyond the router the way is narrow, and only the router says so: both ends announce full segments.
    for place in [&api, &field.safaricom] {
        field.network.router.sh(&format!("ip link set {} mtu 1300", place.place.name))?;
        place.namespace.sh("ip link set eth0 mtu 1300
             ip route change $(ip route show default) advmss 1460
             ip -6 route change $(ip -6 route show default | sed 's/ metric.*//') advmss 1440")?;
    }
    let _servers = (TcpEcho::start(&api.namespace, 443)?, TcpEcho::start(&field.host.namespace, 80)?);
    let daraja = "{ name: daraja, to: [192.0.2.80, \"2001:db8:0:80::80\"], ports: [443] }";
    let (firewall, _agent) = field.protected(&policy(&[WEB], &[daraja]))?;
    for (client, server, port) in [(&field.host, &api, 443), (&field.safaricom, &field.host, 80)] {
        transfers_much(client, server.place.v4.into(), port)?;
        transfers_much(client, server.place.v6.into(), port)?;
    }
    assert_eq!(firewall.metrics()?.sum("mpesa_fw_dropped_packets_total", &[]), 0.0);
    Ok(())
}

/// 300 kB there and back.
fn transfers_much(client: &Host, server: std::net::IpAddr, port: u16) -> Result<()> {
    let stream = client.namespace.inside(|| TcpStream::connect_timeout(&(server, port).into(), SOON))?;
    stream.set_read_timeout(Some(SOON))?;
    let sent: &[u8] = &(0..300_000u32).map(|n| (n % 251) as u8).collect::<Vec<u8>>();
    let mut heard = vec![0; sent.len()];
    std::thread::scope(|scope| {
        let (mut there, mut back) = (&stream, &stream);
        let writer = scope.spawn(move || there.write_all(sent));
        back.read_exact(&mut heard)?;
        writer.join().expect("the writer does not panic")
    })?;
    assert!(sent == heard.as_slice(), "what came back is what was sent");
    Ok(())
}
