//! The life of the agent: killed, started twice, stopped, without what it needs.

mod support;

use std::{fs, net::TcpListener, os::unix::net::UnixListener, time::Duration};

use anyhow::Result;
use nix::sys::signal::Signal;
use support::{Field, SOON, WEB, orders::Orders, policy};
use testbed::{Answer, Curl, Firewall, Host, eventually, holds, ok, place, run, serve::TcpEcho};

#[test]
#[ignore = "needs root and a kernel"]
fn enforcement_outlives_the_agent_and_the_next_one_adopts_it() -> Result<()> {
    let field = Field::new()?;
    let api = field.network.add(place::API)?;
    let (_web, _echo) = (field.web(&[80])?, TcpEcho::start(&api.namespace, 443)?);
    let rules = policy(&[WEB], &["{ name: daraja, to: [192.0.2.80], ports: [443] }"]);
    let (firewall, mut agent) = field.protected(&rules)?;
    let mut flow = field.host.namespace.inside(|| std::net::TcpStream::connect((api.place.v4, 443)))?;
    assert!(field.is_enforced());
    let before = firewall.metrics()?;
    agent.process.kill()?;

    assert!(field.is_enforced());
    assert!(echoes(&mut flow)?);
    assert_eq!(firewall.ask(["status"])?.code, Some(3));
    assert_eq!(firewall.ask(["reload"])?.code, Some(3));

    let mut next = firewall.start(&[])?;
    let after = firewall.metrics()?;
    assert_eq!(after.went_back(&before), [] as [String; 0]);
    let dropped = |metrics: &testbed::Metrics| metrics.dropped("ingress", "web", "source_not_allowed");
    assert!(dropped(&after) > dropped(&before), "counted while no agent ran");
    assert!(echoes(&mut flow)?, "flows are adopted too");
    assert!(field.is_enforced());
    firewall.reload(&policy(&[WEB, "{ name: more, ports: [81], from: [any] }"], &[]))?;
    next.process.kill()?;
    // Killed in the middle of reloads: whatever is left is one of the two generations, and the next start mends it.
    for round in 0..3u64 {
        let mut agent = firewall.start(&[])?;
        firewall.policy(&rules.replace("ports: [443]", &format!("ports: [443, {}]", 1000 + round)))?;
        let mut reload = firewall.ask_command(["reload"]).spawn()?;
        std::thread::sleep(Duration::from_millis(20 + 30 * round));
        agent.process.kill()?;
        reload.wait()?;
        assert!(field.is_enforced(), "round {round}");
    }
    let _last = firewall.start(&[])?;
    assert!(field.is_enforced());
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn sigterm_leaves_the_datapath_and_detach_takes_it_away() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let (firewall, mut agent) = field.protected(&policy(&[WEB], &[]))?;
    agent.process.signal(Signal::SIGTERM)?;
    assert!(agent.process.wait(SOON)?.success(), "{}", agent.process.log());
    assert!(field.is_enforced());
    assert!(!firewall.runtime().join("control.sock").exists(), "the socket is gone with the agent");

    // No agent: from the pins alone.
    let bpffs = firewall.bpffs.clone();
    let ran = firewall.ask([std::ffi::OsStr::new("detach"), "--bpffs".as_ref(), bpffs.as_os_str()])?;
    assert_eq!(ran.code, Some(0), "{}", ran.text());
    assert!(ran.text().contains("eth0"), "says what it detached: {}", ran.text());
    assert!(Curl::http(field.host.place.v4, 80).from(&field.attacker.namespace).is_ok());
    assert!(no_programs(&field.host)?);

    // With an agent: it ends, too.
    let mut agent = firewall.start(&[])?;
    assert!(field.is_enforced());
    let ran = firewall.ask([std::ffi::OsStr::new("detach"), "--bpffs".as_ref(), bpffs.as_os_str()])?;
    assert_eq!(ran.code, Some(0), "{}", ran.text());
    assert!(Curl::http(field.host.place.v4, 80).from(&field.attacker.namespace).is_ok());
    assert!(no_programs(&field.host)?);
    assert!(agent.process.wait(SOON).is_ok(), "nothing is left for the agent to do");
    Ok(())
}

