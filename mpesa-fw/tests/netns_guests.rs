//! Guests behind the host, whose connections are older than the firewall: tracked by the kernel, without a socket here.

mod support;

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use anyhow::Result;
use support::{Field, NEVER, SOON, WEB, policy};
use testbed::{Host, Namespace, holds, place};

const API: &str =
    "{ name: api, protocol: [tcp, udp], ports: [443], to: [192.0.2.80, \"2001:db8:0:80::80\"] }";

/// A container behind the host: everything that leaves is masqueraded, TCP with other ports than its own.
fn guest(field: &Field, nat: &str) -> Result<Namespace> {
    let guest = Namespace::new("guest")?;
    field.host.namespace.sh(&format!(
        "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
         ip link add inside type veth peer name eth0 netns {}
         ip address add 172.17.0.1/24 dev inside
         ip address add fd17::1/64 dev inside nodad
         ip link set inside up
         nft -f - <<'END'
         table inet nat {{
            chain before {{
                type nat hook prerouting priority dstnat
                {nat}
            }}
            chain after {{
                type nat hook postrouting priority srcnat;
                oifname eth0 ip protocol tcp masquerade to :61000-61999
                oifname eth0 masquerade
            }}
         }}
END",
        guest.name()
    ))?;
    guest.sh("ip address add 172.17.0.2/24 dev eth0
         ip address add fd17::2/64 dev eth0 nodad
         ip link set eth0 up
         ip route add default via 172.17.0.1
         ip -6 route add default via fd17::1")?;
    Ok(guest)
}

/// Both ends of a TCP connection.
struct Connection {
    client: TcpStream,
    server: TcpStream,
}

impl Connection {
    /// From `client` to `address`, which leads to `port` of `server`.
    fn open(
        client: &Namespace,
        address: impl Into<SocketAddr>,
        server: &Namespace,
        port: u16,
    ) -> Result<Self> {
        let listener = server.inside(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)))?;
        let address = address.into();
        let client = client.inside(|| TcpStream::connect_timeout(&address, SOON))?;
        let (server, _) = listener.accept()?;
        let mut this = Self { client, server };
        anyhow::ensure!(this.asks(SOON) && this.tells(SOON), "no way to {address} without a firewall");
        Ok(this)
    }

    /// Whether the server hears the client.
    fn asks(&mut self, patience: Duration) -> bool {
        heard(&mut self.client, &mut self.server, patience)
    }

    /// Whether the client hears the server.
    fn tells(&mut self, patience: Duration) -> bool {
        heard(&mut self.server, &mut self.client, patience)
    }
}

fn heard(from: &mut TcpStream, to: &mut TcpStream, patience: Duration) -> bool {
    let mut text = [0; 4];
    let said = to.set_read_timeout(Some(patience)).and_then(|()| from.write_all(b"news"));
    said.and_then(|()| to.read_exact(&mut text)).is_ok_and(|()| &text == b"news")
}

fn udp(from: &UdpSocket, to: &UdpSocket, address: SocketAddr) -> Result<SocketAddr> {
    to.set_read_timeout(Some(SOON))?;
    from.send_to(b"news", address)?;
    Ok(to.recv_from(&mut [0; 8])?.1)
}

fn at(host: &Host, port: u16) -> [SocketAddr; 2] {
    [(host.place.v4, port).into(), (host.place.v6, port).into()]
}

