//! What Prometheus gets.

mod support;

use std::{
    fs,
    io::Write as _,
    net::{Ipv4Addr, SocketAddr},
    process::Stdio,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result};
use support::{FENCE, Field, SOON, WEB, policy};
use testbed::{Curl, Firewall, Process, eventually, holds, place, serve::TcpEcho};

#[test]
#[ignore = "needs root and a kernel"]
fn promtool_finds_nothing_to_complain_of() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let (firewall, _agent) =
        field.protected(&policy(&[WEB], &["{ name: api, to: [192.0.2.80], ports: [443] }"]))?;
    for place in [&field.safaricom, &field.attacker] {
        let _ = Curl::http(field.host.place.v4, 80).from(&place.namespace);
    }
    firewall.reload(&policy(&[WEB, FENCE], &[]))?;
    let (status, text) = firewall.namespace.get(Firewall::METRICS, "/metrics")?;
    assert_eq!(status, 200);
    let mut promtool = firewall.namespace.command("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = promtool.spawn().context("could not start promtool")?;
    promtool.stdin.take().context("stdin is piped")?.write_all(text.as_bytes())?;
    let said = promtool.wait_with_output()?;
    let complaints = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success() && complaints.trim().is_empty(), "{complaints}\n{text}");
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn a_real_prometheus_scrapes_it() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let (firewall, _agent) = field.protected(&policy(&[WEB], &[]))?;
    let target = Firewall::METRICS;
    let file = firewall.write(
        "prometheus.yml",
        &format!("global: {{ scrape_interval: 1s }}\nscrape_configs: [{{ job_name: mpesa-fw, static_configs: [{{ targets: ['{target}'] }}] }}]\n"),
    )?;
    let web = SocketAddr::from((Ipv4Addr::LOCALHOST, 9090));
    let mut command = firewall.namespace.command("prometheus");
    command.arg(format!("--config.file={}", file.display())).arg(format!("--web.listen-address={web}"));
    command.arg(format!("--storage.tsdb.path={}", firewall.directory.join("tsdb").display()));
    let _prometheus = Process::spawn(command, "prometheus", firewall.logs())?;
    assert_eq!(Curl::http(field.host.place.v4, 80).from(&field.attacker.namespace), testbed::Answer::Silence);
    let ask = |query: &str| -> Option<f64> {
        let (status, body) = firewall.namespace.get(web, &format!("/api/v1/query?query={query}")).ok()?;
        // HTTP/1.1 may come in chunks; the JSON is one line of it.
        let json = body.lines().find(|line| line.starts_with('{')).filter(|_| status == 200)?;
        let json: serde_json::Value = serde_json::from_str(json).ok()?;
        json["data"]["result"][0]["value"][1].as_str()?.parse().ok()
    };
    eventually("a scrape", Duration::from_secs(30), || ask("up").filter(|up| *up == 1.0))?;
    eventually("drops in Prometheus", SOON, || {
        ask("sum(mpesa_fw_dropped_packets_total)").filter(|sum| *sum > 0.0)
    })?;
    assert_eq!(ask("sum(mpesa_fw_enforcing)"), Some(2.0));
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn packets_and_bytes_are_exact() -> Result<()> {
    let field = Field::new()?;
    let dns = "{ name: dns, protocol: udp, ports: [53], from: [196.201.214.200] }";
    let (firewall, _agent) = field.protected(&policy(&[dns, FENCE], &[]))?;
    let good = "[to_host()/IP(src=S4,dst=H4)/UDP(sport=5,dport=53)/Raw(b'x'*58) for _ in range(100)]";
    let bad = "[to_host()/IPv6(src=S6,dst=H6)/UDP(sport=5,dport=53)/Raw(b'x'*38) for _ in range(100)]";
    assert_eq!(field.wire()?.send(&[("good", good), ("bad", bad)])?, ["good"]);
    let metrics = firewall.metrics()?;
    let good = [("interface", "eth0"), ("direction", "ingress"), ("rule", "dns")];
    assert_eq!(metrics.sum("mpesa_fw_passed_packets_total", &good), 100.0);
    assert_eq!(metrics.sum("mpesa_fw_passed_bytes_total", &good), 10_000.0, "14 + 20 + 8 + 58 each");
    let bad = [good[0], good[1], good[2], ("reason", "source_not_allowed")];
    assert_eq!(metrics.sum("mpesa_fw_dropped_packets_total", &bad), 100.0);
    assert_eq!(metrics.sum("mpesa_fw_dropped_bytes_total", &bad), 10_000.0, "14 + 40 + 8 + 38 each");
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn near_misses_of_a_provider_are_counted_apart() -> Result<()> {
    let field = Field::new()?;
    let sets = "sets:\n  safaricom:\n    addresses: [196.201.214.200]\n    source: a page\n    checked: 2026-08-08\n    expires: 2027-02-08\n    watch: [196.201.208.0/20]\ningress:";
    let rules =
        policy(&["{ name: web, ports: [80], from: [safaricom] }", FENCE], &[]).replace("ingress:", sets);
    let (firewall, _agent) = field.protected(&rules)?;
    let frames = [
        ("near", "to_host()/IP(src='196.201.214.201',dst=H4)/TCP(dport=80)"),
        ("near, no service", "to_host()/IP(src='196.201.220.1',dst=H4)/TCP(dport=81)"),
        ("far", "to_host()/IP(src='198.51.100.66',dst=H4)/TCP(dport=80)"),
        ("genuine", "to_host()/IP(src=S4,dst=H4)/TCP(dport=80)"),
    ];
    assert_eq!(field.wire()?.send(&frames)?, ["genuine"]);
    let metrics = firewall.metrics()?;
    let near = metrics.sum("mpesa_fw_near_miss_packets_total", &[("set", "safaricom")]);
    assert_eq!(near, 1.0, "only at a service that the set was meant for");
    // 2027-02-08, at the end or the beginning of that day.
    let expires = metrics.sum("mpesa_fw_set_expires_timestamp_seconds", &[("set", "safaricom")]);
    assert!((1_802_044_800.0..=1_802_131_200.0).contains(&expires), "{expires}");
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn silence_generation_and_build_are_told() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let api = field.network.add(place::API)?;
    let _echo = TcpEcho::start(&api.namespace, 443)?;
    let rules = policy(&[WEB], &["{ name: api, to: [192.0.2.80], ports: [443] }"])
        .replace("version: 1", "version: 1\nserial: 7");
    let (firewall, _agent) = field.protected(&rules)?;
    let metrics = firewall.metrics()?;
    let last = |metrics: &testbed::Metrics| {
        metrics.sum("mpesa_fw_service_last_passed_timestamp_seconds", &[("rule", "web")])
    };
    assert_eq!(last(&metrics), 0.0, "never yet");
    assert!(metrics.has("mpesa_fw_generation_info", &[("serial", "7"), ("mode", "enforce")]));
    assert!(metrics.has("mpesa_fw_build_info", &[]));
    let loaded = metrics.sum("mpesa_fw_generation_loaded_timestamp_seconds", &[]);
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map(|now| now.as_secs_f64());
    assert!((now()? - loaded).abs() < 60.0, "{loaded}");
    assert!(metrics.sum("mpesa_fw_flows_capacity", &[]) >= 1024.0);
    assert!(metrics.has("mpesa_fw_events_suppressed_total", &[]));

    assert!(Curl::http(field.host.place.v4, 80).from(&field.safaricom.namespace).is_ok());
    assert!((now()? - last(&firewall.metrics()?)).abs() < 5.0);
    let _stream = field.host.namespace.inside(|| std::net::TcpStream::connect((api.place.v4, 443)))?;
    assert_eq!(firewall.metrics()?.sum("mpesa_fw_flows", &[]), 1.0);
    assert_eq!(firewall.namespace.get(Firewall::METRICS, "/healthz")?.0, 200);
    assert_eq!(firewall.namespace.get(Firewall::METRICS, "/nothing")?.0, 404);
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn a_flood_of_drops_does_not_drown_the_agent() -> Result<()> {
    let field = Field::new()?;
    let (firewall, mut agent) = field.protected(&policy(&[WEB, FENCE], &[]))?;
    let mut wire = field.wire()?;
    let logged = |agent: &testbed::Started| agent.process.log().len();
    let before = logged(&agent);
    wire.throw(&["[to_host()/IP(src='198.51.100.66',dst=H4)/TCP(dport=80)]*20000"])?;
    holds("all drops to be counted", SOON, || {
        firewall
            .metrics()
            .is_ok_and(|metrics| metrics.dropped("ingress", "web", "source_not_allowed") >= 19_000.0)
    })?;
    assert!(agent.process.running());
    assert!(logged(&agent) - before < 1_000_000, "no line a packet");
    assert!(firewall.metrics()?.sum("mpesa_fw_events_suppressed_total", &[]) > 0.0, "the bucket held");
    assert!(fs::exists(firewall.runtime().join("control.sock"))?);
    Ok(())
}
