//! Reloads while files change, disks are full, clients hang and signals rain; and a thousand of them.

mod support;

use std::{
    fs::{self, OpenOptions},
    io::{ErrorKind, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::net::UnixStream,
    process::Command,
    sync::{Mutex, PoisonError},
    thread::{self, sleep},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use support::{FENCE, Field, SOON, WEB, orders::Orders, policy};
use testbed::{Firewall, Process, ok};

fn reloads(firewall: &Firewall<'_>, result: &str) -> Result<f64> {
    Ok(firewall.metrics()?.sum("mpesa_fw_reloads_total", &[("result", result)]))
}

fn generation(firewall: &Firewall<'_>) -> Result<serde_json::Value> {
    Ok(firewall.status()?["generation"].clone())
}

/// A set of so many prefixes, and a policy that uses it.
fn with_a_feed(firewall: &Firewall<'_>, prefixes: u32) -> Result<String> {
    let lines: String = (0..prefixes)
        .map(|n| format!("{}.{}.{}.{}\n", 11 + (n >> 24), n >> 16 & 255, n >> 8 & 255, n & 255))
        .collect();
    firewall.write("feed.netset", &lines)?;
    let feed = "{ name: feed, ports: [82], from: [feed] }";
    Ok(policy(&[WEB, feed], &[]).replace("ingress:\n", "sets:\n  feed: { file: feed.netset }\ningress:\n"))
}

#[test]
#[ignore = "needs root and a kernel"]
fn a_file_that_is_being_written_is_refused() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let firewall = field.firewall()?;
    firewall.policy(&with_a_feed(&firewall, 2000)?)?;
    let _agent = firewall.start(&[])?;
    let before = generation(&firewall)?;
    // A download in place: the writer has half of it, and pauses.
    let path = firewall.directory.join("feed.netset");
    let mut writer = OpenOptions::new().write(true).truncate(true).open(&path)?;
    writer.write_all(b"11.0.0.1\n11.0.0.2\n")?;
    let ran = firewall.ask(["reload"])?;
    assert_eq!(ran.code, Some(1), "{}", ran.text());
    assert!(ran.stderr.contains("feed.netset") && ran.stderr.contains("is being changed"), "{}", ran.stderr);
    assert_eq!(generation(&firewall)?, before);
    drop(writer);
    assert_eq!(firewall.ask(["reload"])?.code, Some(0), "complete now");
    assert_ne!(generation(&firewall)?, before);
    assert!(field.is_enforced());
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn files_that_change_while_they_are_read_are_old_or_new_or_refused() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let firewall = field.firewall()?;
    let rules = with_a_feed(&firewall, 30_000)?;
    firewall.policy(&rules)?;
    let _agent = firewall.start(&[])?;
    let path = firewall.directory.join("feed.netset");
    let whole = fs::read(&path)?;
    // Every prefix of the old feed is below 11/8, every one of the new below 12/8: a mixture shows in the counts.
    let other = String::from_utf8_lossy(&whole).replace("11.", "12.").into_bytes();
    let stop = std::sync::atomic::AtomicBool::new(false);
    // Whoever has it has the file to himself: so some reloads are sure to find it whole, and some to find it half.
    let alone = Mutex::new(());
    let hold = || alone.lock().unwrap_or_else(PoisonError::into_inner);
    let digests = thread::scope(|scope| -> Result<Vec<(Option<i32>, String)>> {
        scope.spawn(|| {
            // In place, in pieces; now and then cut short.
            let mut round = 0u32;
            while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                let text = if round.is_multiple_of(2) { &other } else { &whole };
                let held = hold();
                let Ok(mut file) = OpenOptions::new().write(true).open(&path) else { return };
                let _ = file.set_len(0).and_then(|()| file.seek(SeekFrom::Start(0)));
                for piece in text.chunks(4096) {
                    let _ = file.write_all(piece);
                }
                drop(file);
                drop(held);
                round += 1;
                sleep(Duration::from_millis(u64::from(round % 7) * 10));
            }
        });
        let answers = (0..25).map(|n| {
            let held = (n % 5 > 2).then(hold);
            let half = if n % 5 == 4 {
                Some(OpenOptions::new().write(true).truncate(true).open(&path)?)
            } else {
                None
            };
            let (begin, rest) = whole.split_at(whole.len() / 2);
            half.as_ref().map_or(Ok(()), |mut file| file.write_all(begin))?;
            let ran = firewall.ask(["reload"])?;
            half.as_ref().map_or(Ok(()), |mut file| file.write_all(rest))?;
            drop((half, held));
            let right = match n % 5 {
                3 => ran.code == Some(0),
                4 => ran.code == Some(1),
                _ => matches!(ran.code, Some(0 | 1)), // at the writer's mercy
            };
            ensure!(right, "reload {n}: {}", ran.text());
            ensure!(ran.code == Some(0) || ran.stderr.contains("is being changed"), "{}", ran.text());
            Ok((ran.code, generation(&firewall)?["digest"].to_string()))
        });
        let answers = answers.collect::<Result<Vec<_>>>();
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
        answers
    })?;
    // What is in force is one of the two, whole: their digests are known from undisturbed reloads.
    let mut known = Vec::new();
    for text in [&whole, &other] {
        fs::write(&path, text)?;
        firewall.reload(&rules)?;
        known.push(generation(&firewall)?["digest"].to_string());
    }
    for (code, digest) in &digests {
        assert!(known.contains(digest), "a mixture was loaded ({code:?}): {digest}");
    }
    println!(
        "{} of {} reloads found a whole file",
        digests.iter().filter(|(code, _)| *code == Some(0)).count(),
        digests.len()
    );
    assert!(field.is_enforced());
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn a_full_disk_under_the_state_directory_is_said_and_stops_nothing() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let firewall = field.firewall()?;
    let state = firewall.directory.join("state");
    ok(Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k,mode=0700", "tmpfs"]).arg(&state))?;
    firewall.policy(&policy(&[WEB], &[]))?;
    let mut agent = firewall.start(&[])?;
    firewall.reload(&policy(&[WEB, FENCE], &[]))?;
    let saved = fs::read_to_string(state.join("reloads.json"))?;
    let mut filler = fs::File::create(state.join("filler"))?;
    while filler.write_all(&[7; 4096]).is_ok() {}
    firewall.reload(&policy(&[WEB], &[]))?;
    assert!(agent.process.log().contains("was not saved"), "{}", agent.process.log());
    assert_eq!(fs::read_to_string(state.join("reloads.json"))?, saved, "the old file is whole");
    assert!(!state.join("reloads.new").exists(), "half a file helps nobody");
    agent.process.kill()?;
    let mut agent = firewall.start(&[])?;
    assert!(field.is_enforced());
    drop(filler);
    fs::remove_file(state.join("filler"))?;
    firewall.reload(&policy(&[WEB, FENCE], &[]))?;
    assert!(fs::read_to_string(state.join("reloads.json"))? != saved);
    agent.process.kill()?;
    ok(Command::new("umount").arg("-l").arg(&state))?;
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn signals_in_the_middle_of_a_reload_do_no_harm() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let mut firewall = field.firewall()?;
    let orders = Orders::new(&mut firewall);
    firewall.policy(&policy(&[WEB], &[]))?;
    let mut agent = firewall.start(&[])?;
    // A storm of hang-ups while one reload waits between two hooks: it makes no queue behind it.
    orders.give("HookReplaced pause 1")?;
    agent.process.signal(Signal::SIGHUP)?;
    orders.wait_for_pause()?;
    for _ in 0..300 {
        agent.process.signal(Signal::SIGHUP)?;
        sleep(Duration::from_millis(1));
    }
    orders.go_on()?;
    let begun = Instant::now();
    firewall.reload(&policy(&[WEB, FENCE], &[]))?;
    assert!(begun.elapsed() < Duration::from_secs(10), "waited for {:?}", begun.elapsed());
    sleep(Duration::from_millis(500));
    let count = reloads(&firewall, "ok")?;
    assert!((2.0..=5.0).contains(&count), "{count} reloads for a storm");
    assert!(field.is_enforced());

    // An order to end while a client waits: the step is finished, and the client told that nobody answers.
    orders.give("HookReplaced pause 1")?;
    firewall.policy(&policy(&[WEB], &[]))?;
    let mut client = Process::spawn(firewall.ask_command(["reload"]), "client", &firewall.directory)?;
    orders.wait_for_pause()?;
    agent.process.signal(Signal::SIGTERM)?;
    sleep(Duration::from_millis(100));
    orders.go_on()?;
    assert_eq!(agent.process.wait(SOON)?.code(), Some(0));
    let code = client.wait(SOON)?.code();
    assert_eq!(code, Some(3), "{}", client.log());
    assert!(client.log().contains("hung up") && client.log().contains("journalctl"), "{}", client.log());
    assert!(field.is_enforced());
    let agent = firewall.start(&[])?;
    assert!(
        !agent.process.log().contains("ran generation"),
        "no hook was left behind: {}",
        agent.process.log()
    );
    assert!(field.is_enforced());
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn clients_that_hang_hold_up_no_reload() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let (firewall, _agent) = field.protected(&policy(&[WEB], &[]))?;
    let socket = firewall.runtime().join("control.sock");
    // The agent lets go of them after five seconds: they hang still when two reloads are done, where these take less.
    let are_waited_for = || -> Result<bool> {
        // One that says nothing, one that says half of it, one that never reads the answer.
        let _silent = UnixStream::connect(&socket)?;
        let mut half = UnixStream::connect(&socket)?;
        half.write_all(b"{\"version\":1,\"request\":{\"rel")?;
        let mut deaf = UnixStream::connect(&socket)?;
        deaf.write_all(b"{\"version\":1,\"request\":\"status\"}\n")?;
        for rules in [policy(&[WEB, FENCE], &[]), policy(&[WEB], &[])] {
            firewall.reload(&rules)?;
        }
        half.set_nonblocking(true)?;
        Ok(half.read(&mut [0; 8]).err().map(|error| error.kind()) != Some(ErrorKind::WouldBlock))
    };
    // On a machine that is busy they take as long now and then, whoever hangs.
    let mut tries = 0;
    while are_waited_for()? {
        tries += 1;
        assert!(tries < 5, "five times two reloads took as long as a client that hangs");
    }
    assert!(field.is_enforced());
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn a_second_agent_is_refused_whatever_it_shares() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let (firewall, _agent) = field.protected(&policy(&[WEB], &[]))?;
    let before = generation(&firewall)?;
    let other = firewall.directory.join("other");
    fs::create_dir(&other)?;
    let (state, runtime) = (firewall.directory.join("state"), firewall.runtime());
    let other_bpffs = firewall.bpffs.with_file_name("other");
    for (shared, state, runtime, bpffs) in [
        ("the pins", &other, &other, &firewall.bpffs),
        ("the pins and the state", &state, &other, &firewall.bpffs),
        ("the runtime directory", &other, &runtime, &other_bpffs),
        ("all of them", &state, &runtime, &firewall.bpffs),
    ] {
        // Another port: one that is taken must not be what refuses.
        let mut command = firewall.namespace.command(&firewall.binary);
        command.arg("run").arg("--rules").arg(firewall.directory.join("rules.yaml"));
        command.args(["--metrics", "127.0.0.1:9478"]).arg("--state-dir").arg(state);
        command.arg("--runtime-dir").arg(runtime).arg("--bpffs").arg(bpffs);
        let ran = testbed::run(&mut command)?;
        assert_eq!(ran.code, Some(4), "{shared}: {}", ran.text());
        assert!(ran.stderr.contains("in use by another agent (process "), "{shared}: {}", ran.stderr);
        assert_eq!(generation(&firewall)?, before, "{shared}");
    }
    assert!(field.is_enforced());
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn a_wall_clock_that_jumps_is_survived() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let mut firewall = field.firewall()?;
    let orders = Orders::new(&mut firewall);
    firewall.policy(&policy(&[WEB], &[]))?;
    let _agent = firewall.start(&[])?;
    for offset in ["31536000", "-31536000", "-9999999999", "99999999999"] {
        orders.shift_clock(offset)?;
        let metrics = firewall.metrics()?;
        firewall.reload(&policy(&[WEB, FENCE], &[]))?;
        firewall.reload(&policy(&[WEB], &[]))?;
        assert_eq!(firewall.metrics()?.went_back(&metrics), [] as [String; 0], "{offset}");
        assert_eq!(firewall.status()?["protection"], "enforcing", "{offset}");
        assert!(field.is_enforced(), "{offset}");
    }
    Ok(())
}

/// What an agent holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    resident: usize,
    descriptors: usize,
    programs: usize,
    maps: usize,
    links: usize,
    pins: usize,
}

