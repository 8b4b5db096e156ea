//! Owners of rules that are too many, or are removed: nobody gets what was theirs.

mod support;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use mpesa_fw_common::owner::OWNERS_CAPACITY;
use support::{
    Field, SOON,
    groups::{Groups, connects, mounted_otherwise},
    policy, web,
};
use testbed::{Firewall, eventually, holds, place};

/// How many there are of an owner, as the agent says.
fn present(firewall: &Firewall<'_>, owner: &str) -> Option<u64> {
    let status = firewall.status().ok()?;
    status["owners"].as_array()?.iter().find(|entry| entry["owner"] == owner)?["present"].as_u64()
}

/// More units than the table holds: what is in it stays, the rest is denied, it is said, and a reload is refused. When they
/// have ended all is as before.
#[test]
#[ignore = "needs root and a kernel"]
fn units_beyond_the_table_get_nothing_and_cost_nobody_anything() -> Result<()> {
    const SAID: &str = "not all owners of rules are in force";
    let Some(groups) = Groups::new("many")? else { return Ok(()) };
    let field = Field::new()?;
    let api = field.network.add(place::API)?;
    let _web = web(&field.network, &api, &[443])?;
    let unit = groups.unit("payments");
    let template = groups.unit("job").replace(".service", "@.service");
    let instance = |number: u32| template.replace('@', &format!("@{number}"));
    let rules = policy(
        &[],
        &[&format!(
            "{{ name: daraja, to: [192.0.2.80], ports: [443], by: [{{ unit: {unit} }}, {{ unit: {template} }}] }}"
        )],
    );
    let firewall = field.firewall()?;
    firewall.policy(&rules)?;
    let payments = groups.start(&unit)?;
    let _agent = firewall.start(&[])?;
    let opens = |group: &Path| connects(&field.host, Some(group), 0, api.place.v4.into());
    assert!(opens(&payments)?);

    let crowd: Vec<PathBuf> =
        (0..OWNERS_CAPACITY + 50).map(|number| groups.start(&instance(number))).collect::<Result<_>>()?;
    let notes = || firewall.ask(["status"]).map(|said| said.stdout).unwrap_or_default();
    holds("the full table to be said", SOON, || notes().contains(SAID))?;
    assert!(opens(&payments)?, "who was there before is there");
    let other = groups.start(&groups.unit("other"))?;
    assert!(!opens(&other)?, "a full table opens nothing");
    let last = crowd.last().context("the last of them")?;
    assert!(opens(&crowd[0])? && !opens(last)?, "it is the last ones that have no place");
    let refused = firewall.ask(["reload"])?;
    assert!(refused.code != Some(0) && refused.text().contains("owners of rules"), "{}", refused.text());
    assert!(opens(&payments)? && !opens(&other)?, "the refused reload changes nothing");

    for group in &crowd[2..] {
        fs::remove_dir(group).with_context(|| format!("end {}", group.display()))?;
    }
    holds("the table to have room", SOON, || {
        !notes().contains(SAID) && present(&firewall, &format!("unit {template}")) == Some(2)
    })?;
    assert!(opens(&crowd[0])? && opens(&crowd[1])? && opens(&payments)? && !opens(&other)?);
    assert_eq!(firewall.ask(["reload"])?.code, Some(0));
    Ok(())
}

/// A user who is removed while the agent runs: his number means nobody, and whoever gets his name later is he.
#[test]
#[ignore = "needs root and a kernel"]
fn a_user_who_is_removed_may_nothing_any_more() -> Result<()> {
    let Some(groups) = Groups::new("removed")? else { return Ok(()) };
    let field = Field::new()?;
    let api = field.network.add(place::API)?;
    let _web = web(&field.network, &api, &[443])?;
    let mut firewall = field.firewall()?;
    // The unit makes the agent look at once; users alone it looks up every half minute.
    let unit = groups.unit("any");
    firewall.policy(&policy(
        &[],
        &[&format!(
            "{{ name: daraja, to: [192.0.2.80], ports: [443], by: [{{ user: mpfw-backup }}, {{ unit: {unit} }}] }}"
        )],
    ))?;
    let users = |line: &str| -> Result<String> {
        Ok(format!("{}{line}", fs::read_to_string("/etc/passwd").context("the users of this machine")?))
    };
    let user = |uid: u32| format!("mpfw-backup:x:{uid}:{uid}::/nonexistent:/usr/sbin/nologin\n");
    let passwd = firewall.write("passwd", &users(&user(48111))?)?;
    fs::set_permissions(&passwd, fs::Permissions::from_mode(0o644))?;
    // A file of users of the agent's own, in the place of the machine's.
    let wrapper = mounted_otherwise(&firewall, &format!("mount --bind {} /etc/passwd", passwd.display()))?;
    let real = std::mem::replace(&mut firewall.binary, wrapper);
    let _agent = firewall.start(&[])?;
    firewall.binary = real;
    let opens = |uid: u32| connects(&field.host, None, uid, api.place.v4.into());
    assert!(opens(48111)? && !opens(48112)?);

    // In place, as the file is mounted. Each look is set off by the unit.
    let becomes = |line: &str, count: u64| -> Result<()> {
        fs::write(&passwd, users(line)?)?;
        let mut number = 0;
        let looked = eventually("the agent to look", SOON, || {
            number += 1;
            let group = groups.start(&groups.unit(&format!("nudge{number}"))).ok()?;
            Groups::stop(&group).ok()?;
            (present(&firewall, "user mpfw-backup") == Some(count)).then_some(())
        });
        looked.with_context(|| format!("{line:?} is {count}"))
    };
    becomes("", 0)?;
    assert!(!opens(48111)? && !opens(48112)?, "nobody has that name");
    assert!(firewall.ask(["status"])?.stdout.contains("not there: what only it may do is denied"));
    becomes(&user(48112), 1)?;
    assert!(!opens(48111)? && opens(48112)?, "the name is what the rule says");
    Ok(())
}
