//! Dropped packets in a file, read by tshark.

mod support;

use std::{os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use anyhow::{Context as _, Result};
use mpesa_fw::sys::{self, KernelMap};
use mpesa_fw_common::ABI_VERSION;
use nix::sys::signal::Signal;
use serde_json::Value;
use support::{FENCE, Field, NEVER, OUT_FENCE, SOON, WEB, policy};
use testbed::{Firewall, Process, holds, ok, run};

/// `capture` with more words. What it says is in its log.
fn capture(firewall: &Firewall<'_>, file: &Path, more: &[&str]) -> Result<Process> {
    let mut command = firewall.ask_command(["capture", "-w"]);
    command.arg(file).args(more);
    let process = Process::spawn(command, "capture", firewall.logs())?;
    holds("the capture to begin", SOON, || switch(firewall).is_ok_and(|on| on != 0))?;
    Ok(process)
}

/// Whether the programs send frames.
fn switch(firewall: &Firewall<'_>) -> Result<u32> {
    let pin = firewall.bpffs.join(format!("abi-{ABI_VERSION}/state/CAPTURE"));
    let map: KernelMap<u32, u32> = KernelMap::new(sys::open_pin(&pin)?)?;
    map.get(&0)?.context("an element")
}

fn tshark(file: &Path, more: &[&str]) -> Result<String> {
    ok(std::process::Command::new("tshark").arg("-r").arg(file).args(more))
}

/// Fields of each packet, as tshark reads them.
fn fields(file: &Path, names: &[&str]) -> Result<Vec<Vec<String>>> {
    let mut more = vec!["-T", "fields", "-E", "separator=|"];
    for name in names {
        more.extend(["-e", name]);
    }
    let said = tshark(file, &more)?;
    Ok(said.lines().map(|line| line.split('|').map(str::to_owned).collect()).collect())
}

#[test]
#[ignore = "needs root and a kernel"]
fn tshark_reads_what_was_dropped_and_why() -> Result<()> {
    let field = Field::new()?;
    let (firewall, _agent) = field.protected(&policy(&[WEB, FENCE], &[OUT_FENCE]))?;
    assert_eq!(switch(&firewall)?, 0, "nobody captures yet");
    let file = firewall.directory.join("drops.pcapng");
    let mut process = capture(&firewall, &file, &[])?;
    let payload = "Raw(b'254700000000')";
    let tcp = format!("to_host()/IP(src='198.51.100.66',dst=H4)/TCP(sport=4000,dport=80)/{payload}");
    let v6 = format!("to_host()/IPv6(src='2001:db8:0:666::66',dst=H6)/UDP(sport=5,dport=53)/{payload}");
    let short = "Ether(bytes(to_host()/IP(src='198.51.100.66',dst=H4)/TCP(dport=80))[:44])";
    assert_eq!(field.wire()?.send(&[("tcp", &tcp), ("v6", &v6), ("short", short)])?, [] as [&str; 0]);
    let out = format!("to_router()/IP(src=H4,dst='198.18.0.99')/TCP(sport=7,dport=443)/{payload}");
    assert_eq!(field.wire_out()?.send(&[("out", &out)])?, [] as [&str; 0]);
    std::thread::sleep(NEVER);
    process.signal(Signal::SIGINT)?;
    assert!(process.wait(SOON)?.success(), "{}", process.log());
    assert_eq!(process.log(), "4 packets captured, none left out\n");
    assert_eq!(switch(&firewall)?, 0, "switched off with the last who captures");

    assert_eq!(std::fs::metadata(&file)?.permissions().mode() & 0o777, 0o600);
    let names = [
        "frame.interface_name",
        "frame.len",
        "frame.cap_len",
        "frame.comment",
        "frame.packet_flags_direction",
    ];
    let seen = fields(&file, &names)?;
    let comment = |what: &str, way: &str| format!("mpesa-fw: verdict drop, reason {what}, {way} on eth0");
    let expected = [
        ["eth0", "66", "54", &comment("source_not_allowed, rule web", "ingress"), "0x00000001"],
        ["eth0", "74", "62", &comment("no_service, rule none", "ingress"), "0x00000001"],
        ["eth0", "44", "34", &comment("malformed, rule none", "ingress"), "0x00000001"],
        ["eth0", "66", "54", &comment("no_destination, rule none", "egress"), "0x00000002"],
    ];
    assert_eq!(seen, expected);
    let verbose = tshark(&file, &["-V"])?;
    assert!(verbose.contains("reason source_not_allowed, rule web"), "{verbose}");
    assert!(!verbose.to_lowercase().contains("malformed packet: pcapng"), "{verbose}");
    let raw = std::fs::read(&file)?;
    assert!(!raw.windows(12).any(|bytes| bytes == b"254700000000"), "no payload unless asked for");
    // Nanoseconds, of today.
    let times = fields(&file, &["frame.time_epoch"])?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs_f64();
    for time in times.iter().flatten() {
        let (_, fraction) = time.split_once('.').context("a fraction")?;
        assert!(fraction.len() == 9 && (now - time.parse::<f64>()?).abs() < 60.0, "{time}");
    }
    assert!(times.iter().flatten().any(|time| !time.ends_with("000")), "finer than microseconds: {times:?}");
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn a_capture_is_as_deep_as_long_and_as_narrow_as_asked() -> Result<()> {
    let field = Field::new()?;
    let (firewall, _agent) = field.protected(&policy(&[WEB, FENCE], &[]))?;
    let frame = |port: u16| {
        format!("to_host()/IP(src='198.51.100.66',dst=H4)/TCP(sport=4000,dport={port})/Raw(b'x'*400)")
    };
    let send = |port: u16, count: usize| -> Result<()> {
        let frames: Vec<(&str, String)> = (0..count).map(|_| ("frame", frame(port))).collect();
        let frames: Vec<(&str, &str)> = frames.iter().map(|(name, frame)| (*name, frame.as_str())).collect();
        field.wire()?.send(&frames).map(drop)
    };
    let all = firewall.directory.join("all.pcapng");
    let few = firewall.directory.join("few.pcapng");
    let mut deep = capture(&firewall, &all, &["--payload", "--rule", ""])?;
    let mut short = capture(&firewall, &few, &["--payload", "--snaplen", "100", "--count", "2"])?;
    std::thread::sleep(NEVER);
    send(80, 3)?;
    send(81, 1)?;
    assert!(short.wait(SOON)?.success(), "the count is reached");
    assert_eq!(fields(&few, &["frame.cap_len", "tcp.dstport"])?, [["100", "80"], ["100", "80"]]);
    assert_eq!(switch(&firewall)?, 1, "another still captures");
    deep.signal(Signal::SIGTERM)?;
    assert!(deep.wait(SOON)?.success());
    assert_eq!(fields(&all, &["frame.cap_len", "tcp.dstport"])?, [["256", "81"]]);

    // For so long, to a pipe; what Wireshark reads over SSH.
    let mut shell = firewall.namespace.command("sh");
    let ask = firewall.ask_command(["capture", "-w", "-", "--seconds", "8"]);
    let words: Vec<String> = std::iter::once(ask.get_program())
        .chain(ask.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    shell.args(["-c", &format!("{} | tshark -i - -T fields -e frame.comment", words.join(" "))]);
    let reader = std::thread::spawn(move || run(&mut shell));
    holds("the capture to begin", SOON, || switch(&firewall).is_ok_and(|on| on != 0))?;
    send(81, 1)?;
    let ran = reader.join().expect("no panic")?;
    assert!(ran.stdout.contains("reason no_service, rule none, ingress on eth0"), "{}", ran.text());

    let ran = firewall.ask(["capture", "-w", "/nowhere/x", "--seconds", "1"])?;
    assert_eq!(ran.code, Some(4), "{}", ran.text());
    let ran = firewall.ask(["capture", "-w", "x", "--rule", "wbe"])?;
    assert!(ran.code == Some(1) && ran.stderr.contains("fence, web"), "{}", ran.text());
    Ok(())
}

/// More than the kernel tells of: the file says how many are not in it, and the firewall counts all.
#[test]
#[ignore = "needs root and a kernel"]
fn what_is_not_captured_is_said() -> Result<()> {
    let field = Field::new()?;
    let (firewall, mut agent) = field.protected(&policy(&[WEB, FENCE], &[]))?;
    let file = firewall.directory.join("flood.pcapng");
    let mut process = capture(&firewall, &file, &[])?;
    let flood = "[to_host()/IP(src='198.51.100.66',dst=H4)/TCP(dport=80) for _ in range(3000)]";
    field.wire()?.send(&[("flood", flood)])?;
    assert_eq!(firewall.metrics()?.dropped("ingress", "web", "source_not_allowed"), 3000.0);
    process.signal(Signal::SIGINT)?;
    assert!(process.wait(SOON)?.success(), "{}", process.log());
    let written = fields(&file, &["frame.number"])?.len();
    assert!((1..3000).contains(&written), "{written}");
    let rest = 3000 - written;
    assert!(process.log().contains(&format!("{written} packets captured; {rest} more")), "{}", process.log());
    let said = ok(std::process::Command::new("capinfos").arg(&file))?;
    assert!(said.contains(&format!("Number of packets:   {written}")), "{said}");
    let raw = std::fs::read(&file)?;
    let comment = format!("{rest} more were dropped on this host and not captured");
    assert!(raw.windows(comment.len()).any(|bytes| bytes == comment.as_bytes()), "in the file too");

    // Killed, both of them: nobody captures, and the next agent switches it off.
    let mut process = capture(&firewall, &file, &[])?;
    process.kill()?;
    holds("the switch", SOON, || switch(&firewall).is_ok_and(|on| on == 0))?;
    let mut process = capture(&firewall, &file, &[])?;
    agent.process.kill()?;
    assert_eq!(process.wait(Duration::from_secs(5))?.code(), Some(3), "{}", process.log());
    assert_eq!(switch(&firewall)?, 1);
    let _next = firewall.start(&[])?;
    assert_eq!(switch(&firewall)?, 0);
    let ran = firewall.ask(["events", "--last", "1", "--format", "json"])?;
    assert!(serde_json::from_str::<Value>(&ran.stdout)?.is_array());
    Ok(())
}