fn detach_command(firewall: &Firewall<'_>) -> std::process::Command {
    firewall.ask_command(["detach".as_ref(), "--bpffs".as_ref(), firewall.bpffs.as_os_str()])
}

#[test]
#[ignore = "needs root and a kernel"]
fn detach_does_not_work_around_an_agent_that_hangs() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let (firewall, mut agent) = field.protected(&policy(&[WEB], &[]))?;
    agent.process.signal(Signal::SIGSTOP)?;
    let ran = run(&mut detach_command(&firewall))?;
    assert_eq!(ran.code, Some(4), "{}", ran.text());
    let holder = format!("process {}", agent.process.pid());
    assert!(ran.stderr.contains(&holder) && ran.stderr.contains("systemctl stop mpesa-fw"), "{}", ran.stderr);
    assert!(field.is_enforced(), "not half of it was taken away");
    // The question was asked, and the agent answers it when it goes on.
    agent.process.signal(Signal::SIGCONT)?;
    assert!(agent.process.wait(SOON)?.success(), "{}", agent.process.log());
    assert_eq!(agent.process.log().matches("enforcing").count(), 1, "{}", agent.process.log());
    assert!(no_programs(&field.host)? && fs::read_dir(&firewall.bpffs)?.next().is_none());

    // It is ended instead, as the message says: a detach that waits goes on from the pins.
    let mut agent = firewall.start(&[])?;
    agent.process.signal(Signal::SIGSTOP)?;
    let waiting = detach_command(&firewall).spawn()?;
    std::thread::sleep(Duration::from_millis(500));
    assert!(field.is_enforced());
    agent.process.kill()?;
    let ran = waiting.wait_with_output()?;
    assert!(ran.status.success(), "{ran:?}");
    assert!(no_programs(&field.host)? && fs::read_dir(&firewall.bpffs)?.next().is_none());
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn an_agent_whose_pins_were_taken_away_puts_them_back() -> Result<()> {
    for tc in ["tcx", "clsact"] {
        let field = Field::new()?;
        let firewall = field.firewall()?;
        firewall.policy(&policy(&[WEB], &[]))?;
        let mut agent = firewall.start(&["--tc", tc])?;
        agent.process.signal(Signal::SIGSTOP)?;
        // By force, as by an older program's `detach`, which did not look at the lock.
        field.host.namespace.inside(|| mpesa_fw::datapath::detach(&firewall.bpffs))?;
        assert!(no_programs(&field.host)?);
        agent.process.signal(Signal::SIGCONT)?;
        agent.process.wait_for_log("packets were not judged", SOON)?;
        agent.process.wait_for_log("the pin was removed", SOON)?;
        holds("protection", SOON, || {
            firewall.metrics().is_ok_and(|metrics| metrics.sum("mpesa_fw_enforcing", &[]) == 2.0)
        })?;
        assert_eq!(firewall.status()?["protection"], "enforcing", "{tc}");
        let ran = firewall.ask(["reload"])?;
        assert_eq!(ran.code, Some(0), "{tc}: {}", ran.text());
        let ran = run(&mut detach_command(&firewall))?;
        assert_eq!(ran.code, Some(0), "{}", ran.text());
        assert!(no_programs(&field.host)?, "{tc}: nothing is left that nobody knows");
    }
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn a_defect_ends_the_agent_and_not_the_firewall() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let mut firewall = field.firewall()?;
    let orders = Orders::new(&mut firewall);
    firewall.policy(&policy(&[WEB], &[]))?;
    // In a task, on a thread that may block, and half way through a swap.
    for order in ["ReloadDone panic 1", "FlowsJudged panic 1", "HookReplaced panic 2"] {
        let mut agent = firewall.start(&[])?;
        orders.give(order)?;
        let ran = firewall.ask(["reload"])?;
        assert_eq!(ran.code, Some(3), "{order}: {}", ran.text());
        let status = agent.process.wait(SOON)?;
        assert_eq!(status.code(), Some(70), "{order}: {}", agent.process.log());
        let log = agent.process.log();
        let said = ["a test asked for a defect", "please report it", "stays in force"];
        assert!(said.iter().all(|text| log.contains(text)), "{order}: {log}");
        assert!(field.is_enforced(), "{order}");
    }
    let _agent = firewall.start(&[])?;
    assert!(field.is_enforced());
    assert_eq!(firewall.status()?["protection"], "enforcing");
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn a_second_agent_is_refused() -> Result<()> {
    let field = Field::new()?;
    let (mut firewall, _agent) = field.protected(&policy(&[WEB], &[]))?;
    firewall.metrics.set_port(9478);
    let ran = firewall.run(&[])?;
    assert!(!matches!(ran.code, Some(0) | None), "{}", ran.text());
    assert!(ran.stderr.contains("another agent"), "{}", ran.stderr);
    assert_eq!(firewall.ask(["status"])?.code, Some(0), "the first one still answers");
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn a_stale_socket_is_replaced() -> Result<()> {
    let field = Field::new()?;
    let firewall = field.firewall()?;
    fs::create_dir_all(firewall.runtime())?;
    drop(UnixListener::bind(firewall.runtime().join("control.sock"))?);
    firewall.policy(&policy(&[WEB], &[]))?;
    let _agent = firewall.start(&[])?;
    assert_eq!(firewall.ask(["status"])?.code, Some(0));
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn whoever_has_the_port_of_the_metrics_keeps_no_host_without_a_firewall() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let firewall = field.firewall()?;
    firewall.policy(&policy(&[WEB], &[]))?;
    let taken = field.host.namespace.inside(|| TcpListener::bind(Firewall::METRICS))?;
    let mut agent = firewall.spawn(&[])?;
    agent.process.wait_for_log("metrics are not served", SOON)?;
    assert!(field.is_enforced());
    let warns = |firewall: &Firewall<'_>| -> Result<bool> {
        let text = firewall.ask(["status"])?.stdout;
        Ok(text.contains("metrics are not served on 127.0.0.1:9477")
            && text.contains("another program has that port"))
    };
    assert!(warns(&firewall)?);
    drop(taken);
    holds("metrics", SOON, || firewall.metrics().is_ok())?;
    assert!(!warns(&firewall)?);
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn a_bad_policy_or_missing_file_starts_nothing() -> Result<()> {
    let field = Field::new()?;
    let firewall = field.firewall()?;
    assert_eq!(firewall.run(&[])?.code, Some(1), "no rules file");
    firewall.policy(&policy(&[&WEB.replace("80", "80000")], &[]))?;
    let ran = firewall.run(&[])?;
    assert_eq!(ran.code, Some(1), "{}", ran.text());
    assert!(ran.stderr.contains("80000"), "{}", ran.stderr);
    firewall.policy(&policy(&[WEB], &[]).replace("interfaces: [eth0]", "interfaces: [lo]"))?;
    let ran = firewall.run(&[])?;
    assert_eq!(ran.code, Some(1), "{}", ran.text());
    assert!(ran.stderr.contains("lo"), "{}", ran.stderr);
    assert!(no_programs(&field.host)?);
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn a_bpffs_that_is_not_mounted_is_mounted() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let mut firewall = field.firewall()?;
    firewall.policy(&policy(&[WEB], &[]))?;
    firewall.bpffs = firewall.directory.join("fresh/mpesa-fw");
    fs::create_dir_all(firewall.directory.join("fresh"))?;
    let mut agent = firewall.start(&[])?;
    assert!(field.is_enforced());
    assert!(agent.process.log().contains("mounted"), "says so: {}", agent.process.log());
    agent.process.kill()?;
    let mut agent = firewall.start(&[])?;
    assert!(field.is_enforced());
    let ran =
        firewall.ask([std::ffi::OsStr::new("detach"), "--bpffs".as_ref(), firewall.bpffs.as_os_str()])?;
    assert_eq!(ran.code, Some(0), "{}", ran.text());
    let _ = agent.process.wait(SOON);
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn without_privileges_it_says_what_is_missing() -> Result<()> {
    let field = Field::new()?;
    let firewall = field.firewall()?;
    firewall.policy(&policy(&[WEB], &[]))?;
    let nobody =
        ["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"];
    // A place that nobody may read, so that only privileges are missing.
    let public = tempfile::Builder::new().prefix("mpfw-public-").tempdir()?;
    ok(std::process::Command::new("chmod").arg("0777").arg(public.path()))?;
    let rules = public.path().join("rules.yaml");
    fs::write(&rules, policy(&[WEB], &[]))?;
    ok(std::process::Command::new("chown").arg("65534:65534").arg(&rules))?;
    ok(std::process::Command::new("chmod").arg("0600").arg(&rules))?;
    let binary = public.path().join("mpesa-fw");
    firewall.copy_program(&binary)?;
    let mut command = field.host.namespace.command("setpriv");
    command.args(nobody).arg(&binary).arg("run").arg("--rules").arg(&rules);
    for directory in ["state-dir", "runtime-dir", "bpffs"] {
        command.arg(format!("--{directory}")).arg(public.path().join(directory));
    }
    let ran = run(&mut command)?;
    assert_eq!(ran.code, Some(4), "{}", ran.text());
    assert!(
        ran.stderr.contains("CAP_") || ran.stderr.contains("root"),
        "says what is missing: {}",
        ran.stderr
    );
    assert!(no_programs(&field.host)?);
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn two_agents_in_two_namespaces_do_not_disturb_each_other() -> Result<()> {
    let field = Field::new()?;
    let second = field.network.add(place::INTRANET)?;
    let _servers = (field.web(&[80])?, support::web(&field.network, &second, &[80])?);
    let (first, mut agent) = field.protected(&policy(&[WEB], &[]))?;
    let other = Firewall::new(&field.network, &second.namespace, &first.binary)?;
    other.policy(&policy(&["{ name: web, ports: [80], from: [198.51.100.66] }"], &[]))?;
    let _other_agent = other.start(&[])?;
    let get = |from: &Host, to: &Host| Curl::http(to.place.v4, 80).from(&from.namespace);
    assert!(field.is_enforced());
    assert!(get(&field.attacker, &second).is_ok());
    assert_eq!(get(&field.safaricom, &second), Answer::Silence);
    agent.process.kill()?;
    other.reload(&policy(&["{ name: web, ports: [80], from: [196.201.214.200] }"], &[]))?;
    assert!(get(&field.safaricom, &second).is_ok());
    assert!(field.is_enforced());
    Ok(())
}

/// Whether no program is attached to the interface of a host.
fn no_programs(host: &Host) -> Result<bool> {
    let attached = ok(host.namespace.command("bpftool").args(["-j", "net", "show"]))?;
    let attached: serde_json::Value = serde_json::from_str(&attached)?;
    let lists = ["xdp", "tc", "netkit"].iter().filter_map(|kind| attached[0][*kind].as_array());
    Ok(lists.flatten().count() == 0)
}

fn echoes(stream: &mut std::net::TcpStream) -> Result<bool> {
    use std::io::{Read as _, Write as _};
    stream.set_read_timeout(Some(SOON))?;
    stream.write_all(b"ping")?;
    let mut heard = [0; 4];
    stream.read_exact(&mut heard)?;
    Ok(&heard == b"ping")
}

#[test]
#[ignore = "needs root and a kernel"]
fn an_idle_agent_uses_no_time_and_little_memory() -> Result<()> {
    let field = Field::new()?;
    let (_firewall, agent) = field.protected(&policy(&[WEB], &[]))?;
    let pid = agent.process.pid();
    let ticks = || -> Option<u64> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
        Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
    };
    // The least of three: what a start has still to do, and cold caches, are not its idling.
    let mut spent = Vec::new();
    for _ in 0..3 {
        let before = eventually("ticks", SOON, ticks)?;
        std::thread::sleep(Duration::from_secs(2));
        spent.push(ticks().map_or(u64::MAX, |now| now - before));
    }
    assert!(spent.iter().any(|ticks| *ticks <= 2), "{spent:?} ticks of 10 ms in 2 s each");
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    // Of its own; the pages of a debug build's text are many more than a release's.
    let own = status.lines().find_map(|line| {
        line.strip_prefix("RssAnon:")?.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()
    });
    assert!(own.is_some_and(|kilobytes| kilobytes < 20_000), "{own:?} kB: {status}");
    holds("it lives", SOON, || fs::exists(format!("/proc/{pid}")).unwrap_or(false))?;
    Ok(())
}
