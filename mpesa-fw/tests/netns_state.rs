//! What is in the kernel already, and what does not fit into it.

mod support;

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream, UdpSocket},
};

use anyhow::Result;
use support::{FENCE, Field, NEVER, SOON, WEB, kinds, policy, web};
use testbed::{
    Answer, Curl, Firewall, Host, Namespace, attach_foreign_tc, attach_foreign_tc_ahead, eventually, holds,
    place,
    serve::{TcpEcho, UdpEcho},
};

const API: &str = "{ name: api, protocol: [udp, tcp], ports: [5000], to: [192.0.2.80] }";

#[test]
#[ignore = "needs root and a kernel"]
fn a_full_flow_table_stays_in_its_bounds_and_serves_the_new() -> Result<()> {
    let field = Field::new()?;
    let api = field.network.add(place::API)?;
    let (_web, _echo) = (field.web(&[80])?, UdpEcho::start(&api.namespace, 5000)?);
    let firewall = field.firewall()?;
    firewall.policy(&policy(&[WEB], &[API]))?;
    let _agent = firewall.start(&["--flows-capacity", "1024"])?;
    let socket = |_| field.host.namespace.inside(|| UdpSocket::bind("0.0.0.0:0"));
    let sockets = (0..1300).map(socket).collect::<std::io::Result<Vec<_>>>()?;
    let to: SocketAddr = (api.place.v4, 5000).into();
    for socket in &sockets {
        socket.send_to(b"?", to)?;
    }
    let flows = firewall.metrics()?.sum("mpesa_fw_flows", &[]);
    // Linux keeps up to 128 entries of such a map free for each CPU (`LOCAL_FREE_TARGET`), at most half of them all.
    assert!((512.0..=1024.0).contains(&flows), "{flows}");
    // The newest has its answer; the oldest, forgotten or not, has one when it asks again.
    for socket in [&sockets[1299], &sockets[0]] {
        socket.set_read_timeout(Some(SOON))?;
        socket.send_to(b"again", to)?;
        socket.recv_from(&mut [0; 8])?;
    }
    assert!(field.is_enforced(), "services need no flows");
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn pins_of_another_shape_are_refused_and_stay_in_force() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let (firewall, mut agent) = field.protected(&policy(&[WEB], &[]))?;
    agent.process.kill()?;
    let ran = firewall.run(&["--flows-capacity", "1024"])?;
    assert_eq!(ran.code, Some(4), "{}", ran.text());
    assert!(ran.stderr.contains("detach"), "says what to do: {}", ran.stderr);
    assert!(field.is_enforced());
    let _agent = firewall.start(&[])?;
    assert!(field.is_enforced());
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn an_interface_may_be_replaced_while_no_agent_runs() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let (firewall, mut agent) = field.protected(&policy(&[WEB], &[]))?;
    let before = firewall.metrics()?;
    agent.process.kill()?;
    field.network.router.sh(&format!("ip link delete {}", field.host.place.name))?;
    field.network.link(&field.host)?;
    assert!(
        Curl::http(field.host.place.v4, 80).from(&field.attacker.namespace).is_ok(),
        "nobody protects it now"
    );
    let _agent = firewall.start(&[])?;
    assert!(field.is_enforced());
    assert_eq!(firewall.metrics()?.went_back(&before), [] as [String; 0]);
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn clsact_does_what_tcx_does() -> Result<()> {
    let field = Field::new()?;
    let api = field.network.add(place::API)?;
    let _servers = (field.web(&[80])?, web(&field.network, &api, &[5000, 5001])?);
    let firewall = field.firewall()?;
    firewall.policy(&policy(&[WEB], &[API]))?;
    let egress = || {
        Curl::http(api.place.v4, 5000).from(&field.host.namespace).is_ok()
            && Curl::http(api.place.v4, 5001).from(&field.host.namespace) == Answer::Silence
    };
    let mut agent = firewall.start(&["--tc", "clsact"])?;
    assert!(firewall.ask(["status"])?.stdout.contains("clsact"));
    assert!(egress() && field.is_enforced());
    firewall.reload(&policy(&[WEB, FENCE], &[API]))?;
    assert!(egress() && field.is_enforced());
    agent.process.kill()?;
    assert!(egress() && field.is_enforced(), "filters stay without the agent");
    let _agent = firewall.start(&["--tc", "clsact"])?;
    assert!(egress() && field.is_enforced());
    let filters = field.host.namespace.sh("tc filter show dev eth0 egress")?;
    assert_eq!(filters.matches("handle").count(), 1, "{filters}");
    let ran =
        firewall.ask([std::ffi::OsStr::new("detach"), "--bpffs".as_ref(), firewall.bpffs.as_os_str()])?;
    assert_eq!(ran.code, Some(0), "{}", ran.text());
    assert_eq!(field.host.namespace.sh("tc filter show dev eth0 egress")?.matches("handle").count(), 0);
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn a_qdisc_that_we_made_goes_with_us_and_no_other() -> Result<()> {
    let field = Field::new()?;
    let firewall = field.firewall()?;
    let host = &field.host.namespace;
    host.sh("ip link add eth1 type veth peer name peer1; ip link set eth1 up; ip link set peer1 up")?;
    let both = policy(&[WEB], &[]).replace("[eth0]", "[eth0, eth1]");
    let has_qdisc = |interface: &str| -> Result<bool> {
        Ok(host.sh(&format!("tc qdisc show dev {interface}"))?.contains("clsact"))
    };
    let detach = || -> Result<()> {
        let ran = firewall.ask(["detach".as_ref(), "--bpffs".as_ref(), firewall.bpffs.as_os_str()])?;
        anyhow::ensure!(ran.code == Some(0), "{}", ran.text());
        Ok(())
    };
    let bpffs = firewall.bpffs.parent().expect("it has one");
    // What somebody else has, before us or since.
    let made = "tc qdisc add dev eth0 clsact";
    for (before, is_used, is_kept) in [("", false, false), (made, false, true), ("", true, true)] {
        host.sh(before)?;
        firewall.policy(&both)?;
        let mut agent = firewall.start(&["--tc", "clsact"])?;
        assert!(has_qdisc("eth0")? && has_qdisc("eth1")?);
        firewall.reload(&policy(&[WEB], &[]))?;
        assert!(has_qdisc("eth0")? && !has_qdisc("eth1")?, "the reload let go of eth1");
        if is_used {
            attach_foreign_tc_ahead(&field.host, bpffs)?;
        }
        // Another agent than the one that made it.
        agent.process.kill()?;
        let mut agent = firewall.start(&["--tc", "clsact"])?;
        detach()?;
        agent.process.wait(SOON)?;
        assert_eq!(has_qdisc("eth0")?, is_kept, "{before:?}, used: {is_used}");
        if is_kept {
            let filters = host.sh("tc filter show dev eth0 egress")?;
            assert_eq!(filters.matches("handle").count(), usize::from(is_used), "{filters}");
            host.sh("tc qdisc delete dev eth0 clsact")?;
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn foreign_tc_filters_are_kept() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let firewall = field.firewall()?;
    attach_foreign_tc(&field.host, firewall.bpffs.parent().expect("it has one"))?;
    let shown = || field.host.namespace.sh("tc filter show dev eth0 egress");
    let foreign = || shown().is_ok_and(|shown| shown.contains("foreign-tc"));
    assert!(foreign(), "{}", shown()?);
    firewall.policy(&policy(&[WEB], &[]))?;
    for &tc in support::tc_ways() {
        let mut agent = firewall.start(&["--tc", tc])?;
        assert!(foreign() && field.is_enforced(), "{tc}");
        firewall.reload(&policy(&[WEB, FENCE], &[]))?;
        firewall.reload(&policy(&[WEB], &[]))?;
        assert!(foreign() && field.is_enforced(), "{tc}");
        let ran =
            firewall.ask([std::ffi::OsStr::new("detach"), "--bpffs".as_ref(), firewall.bpffs.as_os_str()])?;
        assert_eq!(ran.code, Some(0), "{}", ran.text());
        assert!(foreign(), "{tc}");
        let _ended = agent.process.wait(SOON)?;
    }
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn what_only_observe_mode_let_live_ends_when_enforcement_begins() -> Result<()> {
    let field = Field::new()?;
    let api = field.network.add(place::API)?;
    let _servers = (TcpEcho::start(&api.namespace, 5000)?, TcpEcho::start(&field.attacker.namespace, 5000)?);
    let rules = policy(&[WEB], &[API]);
    let (firewall, _agent) = field.protected(&rules.replace("mode: enforce", "mode: observe"))?;
    let connect = |to: &Host| field.host.namespace.inside(|| TcpStream::connect((to.place.v4, 5000)));
    let (mut permitted, mut forbidden) = (connect(&api)?, connect(&field.attacker)?);
    assert!(echoes(&mut permitted, SOON) && echoes(&mut forbidden, SOON));
    firewall.policy(&rules)?;
    let refused = firewall.ask(["reload"])?;
    assert_eq!(refused.code, Some(1), "{}", refused.text());
    let cut = format!("to {}:5000 (egress: destination_not_allowed)", field.attacker.place.v4);
    assert!(
        refused.stderr.contains("1 connection(s)") && refused.stderr.contains(&cut),
        "{}",
        refused.stderr
    );
    firewall.reload(&rules)?;
    assert!(echoes(&mut permitted, SOON));
    assert!(!echoes(&mut forbidden, NEVER));
    assert!(firewall.metrics()?.has("mpesa_fw_generation_info", &[("mode", "enforce")]));
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn forwarded_packets_are_judged_like_the_hosts_own() -> Result<()> {
    let field = Field::new()?;
    let api = field.network.add(place::API)?;
    let _servers = (web(&field.network, &api, &[5000, 5001])?, field.web(&[80])?);
    // A container behind the host, with addresses of its own.
    let container = Namespace::new("container")?;
    field.host.namespace.sh(&format!(
        "sysctl -qw net.ipv4.ip_forward=1
         ip link add inside type veth peer name eth0 netns {}
         ip address add 172.17.0.1/24 dev inside; ip link set inside up",
        container.name()
    ))?;
    container.sh(
        "ip address add 172.17.0.2/24 dev eth0; ip link set eth0 up; ip route add default via 172.17.0.1",
    )?;
    field.network.router.sh("ip route add 172.17.0.0/24 via 203.0.113.10")?;
    let get = |port| Curl::http(api.place.v4, port).patience(2.0).from(&container);
    holds("the way without a firewall", SOON, || get(5001).is_ok())?;
    let (firewall, _agent) = field.protected(&policy(&[WEB], &[API]))?;
    let before = firewall.metrics()?;
    assert!(get(5000).is_ok());
    assert_eq!(get(5001), Answer::Silence);
    assert_eq!(kinds(&firewall.metrics()?.drops_since(&before)), ["egress - no_destination"]);
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn drops_are_told_as_events() -> Result<()> {
    let field = Field::new()?;
    let (firewall, _agent) = field.protected(&policy(&[WEB, FENCE], &[]))?;
    let frame = "to_host()/IP(src='198.51.100.66',dst=H4)/TCP(sport=4711,dport=80)";
    assert!(field.wire()?.send(&[("attack", frame)])?.is_empty());
    let told = eventually("the event", SOON, || {
        let ran = firewall.ask(["events", "--format", "json"]).ok()?;
        ran.stdout.contains("198.51.100.66").then_some(ran.stdout)
    })?;
    assert!(told.contains("source_not_allowed") && told.contains("web") && told.contains("4711"), "{told}");
    assert_eq!(firewall.namespace.get(Firewall::METRICS, "/healthz")?.0, 200);
    Ok(())
}

fn echoes(stream: &mut TcpStream, patience: std::time::Duration) -> bool {
    let mut heard = [0; 4];
    let whole = stream.set_read_timeout(Some(patience)).and_then(|()| stream.write_all(b"ping"));
    whole.and_then(|()| stream.read_exact(&mut heard)).is_ok_and(|()| &heard == b"ping")
}
