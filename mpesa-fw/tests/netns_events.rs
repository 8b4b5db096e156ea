//! Events, followed while packets are dropped.

mod support;

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use serde_json::Value;
use support::{FENCE, Field, NEVER, SOON, WEB, policy};
use testbed::{Answer, Curl, Firewall, Process, eventually, holds};

/// `events --follow` with more words. What it says is in its log.
fn follow(firewall: &Firewall<'_>, name: &str, more: &[&str]) -> Result<Process> {
    let command = firewall.ask_command(["events", "--follow"].iter().chain(more));
    Process::spawn(command, name, firewall.logs())
}

fn knock(field: &Field, port: u16) {
    let answer = Curl::http(field.host.place.v4, port).from(&field.attacker.namespace);
    assert_eq!(answer, Answer::Silence);
}

#[test]
#[ignore = "needs root and a kernel"]
fn events_are_followed_as_they_come() -> Result<()> {
    let field = Field::new()?;
    let (firewall, mut agent) = field.protected(&policy(&[WEB, FENCE], &[]))?;
    knock(&field, 80);
    let mut text = follow(&firewall, "text", &["--last", "1"])?;
    let mut json = follow(&firewall, "json", &["--format", "json", "--last", "0"])?;
    let other: &[&str] = &["--last", "0", "--address", "192.0.2.0/24"];
    let mut others = [
        follow(&firewall, "address", other)?,
        follow(&firewall, "reason", &["--last", "0", "--reason", "rate_limited"])?,
        follow(&firewall, "rule", &["--last", "0", "--rule", "fence", "--rule", ""])?,
        follow(&firewall, "direction", &["--last", "0", "--direction", "egress"])?,
    ];
    let mine = ["--last", "0", "--rule", "web", "--reason", "source_not_allowed", "--direction", "ingress"];
    let mut same = follow(&firewall, "same", &[&mine[..], &["--address", "198.51.100.0/24"]].concat())?;
    text.wait_for_log("198.51.100.66", SOON)?;
    assert_eq!(text.log().lines().count(), 1, "{}", text.log());
    // The others say nothing when they have begun.
    std::thread::sleep(NEVER);
    holds("two to hear of it", SOON, || {
        knock(&field, 80);
        json.log().contains('\n') && same.log().contains("198.51.100.66")
    })?;
    let words = ["eth0", "ingress", "source_not_allowed", "web", "tcp", "-> 203.0.113.10:80"];
    eventually("a second line", SOON, || {
        let lines: Vec<String> = text.log().lines().map(str::to_owned).collect();
        lines.get(1).map(|line| assert!(words.iter().all(|word| line.contains(word)), "{line}"))
    })?;
    assert!(!text.log().contains('\u{1b}'), "no colours");
    json.wait_for_log("\n", SOON)?;
    for line in json.log().lines() {
        let event: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        assert_eq!((&event["kind"], &event["rule"]), (&"packet".into(), &"web".into()));
        assert_eq!(event["source"], "198.51.100.66");
    }
    same.wait_for_log("198.51.100.66", SOON)?;
    for other in &others {
        assert_eq!(other.log(), "");
    }
    // Another port is of another rule, and known to who asked for it.
    knock(&field, 81);
    others[2].wait_for_log("no_service", SOON)?;

    json.signal(Signal::SIGINT)?;
    assert!(json.wait(SOON)?.success(), "Ctrl-C is no failure");
    assert!(json.log().lines().all(|line| line.starts_with('{')), "and quiet: {}", json.log());
    agent.process.signal(Signal::SIGTERM)?;
    assert!(agent.process.wait(SOON)?.success());
    assert_eq!(text.wait(SOON)?.code(), Some(3));
    assert!(text.log().contains("the agent ends"), "{}", text.log());
    for other in &mut others {
        assert_eq!(other.wait(SOON)?.code(), Some(3));
    }
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn what_no_event_can_have_is_refused_with_what_there_is() -> Result<()> {
    let field = Field::new()?;
    let (firewall, mut agent) = field.protected(&policy(&[WEB, FENCE], &[]))?;
    for follow in [&["--follow"][..], &[]] {
        let ask = |more: &[&str]| firewall.ask(["events"].iter().chain(follow).chain(more));
        let ran = ask(&["--rule", "wbe"])?;
        assert_eq!(ran.code, Some(1), "{}", ran.text());
        assert!(ran.stderr.contains("`wbe`") && ran.stderr.contains("fence, web"), "{}", ran.stderr);
        let ran = ask(&["--address", "eth0"])?;
        assert_eq!(ran.code, Some(1), "{}", ran.text());
        let ran = ask(&["--reason", "no_servce"])?;
        assert_eq!(ran.code, Some(2));
        assert!(ran.stderr.contains("source_not_allowed"), "{}", ran.stderr);
        assert_eq!(ask(&["--direction", "in"])?.code, Some(2));
    }
    knock(&field, 80);
    let mut follower = follow(&firewall, "follower", &["--last", "1"])?;
    follower.wait_for_log("198.51.100.66", SOON)?;
    assert_eq!(firewall.ask(["detach"])?.code, Some(0));
    assert!(agent.process.wait(SOON)?.success());
    assert_eq!(follower.wait(SOON)?.code(), Some(3));
    assert!(follower.log().contains("detached"), "{}", follower.log());
    Ok(())
}

/// Followers that do not read, that close half, that vanish: others are served, and their places come back.
#[test]
#[ignore = "needs root and a kernel"]
fn a_follower_that_does_not_read_harms_nobody() -> Result<()> {
    let field = Field::new()?;
    let (firewall, _agent) = field.protected(&policy(&[WEB, FENCE], &[]))?;
    let begin = || -> Result<UnixStream> {
        let mut stream = UnixStream::connect(firewall.runtime().join("control.sock"))?;
        stream.set_read_timeout(Some(SOON))?;
        stream.write_all(b"{\"version\":1,\"request\":{\"follow\":{\"last\":0,\"wanted\":null}}}\n")?;
        Ok(stream)
    };
    let first_line = |stream: &UnixStream| -> Result<String> {
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        Ok(line)
    };
    let mut followers: Vec<UnixStream> = (0..8).map(|_| begin()).collect::<Result<_>>()?;
    for follower in &followers {
        assert!(first_line(follower)?.contains("following"));
    }
    let refused = first_line(&begin()?)?;
    assert!(refused.contains("8 clients follow"), "{refused}");
    for _ in 0..20 {
        assert_eq!(firewall.ask(["status"])?.code, Some(0), "the places of others are not theirs");
    }
    knock(&field, 80);
    // Half closed: the rest, and a last line.
    followers[0].shutdown(std::net::Shutdown::Write)?;
    let mut rest = String::new();
    followers[0].read_to_string(&mut rest)?;
    assert!(rest.contains("source_not_allowed") && rest.ends_with("{\"ended\":\"asked\"}\n"), "{rest}");
    drop(followers);
    eventually("a place", SOON, || {
        first_line(&begin().ok()?).ok().filter(|line| line.contains("following"))
    })?;
    Ok(())
}
