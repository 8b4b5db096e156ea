//! The tamper watch: what root writes into tables and state behind the agent's back is noticed within two seconds while nobody
//! asks, and written over.

mod support;

#[path = "support/scene.rs"]
mod scene;

use std::{
    net::{IpAddr, Ipv4Addr},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result};
use mpesa_fw_common::{
    Address,
    attempt::{Lease, Way, WayKey},
    owner::{OwnerKey, OwnerRules},
    tables::RuleSet,
};
use nix::sys::signal::Signal;
use scene::{NOTICED, Scene};
use support::{FENCE, Field, SOON, WEB, groups::connects, policy};
use testbed::{Curl, holds, ok, place, run};
use zerocopy::IntoBytes as _;

/// The bytes of a value as bpftool takes them.
fn hex(bytes: &[u8]) -> Vec<String> {
    ["hex".to_owned()].into_iter().chain(bytes.iter().map(|byte| format!("{byte:02x}"))).collect()
}

/// `map`: how bpftool finds it.
fn update(scene: &Scene<'_>, map: [&str; 2], key: &[u8], value: &[u8]) -> Result<testbed::Ran> {
    let mut command = scene.field.host.namespace.command("bpftool");
    command.args(["map", "update"]).args(map);
    command.arg("key").args(hex(key)).arg("value").args(hex(value));
    run(&mut command)
}

fn pinned(map: &Path) -> Result<[&str; 2]> {
    Ok(["pinned", map.to_str().context("a path in UTF-8")?])
}

/// A map that has no pin: of a program of the generation, by its name. Its id, and what bpftool says of it.
fn map_of(scene: &Scene<'_>, program: &str, name: &str) -> Result<(String, serde_json::Value)> {
    let program = scene.generation()?.join(program);
    let shown = scene.bpftool(&["-j", "prog", "show", "pinned", &program.to_string_lossy()])?;
    let shown: serde_json::Value = serde_json::from_str(&shown)?;
    for id in shown["map_ids"].as_array().context("maps")? {
        let map = scene.bpftool(&["-j", "map", "show", "id", &id.to_string()])?;
        let map: serde_json::Value = serde_json::from_str(&map)?;
        if map["name"] == name {
            return Ok((id.to_string(), map));
        }
    }
    anyhow::bail!("{} reads no map {name}", program.display())
}