impl Held {
    fn by(firewall: &Firewall<'_>, pid: u32) -> Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        let counters = firewall.bpffs.join(format!("abi-{}/state/COUNTERS", mpesa_fw_common::ABI_VERSION));
        let shown = ok(Command::new("bpftool").args(["-j", "map", "show", "pinned"]).arg(counters))?;
        let state = serde_json::from_str::<serde_json::Value>(&shown)?["id"].clone();
        let shown = ok(Command::new("bpftool").args(["-j", "prog", "show"]))?;
        let shown: Vec<serde_json::Value> = serde_json::from_str(&shown)?;
        let ours: Vec<_> = shown
            .iter()
            .filter_map(|program| program["map_ids"].as_array())
            .filter(|maps| maps.contains(&state))
            .collect();
        let maps: std::collections::BTreeSet<_> =
            ours.iter().flat_map(|maps| maps.iter().filter_map(serde_json::Value::as_u64)).collect();
        let pins = ok(Command::new("find").arg(&firewall.bpffs))?;
        Ok(Self {
            resident: resident.trim_end_matches("kB").trim().parse()?,
            descriptors: fs::read_dir(format!("/proc/{pid}/fd"))?.count(),
            programs: ours.len(),
            maps: maps.len(),
            links: pins.lines().filter(|line| line.contains("/links/")).count(),
            pins: pins.lines().count(),
        })
    }
}

