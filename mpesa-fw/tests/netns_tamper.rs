//! What somebody does behind the agent's back is said, and what is meant for another agent is left to that one.

mod support;
use anyhow::Result;
use support::{Field, NEVER, SOON, WEB, policy};
use testbed::{Answer, Curl, Firewall, Process, attach_foreign_tc_ahead, holds, ok, place};

/// Detaches the link of a hook, as root can.
fn remove_hook(field: &Field, firewall: &Firewall<'_>, direction: &str) -> Result<()> {
    let pin = firewall.bpffs.join(format!("abi-{}/links/eth0-{direction}", mpesa_fw_common::ABI_VERSION));
    let bpftool = |arguments: &[&str]| ok(field.host.namespace.command("bpftool").args(arguments));
    let link = bpftool(&["link", "show", "pinned", &pin.to_string_lossy()])?;
    let id = link.split(':').next().unwrap_or_default().trim().to_owned();
    bpftool(&["link", "detach", "id", &id])?;
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn a_hook_that_is_gone_is_said_at_once_and_mended() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let (firewall, _agent) = field.protected(&policy(&[WEB], &[]))?;
    let enforcing = |direction| -> Result<f64> {
        Ok(firewall.metrics()?.sum("mpesa_fw_enforcing", &[("interface", "eth0"), ("direction", direction)]))
    };
    assert_eq!((enforcing("ingress")?, enforcing("egress")?), (1.0, 1.0));
    // The agent's own round may come between the loss and the question.
    holds("the loss to be said", SOON, || {
        let removed =
            ["ingress", "egress"].map(|direction| remove_hook(&field, &firewall, direction).is_ok());
        removed == [true; 2] && firewall.status().is_ok_and(|status| status["protection"] == "incomplete")
    })?;
    holds("it to be mended", SOON, || {
        firewall.status().is_ok_and(|status| status["protection"] == "enforcing")
    })?;
    assert_eq!((enforcing("ingress")?, enforcing("egress")?), (1.0, 1.0));
    let web = Curl::http(field.host.place.v4, 80).from(&field.attacker.namespace);
    assert_eq!(web, Answer::Silence);
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn a_program_that_accepts_before_ours_is_said_everywhere() -> Result<()> {
    let field = Field::new()?;
    let outside = field.network.add(place::DROP_BOX)?;
    let there = std::net::SocketAddr::from((outside.place.v4, 443));
    let drop_box = outside.namespace.inside(|| std::net::UdpSocket::bind(there))?;
    drop_box.set_read_timeout(Some(NEVER))?;
    let sender = field.host.namespace.inside(|| std::net::UdpSocket::bind("0.0.0.0:0"))?;
    let reached = || sender.send_to(b"copy", there).is_ok() && drop_box.recv(&mut [0; 16]).is_ok();
    assert!(reached());
    let firewall = field.firewall()?;
    firewall.policy(&policy(&[WEB], &[]))?;
    let mut agent = firewall.start(&["--tc", "clsact"])?;
    assert!(!reached());
    let bpffs = firewall.bpffs.parent().expect("it has one");
    attach_foreign_tc_ahead(&field.host, bpffs)?;
    agent.process.wait_for_log("tampering: ", SOON)?;
    assert!(!reached(), "ours was moved before it");
    // Whoever puts the same program there again means it.
    field.host.namespace.sh("tc filter delete dev eth0 egress prio 1 handle 1 bpf")?;
    let again = "tc filter add dev eth0 egress prio 1 handle 1 bpf direct-action object-pinned";
    field.host.namespace.sh(&format!("{again} {}", bpffs.join("foreign-tc-accept").display()))?;
    assert!(reached(), "the foreign filter lets everything out: that is what is to be said");
    let enforcing = |direction| -> Result<f64> {
        Ok(firewall.metrics()?.sum("mpesa_fw_enforcing", &[("interface", "eth0"), ("direction", direction)]))
    };
    assert_eq!((enforcing("ingress")?, enforcing("egress")?), (1.0, 0.0));
    let status = firewall.ask(["status"])?.stdout;
    let head = status.lines().next().unwrap_or_default();
    assert!(head.starts_with("enforcing on eth0, BUT other programs"), "{status}");
    let json = firewall.status()?;
    assert_eq!(json["interfaces"][0]["ahead_of_egress"].as_array().map(Vec::len), Some(1), "{json}");
    agent.process.wait_for_log("other programs see egress packets first", SOON)?;

    field.host.namespace.sh("tc filter delete dev eth0 egress prio 1 handle 1 bpf")?;
    assert_eq!((enforcing("ingress")?, enforcing("egress")?), (1.0, 1.0));
    assert!(!reached(), "ours is alone again");
    let status = firewall.ask(["status"])?.stdout;
    assert!(status.starts_with("enforcing on eth0, since"), "{status}");
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn detach_leaves_the_pins_of_another_alone() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let (firewall, _agent) = field.protected(&policy(&[WEB], &[]))?;
    let other = firewall.bpffs.join("other");
    std::fs::create_dir(&other)?;
    let ran = firewall.ask(["detach", "--bpffs", &other.to_string_lossy()])?;
    assert!(ran.stdout.contains("nothing was attached"), "{}", ran.text());
    assert_eq!(firewall.status()?["protection"], "enforcing");
    let web = Curl::http(field.host.place.v4, 80).from(&field.attacker.namespace);
    assert_eq!(web, Answer::Silence);
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn an_address_that_another_host_has_is_noticed() -> Result<()> {
    let field = Field::new()?;
    let (_firewall, _agent) = field.protected(&policy(&[WEB], &[]))?;
    // The router's own address, with duplicate address detection on.
    let gateway = ok(field.host.namespace.command("ip").args(["-6", "route", "show", "default"]))?;
    let gateway = gateway.split_whitespace().nth(2).unwrap_or_default().to_owned();
    field.host.namespace.sh(&format!(
        "sysctl -qw net.ipv6.conf.all.accept_dad=1 net.ipv6.conf.eth0.accept_dad=1; ip address add {gateway}/64 dev eth0"
    ))?;
    holds(&format!("{gateway} to be found in use"), SOON, || {
        let addresses = ok(field.host.namespace.command("ip").args(["-6", "address", "show", "dev", "eth0"]));
        addresses.is_ok_and(|addresses| addresses.contains("dadfailed"))
    })
}

#[test]
#[ignore = "needs root and a kernel"]
fn clients_of_the_metrics_are_bounded() -> Result<()> {
    let field = Field::new()?;
    let (firewall, agent) = field.protected(&policy(&[WEB], &[]))?;
    let open =
        || Ok::<_, anyhow::Error>(std::fs::read_dir(format!("/proc/{}/fd", agent.process.pid()))?.count());
    let before = open()?;
    let script = "import socket,time\n\
        held = []\n\
        try:\n    \
            for _ in range(300): held.append(socket.create_connection(('127.0.0.1', 9477), timeout=1))\n\
        except OSError: pass\n\
        print('held', flush=True); time.sleep(60)";
    let mut python = field.host.namespace.command("python3");
    python.args(["-c", script]);
    let mut crowd = Process::spawn(python, "crowd", firewall.logs())?;
    crowd.wait_for_log("held", SOON)?;
    let descriptors = open()?;
    assert!(descriptors < before + 80, "{descriptors}, {before} before");
    assert_eq!(firewall.status()?["protection"], "enforcing");
    crowd.kill()?;
    Ok(())
}
