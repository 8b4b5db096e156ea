//! Containers on a bridge: told apart where they come in, at the bridge, by where they come from.

mod support;

use std::net::Ipv4Addr;

use anyhow::Result;
use support::{Field, SOON, drops, kinds, policy, web};
use testbed::{
    Answer, Curl, Host, Namespace, holds, ok, place,
    serve::{Dnsmasq, Nginx, Site},
};

/// As `docs/EGRESS.md` has it.
const OUT: &str = "{ name: shop-api, to: [192.0.2.80], from: [172.18.0.2], ports: [443] }";
const OUT_DNS: &str =
    "{ name: containers-dns, to: [10.20.0.5], from: [172.18.0.0/24], protocol: udp, ports: [53] }";
const API: &str = "{ name: api, to: [192.0.2.80], ports: [443] }";
const DNS: &str = "{ name: dns, to: [10.20.0.5], protocol: udp, ports: [53] }";
const BACK: &str =
    "{ name: answers-to-containers, to: [172.18.0.0/24], protocol: udp, ports: ['1024-65535'] }";

/// Its port is the host's too, for all.
const PUBLISHED: &str = "{ name: published, ports: [8080], from: [any] }";
const SHOP_WEB: &str = "{ name: shop-web, to: [172.18.0.2], ports: [8080] }";

/// Two containers behind the bridge `br0` of the host, which masquerades what they send.
fn containers(field: &Field) -> Result<[Namespace; 2]> {
    field.host.namespace.sh("sysctl -qw net.ipv4.ip_forward=1
         ip link add br0 type bridge
         ip address add 172.18.0.1/24 dev br0
         ip link set br0 up
         nft -f - <<'END'
         table inet nat {
            chain before {
                type nat hook prerouting priority dstnat;
                iifname eth0 tcp dport 8080 dnat ip to 172.18.0.2:8080
            }
            chain after {
                type nat hook postrouting priority srcnat;
                ip saddr 172.18.0.0/24 oifname eth0 masquerade
            }
         }
END")?;
    let container = |number: u8| -> Result<Namespace> {
        let container = Namespace::new("container")?;
        field.host.namespace.sh(&format!(
            "ip link add c{number} type veth peer name eth0 netns {}; ip link set c{number} master br0; ip link set c{number} up",
            container.name()
        ))?;
        container.sh(&format!(
            "ip address add 172.18.0.{number}/24 dev eth0; ip link set eth0 up; ip route add default via 172.18.0.1"
        ))?;
        Ok(container)
    };
    Ok([container(2)?, container(3)?])
}

fn get(from: &Namespace, to: Ipv4Addr, port: u16) -> Answer {
    Curl::http(to, port).patience(2.0).from(from)
}

/// Asks a name server for `name.example.net`; says whether there was an answer.
fn resolves(from: &Namespace, server: &Host) -> Result<bool> {
    let script = format!(
        "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.settimeout(2)\n\
         s.sendto(bytes.fromhex('000101000001000000000000046e616d65076578616d706c65036e65740000010001'), ('{}', 53))\n\
         try:\n    print(len(s.recv(512)) > 40)\nexcept TimeoutError:\n    print(False)",
        server.place.v4
    );
    Ok(ok(from.command("/usr/bin/python3").args(["-c", &script]))?.trim() == "True")
}

#[test]
#[ignore = "needs root and a kernel"]
fn containers_of_a_bridge_are_told_apart_at_the_bridge() -> Result<()> {
    let field = Field::new()?;
    let (api, intranet) = (field.network.add(place::API)?, field.network.add(place::INTRANET)?);
    let _servers = (web(&field.network, &api, &[443, 8443])?, field.web(&[80])?);
    let names = [("name.example.net", api.place.v4.into())];
    let scratch = field.network.scratch.path();
    let _dns = Dnsmasq::start(&intranet.namespace, intranet.place.v4, scratch, 60, &names)?;
    let [shop, other] = containers(&field)?;
    let to_api = |from: &Namespace| get(from, api.place.v4, 443);
    holds("the way without a firewall", SOON, || to_api(&shop).is_ok() && to_api(&other).is_ok())?;

    // At eth0 alone both have the host's address, and nobody knows whose packets are whose. A glob finds no bridge.
    let plain = policy(&[], &[API, DNS]);
    let (firewall, _agent) = field.protected(&plain.replace("[eth0]", "[eth0, 'br*']"))?;
    assert!(to_api(&shop).is_ok() && to_api(&other).is_ok());

    let at_bridge = policy(&[OUT, OUT_DNS], &[API, DNS, BACK]).replace("[eth0]", "[eth0, br0]");
    firewall.reload(&at_bridge)?;
    assert_eq!(firewall.metrics()?.sum("mpesa_fw_enforcing", &[("interface", "br0")]), 2.0);
    let before = firewall.metrics()?;
    assert!(to_api(&shop).is_ok(), "answers find their way back");
    assert!(resolves(&shop, &intranet)? && resolves(&other, &intranet)?);
    assert_eq!(firewall.metrics()?.drops_since(&before), drops([]));
    assert_eq!(to_api(&other), Answer::Silence);
    assert_eq!(kinds(&firewall.metrics()?.drops_since(&before)), ["ingress shop-api source_not_allowed"]);
    // Nothing else is allowed to either, not even the host.
    let before = firewall.metrics()?;
    assert_eq!(get(&shop, api.place.v4, 8443), Answer::Silence);
    assert_eq!(get(&shop, Ipv4Addr::new(172, 18, 0, 1), 80), Answer::Silence);
    assert_eq!(kinds(&firewall.metrics()?.drops_since(&before)), ["ingress - no_service"]);
    // What the rule at eth0 permits it permits to all: the host's own programs need it no less.
    assert!(to_api(&field.host.namespace).is_ok());
    // What goes to a container is egress at the bridge, whoever asked; between containers nobody is asked.
    let published = [OUT, OUT_DNS, PUBLISHED];
    let site = Site { port: 8080, certificate: None, body: "shop" };
    let _shop_web = Nginx::start(&shop, scratch, "nginx-shop", &[site])?;
    let visit = || get(&field.attacker.namespace, field.host.place.v4, 8080);
    let before = firewall.metrics()?;
    firewall.reload(&policy(&published, &[API, DNS, BACK]).replace("[eth0]", "[eth0, br0]"))?;
    assert_eq!(visit(), Answer::Silence);
    assert_eq!(kinds(&firewall.metrics()?.drops_since(&before)), ["egress - no_destination"]);
    assert!(get(&other, Ipv4Addr::new(172, 18, 0, 2), 8080).is_ok());
    firewall.reload(&policy(&published, &[API, DNS, BACK, SHOP_WEB]).replace("[eth0]", "[eth0, br0]"))?;
    assert!(visit().is_ok());
    assert!(get(&field.host.namespace, Ipv4Addr::new(172, 18, 0, 2), 8080).is_ok());
    // Without an answer's way back datagrams are lost.
    firewall.reload(&policy(&[OUT, OUT_DNS], &[API, DNS]).replace("[eth0]", "[eth0, br0]"))?;
    assert!(!resolves(&shop, &intranet)?);
    Ok(())
}
