//! The testbed without a firewall: whatever a test sends arrives, and nothing is left behind.

use std::{path::Path, time::Duration};

use testbed::{
    Answer, Curl, Network, Wire, place,
    serve::{Certificate, Dnsmasq, Nginx, Site, TcpEcho, UdpEcho},
};

const SOON: Duration = Duration::from_secs(5);

#[test]
#[ignore = "needs root and a kernel"]
fn places_reach_each_other_in_both_families() -> anyhow::Result<()> {
    let network = Network::new()?;
    let host = network.add(place::CALLBACK_HOST)?;
    let sender = network.add(place::SAFARICOM)?;
    let certificate = Certificate::new(network.scratch.path(), &["callback.example.net"])?;
    let tls = Site { port: 443, certificate: Some(&certificate), body: "accepted" };
    let plain = Site { port: 8080, certificate: None, body: "api" };
    let nginx = Nginx::start(&host.namespace, network.scratch.path(), "host", &[tls, plain])?;
    for address in [host.place.v4.into(), std::net::IpAddr::from(host.place.v6)] {
        let answer = Curl::get("https://callback.example.net/pay")
            .post("{}")
            .trusting(&certificate.certificate)
            .at(address)
            .from(&sender.namespace);
        assert_eq!(answer, Answer::Status { code: 200, body: "accepted".into() }, "at {address}");
        assert!(Curl::http(address, 8080).from(&sender.namespace).is_ok());
        assert_eq!(Curl::http(address, 81).from(&sender.namespace), Answer::Refused);
    }
    assert_eq!(nginx.requests()[0], "196.201.214.200 443 POST /pay");

    let _udp = UdpEcho::start(&host.namespace, 5000)?;
    let _tcp = TcpEcho::start(&host.namespace, 5000)?;
    let heard = UdpEcho::ask(&sender.namespace, host.place.v6, 5000, b"hello", SOON)?;
    assert_eq!(heard.as_deref(), Some(&b"hello"[..]));
    // Nothing routes there: what a firewall that drops looks like to curl.
    host.namespace.sh("ip route add blackhole 196.201.214.200")?;
    assert_eq!(Curl::http(host.place.v4, 8080).from(&sender.namespace), Answer::Silence);
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn names_resolve_by_the_resolver_of_a_place() -> anyhow::Result<()> {
    let network = Network::new()?;
    let host = network.add(place::CALLBACK_HOST)?;
    let intranet = network.add(place::INTRANET)?;
    let api = network.add(place::API)?;
    let other = network.add(place::DROP_BOX)?;
    let scratch = network.scratch.path();
    let dns = Dnsmasq::start(
        &intranet.namespace,
        intranet.place.v4,
        scratch,
        1,
        &[("api.safaricom.co.ke", api.place.v4.into())],
    )?;
    let _api = Nginx::start(
        &api.namespace,
        scratch,
        "api",
        &[Site { port: 80, certificate: None, body: "daraja" }],
    )?;
    let _other = Nginx::start(
        &other.namespace,
        scratch,
        "other",
        &[Site { port: 80, certificate: None, body: "other" }],
    )?;
    let ask = || {
        Curl::get("http://api.safaricom.co.ke/")
            .resolving(dns.resolv_conf.clone())
            .patience(3.0)
            .from(&host.namespace)
    };
    assert_eq!(ask(), Answer::Status { code: 200, body: "daraja".into() });
    dns.change(&[("api.safaricom.co.ke", other.place.v4.into())])?;
    testbed::holds("the new address", SOON, || ask() == Answer::Status { code: 200, body: "other".into() })?;
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn frames_of_any_kind_arrive() -> anyhow::Result<()> {
    let network = Network::new()?;
    let host = network.add(place::CALLBACK_HOST)?;
    let fence = "to_host()/IP(src=S4,dst=H4)/UDP(sport=9,dport=9)";
    let mut wire = Wire::towards(&host, &network.router, place::SAFARICOM, fence)?;
    let frames = [
        ("plain", "to_host()/IP(src=S4,dst=H4)/TCP(dport=443)"),
        ("vlan", "to_host()/Dot1AD(vlan=7)/Dot1Q(vlan=8)/IP(src=S4,dst=H4)/TCP(dport=443)"),
        ("short", "bytes(to_host())+b'\\x08\\x00\\x45'"),
        (
            "fragments",
            "fragment6(to_host()/IPv6(src=S6,dst=H6)/IPv6ExtHdrFragment()/UDP(sport=1,dport=2)/(b'x'*3000), 1280)",
        ),
    ];
    assert_eq!(wire.send(&frames)?, ["plain", "vlan", "short", "fragments"]);
    assert!(wire.send(&[("wrong", "nonsense()")]).is_err());
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn nothing_is_left_behind() -> anyhow::Result<()> {
    let mut left = (Vec::new(), std::path::PathBuf::new(), 0);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let network = Network::new().expect("a network");
        let host = network.add(place::CALLBACK_HOST).expect("a host");
        network.scratch.bpffs("bpffs").expect("a bpffs");
        let nginx = Nginx::start(&host.namespace, network.scratch.path(), "host", &[]).expect("nginx");
        left = (
            vec![network.router.path(), host.namespace.path()],
            network.scratch.path().to_owned(),
            nginx.pid(),
        );
        panic!("on purpose");
    }));
    assert!(panicked.is_err());
    let (namespaces, scratch, nginx) = left;
    assert!(namespaces.iter().all(|path| !path.exists()), "{namespaces:?}");
    assert!(!scratch.exists());
    assert!(!Path::new("/proc").join(nginx.to_string()).exists());
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    assert!(!mounts.contains(&scratch.display().to_string()), "{mounts}");
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn a_foreign_xdp_program_can_be_attached() -> anyhow::Result<()> {
    let network = Network::new()?;
    let host = network.add(place::CALLBACK_HOST)?;
    let bpffs = network.scratch.bpffs("bpffs")?;
    testbed::attach_foreign_xdp(&host, &bpffs)?;
    assert!(host.namespace.sh("bpftool net show")?.contains("eth0"));
    Ok(())
}