#[test]
#[ignore = "needs root and a kernel"]
fn connections_that_guests_had_open_keep_their_replies() -> Result<()> {
    let field = Field::new()?;
    let (api, drop_box) = (field.network.add(place::API)?, field.network.add(place::DROP_BOX)?);
    let guest = guest(
        &field,
        "iifname eth0 tcp dport 8080 dnat ip to 172.17.0.2:80
         iifname eth0 tcp dport 8081 dnat ip to 192.0.2.80:444
         ip daddr 192.0.2.1 tcp dport 4430 dnat ip to 192.0.2.80:443",
    )?;

    let [api4, api6] = at(&api, 443);
    let mut permitted = [
        Connection::open(&guest, api4, &api.namespace, 443)?,
        Connection::open(&guest, api6, &api.namespace, 443)?,
        // By another address and port: the rules are asked for those on the wire.
        Connection::open(&guest, ([192, 0, 2, 1], 4430), &api.namespace, 443)?,
    ];
    let server = api.namespace.inside(|| UdpSocket::bind(api4))?;
    let client = guest.inside(|| UdpSocket::bind("172.17.0.2:0"))?;
    let translated = udp(&client, &server, api4)?;
    assert_eq!(translated.ip(), IpAddr::from(field.host.place.v4));
    udp(&server, &client, translated)?;

    let mut forbidden = Connection::open(&guest, at(&drop_box, 443)[0], &drop_box.namespace, 443)?;
    // Opened from outside, to a guest and, in the name of the host, to a peer that egress permits.
    let [forwarded, relayed] = [8080, 8081].map(|port| SocketAddr::from((field.host.place.v4, port)));
    let mut forwarded = Connection::open(&field.attacker.namespace, forwarded, &guest, 80)?;
    let mut relayed = Connection::open(&field.attacker.namespace, relayed, &api.namespace, 444)?;

    let back = "{ name: back, ports: any, to: [198.51.100.66, 192.0.2.80] }";
    let (firewall, agent) = field.protected(&policy(&[WEB], &[API, back]))?;
    // The server first: what the guest says would open a flow anew.
    for connection in &mut permitted {
        assert!(connection.tells(SOON) && connection.asks(SOON) && connection.tells(SOON));
    }
    udp(&server, &client, translated)?;
    assert_eq!(udp(&client, &server, api4)?, translated);
    // Those and no others: of what was opened from outside none.
    assert_eq!(firewall.metrics()?.sum("mpesa_fw_flows", &[]), 4.0, "{}", agent.process.log());
    assert!(agent.process.log().contains("of_guests=4"), "{}", agent.process.log());

    assert!(!forbidden.tells(NEVER));
    assert!(!forbidden.asks(NEVER));
    let denied = firewall.status()?["denied_connections"].clone();
    assert_eq!(denied.as_array().map(Vec::len), Some(1), "{denied}");
    assert_eq!(
        (&denied[0]["guest"], &denied[0]["remote"]),
        (&"172.17.0.2".into(), &at(&drop_box, 443)[0].to_string().into())
    );
    let shown = firewall.ask(["status"])?.stdout;
    assert!(shown.contains("(of the guest 172.17.0.2) -> 198.18.0.99:443"), "{shown}");

    assert!(!forwarded.asks(NEVER));
    assert!(!relayed.tells(NEVER));
    assert!(!relayed.asks(NEVER));
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn guests_fill_half_the_flow_table_at_most() -> Result<()> {
    let field = Field::new()?;
    let api = field.network.add(place::API)?;
    let guest = guest(&field, "")?;
    let sockets = (0..700)
        .map(|_| guest.inside(|| UdpSocket::bind("172.17.0.2:0")))
        .collect::<std::io::Result<Vec<_>>>()?;
    let tracked = "/proc/sys/net/netfilter/nf_conntrack_count";
    holds("700 connections are tracked", SOON, || {
        for socket in &sockets {
            let _ = socket.send_to(b"?", at(&api, 443)[0]);
        }
        let count = field.host.namespace.sh(&format!("cat {tracked}"));
        count.is_ok_and(|count| count.trim().parse().is_ok_and(|count: u32| count >= 700))
    })?;
    let firewall = field.firewall()?;
    firewall.policy(&policy(&[WEB], &[API]))?;
    let agent = firewall.start(&["--flows-capacity", "1024"])?;
    assert_eq!(firewall.metrics()?.sum("mpesa_fw_flows", &[]), 512.0);
    let log = agent.process.log();
    assert!(log.contains("half the flow table") && log.contains("connections=188"), "{log}");
    Ok(())
}
