//! What the kernel answers by itself where rules have owners: SYN cookies, and resets for sockets that are gone.

mod support;

use std::path::Path;

use anyhow::Result;
use support::{
    Field, SOON,
    groups::{Groups, listens, program},
    kinds, policy, settled,
};
use testbed::{Answer, Curl, Process, holds, ok, place};

/// Serves over both families.
const SERVES: &str = "
import http.server, socket
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
    def server_bind(self):
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()
class Quiet(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header('Content-Length', '4')
        self.end_headers()
        self.wfile.write(b'here')
Server(('::', PORT), Quiet).serve_forever()
";

/// Under a flood of SYNs, forged ones from allowed sources too, Linux answers by cookie, with no socket behind the answer: callers of
/// a service with an owner get through all the same, and nobody else answers them.
#[test]
#[ignore = "needs root and a kernel"]
fn a_flood_of_syns_loses_no_callback_of_a_unit() -> Result<()> {
    let Some(groups) = Groups::new("cookies")? else { return Ok(()) };
    let field = Field::new()?;
    let unit = groups.unit("api");
    let group = groups.start(&unit)?;
    let rules = policy(
        &[&format!(
            "{{ name: web, ports: [80, 8080, 8081], from: [196.201.214.200, '2001:db8:0:214::200'], by: {{ unit: {unit} }} }}"
        )],
        &[],
    );
    let (firewall, mut agent) = field.protected(&rules)?;
    let serve = |group: Option<&Path>, port: u16| -> Result<Process> {
        let script = SERVES.replace("PORT", &port.to_string());
        let process = Process::spawn(
            program(&field.host, group, 0, &script),
            &format!("server-{port}"),
            firewall.logs(),
        )?;
        holds("a listener", SOON, || listens(&field.host, port))?;
        Ok(process)
    };
    let cookies = |how: u8| {
        let set = format!("sysctl -qw net.ipv4.tcp_syncookies={how}");
        field.host.namespace.sh(&set).map(drop)
    };
    let [v4, v6] = field.addresses();
    let get = |to, port| Curl::http(to, port).from(&field.safaricom.namespace);

    let _api = serve(Some(&group), 80)?;
    let _developer = serve(None, 8080)?;
    assert!(get(v4, 80).is_ok(), "{}", firewall.ask(["status"])?.text());
    assert_eq!(get(v4, 8080), Answer::Silence);

    // Nor are answers of before sent again, which would be dropped while others are counted.
    field.host.namespace.sh("sysctl -qw net.ipv4.tcp_synack_retries=0")?;
    // Each SYN by cookie, as when there is no room for one more request.
    cookies(2)?;
    let before = settled(&firewall)?;
    for to in [v4, v6] {
        assert!(get(to, 80).is_ok(), "the unit answers by cookie: {to}");
    }
    assert!(settled(&firewall)?.drops_since(&before).is_empty());
    for to in [v4, v6] {
        assert_eq!(get(to, 8080), Answer::Silence, "nobody else does: {to}");
    }
    let drops = firewall.metrics()?.drops_since(&before);
    assert_eq!(kinds(&drops), ["egress - owner_not_allowed"]);

    // A listener that never answered otherwise is nobody's, the unit's too: closed, not open.
    let _late = serve(Some(&group), 8081)?;
    assert_eq!(get(v4, 8081), Answer::Silence);
    let doctor = firewall.ask(["doctor"])?.text();
    assert!(doctor.contains("net.ipv4.tcp_syncookies is 2"), "{doctor}");
    cookies(1)?;
    assert!(get(v4, 8081).is_ok());
    cookies(2)?;
    assert!(get(v4, 8081).is_ok() && get(v6, 8081).is_ok());

    // What is known of listeners outlives reloads, and agents.
    firewall.reload(&rules.replace("8081]", "8081, 8082]"))?;
    assert!(get(v4, 80).is_ok() && get(v4, 8080) == Answer::Silence);
    agent.process.kill()?;
    assert!(get(v4, 80).is_ok() && get(v4, 8080) == Answer::Silence);
    let _agent = firewall.start(&[])?;
    assert!(get(v4, 80).is_ok() && get(v4, 8080) == Answer::Silence);
    Ok(())
}

/// Data for a socket that is gone: the peer is told, also where only some may speak to it, and nobody is blamed.
#[test]
#[ignore = "needs root and a kernel"]
fn resets_of_the_kernel_leave_where_a_destination_has_owners() -> Result<()> {
    // Closes without a word (TCP_REPAIR): the peer believes that it is connected.
    const VANISHES: &str = "
import socket, sys
s = socket.create_connection((sys.argv[1], 443), 2)
s.setsockopt(socket.IPPROTO_TCP, 19, 1)
s.close()
";
    // Says something to whoever comes, as long as that is possible.
    const TALKS: &str = "
import socket, time
l = socket.create_server(('::', 443), family=socket.AF_INET6, dualstack_ipv6=True)
print('listening', flush=True)
while True:
    s, peer = l.accept()
    s.settimeout(3)
    time.sleep(0.3)
    try:
        s.send(b'x')
        print('heard', s.recv(1), flush=True)
    except OSError as e:
        print('heard', type(e).__name__, flush=True)
";
    let Some(groups) = Groups::new("resets")? else { return Ok(()) };
    let field = Field::new()?;
    let api = field.network.add(place::API)?;
    let unit = groups.unit("payments");
    let group = groups.start(&unit)?;
    let (firewall, _agent) = field.protected(&policy(
        &[],
        &[&format!(
            "{{ name: daraja, to: [192.0.2.80, '2001:db8:0:80::80'], ports: [443], by: {{ unit: {unit} }} }}"
        )],
    ))?;
    let mut talks = api.namespace.command("python3");
    talks.args(["-c", TALKS]);
    let mut talks = Process::spawn(talks, "api", firewall.logs())?;
    talks.wait_for_log("listening", SOON)?;
    let before = settled(&firewall)?;
    for (turn, to) in [api.place.v4.to_string(), api.place.v6.to_string()].iter().enumerate() {
        ok(&mut support::groups::program_with(&field.host.namespace, Some(&group), 0, VANISHES, &[to]))?;
        holds("what the peer hears", SOON, || talks.log().matches("heard").count() == turn + 1)?;
        assert_eq!(
            talks.log().matches("heard ConnectionResetError").count(),
            turn + 1,
            "{to}: {}",
            talks.log()
        );
    }
    assert!(settled(&firewall)?.drops_since(&before).is_empty());
    let audit = firewall.ask(["audit", "egress"])?.text();
    let lines: Vec<&str> = audit.lines().filter(|line| line.contains("daraja")).collect();
    assert!(lines.len() == 1 && lines[0].contains(&unit), "nothing else spoke to it: {audit}");
    Ok(())
}
