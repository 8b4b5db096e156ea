//! The tamper watch: what root does to hooks, programs and pins behind the agent's back, by the real commands, is noticed within
//! two seconds while nobody asks, put right, counted and said. What is written into tables: `netns_tamper_state`.

mod support;

#[path = "support/scene.rs"]
mod scene;

use std::{fs, io::Write as _, time::Duration};

use anyhow::{Context as _, Result};
use scene::{NOTICED, Scene};
use support::{FENCE, Field, SOON, WEB, policy};
use testbed::{Host, attach_foreign_tc_ahead, holds, ok, place, run};

#[test]
#[ignore = "needs root and a kernel"]
fn links_that_are_detached_come_back() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let mut scene = Scene::new(&field, &[])?;
    for direction in ["ingress", "egress"] {
        scene.bpftool(&["link", "detach", "id", &scene.link_id(&format!("eth0-{direction}"))?])?;
        let said = scene.noticed("hook_removed", &format!("eth0 {direction}"))?;
        assert!(said.contains("its link was detached"), "{said}");
        scene.restored()?;
    }
    assert_eq!(scene.counted("hook_removed")?, 2.0);
    // The one that counts connections.
    if scene.pins().join("links/connections").exists() {
        scene.bpftool(&["link", "detach", "id", &scene.link_id("connections")?])?;
        scene.noticed("hook_removed", "cgroup connections")?;
        let before = scene.firewall.metrics()?;
        assert!(scene.is_enforced());
        let now = scene.firewall.metrics()?;
        let counted =
            |metrics: &testbed::Metrics| metrics.sum("mpesa_fw_connections_total", &[("rule", "web")]);
        assert_eq!(counted(&now) - counted(&before), 1.0);
    }
    // The one that refuses sockets which pass TC by.
    let mut detached = 3.0;
    if scene.pins().join("links/bypass").exists() {
        scene.bpftool(&["link", "detach", "id", &scene.link_id("bypass")?])?;
        scene.noticed("hook_removed", "cgroup bypass")?;
        let set = "import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW).setsockopt(263, 20, 1)";
        let ran = run(field.host.namespace.command("/usr/bin/python3").args(["-c", set]))?;
        assert!(ran.text().contains("PermissionError"), "{}", ran.text());
        detached += 1.0;
    }
    // What the kernel refuses while there is a link.
    for mode in ["xdp", "xdpgeneric", "xdpdrv"] {
        let mut off = field.host.namespace.command("ip");
        run(off.args(["link", "set", "dev", "eth0", mode, "off"]))?;
        assert!(scene.is_enforced(), "{mode}");
    }
    let text = scene.firewall.ask(["status"])?.stdout;
    assert!(
        text.contains(&format!("TAMPERING, {detached} so far"))
            && text.contains("eth0 egress (hook_removed)"),
        "{text}"
    );
    // Counts and records outlive the agent.
    scene.agent.process.kill()?;
    scene.agent = scene.firewall.start(&[])?;
    assert_eq!(scene.counted("hook_removed")?, detached);
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn filters_and_their_qdisc_come_back() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let mut scene = Scene::new(&field, &["--tc", "clsact"])?;
    for command in ["tc qdisc del dev eth0 clsact", "tc filter del dev eth0 egress"] {
        field.host.namespace.sh(command)?;
        let said = scene.noticed("hook_removed", "eth0 egress")?;
        assert!(said.contains("its filter or qdisc was removed"), "{said}");
        scene.restored()?;
    }
    assert_eq!(scene.counted("hook_removed")?, 2.0);
    Ok(())
}

/// Where a copy of what is paid could go.
fn drop_box(field: &Field) -> Result<(Host, impl Fn() -> bool)> {
    let outside = field.network.add(place::DROP_BOX)?;
    let there = std::net::SocketAddr::from((outside.place.v4, 443));
    let receiver = outside.namespace.inside(|| std::net::UdpSocket::bind(there))?;
    receiver.set_read_timeout(Some(support::NEVER))?;
    let sender = field.host.namespace.inside(|| std::net::UdpSocket::bind("0.0.0.0:0"))?;
    Ok((outside, move || sender.send_to(b"copy", there).is_ok() && receiver.recv(&mut [0; 16]).is_ok()))
}

