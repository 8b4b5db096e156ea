//! Who spoke to whom, by real cgroups and users, across a kill of the agent and another policy.

mod support;

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use mpesa_fw::sys::KernelMap;
use mpesa_fw_common::{
    counter::SLOT_EGRESS_NONE,
    tally::{TALLIES_CAPACITY, Tally, TallyKey},
};
use serde_json::{Map, Value};
use support::{
    Field, SOON,
    groups::{Groups, hears},
    pinned, policy, telling, web,
};
use testbed::{Firewall, Host, holds, place};

/// A group that is named like a unit; its name and its directory.
fn start(groups: &Groups, name: &str) -> Result<(String, PathBuf)> {
    let unit = groups.unit(name);
    let group = groups.start(&unit)?;
    Ok((unit, group))
}

/// A program in a group, as a user, connects; what it is told.
fn connects(host: &Host, group: &Path, uid: u32, to: IpAddr, port: u16) -> Result<String> {
    hears(host, Some(group), uid, to, port)
}

fn audit(firewall: &Firewall<'_>, more: &[&str]) -> Result<Value> {
    let ran = firewall.ask(["audit", "egress", "--format", "json"].iter().chain(more))?;
    serde_json::from_str(&ran.stdout).with_context(|| ran.text())
}

/// Opened and denied by a unit and user towards a destination.
fn counts(audit: &Value, destination: &str, unit: &str, user: u32) -> (u64, u64) {
    let rows = audit["rows"].as_array().map(Vec::as_slice).unwrap_or_default();
    let row = rows.iter().find(|row| {
        row["destination"] == destination && row["sender"]["unit"] == unit && row["user"] == user
    });
    row.map_or((0, 0), |row| (row["opened"].as_u64().unwrap_or(99), row["denied"].as_u64().unwrap_or(99)))
}

/// That is all that was counted.
fn total(audit: &Value) -> (u64, u64) {
    let rows = audit["rows"].as_array().map(Vec::as_slice).unwrap_or_default();
    let sum = |field: &str| rows.iter().filter_map(|row| row[field].as_u64()).sum();
    (sum("opened"), sum("denied"))
}

#[test]
#[ignore = "needs root and a kernel"]
fn units_and_users_are_told_apart_and_nothing_is_lost() -> Result<()> {
    let Some(groups) = Groups::new("audit")? else { return Ok(()) };
    let field = Field::new()?;
    let api = field.network.add(place::API)?;
    let _web = web(&field.network, &api, &[443, 8443])?;
    let (payments, payments_group) = start(&groups, "payments")?;
    let (shop, shop_group) = start(&groups, "shop")?;
    let daraja = "{ name: daraja, to: [192.0.2.80], ports: [443] }";
    let firewall = field.firewall()?;
    firewall.policy(&policy(&[], &[daraja]))?;
    let mut agent = firewall.start(&[])?;
    let to = |group: &Path, uid, port| connects(&field.host, group, uid, api.place.v4.into(), port);

    for _ in 0..3 {
        assert_eq!(to(&payments_group, 0, 443)?, "open");
    }
    assert_eq!(to(&payments_group, 4711, 443)?, "open");
    assert_eq!(to(&shop_group, 4712, 443)?, "open");
    assert_eq!(to(&shop_group, 4712, 8443)?, "timed out");
    let expect = |audit: &Value, opened: u64| {
        assert_eq!(counts(audit, "daraja", &payments, 0), (opened, 0), "{audit:#}");
        assert_eq!(counts(audit, "daraja", &payments, 4711), (1, 0), "{audit:#}");
        assert_eq!(counts(audit, "daraja", &shop, 4712), (1, 0), "{audit:#}");
        assert_eq!(counts(audit, "", &shop, 4712), (0, 1), "{audit:#}");
        assert_eq!(total(audit), (opened + 2, 1), "{audit:#}");
    };
    expect(&audit(&firewall, &[])?, 3);
    // What is read twice counts once.
    expect(&audit(&firewall, &[])?, 3);

    // Counted and not yet on file when the agent dies; then while there is none; then with the next.
    assert_eq!(to(&payments_group, 0, 443)?, "open");
    agent.process.kill()?;
    assert_eq!(to(&payments_group, 0, 443)?, "open");
    let mut agent = firewall.start(&[])?;
    assert_eq!(to(&payments_group, 0, 443)?, "open");
    expect(&audit(&firewall, &[])?, 6);
    agent.process.kill()?;
    let _agent = firewall.start(&[])?;
    expect(&audit(&firewall, &[])?, 6);

    // Under another name the past keeps its own, and of each rule it can be asked.
    assert_eq!(to(&payments_group, 0, 443)?, "open");
    firewall.reload(&policy(&[], &["{ name: safaricom-api, to: [192.0.2.80], ports: [443] }"]))?;
    assert_eq!(to(&payments_group, 0, 443)?, "open");
    let now = audit(&firewall, &[])?;
    assert_eq!(counts(&now, "daraja", &payments, 0), (7, 0), "{now:#}");
    assert_eq!(counts(&now, "safaricom-api", &payments, 0), (1, 0), "{now:#}");
    let one = audit(&firewall, &["--rule", "safaricom-api"])?;
    assert_eq!(total(&one), (1, 0), "{one:#}");
    let mistaken = firewall.ask(["audit", "egress", "--rule", "darja"])?;
    assert_eq!(mistaken.code, Some(1), "{}", mistaken.text());
    assert!(mistaken.stderr.contains("`darja`") && mistaken.stderr.contains("daraja"), "{}", mistaken.text());
    let table = firewall.ask(["audit", "egress", "--since", "1h"])?;
    for part in ["DESTINATION", "daraja", "safaricom-api", &payments, &shop, "root (0)", "4712"] {
        assert!(table.stdout.contains(part), "{part}: {}", table.text());
    }
    println!("{}", table.stdout);
    Ok(())
}

