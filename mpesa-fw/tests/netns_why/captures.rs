//! `why --pcap` and `diff`: captures, packet by packet.

use std::{fs::File, path::PathBuf};

use anyhow::{Context as _, Result};
use pcap_file::{
    DataLink,
    pcap::{PcapHeader, PcapPacket, PcapWriter},
};
use serde_json::Value;
use testbed::{Curl, Firewall, eventually};

use crate::{
    API,
    support::{Field, SOON, WEB, drops, policy, settled},
};

/// Frames of a capture.
fn frames(field: &Field) -> Vec<Vec<u8>> {
    use etherparse::PacketBuilder;
    let (safaricom, attacker, host) =
        (field.safaricom.place.v4, field.attacker.place.v4, field.host.place.v4);
    let tcp = |from: std::net::Ipv4Addr, to: std::net::Ipv4Addr, port, payload: usize| {
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4(from.octets(), to.octets(), 64)
            .tcp(4000, port, 1, 100);
        let builder = if payload == 0 { builder.syn() } else { builder.ack(1) };
        let mut frame = Vec::new();
        builder.write(&mut frame, &vec![7; payload]).unwrap_or_else(|error| panic!("{error}"));
        frame
    };
    let mut arp = vec![0xff; 12];
    arp.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    arp.resize(42, 0);
    vec![
        tcp(safaricom, host, 80, 0),
        tcp(attacker, host, 80, 0),
        tcp(attacker, host, 80, 0),
        tcp(attacker, host, 22, 0),
        tcp(host, [192, 0, 2, 80].into(), 5000, 0),
        tcp(host, [192, 0, 2, 81].into(), 5000, 0),
        tcp(safaricom, host, 80, 1400),
        tcp(host, safaricom, 9, 20_000), // a segmented one, as hosts capture what they send
        arp,
    ]
}

fn capture(
    firewall: &Firewall<'_>,
    name: &str,
    link: DataLink,
    snaplen: usize,
    frames: &[Vec<u8>],
) -> Result<PathBuf> {
    let path = firewall.directory.join(name);
    let header = PcapHeader { datalink: link, ..PcapHeader::default() };
    let mut writer = PcapWriter::with_header(File::create(&path)?, header)?;
    for frame in frames {
        let kept = &frame[..frame.len().min(snaplen)];
        writer.write_packet(&PcapPacket::new(std::time::Duration::from_secs(1), frame.len() as u32, kept))?;
    }
    Ok(path)
}

/// Packets by verdict, reason and rule.
fn groups(document: &Value) -> Vec<(String, u64)> {
    let groups = document["groups"].as_array().cloned().unwrap_or_default();
    let text = |group: &Value| {
        let word = |key: &str| group[key].as_str().unwrap_or("?").to_owned();
        (
            format!("{} {} {} {}", word("way"), word("verdict"), word("reason"), word("rule")),
            group["packets"].as_u64().unwrap_or(0),
        )
    };
    let mut groups: Vec<_> = groups.iter().map(text).collect();
    groups.sort();
    groups
}

