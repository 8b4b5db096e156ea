//! What listens on the host, against the services of the policy.

mod support;

use std::{
    net::{TcpListener, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde_json::Value;
use support::{Field, WEB, policy};
use testbed::{Firewall, holds};

/// The agent looks every 10 s.
const LOOK: Duration = Duration::from_secs(25);

fn listeners(firewall: &Firewall<'_>) -> Result<(Option<i32>, Value)> {
    let ran = firewall.ask(["listeners", "--format", "json"])?;
    let json = serde_json::from_str(&ran.stdout).with_context(|| ran.text())?;
    Ok((ran.code, json))
}

fn undeclared(firewall: &Firewall<'_>) -> Result<f64> {
    Ok(firewall.metrics()?.sum("mpesa_fw_undeclared_listeners", &[]))
}

/// Events of undeclared listeners.
fn told(firewall: &Firewall<'_>) -> Result<Vec<Value>> {
    let ran = firewall.ask(["events", "--format", "json", "--last", "1000"])?;
    let mut events: Vec<Value> = serde_json::from_str(&ran.stdout).with_context(|| ran.text())?;
    events.retain(|event| event["kind"] == "listener");
    Ok(events)
}

#[test]
#[ignore = "needs root and a kernel"]
fn what_listens_undeclared_is_seen_with_its_program() -> Result<()> {
    let field = Field::new()?;
    let hooks = "{ name: hooks, ports: [443, \"9000-9010\"], from: [196.201.214.200] }";
    let web = field.web(&[80])?;
    let (firewall, agent) = field.protected(&policy(&[WEB, hooks], &[]))?;
    let (_local, _v6, _client) = field.host.namespace.inside(|| {
        let asks = UdpSocket::bind("0.0.0.0:0")?;
        Ok::<_, anyhow::Error>((TcpListener::bind("127.0.0.1:7000")?, TcpListener::bind("[::1]:7000")?, asks))
    })?;
    let (code, found) = listeners(&firewall)?;
    assert_eq!(code, Some(0), "{found}");
    let sockets = found["sockets"].as_array().context("a list")?;
    assert!(sockets.iter().all(|socket| socket["service"] == "web" && socket["port"] == 80), "{found}");
    assert_eq!(sockets.len(), 2, "both families; nothing of loopback, no client: {found}");
    let unanswered = |found: &Value| -> Vec<String> {
        let all = found["unanswered"].as_array().cloned().unwrap_or_default();
        all.iter().map(|one| format!("{}-{}", one["first"], one["last"])).collect()
    };
    assert_eq!(unanswered(&found), ["443-443", "9000-9010"]);
    assert_eq!(undeclared(&firewall)?, 0.0);
    let ran = firewall.ask(["listeners"])?;
    assert!(
        ran.stdout.contains("every listener is declared") && ran.stdout.contains("9000-9010"),
        "{}",
        ran.stdout
    );
    drop(web);

    // Somebody starts another, beside one that is meant.
    let other = testbed::serve::Nginx::start(
        &field.host.namespace,
        field.network.scratch.path(),
        "nginx-other",
        &[8080, 9005].map(|port| testbed::serve::Site { port, certificate: None, body: "here" }),
    )?;
    let (code, found) = listeners(&firewall)?;
    assert_eq!(code, Some(1));
    assert_eq!(unanswered(&found), ["80-80", "443-443"]);
    let sockets = found["sockets"].as_array().context("a list")?;
    let strange: Vec<&Value> = sockets.iter().filter(|socket| socket["service"].is_null()).collect();
    assert_eq!(strange.len(), 2, "{found}");
    for socket in strange {
        assert_eq!((&socket["port"], &socket["user"]), (&8080.into(), &0.into()));
        assert_eq!(socket["process"]["name"], "nginx");
        assert_eq!(socket["process"]["pid"], other.pid());
        assert!(
            socket["process"]["executable"].as_str().is_some_and(|path| path.ends_with("nginx")),
            "{socket}"
        );
    }
    let ran = firewall.ask(["listeners"])?;
    assert_eq!(ran.code, Some(1));
    for word in ["2 undeclared", "0.0.0.0:8080", "[::]:8080", "root", &format!("nginx ({})", other.pid())] {
        assert!(ran.stdout.contains(word), "{word}: {}", ran.stdout);
    }

    holds("the metric", LOOK, || undeclared(&firewall).is_ok_and(|count| count == 2.0))?;
    // It is counted before it is told: whose it is has to be found first.
    let mut seen = Vec::new();
    holds("the events", LOOK, || {
        seen = told(&firewall).unwrap_or_default();
        seen.len() == 2
    })?;
    assert!(seen.iter().all(|event| event["port"] == 8080), "{seen:?}");
    assert!(firewall.ask(["events"])?.stdout.contains("undeclared_listener"));
    assert_eq!(agent.process.log().matches("a listener that no service declares").count(), 2);

    // Declared, it is no news; and when it has gone, it is none either.
    firewall.reload(&policy(&[WEB, hooks, "{ name: other, ports: [8080], from: [any] }"], &[]))?;
    assert_eq!(listeners(&firewall)?.0, Some(0));
    holds("the metric", LOOK, || undeclared(&firewall).is_ok_and(|count| count == 0.0))?;
    Ok(())
}