/// What was before the moment that is asked for is left out.
#[test]
#[ignore = "needs root and a kernel"]
fn only_what_came_since_then_is_told() -> Result<()> {
    const DAYS: u64 = 3;
    let Some(groups) = Groups::new("since")? else { return Ok(()) };
    let field = Field::new()?;
    let api = field.network.add(place::API)?;
    let _web = web(&field.network, &api, &[443])?;
    let (shop, group) = start(&groups, "shop")?;
    let (firewall, mut agent) =
        field.protected(&policy(&[], &["{ name: daraja, to: [192.0.2.80], ports: [443] }"]))?;
    let open = || connects(&field.host, &group, 4711, api.place.v4.into(), 443);
    assert_eq!(open()?, "open");
    assert_eq!(counts(&audit(&firewall, &[])?, "daraja", &shop, 4711), (1, 0));
    agent.process.kill()?;
    let begin = grow_older(&firewall, DAYS)?;
    let _agent = firewall.start(&[])?;
    assert_eq!(open()?, "open");

    let since = |moment: &str| -> Result<Value> { audit(&firewall, &["--since", moment]) };
    for all in ["4d", "96h", &format!("{begin}T00:00:00Z"), &begin] {
        let seen = since(all)?;
        assert_eq!(counts(&seen, "daraja", &shop, 4711), (2, 0), "{all}: {seen:#}");
    }
    for later in ["2d", "1h"] {
        let seen = since(later)?;
        assert_eq!(
            (counts(&seen, "daraja", &shop, 4711), total(&seen)),
            ((1, 0), (1, 0)),
            "{later}: {seen:#}"
        );
    }
    Ok(())
}

/// What is on file has been there for so many days; on which day it was.
fn grow_older(firewall: &Firewall<'_>, days: u64) -> Result<String> {
    let seconds = days * 86_400;
    let directory = firewall.directory.join("state/egress");
    let file = fs::read_dir(&directory)?.next().context("a day on file")??.path();
    let mut day: Value = serde_json::from_slice(&fs::read(&file)?)?;
    // The file of another day says what was seen of the counts, and holds no row any more.
    let mut before = day.clone();
    day["hours"] = Value::Object(Map::new());
    before["sequence"] = 0.into();
    let mut older = Map::new();
    let mut begin = 0;
    for (hour, rows) in before["hours"].as_object().context("hours")? {
        begin = hour.parse::<u64>()? - seconds;
        let mut rows = rows.clone();
        for row in rows.as_array_mut().context("rows")? {
            for moment in ["first", "last"] {
                row[moment] = (row[moment].as_u64().context("a moment")? - seconds).into();
            }
        }
        older.insert(begin.to_string(), rows);
    }
    before["hours"] = Value::Object(older);
    let name = time::OffsetDateTime::from_unix_timestamp(begin.cast_signed())?.date().to_string();
    fs::write(directory.join(format!("{name}.json")), serde_json::to_vec(&before)?)?;
    fs::write(&file, serde_json::to_vec(&day)?)?;
    Ok(name)
}