#[test]
#[ignore = "needs root and a kernel"]
fn captures_are_judged_packet_by_packet() -> Result<()> {
    let field = Field::new()?;
    let (firewall, _agent) = field.protected(&policy(&[WEB], &[API]))?;
    let frames = frames(&field);
    let before = settled(&firewall)?;
    let ask = |path: &PathBuf| -> Result<Value> {
        let ran = firewall.ask(["why", "--pcap", &path.display().to_string(), "--format", "json"])?;
        assert_eq!(ran.code, Some(0), "{}", ran.text());
        serde_json::from_str(&ran.stdout).with_context(|| ran.stdout.clone())
    };
    let expected = [
        ("egress drop destination_not_allowed api", 1),
        ("egress drop no_destination ", 1),
        ("egress pass destination api", 1),
        ("ingress drop no_service ", 1),
        ("ingress drop source_not_allowed web", 2),
        ("ingress pass link_layer ", 1),
        ("ingress pass service web", 2),
    ];
    let expected: Vec<_> = expected.map(|(what, count)| (what.to_owned(), count)).into();
    // Whole, and with the headers only.
    for snaplen in [65_535, 80] {
        let whole = ask(&capture(&firewall, "whole.pcap", DataLink::ETHERNET, snaplen, &frames)?)?;
        assert_eq!(groups(&whole), expected, "{snaplen}: {whole:#}");
        assert_eq!(
            (whole["packets"].as_array().map(Vec::len), &whole["not_judged"]),
            (Some(9), &serde_json::json!({}))
        );
        assert_eq!(whole["shortened"], 1);
    }
    let cut = ask(&capture(&firewall, "cut.pcap", DataLink::ETHERNET, 40, &frames)?)?;
    let arp = ("ingress pass link_layer ".to_owned(), 1); // whose headers fit
    assert_eq!(groups(&cut), [arp], "never malformed: {cut:#}");
    assert!(cut["not_judged"].to_string().contains("snaplen"), "{cut:#}");
    let cooked = ask(&capture(&firewall, "any.pcap", DataLink::LINUX_SLL, 65_535, &frames)?)?;
    assert!(
        groups(&cooked).is_empty() && cooked["not_judged"].to_string().contains("LINUX_SLL"),
        "{cooked:#}"
    );
    let path = capture(&firewall, "torn.pcap", DataLink::ETHERNET, 65_535, &frames)?;
    let bytes = std::fs::read(&path)?;
    std::fs::write(&path, &bytes[..bytes.len() - 30])?;
    let torn = ask(&path)?;
    assert!(
        torn["capture_is_cut"].is_string() && torn["packets"].as_array().map(Vec::len) == Some(8),
        "{torn:#}"
    );
    std::fs::write(&path, b"nonsense that is no capture")?;
    let ran = firewall.ask(["why", "--pcap", &path.display().to_string()])?;
    assert_eq!(ran.code, Some(1), "{}", ran.text());
    let path = capture(&firewall, "many.pcap", DataLink::ETHERNET, 65_535, &vec![frames; 300].concat())?;
    let ran = firewall.ask(["why", "--pcap", &path.display().to_string()])?;
    assert!(ran.stdout.contains("2700 packets"), "{}", ran.text());
    assert_eq!(settled(&firewall)?.drops_since(&before), drops([]));
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn captures_of_wireshark_are_read() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let (firewall, _agent) = field.protected(&policy(&[WEB], &[]))?;
    let path = firewall.directory.join("seen.pcapng");
    let mut dumpcap = field.safaricom.namespace.command("dumpcap");
    dumpcap.args(["-q", "-i", "eth0", "-f", "tcp port 80", "-w"]).arg(&path);
    let Ok(mut capture) = testbed::Process::spawn(dumpcap, "dumpcap", &firewall.directory) else {
        testbed::left_out("a capture of dumpcap", "it is not installed");
        return Ok(());
    };
    let begun = eventually("dumpcap to capture", SOON, || capture.log().contains("File:").then_some(()));
    if begun.is_err() && !capture.running() {
        testbed::left_out("a capture of dumpcap", "it does not run here");
        return Ok(());
    }
    assert!(Curl::http(field.host.place.v4, 80).from(&field.safaricom.namespace).is_ok());
    std::thread::sleep(std::time::Duration::from_millis(500));
    capture.signal(nix::sys::signal::Signal::SIGINT)?;
    capture.wait(SOON)?;
    let ran = firewall.ask(["why", "--pcap", &path.display().to_string()])?;
    assert!(ran.stdout.contains("service_reply") && ran.stdout.contains("web"), "{}", ran.text());
    assert!(!ran.stdout.contains("drop"), "{}", ran.text());
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn a_difference_is_shown_in_policy_and_in_packets() -> Result<()> {
    let field = Field::new()?;
    let (firewall, _agent) = field.protected(&policy(&[WEB], &[API]))?;
    let before = settled(&firewall)?;
    let same = firewall.directory.join("rules.yaml").display().to_string();
    let ran = firewall.ask(["diff", &same])?;
    assert_eq!((ran.code, ran.stdout.trim()), (Some(0), "no difference in the policy"), "{}", ran.text());
    let new = firewall
        .write("new.yaml", &policy(&["{ name: web, ports: [80], from: [198.51.100.66] }"], &[API]))?;
    let new = new.display().to_string();
    let ran = firewall.ask(["diff", &new])?;
    assert_eq!((ran.code, ran.stdout.trim()), (Some(1), "~ service web"), "{}", ran.text());
    let bad = firewall.write("bad.yaml", "version: 1\nnonsense")?.display().to_string();
    assert_eq!(firewall.ask(["diff", &bad])?.code, Some(1));

    let cut = capture(&firewall, "cut.pcap", DataLink::ETHERNET, 20, &frames(&field)[..4])?;
    for format in ["table", "json"] {
        let ran = firewall.ask(["diff", "--pcap", &cut.display().to_string(), &same, "--format", format])?;
        assert_eq!(ran.code, Some(1), "nothing looked at is not \"as now\": {}", ran.text());
        assert!(ran.stderr.contains("no packet of the capture could be judged"), "{}", ran.text());
        assert!(!ran.stdout.contains("every packet"), "{}", ran.stdout);
    }
    let capture =
        capture(&firewall, "seen.pcap", DataLink::ETHERNET, 65_535, &frames(&field))?.display().to_string();
    let ran = firewall.ask(["diff", "--pcap", &capture, &same])?;
    assert_eq!(ran.code, Some(0), "{}", ran.text());
    assert!(ran.stdout.contains("every packet of the capture is judged as now"), "{}", ran.stdout);
    let ran = firewall.ask(["diff", "--pcap", &capture, &new, "--format", "json"])?;
    assert_eq!(ran.code, Some(1), "{}", ran.text());
    let document: Value = serde_json::from_str(&ran.stdout)?;
    let changed = |now: &str, then: &str| {
        let groups = document["groups"].as_array().cloned().unwrap_or_default();
        groups
            .iter()
            .find(|g| g["now"]["reason"] == now && g["then"]["reason"] == then)
            .map(|g| g["packets"].clone())
    };
    assert_eq!(changed("service", "source_not_allowed"), Some(2.into()), "{document:#}");
    assert_eq!(changed("source_not_allowed", "service"), Some(2.into()), "{document:#}");
    assert_eq!((document["groups"].as_array().map(Vec::len), &document["same"]), (Some(2), &5.into()));
    let ran = firewall.ask(["diff", "--pcap", &capture, &new])?;
    assert!(
        ran.stdout.contains("pass service web") && ran.stdout.contains("drop source_not_allowed web"),
        "{}",
        ran.stdout
    );
    // Nothing of it was ever in force, and nothing is left of it.
    assert_eq!(settled(&firewall)?.drops_since(&before), drops([]));
    assert_eq!(firewall.status()?["generation"]["number"], 1);
    let generations =
        std::fs::read_dir(firewall.bpffs.join(format!("abi-{}", mpesa_fw_common::ABI_VERSION)))?
            .filter_map(Result::ok)
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("generation-"))
            .count();
    assert_eq!(generations, 1);
    Ok(())
}
