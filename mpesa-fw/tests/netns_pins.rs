//! The bpffs is read-only, full of what others put there, or of another version; the kernel has no room for one more map.

mod support;

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use mpesa_fw_common::ABI_VERSION;
use support::{FENCE, Field, SOON, WEB, policy};
use testbed::{Firewall, holds, ok};

/// Remounts the bpffs.
fn remount(firewall: &Firewall<'_>, how: &str) -> Result<()> {
    let mount = firewall.bpffs.parent().context("the mount point")?;
    ok(Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(mount)).map(drop)
}

fn detach(firewall: &Firewall<'_>) -> Result<testbed::Ran> {
    firewall.ask(["detach".as_ref(), "--bpffs".as_ref(), firewall.bpffs.as_os_str()])
}

#[test]
#[ignore = "needs root and a kernel"]
fn a_read_only_bpffs_changes_nothing_and_is_said() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let firewall = field.firewall()?;
    firewall.policy(&policy(&[WEB], &[]))?;
    // The first start.
    remount(&firewall, "ro")?;
    let ran = firewall.run(&[])?;
    assert_eq!(ran.code, Some(4), "{}", ran.text());
    assert!(ran.stderr.contains("ead-only") && ran.stderr.contains("remount"), "{}", ran.stderr);
    assert!(field.is_open(), "nothing is half attached");
    remount(&firewall, "rw")?;

    let mut agent = firewall.start(&[])?;
    let before = firewall.status()?["generation"].clone();
    remount(&firewall, "ro")?;
    firewall.policy(&policy(&[WEB, FENCE], &[]))?;
    let ran = firewall.ask(["reload"])?;
    assert_eq!(ran.code, Some(4), "{}", ran.text());
    assert!(ran.stderr.contains("remount"), "{}", ran.stderr);
    // Not even links can be opened: what can't be known is not told.
    let ran = firewall.ask(["status"])?;
    assert!(ran.code == Some(4) && ran.stderr.contains("remount"), "{}", ran.text());
    // Half a detach would be neither on nor off.
    let ran = detach(&firewall)?;
    assert_eq!(ran.code, Some(4), "{}", ran.text());
    assert!(ran.stderr.contains("remount"), "{}", ran.stderr);
    assert!(field.is_enforced());
    remount(&firewall, "rw")?;
    assert_eq!(firewall.status()?["generation"], before, "nothing was changed");
    remount(&firewall, "ro")?;
    // A restart can load nothing new; what is in force stays.
    agent.process.kill()?;
    let ran = firewall.run(&[])?;
    assert_eq!(ran.code, Some(4), "{}", ran.text());
    assert_eq!(detach(&firewall)?.code, Some(4));
    assert!(field.is_enforced());
    remount(&firewall, "rw")?;
    let _agent = firewall.start(&[])?;
    assert!(field.is_enforced());
    assert_eq!(detach(&firewall)?.code, Some(0));
    assert!(field.is_open());
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn what_others_left_in_the_bpffs_is_neither_touched_nor_in_the_way() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let firewall = field.firewall()?;
    let root = firewall.bpffs.join(format!("abi-{ABI_VERSION}"));
    let map = firewall.bpffs.parent().context("a mount point")?.join("theirs");
    let arguments = ["type", "array", "key", "4", "value", "64", "entries", "4", "name", "theirs"];
    ok(Command::new("bpftool").args(["map", "create"]).arg(&map).args(arguments))?;
    let pin_map =
        |at: &Path| ok(Command::new("bpftool").args(["map", "pin", "pinned"]).arg(&map).arg(at)).map(drop);
    for directory in
        ["links/eth7-ingress", "state/nonsense", "generation-4294967295-ffffffffffff", "generation-x"]
    {
        fs::create_dir_all(root.join(directory))?;
    }
    fs::create_dir_all(firewall.bpffs.join("abi-x"))?;
    pin_map(&root.join("links/eth8-ingress"))?;
    pin_map(&root.join("state/else"))?;
    pin_map(&root.join("generation-4294967295-ffffffffffff/ingress_xdp"))?;
    pin_map(&firewall.bpffs.join("abi-x/map"))?;
    firewall.policy(&policy(&[WEB], &[]))?;
    let mut agent = firewall.start(&[])?;
    assert!(field.is_enforced());
    assert!(agent.process.log().contains("eth8-ingress"), "said: {}", agent.process.log());
    firewall.reload(&policy(&[WEB, FENCE], &[]))?;
    assert!(field.is_enforced());
    for kept in ["links/eth7-ingress", "links/eth8-ingress", "state/else", "generation-x"] {
        assert!(root.join(kept).exists(), "{kept} is none of ours");
    }
    assert!(firewall.bpffs.join("abi-x/map").exists());
    // Something lies where ours belongs, which is known only when the link is to be pinned.
    agent.process.kill()?;
    assert_eq!(detach(&firewall)?.code, Some(0));
    // A clsact filter has no link.
    if support::tc_ways().contains(&"tcx") {
        fs::create_dir_all(root.join("links"))?;
        pin_map(&root.join("links/eth0-egress"))?;
        let ran = firewall.run(&[])?;
        assert_eq!(ran.code, Some(4), "{}", ran.text());
        assert!(ran.stderr.contains("eth0-egress") && ran.stderr.contains("rm -r"), "{}", ran.stderr);
        assert!(field.is_open(), "nothing is half attached");
        fs::remove_file(root.join("links/eth0-egress"))?;
    }
    // And in the place of a state map.
    fs::remove_file(root.join("state/COUNTERS"))?;
    fs::create_dir(root.join("state/COUNTERS"))?;
    let ran = firewall.run(&[])?;
    assert_eq!(ran.code, Some(4), "{}", ran.text());
    assert!(ran.stderr.contains("a directory lies there") && ran.stderr.contains("rm -r"), "{}", ran.stderr);
    fs::remove_dir(root.join("state/COUNTERS"))?;
    // A map of another size, and one with other values.
    for (value, entries) in [("64", "4"), ("8", "1048576")] {
        let pin = root.join("state/COUNTERS");
        let arguments =
            ["type", "percpu_array", "key", "4", "value", value, "entries", entries, "name", "COUNTERS"];
        ok(Command::new("bpftool").args(["map", "create"]).arg(&pin).args(arguments))?;
        let ran = firewall.run(&[])?;
        assert_eq!(ran.code, Some(4), "{}", ran.text());
        assert!(ran.stderr.contains("COUNTERS") && ran.stderr.contains("detach"), "{}", ran.stderr);
        fs::remove_file(pin)?;
    }
    let _agent = firewall.start(&[])?;
    assert!(field.is_enforced());
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn another_version_is_taken_over_without_a_gap() -> Result<()> {
    for &tc in support::tc_ways() {
        let field = Field::new()?;
        let _web = field.web(&[80])?;
        let (firewall, arguments) = (field.firewall()?, ["--tc", tc]);
        firewall.policy(&policy(&[WEB], &[]))?;
        let mut agent = firewall.start(&arguments)?;
        // Down to an older version, and up from it again: both look the same.
        for version in [ABI_VERSION + 998, ABI_VERSION - 1] {
            agent.process.kill()?;
            let root = |version: u32| firewall.bpffs.join(format!("abi-{version}"));
            fs::rename(root(ABI_VERSION), root(version))?;
            assert!(field.is_enforced(), "{tc}: the old version's programs judge");
            agent = firewall.start(&arguments)?;
            assert!(field.is_enforced(), "{tc}");
            let status = firewall.status()?;
            assert_eq!(
                status["interfaces"][0]["ingress"], "xdp_native",
                "{tc}: in the old one's place: {status}"
            );
            assert!(!root(version).exists(), "{tc}");
            assert!(agent.process.log().contains("took over"), "{tc}: {}", agent.process.log());
        }
        // No second program is left beside ours.
        let expected = if tc == "tcx" { (1, 0) } else { (0, 1) };
        assert_eq!(support::at_tc(&field.host.namespace)?, expected, "{tc}");
        // The admin goes back: the older program is not at hand here, but its `detach` must find ours.
        agent.process.kill()?;
        fs::rename(
            firewall.bpffs.join(format!("abi-{ABI_VERSION}")),
            firewall.bpffs.join(format!("abi-{}", ABI_VERSION + 1)),
        )?;
        assert_eq!(detach(&firewall)?.code, Some(0));
        assert!(field.is_open(), "{tc}");
    }
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn without_room_for_the_next_descriptor_a_reload_fails_half_way_and_changes_nothing() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let (firewall, agent) = field.protected(&policy(&[WEB], &[]))?;
    let pid = agent.process.pid().to_string();
    let limit = |files: usize| {
        ok(Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={files}:4096")])).map(drop)
    };
    let count = || fs::read_dir(format!("/proc/{pid}/fd")).map(Iterator::count);
    let before = firewall.status()?["generation"].clone();
    let (idle, pins) = (count()?, support::pins(&firewall)?);
    let mut failed = 0;
    // Each descriptor is a map, a program or a file: one more of them fits each time.
    for more in (2..110).step_by(if long() { 1 } else { 6 }) {
        limit(idle + more)?;
        let ran = firewall.ask(["reload"])?;
        limit(4096)?;
        if ran.code == Some(0) {
            break;
        }
        // The one that accepts clients may be without a descriptor too: then nobody answers.
        ensure!(matches!(ran.code, Some(1 | 3 | 4)), "{}", ran.text());
        failed += 1;
        assert_eq!(firewall.status()?["generation"], before, "with {more} more: {}", ran.text());
        assert_eq!(support::pins(&firewall)?, pins, "with {more} more");
    }
    assert!(failed > 5, "only {failed} failed");
    assert!(field.is_enforced());
    holds("descriptors to be closed", SOON, || count().is_ok_and(|now| now <= idle))?;
    firewall.reload(&policy(&[WEB, FENCE], &[]))?;
    assert!(field.is_enforced());
    Ok(())
}

fn long() -> bool {
    std::env::var_os("MPESA_FW_FAULTS").is_some_and(|value| value == "all")
}