/// Observe mode counts what would be denied: the first packet of it.
#[test]
#[ignore = "needs root and a kernel"]
fn observe_mode_counts_the_first_packet() -> Result<()> {
    let Some(groups) = Groups::new("observed")? else { return Ok(()) };
    let field = Field::new()?;
    let api = field.network.add(place::API)?;
    let _web = web(&field.network, &api, &[443])?;
    let (shop, group) = start(&groups, "shop")?;
    let (firewall, _agent) = field.protected(&policy(&[], &[]).replace("mode: enforce", "mode: observe"))?;
    assert_eq!(connects(&field.host, &group, 4711, api.place.v4.into(), 443)?, "open");
    let seen = audit(&firewall, &[])?;
    assert_eq!(counts(&seen, "", &shop, 4711), (0, 1), "{seen:#}");
    Ok(())
}

/// What is refused where it is asked for never becomes a packet, and counts all the same.
#[test]
#[ignore = "needs root and a kernel"]
fn refused_attempts_count() -> Result<()> {
    let Some(groups) = Groups::new("refused")? else { return Ok(()) };
    let field = Field::new()?;
    let api = field.network.add(place::API)?;
    let _web = web(&field.network, &api, &[443])?;
    let (shop, group) = start(&groups, "shop")?;
    let (firewall, _agent) =
        field.protected(&telling(&[], &["{ name: daraja, to: [192.0.2.80], ports: [443] }"]))?;
    // Until the agent is sure by which way packets leave, they are dropped instead. A port of nobody's: its SYNs are counted apart.
    holds("programs to be refused", SOON, || {
        connects(&field.host, &group, 4712, api.place.v4.into(), 444)
            .is_ok_and(|told| told.contains("not permitted"))
    })?;
    let told = connects(&field.host, &group, 4711, api.place.v4.into(), 8443)?;
    assert!(told.contains("Operation not permitted"), "{told}");
    let seen = audit(&firewall, &[])?;
    assert_eq!(counts(&seen, "", &shop, 4711), (0, 1), "{seen:#}");
    assert_eq!(connects(&field.host, &group, 4711, api.place.v4.into(), 443)?, "open");
    let seen = audit(&firewall, &[])?;
    assert_eq!(counts(&seen, "daraja", &shop, 4711), (1, 0), "{seen:#}");
    Ok(())
}

/// More owners than the table has room for: nothing is lost, and those that are gone make room.
#[test]
#[ignore = "needs root and a kernel"]
fn a_full_table_loses_nothing() -> Result<()> {
    let Some(groups) = Groups::new("full")? else { return Ok(()) };
    let field = Field::new()?;
    let api = field.network.add(place::API)?;
    let _web = web(&field.network, &api, &[443])?;
    let (shop, group) = start(&groups, "shop")?;
    let (firewall, _agent) =
        field.protected(&policy(&[], &["{ name: daraja, to: [192.0.2.80], ports: [443] }"]))?;
    let open = || connects(&field.host, &group, 4711, api.place.v4.into(), 443);
    let tallies: KernelMap<TallyKey, Tally> = pinned(&firewall, "TALLIES")?;
    let fill = |last: u64| -> Result<()> {
        for cgroup in 0..u64::from(TALLIES_CAPACITY) {
            let key = TallyKey { cgroup: (1 << 60) + cgroup, uid: 0, row: SLOT_EGRESS_NONE };
            tallies.put(&key, &Tally { last, first: 1, ..Tally::default() })?;
        }
        Ok(())
    };
    let now = mpesa_fw::agent::clock::monotonic();
    fill(now)?;
    for _ in 0..3 {
        assert_eq!(open()?, "open");
    }
    let untold = |audit: &Value| -> u64 {
        let rows = audit["rows"].as_array().map(Vec::as_slice).unwrap_or_default();
        let untold = rows.iter().filter(|row| row["sender"] == "no_room" && row["destination"] == "daraja");
        untold.filter_map(|row| row["opened"].as_u64()).sum()
    };
    let seen = audit(&firewall, &[])?;
    assert_eq!((untold(&seen), total(&seen)), (3, (3, 0)), "{seen:#}");
    let hour = 3600 * 1_000_000_000;
    if now < 2 * hour {
        testbed::left_out("counts that are removed", "the machine is not up for long enough");
        return Ok(());
    }
    // They have not moved for an hour, and nobody knows such groups.
    fill(now - 2 * hour)?;
    audit(&firewall, &[])?;
    assert_eq!(open()?, "open");
    let seen = audit(&firewall, &[])?;
    assert_eq!(counts(&seen, "daraja", &shop, 4711), (1, 0), "{seen:#}");
    assert_eq!((untold(&seen), total(&seen)), (3, (4, 0)), "{seen:#}");
    Ok(())
}