#[test]
#[ignore = "needs root and a kernel"]
fn what_is_written_into_the_state_is_written_over() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let mut scene = Scene::new(&field, &[])?;
    assert!(scene.is_enforced());
    let state = scene.pins().join("state");
    // Safaricom's address becomes one of this host: its callbacks would be dropped as spoofed.
    let address = Address::from(IpAddr::from(field.safaricom.place.v4)).as_bytes().to_vec();
    let writes: [(&str, Vec<u8>, Vec<u8>); 4] = [
        ("OWN_ADDRESSES", address.clone(), vec![1]),
        ("OWN_HINTS", vec![7, 0, 0, 0], vec![0xff; 8]),
        ("RESOLVED", address, vec![1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("INTERFACE_SLOTS", vec![0; 4], vec![9; 24]),
    ];
    for (map, key, value) in &writes {
        let ran = update(&scene, pinned(&state.join(map))?, key, value)?;
        assert_eq!(ran.code, Some(0), "{map}: {}", ran.text());
        let named = if *map == "OWN_HINTS" { "OWN_ADDRESSES" } else { map };
        let said = scene.noticed("state_changed", &format!("map {named}"))?;
        assert!(said.contains("put_right=true"), "{said}");
        assert!(scene.is_enforced(), "{map}");
    }
    assert_eq!(scene.counted("state_changed")?, writes.len() as f64);
    // Counts can't be brought back, only told of. Row 0 of the first interface is what nobody claims.
    let _ = Curl::http(field.host.place.v4, 81).from(&field.attacker.namespace);
    std::thread::sleep(testbed::here(NOTICED));
    let block = size_of::<mpesa_fw_common::counter::CounterBlock>();
    let ran = update(&scene, pinned(&state.join("COUNTERS"))?, &[0; 4], &vec![0; block])?;
    assert_eq!(ran.code, Some(0), "{}", ran.text());
    let said = scene.noticed("counts_changed", "eth0 ingress no rule")?;
    assert!(said.contains("counts went back"), "{said}");
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn nobody_makes_himself_the_owner_of_a_rule() -> Result<()> {
    const INSIDER: u32 = 4713;
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let api = field.network.add(place::API)?;
    let _api = support::web(&field.network, &api, &[443])?;
    let mut scene = Scene::new(&field, &[])?;
    let daraja = "{ name: daraja, to: [192.0.2.80], ports: [443], by: { user: 4711 } }";
    scene.firewall.reload(&policy(&[WEB, FENCE], &[daraja]))?;
    let is_open = |uid| connects(&field.host, None, uid, api.place.v4.into());
    assert!(is_open(4711)? && !is_open(INSIDER)?);
    let (owners, _) = map_of(&scene, "egress_tc", "OWNERS")?;
    // While the agent can't look, it helps him.
    scene.agent.process.signal(Signal::SIGSTOP)?;
    let all = OwnerRules { rules: [RuleSet::ALL; 2] };
    let ran = update(&scene, ["id", &owners], OwnerKey::user(INSIDER).as_bytes(), all.as_bytes())?;
    assert_eq!(ran.code, Some(0), "{}", ran.text());
    let helped = is_open(INSIDER)?;
    scene.agent.process.signal(Signal::SIGCONT)?;
    assert!(helped, "what the watch is for");
    let said = scene.noticed("state_changed", "map OWNERS")?;
    assert!(said.contains("put_right=true"), "{said}");
    assert!(is_open(4711)? && !is_open(INSIDER)?);
    scene.restored()
}

/// By them programs are refused what they may do, or are not told at once what they may not.
#[test]
#[ignore = "needs root and a kernel"]
fn ways_and_their_lease_are_written_over() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let mut scene = Scene::new(&field, &[])?;
    scene.firewall.reload(&support::telling(&[WEB, FENCE], &[]))?;
    let state = scene.pins().join("state");
    let default = WayKey::new(&Address::from(IpAddr::from(Ipv4Addr::UNSPECIFIED)), 96);
    let shown = || -> Result<String> {
        let ways = state.join("WAYS");
        let mut lookup = field.host.namespace.command("bpftool");
        lookup.args(["map", "lookup"]).args(pinned(&ways)?).arg("key").args(hex(default.as_bytes()));
        ok(&mut lookup)
    };
    holds("a way for all that has no other", SOON, || shown().is_ok())?;
    let before = shown()?;
    let elsewhere = (Way::Elsewhere as u32).to_ne_bytes();
    let ran = update(&scene, pinned(&state.join("WAYS"))?, default.as_bytes(), &elsewhere)?;
    assert_eq!(ran.code, Some(0), "{}", ran.text());
    let said = scene.noticed("state_changed", "map WAYS")?;
    assert!(said.contains("put_right=true"), "{said}");
    assert_eq!(shown()?, before);
    // Every 5 s the agent writes it anyway, so that one may be gone before it is seen.
    let forever = Lease { until: u64::MAX };
    let mut said = Err(anyhow::anyhow!("nobody has written yet"));
    for _ in 0..4 {
        update(&scene, pinned(&state.join("LEASE"))?, &[0; 4], forever.as_bytes())?;
        said = scene.noticed("state_changed", "map LEASE");
        if said.is_ok() {
            break;
        }
    }
    assert!(said?.contains("put_right=true"));
    scene.restored()
}

#[test]
#[ignore = "needs root and a kernel"]
fn tables_are_frozen_and_what_a_program_writes_into_them_is_noticed() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let scene = Scene::new(&field, &[])?;
    let (classes, shown) = map_of(&scene, "ingress_xdp", "SOURCE_CLASSES")?;
    assert_eq!(shown["frozen"], 1, "{shown}");
    let ran = update(&scene, ["id", &classes], &[0; 4], &[0; 16])?;
    assert_ne!(ran.code, Some(0), "from user space it can't be changed: {}", ran.text());

    ok(&mut scene.python(&["scribble", &classes]))?;
    // One table a second is looked at.
    holds("the table to be noticed", Duration::from_secs(40), || {
        scene.agent.process.log().contains("table_changed")
    })?;
    holds("another generation", SOON, || {
        scene.firewall.status().is_ok_and(|status| status["generation"]["number"] == 2)
    })?;
    scene.restored()?;
    assert_eq!(scene.counted("table_changed")?, 1.0);
    Ok(())
}
