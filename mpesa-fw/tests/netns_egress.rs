//! What the host may send, and what comes back.

mod support;

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use anyhow::Result;
use support::{FENCE, Field, NEVER, OUT_FENCE, SOON, WEB, kinds, policy, web};
use testbed::{
    Answer, Curl, Host, holds, place, run,
    serve::{TcpEcho, UdpEcho},
};

const DARAJA: &str = "{ name: daraja, to: [192.0.2.80, \"2001:db8:0:80::80\"], ports: [443] }";

#[test]
#[ignore = "needs root and a kernel"]
fn only_destinations_are_reached() -> Result<()> {
    let field = Field::new()?;
    let api = field.network.add(place::API)?;
    let drop_box = field.network.add(place::DROP_BOX)?;
    let _servers = (web(&field.network, &api, &[443, 8443])?, web(&field.network, &drop_box, &[443])?);
    let (firewall, _agent) = field.protected(&policy(&[WEB], &[DARAJA]))?;
    let get = |address: IpAddr, port| Curl::http(address, port).from(&field.host.namespace);
    for (good, bad) in [
        (IpAddr::from(api.place.v4), IpAddr::from(drop_box.place.v4)),
        (api.place.v6.into(), drop_box.place.v6.into()),
    ] {
        let before = firewall.metrics()?;
        assert!(get(good, 443).is_ok(), "{good}");
        assert_eq!(get(good, 8443), Answer::Silence);
        assert_eq!(get(bad, 443), Answer::Silence);
        let now = firewall.metrics()?;
        assert_eq!(
            kinds(&now.drops_since(&before)),
            ["egress - no_destination", "egress daraja destination_not_allowed"]
        );
        assert!(now.passed("egress", "daraja") > before.passed("egress", "daraja"));
    }
    assert!(firewall.metrics()?.sum("mpesa_fw_flows", &[]) >= 2.0);
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn udp_replies_leave_only_by_the_socket_of_the_service() -> Result<()> {
    let field = Field::new()?;
    let echo = "{ name: echo, protocol: udp, ports: [5000], from: [196.201.214.200] }";
    let (firewall, _agent) = field.protected(&policy(&[echo], &[OUT_FENCE]))?;
    let before = firewall.metrics()?;
    {
        let _echo = UdpEcho::start(&field.host.namespace, 5000)?;
        let heard = UdpEcho::ask(&field.safaricom.namespace, field.host.place.v4, 5000, b"?", SOON)?;
        assert_eq!(heard.as_deref(), Some(&b"?"[..]));
    }
    assert_eq!(kinds(&firewall.metrics()?.drops_since(&before)), [] as [&str; 0]);
    // A packet socket can write any port, and is bound to none.
    let frames = [
        ("raw", "to_router()/IP(src=H4,dst='196.201.214.200')/UDP(sport=5000,dport=5)"),
        ("raw, from elsewhere", "to_router()/IP(src=H4,dst='198.51.100.66')/UDP(sport=5000,dport=5)"),
    ];
    assert!(field.wire_out()?.send(&frames)?.is_empty());
    assert_eq!(firewall.metrics()?.drops_since(&before), support::drops([("egress - no_destination", 2)]));
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn replies_pass_and_what_was_not_asked_for_does_not() -> Result<()> {
    let field = Field::new()?;
    let api = field.network.add(place::API)?;
    let _echo = UdpEcho::start(&api.namespace, 5000)?;
    let to = "{ name: api, protocol: udp, ports: [5000], to: [192.0.2.80] }";
    let (firewall, _agent) = field.protected(&policy(&[FENCE], &[to]))?;
    // One local port for all, so that only the flow tells them apart.
    let socket = field.host.namespace.inside(|| UdpSocket::bind("0.0.0.0:6000"))?;
    socket.set_read_timeout(Some(SOON))?;
    let before = firewall.metrics()?;
    let mut wire = field.wire()?;
    let reply = "to_host()/IP(src='192.0.2.80',dst=H4)/UDP(sport=5000,dport=6000)";
    let other_port = "to_host()/IP(src='192.0.2.80',dst=H4)/UDP(sport=5001,dport=6000)";
    let other_peer = "to_host()/IP(src='192.0.2.81',dst=H4)/UDP(sport=5000,dport=6000)";
    assert!(wire.send(&[("early", reply), ("port", other_port)])?.is_empty());
    socket.send_to(b"?", (api.place.v4, 5000))?;
    assert_eq!(socket.recv_from(&mut [0; 8])?.1, SocketAddr::from((api.place.v4, 5000)));
    assert_eq!(wire.send(&[("late", reply), ("port", other_port), ("peer", other_peer)])?, ["late"]);
    assert_eq!(firewall.metrics()?.drops_since(&before), support::drops([("ingress - no_service", 4)]));
    assert_eq!(firewall.metrics()?.sum("mpesa_fw_flows", &[]), 1.0);
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn nobody_connects_in_over_a_flow() -> Result<()> {
    let field = Field::new()?;
    let api = field.network.add(place::API)?;
    let _echo = TcpEcho::start(&api.namespace, 443)?;
    let (_firewall, _agent) = field.protected(&policy(&[FENCE], &[DARAJA]))?;
    let stream = field.host.namespace.inside(|| TcpStream::connect((api.place.v4, 443)))?;
    let port = stream.local_addr()?.port();
    let to_flow = |flags: &str| {
        format!("to_host()/IP(src='192.0.2.80',dst=H4)/TCP(sport=443,dport={port},flags='{flags}')")
    };
    let (syn, ack, syn_ack) = (to_flow("S"), to_flow("A"), to_flow("SA"));
    let frames =
        [("syn", syn.as_str()), ("syn with more", &to_flow("SFPU")), ("ack", &ack), ("syn-ack", &syn_ack)];
    assert_eq!(field.wire()?.send(&frames)?, ["ack", "syn-ack"]);
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn pings_go_out_and_their_answers_come_back() -> Result<()> {
    let field = Field::new()?;
    let api = field.network.add(place::API)?;
    let ping = "{ name: ping, protocol: [icmp, icmpv6], types: [echo-request], to: [192.0.2.80, \"2001:db8:0:80::80\"] }";
    let (firewall, _agent) = field.protected(&policy(&[], &[ping]))?;
    let ping = |from: &Host, to: IpAddr| {
        run(from.namespace.command("ping").args(["-c1", "-W1"]).arg(to.to_string()))
            .map(|ran| ran.code == Some(0))
    };
    for (good, bad) in [
        (IpAddr::from(api.place.v4), IpAddr::from(field.attacker.place.v4)),
        (api.place.v6.into(), field.attacker.place.v6.into()),
    ] {
        assert!(ping(&field.host, good)?, "{good}");
        assert!(!ping(&field.host, bad)?, "{bad}");
    }
    for address in field.addresses() {
        assert!(!ping(&api, address)?, "an answer is no question: {address}");
    }
    let drops = firewall.metrics()?.drops_since(&testbed::Metrics::default());
    assert_eq!(kinds(&drops), ["egress ping destination_not_allowed", "ingress - no_service"]);
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn connections_from_before_the_start_live_on_where_they_may() -> Result<()> {
    let field = Field::new()?;
    let api = field.network.add(place::API)?;
    let drop_box = field.network.add(place::DROP_BOX)?;
    let _servers = (
        TcpEcho::start(&api.namespace, 443)?,
        TcpEcho::start(&drop_box.namespace, 443)?,
        TcpEcho::start(&field.host.namespace, 80)?,
    );
    let connect =
        |from: &Host, to: SocketAddr| from.namespace.inside(move || TcpStream::connect_timeout(&to, SOON));
    let mut permitted = [
        connect(&field.host, (api.place.v4, 443).into())?,
        connect(&field.host, (api.place.v6, 443).into())?,
    ];
    let mut forbidden = connect(&field.host, (drop_box.place.v4, 443).into())?;
    let mut inbound = connect(&field.safaricom, (field.host.place.v4, 80).into())?;
    let mut stray = connect(&field.attacker, (field.host.place.v4, 80).into())?;
    for stream in permitted.iter_mut().chain([&mut forbidden, &mut inbound, &mut stray]) {
        assert!(echoes(stream, SOON)?);
    }
    let (firewall, _agent) = field.protected(&policy(&[WEB], &[DARAJA]))?;
    for stream in &mut permitted {
        assert!(echoes(stream, SOON)?);
    }
    assert!(echoes(&mut inbound, SOON)?);
    assert!(!echoes(&mut forbidden, NEVER)?);
    assert!(!echoes(&mut stray, NEVER)?);
    assert!(firewall.metrics()?.sum("mpesa_fw_flows", &[]) >= 2.0);
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn the_far_side_may_speak_first_on_a_seeded_flow() -> Result<()> {
    let field = Field::new()?;
    let api = field.network.add(place::API)?;
    let listener = api.namespace.inside(|| std::net::TcpListener::bind((api.place.v4, 443)))?;
    let mut ours = field.host.namespace.inside(|| TcpStream::connect((api.place.v4, 443)))?;
    let (mut theirs, _) = listener.accept()?;
    let (_firewall, _agent) = field.protected(&policy(&[], &[DARAJA]))?;
    ours.set_read_timeout(Some(SOON))?;
    theirs.write_all(b"news")?;
    let mut heard = [0; 4];
    ours.read_exact(&mut heard)?;
    assert_eq!(&heard, b"news");
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn mapped_and_datagram_sockets_are_seeded_too() -> Result<()> {
    let field = Field::new()?;
    let api = field.network.add(place::API)?;
    let listener = api.namespace.inside(|| std::net::TcpListener::bind((api.place.v4, 443)))?;
    let mapped = SocketAddr::from((api.place.v4.to_ipv6_mapped(), 443));
    let mut ours = field.host.namespace.inside(|| TcpStream::connect(mapped))?;
    let (mut theirs, _) = listener.accept()?;
    let clock = api.namespace.inside(|| UdpSocket::bind((api.place.v4, 123)))?;
    let datagrams = field.host.namespace.inside(|| UdpSocket::bind("0.0.0.0:0"))?;
    datagrams.connect((api.place.v4, 123))?;
    datagrams.send(b"time?")?;
    let (_, asker) = clock.recv_from(&mut [0; 16])?;

    let ntp = "{ name: ntp, to: [192.0.2.80], protocol: udp, ports: [123] }";
    let (_firewall, _agent) = field.protected(&policy(&[], &[DARAJA, ntp]))?;
    // The far side speaks first: nothing but the list of sockets can have made these flows.
    let mut heard = [0; 4];
    theirs.write_all(b"news")?;
    ours.set_read_timeout(Some(SOON))?;
    ours.read_exact(&mut heard)?;
    assert_eq!(&heard, b"news");
    clock.send_to(b"noon", asker)?;
    datagrams.set_read_timeout(Some(SOON))?;
    assert_eq!(datagrams.recv(&mut heard)?, 4);
    assert_eq!(&heard, b"noon");
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn a_visitor_from_before_the_start_gets_no_flow_however_free_egress_is() -> Result<()> {
    let field = Field::new()?;
    // Of both families: the visitor's socket has a mapped address.
    let listener = field.host.namespace.inside(|| std::net::TcpListener::bind("[::]:80"))?;
    let mut visitor = field.attacker.namespace.inside(|| TcpStream::connect((field.host.place.v4, 80)))?;
    let (mut ours, peer) = listener.accept()?;
    assert!(peer.is_ipv6(), "{peer}");
    let rules = policy(&[WEB], &[]).replace("egress:\n  default: drop", "egress:\n  default: pass");
    let (firewall, _agent) = field.protected(&rules)?;
    assert_eq!(firewall.metrics()?.sum("mpesa_fw_flows", &[]), 0.0, "this host opened nothing");
    // Egress is free: he is told.
    let _ = visitor.write_all(b"order");
    ours.set_read_timeout(Some(SOON))?;
    let refused = ours.read(&mut [0; 16]).map_err(|error| error.kind());
    assert_eq!(refused, Err(ErrorKind::ConnectionAborted), "the port serves, and he may not use it");
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn a_permission_that_is_taken_away_ends_what_it_allowed() -> Result<()> {
    let field = Field::new()?;
    let api = field.network.add(place::API)?;
    let _echo = TcpEcho::start(&api.namespace, 443)?;
    let (firewall, _agent) = field.protected(&policy(&[], &[DARAJA]))?;
    let mut stream = field.host.namespace.inside(|| TcpStream::connect((api.place.v4, 443)))?;
    assert!(echoes(&mut stream, SOON)?);
    firewall.reload(&policy(&[WEB], &[DARAJA]))?;
    assert!(echoes(&mut stream, SOON)?, "still permitted after another change");
    firewall.reload(&policy(&[WEB], &[&DARAJA.replace("192.0.2.80", "192.0.2.81")]))?;
    assert!(!echoes(&mut stream, NEVER)?);
    let metrics = firewall.metrics()?;
    assert_eq!(
        metrics.sum("mpesa_fw_flows", &[]),
        0.0,
        "all flows were judged again before the reload answered"
    );
    assert!(metrics.dropped("egress", "daraja", "destination_not_allowed") >= 1.0);
    Ok(())
}

/// The other way round: what a visitor sends must not come in by a flow that our answers to him have opened.
#[test]
#[ignore = "needs root and a kernel"]
fn a_visitor_without_permission_is_not_let_in_by_the_answers_to_him() -> Result<()> {
    let field = Field::new()?;
    let _stray = TcpEcho::start(&field.host.namespace, 9999)?;
    let open = policy(&[WEB], &["{ name: anywhere, to: [any], ports: [\"1-65535\"] }"]);
    let (firewall, _agent) = field.protected(&open.replace("mode: enforce", "mode: observe"))?;
    let to: SocketAddr = (field.host.place.v4, 9999).into();
    let mut visitor = field.attacker.namespace.inside(move || TcpStream::connect_timeout(&to, SOON))?;
    assert!(echoes(&mut visitor, SOON)?, "observe mode drops nothing");
    firewall.reload(&open)?;
    assert!(!echoes(&mut visitor, NEVER)?, "no service allows him");
    assert_eq!(firewall.metrics()?.sum("mpesa_fw_flows", &[]), 0.0, "this host opened nothing");
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn a_refused_connection_is_seen_at_both_ends() -> Result<()> {
    let field = Field::new()?;
    let api = field.network.add(place::API)?;
    let (_firewall, _agent) = field.protected(&policy(&[WEB], &[DARAJA]))?;
    // Nobody listens on either port: the RST of a kernel without a socket has to pass.
    assert_eq!(Curl::http(field.host.place.v4, 80).from(&field.safaricom.namespace), Answer::Refused);
    assert_eq!(Curl::http(api.place.v4, 443).from(&field.host.namespace), Answer::Refused);
    assert_eq!(Curl::http(field.host.place.v4, 80).from(&field.attacker.namespace), Answer::Silence);
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn loopback_and_own_addresses_are_never_touched() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80, 5432])?;
    let (_firewall, _agent) = field.protected(&policy(&[], &[]))?;
    for address in [IpAddr::from([127, 0, 0, 1]), field.host.place.v4.into(), field.host.place.v6.into()] {
        holds("loopback", Duration::from_secs(3), || {
            Curl::http(address, 5432).from(&field.host.namespace).is_ok()
        })?;
    }
    Ok(())
}

/// Whether what is written comes back within that time.
fn echoes(stream: &mut TcpStream, patience: Duration) -> Result<bool> {
    stream.set_read_timeout(Some(patience))?;
    let mut heard = [0; 4];
    match stream.write_all(b"ping").and_then(|()| stream.read_exact(&mut heard)) {
        Ok(()) => Ok(&heard == b"ping"),
        // Ended by the agent, here or at the other end.
        Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) => {
            Ok(false)
        }
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