#[test]
#[ignore = "needs root and a kernel"]
fn a_program_put_before_ours_is_overtaken() -> Result<()> {
    for way in support::tc_ways() {
        let field = Field::new()?;
        let _web = field.web(&[80])?;
        let (_outside, reached) = drop_box(&field)?;
        let mut scene = Scene::new(&field, &["--tc", way])?;
        let bpffs = scene.firewall.bpffs.parent().context("a mount point")?.to_owned();
        assert!(!reached());
        let pin = bpffs.join("ahead");
        if *way == "tcx" {
            let index = field.host.namespace.sh("ip -o link show eth0 | cut -d: -f1")?;
            ok(&mut scene.python(&["ahead", index.trim(), "egress", &pin.to_string_lossy()]))?;
        } else {
            attach_foreign_tc_ahead(&field.host, &bpffs)?;
        }
        let said = scene.noticed("preceded", "eth0 egress")?;
        let name = if *way == "tcx" { "`intruder`" } else { "`foreign`" };
        assert!(said.contains(name) && said.contains("loaded by uid 0"), "{said}");
        assert!(said.contains("pinned at") && said.contains("put_right=true"), "{said}");
        assert!(!reached(), "{way}: ours is first again");
        scene.restored()?;
        assert_eq!(scene.counted("preceded")?, 1.0);
        let filters = field.host.namespace.sh("tc filter show dev eth0 egress")?;
        let expected = if *way == "tcx" { 0 } else { 2 };
        assert_eq!(filters.matches("handle").count(), expected, "nothing that stood in is left: {filters}");
        // The next agent finds everything in its place.
        scene.agent.process.kill()?;
        scene.agent = scene.firewall.start(&["--tc", way])?;
        assert!(!reached());
        assert_eq!(scene.firewall.metrics()?.sum("mpesa_fw_enforcing", &[]), 2.0);
        let ran = scene.firewall.ask(["detach"])?;
        assert_eq!(ran.code, Some(0), "{}", ran.text());
        let left = field.host.namespace.sh("tc filter show dev eth0 egress")?;
        assert!(!left.contains("egress_tc"), "{left}");
    }
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn a_program_in_the_place_of_ours_is_thrown_out() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let mut scene = Scene::new(&field, &[])?;
    let hooks: &[_] = match support::tc_ways() {
        ["tcx", ..] => &[("ingress", "xdp"), ("egress", "tc")],
        _ => &[("ingress", "xdp")],
    };
    for (direction, kind) in hooks {
        let link = scene.pins().join(format!("links/eth0-{direction}"));
        let mut intruder = scene.intruder(&link, kind)?;
        let said = scene.noticed("program_replaced", &format!("eth0 {direction}"))?;
        assert!(said.contains("`intruder`") && said.contains("put_right=true"), "{said}");
        assert!(said.contains("held by process") && said.contains("python3"), "{said}");
        scene.restored()?;
        drop(intruder.stdin.take());
        intruder.wait()?;
    }
    assert_eq!(scene.counted("program_replaced")?, hooks.len() as f64);
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn a_program_in_the_place_of_ours_is_not_called_enforcing() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let scene = Scene::new(&field, &[])?;
    // While the agent can't put it right.
    scene.agent.process.signal(nix::sys::signal::Signal::SIGSTOP)?;
    let link = scene.pins().join("links/eth0-ingress");
    let mut intruder = scene.intruder(&link, "xdp")?;
    let attached = field.host.namespace.inside(|| -> Result<_> {
        let bpffs = scene.firewall.bpffs.clone();
        let options = mpesa_fw::datapath::Options {
            bpffs,
            xdp: mpesa_fw::datapath::XdpChoice::Auto,
            tc: mpesa_fw::datapath::TcChoice::Auto,
            flows_capacity: mpesa_fw_common::state::FLOWS_CAPACITY,
            trace: false,
        };
        // Another look at the same pins. (Opening heals: what it says it had to mend tells what it saw.)
        let datapath = mpesa_fw::datapath::Datapath::open(options)?;
        Ok(datapath.mended().to_vec())
    })?;
    scene.agent.process.signal(nix::sys::signal::Signal::SIGCONT)?;
    assert!(
        attached.iter().any(|what| what.contains("eth0 ingress ran generation one that is not pinned")),
        "{attached:?}"
    );
    drop(intruder.stdin.take());
    intruder.wait()?;
    scene.restored()
}