/// 100 of them; MPESA_FW_RELOADS=1000 for the long run.
#[test]
#[ignore = "needs root and a kernel"]
fn reloads_without_end_let_nothing_grow() -> Result<()> {
    let count = std::env::var("MPESA_FW_RELOADS").ok().and_then(|count| count.parse().ok()).unwrap_or(100);
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let (firewall, agent) = field.protected(&policy(&[WEB], &[]))?;
    let pid = agent.process.pid();
    let rules = |n: usize| {
        policy(&[WEB, &format!("{{ name: r{}, ports: [{}], from: [any] }}", n % 5, 1000 + n % 7)], &[])
    };
    let mut early = None;
    for n in 1..=count {
        firewall.reload(&rules(n))?;
        if n == count / 10 {
            early = Some(Held::by(&firewall, pid)?);
        }
    }
    // Programs are freed a while after the last reference goes.
    sleep(Duration::from_millis(500));
    let (early, late) = (early.context("more than ten reloads")?, Held::by(&firewall, pid)?);
    println!("after {}: {early:?}\nafter {count}: {late:?}", count / 10);
    let counts = |held: &Held| [held.descriptors, held.maps, held.links, held.pins];
    assert_eq!(counts(&late), counts(&early));
    assert_eq!(late.programs, 3);
    assert!(late.resident <= early.resident + 2048, "kB: {} then {}", early.resident, late.resident);
    assert!(field.is_enforced());
    Ok(())
}