#[test]
#[ignore = "needs root and a kernel"]
fn pins_come_back_and_the_next_agent_adopts_them() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let mut scene = Scene::new(&field, &[])?;
    let pins = scene.pins();
    let generation = scene.generation()?;
    let some = [
        pins.join("links/eth0-ingress"),
        pins.join("state/COUNTERS"),
        generation.join("ingress_xdp"),
        generation.join("GENERATION"),
    ];
    for pin in &some {
        fs::remove_file(pin)?;
        scene.noticed("pin_removed", &pin.to_string_lossy())?;
        assert!(pin.exists() && scene.is_enforced(), "{}", pin.display());
    }
    scene.restored()?;
    assert_eq!(scene.counted("pin_removed")?, some.len() as f64);
    // Another object in the place of one.
    let counters = pins.join("state/NEAR_MISSES");
    fs::remove_file(&counters)?;
    scene.bpftool(&[
        "map",
        "create",
        &counters.to_string_lossy(),
        "type",
        "array",
        "key",
        "4",
        "value",
        "8",
        "entries",
        "1",
        "name",
        "other",
    ])?;
    scene.noticed("pin_removed", &counters.to_string_lossy())?;
    let shown = scene.bpftool(&["map", "show", "pinned", &counters.to_string_lossy()])?;
    assert!(shown.contains("NEAR_MISSES"), "{shown}");
    // All of them.
    fs::remove_dir_all(&scene.firewall.bpffs)?;
    scene.noticed("pin_removed", &pins.join("state/FLOWS").to_string_lossy())?;
    scene.restored()?;
    let before = scene.firewall.metrics()?;
    scene.agent.process.kill()?;
    assert!(scene.is_enforced(), "without an agent");
    scene.agent = scene.firewall.start(&[])?;
    scene.agent.process.wait_for_log("adopted the datapath of an earlier agent", SOON)?;
    assert_eq!(scene.firewall.metrics()?.went_back(&before), [] as [String; 0]);
    assert!(scene.is_enforced());
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn what_the_agent_does_itself_is_no_tampering() -> Result<()> {
    for way in support::tc_ways() {
        let field = Field::new()?;
        let _web = field.web(&[80])?;
        let mut scene = Scene::new(&field, &["--tc", way])?;
        for turn in 0..6 {
            let services: &[&str] = if turn % 2 == 0 { &[FENCE, WEB] } else { &[WEB] };
            scene.firewall.reload(&policy(services, &[]))?;
            std::thread::sleep(Duration::from_millis(300));
        }
        for _ in 0..5 {
            field.host.namespace.sh(
                "ip link set eth0 down; ip link set eth0 up; ip address add 10.9.9.9/32 dev eth0; ip address delete 10.9.9.9/32 dev eth0",
            )?;
        }
        // The interface itself goes and comes again, with the same index.
        for _ in 0..3 {
            field.network.router.sh(&format!("ip link delete {}", field.host.place.name))?;
            field.network.link(&field.host)?;
            std::thread::sleep(Duration::from_millis(700));
        }
        // Another agent takes over.
        scene.agent.process.kill()?;
        scene.agent = scene.firewall.start(&["--tc", way])?;
        holds("protection", SOON, || {
            scene.firewall.metrics().is_ok_and(|metrics| metrics.sum("mpesa_fw_enforcing", &[]) == 2.0)
        })?;
        std::thread::sleep(testbed::here(NOTICED));
        let metrics = scene.firewall.metrics()?;
        let log = scene.agent.process.log();
        assert_eq!(metrics.sum("mpesa_fw_tampering_total", &[]), 0.0, "{way}: {log}");
        assert!(scene.is_enforced());
        let status = scene.firewall.status()?;
        assert_eq!(status["tampering"].as_array().map(Vec::len), Some(0), "{status}");
        assert_eq!(status["tamper_counts"]["pin_removed"], 0, "{status}");
    }
    std::io::stdout().flush()?;
    Ok(())
}

/// Time on processors of all threads of a process that live now.
fn cpu_time(pid: u32) -> Result<Duration> {
    let mut nanoseconds = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end meanwhile.
        let text = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        nanoseconds += text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(nanoseconds))
}

#[test]
#[ignore = "needs root and a kernel"]
fn an_idle_agent_costs_no_visible_time() -> Result<()> {
    const SPAN: Duration = Duration::from_secs(20);
    let field = Field::new()?;
    let scene = Scene::new(&field, &[])?;
    let pid = scene.agent.process.pid();
    let before = cpu_time(pid)?;
    std::thread::sleep(SPAN);
    let spent = cpu_time(pid)?.saturating_sub(before);
    let an_hour = spent.as_secs_f64() * 3600.0 / SPAN.as_secs_f64();
    println!("an idle agent, all of it: {spent:?} of processor time in {SPAN:?}, {an_hour:.1} s an hour");
    // In a debug build too, which takes many times longer than the shipped one.
    assert!(spent.as_secs_f64() < 0.01 * SPAN.as_secs_f64(), "{spent:?}");
    Ok(())
}
