//! A generation on trial is taken back unless somebody confirms it, whoever dies meanwhile.

mod support;

use std::{fs, thread::sleep, time::Duration};

use anyhow::{Context as _, Result};
use support::{
    FENCE, Field, SOON, WEB,
    orders::Orders,
    policy,
    trial::{
        LONG, SHORT, TAKEN_BACK, WRONG, kill_watchdogs, on_trial, right, safaricom_is_let_in, said, started,
        watchdogs, wrong,
    },
};
use testbed::{Answer, Curl, Process, Ran, eventually, holds};

#[test]
#[ignore = "needs root and a kernel"]
fn what_nobody_confirms_is_taken_back_and_not_reloaded_by_accident() -> Result<()> {
    let field = Field::new()?;
    let (_web, firewall, mut agent) = started(&field)?;
    let told = on_trial(&firewall, SHORT)?;
    said(&told, 0, "ON TRIAL: unless somebody runs `mpesa-fw confirm")?;
    holds("the return", TAKEN_BACK, || right(&field))?;
    let reverted = || {
        firewall.metrics().is_ok_and(|m| m.sum("mpesa_fw_reloads_total", &[("result", "reverted")]) == 1.0)
    };
    holds("the count", SOON, reverted)?;
    assert!(
        firewall.status()?["warnings"].to_string().contains("nobody confirmed"),
        "{}",
        firewall.status()?
    );
    said(&firewall.ask(["confirm"])?, 1, "nothing is on trial")?;
    holds("the end of the watchdog", SOON, || watchdogs(&firewall).is_ok_and(|pids| pids.is_empty()))?;

    // The file still says what was taken back: neither a reload nor a restart takes it.
    said(&firewall.ask(["reload"])?, 1, "nobody confirmed it")?;
    agent.process.signal(nix::sys::signal::Signal::SIGHUP)?;
    holds("two refusals", SOON, || {
        firewall.metrics().is_ok_and(|m| m.sum("mpesa_fw_reloads_total", &[("result", "refused")]) == 2.0)
    })?;
    agent.process.kill()?;
    drop(agent);
    let mut agent = firewall.start(&[])?;
    assert!(right(&field));
    assert!(
        firewall.status()?["warnings"].to_string().contains("nobody confirmed"),
        "{}",
        firewall.status()?
    );

    // Another text is as good as any.
    firewall.reload(&policy(&[WEB, "{ name: more, ports: [81], from: [any] }"], &[]))?;
    agent.process.kill()?;
    drop(agent);
    let _agent = firewall.start(&[])?;
    assert!(!firewall.status()?["warnings"].to_string().contains("nobody confirmed"));
    // And whoever insists is obeyed.
    on_trial(&firewall, SHORT)?;
    holds("the return", TAKEN_BACK, || right(&field))?;
    said(&firewall.ask(["reload", "--force"])?, 0, "is in force")?;
    assert!(wrong(&field));
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn what_is_confirmed_stays() -> Result<()> {
    let field = Field::new()?;
    let (_web, firewall, mut agent) = started(&field)?;
    on_trial(&firewall, "12s")?;
    let number = firewall.status()?["trial"]["generation"].as_u64().context("a trial")?;
    said(&firewall.ask(["reload"])?, 1, "is on trial")?;
    said(&firewall.ask(["confirm".to_owned(), (number + 1).to_string()])?, 1, "is on trial, not")?;
    said(&firewall.ask(["confirm".to_owned(), number.to_string()])?, 0, "it stays")?;
    said(&firewall.ask(["confirm"])?, 1, "nothing is on trial")?;
    sleep(Duration::from_secs(14));
    assert!(wrong(&field));
    assert!(firewall.status()?["trial"].is_null());
    agent.process.kill()?;
    drop(agent);
    let _agent = firewall.start(&[])?;
    assert!(wrong(&field), "a confirmed policy survives restarts");
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn the_return_comes_even_if_the_agent_is_killed() -> Result<()> {
    let field = Field::new()?;
    let (_web, firewall, mut agent) = started(&field)?;
    on_trial(&firewall, SHORT)?;
    agent.process.kill()?;
    drop(agent);
    assert!(wrong(&field), "it is in force without the agent too");
    // By the watchdog alone.
    holds("the return", TAKEN_BACK, || right(&field))?;
    holds("the end of the watchdog", SOON, || watchdogs(&firewall).is_ok_and(|pids| pids.is_empty()))?;
    let _agent = firewall.start(&[])?;
    assert!(right(&field), "the next agent does not take what the file still says");
    assert_eq!(firewall.metrics()?.sum("mpesa_fw_reloads_total", &[("result", "reverted")]), 1.0);
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn the_next_start_ends_a_trial_that_nobody_is_left_to_end() -> Result<()> {
    let field = Field::new()?;
    let (_web, firewall, mut agent) = started(&field)?;
    on_trial(&firewall, "15s")?;
    agent.process.kill()?;
    drop(agent);
    kill_watchdogs(&firewall)?;
    // In time: the trial goes on, whatever the file says meanwhile, and ends.
    firewall.policy(&policy(&["{ name: other, ports: [82], from: [any] }"], &[]))?;
    let mut agent = firewall.start(&[])?;
    assert!(firewall.status()?["trial"]["generation"].is_u64() && wrong(&field));
    holds("what is dropped now", SOON, || {
        firewall
            .status()
            .is_ok_and(|status| status["trial"]["evidence"]["newly_dropped"][0]["target_port"] == 80)
    })?;
    holds("the return", TAKEN_BACK, || right(&field))?;
    on_trial(&firewall, SHORT)?;
    agent.process.kill()?;
    drop(agent);
    kill_watchdogs(&firewall)?;
    sleep(Duration::from_secs(7));
    assert!(wrong(&field), "nobody was left");
    let _agent = firewall.start(&[])?;
    assert!(right(&field));
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn an_agent_that_hangs_is_replaced_by_its_watchdog() -> Result<()> {
    let field = Field::new()?;
    let (_web, firewall, mut agent) = started(&field)?;
    on_trial(&firewall, SHORT)?;
    agent.process.signal(nix::sys::signal::Signal::SIGSTOP)?;
    holds("the return", Duration::from_secs(60), || right(&field))?;
    assert!(!agent.process.running(), "two must not have the hooks");
    Ok(())
}

/// Another trial on top of one that goes on, and it fails: the watchdog of the one before has ended by then.
#[test]
#[ignore = "needs root and a kernel"]
fn a_trial_that_does_not_begin_leaves_the_one_before_with_a_watchdog() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let mut firewall = field.firewall()?;
    let orders = Orders::new(&mut firewall);
    firewall.policy(&policy(&[WEB], &[]))?;
    let mut agent = firewall.start(&["--force"])?;
    on_trial(&firewall, "20s")?;
    orders.give("TrialPledged pause 1")?;
    firewall.policy(&policy(&[WRONG, FENCE], &[]))?;
    let reload = firewall.ask_command(["reload", "--force", "--confirm-within", LONG]);
    let mut reload = Process::spawn(reload, "second", firewall.logs())?;
    orders.wait_for_pause()?;
    holds("the end of the watchdog", SOON, || watchdogs(&firewall).is_ok_and(|pids| pids.is_empty()))?;
    orders.go_on()?;
    orders.give("ProgramsLoaded fail 1")?;
    assert_eq!(reload.wait(SOON)?.code(), Some(4), "{}", reload.log());
    assert!(wrong(&field) && watchdogs(&firewall)?.len() == 1, "the first goes on: {}", agent.process.log());
    agent.process.kill()?;
    holds("the return", TAKEN_BACK, || right(&field))
}

#[test]
#[ignore = "needs root and a kernel"]
fn killed_at_any_step_of_a_trial_the_promise_is_kept() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let mut firewall = field.firewall()?;
    let orders = Orders::new(&mut firewall);
    let steps =
        ["TrialPledged", "StatePrepared", "HookReplaced", "HooksSwapped", "TrialSettled", "ReloadDone"];
    for step in steps {
        firewall.policy(&policy(&[WEB], &[]))?;
        let mut agent = firewall.start(&["--force"])?;
        assert!(right(&field), "{step}: before: {}", agent.process.log());
        orders.give(&format!("{step} kill 1"))?;
        firewall.policy(&policy(&[WRONG], &[]))?;
        let ran = firewall.ask(["reload", "--force", "--confirm-within", SHORT])?;
        assert_eq!(ran.code, Some(3), "{step}: the agent is gone: {}", ran.text());
        eventually("the death of the agent", SOON, || (!agent.process.running()).then_some(()))?;
        drop(agent);
        assert!(orders.are_done(), "{step}: was not reached");
        holds("the end of the watchdog", TAKEN_BACK, || {
            watchdogs(&firewall).is_ok_and(|pids| pids.is_empty())
        })
        .with_context(|| step.to_owned())?;
        assert!(right(&field), "{step}: after");
    }
    // Confirmed is confirmed, also if the client does not hear of it.
    firewall.policy(&policy(&[WEB], &[]))?;
    let mut agent = firewall.start(&["--force"])?;
    on_trial(&firewall, LONG)?;
    orders.give("TrialConfirmed kill 1")?;
    assert_eq!(firewall.ask(["confirm"])?.code, Some(3));
    eventually("the death of the agent", SOON, || (!agent.process.running()).then_some(()))?;
    drop(agent);
    holds("the end of the watchdog", SOON, || watchdogs(&firewall).is_ok_and(|pids| pids.is_empty()))?;
    let _agent = firewall.start(&[])?;
    assert!(wrong(&field) && firewall.status()?["trial"].is_null());
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn the_evidence_shows_what_is_dropped_now_and_passed_before() -> Result<()> {
    let field = Field::new()?;
    let (_web, firewall, _agent) = started(&field)?;
    on_trial(&firewall, LONG)?;
    assert_eq!(Curl::http(field.host.place.v4, 80).from(&field.safaricom.namespace), Answer::Silence);
    assert_eq!(Curl::http(field.host.place.v4, 81).from(&field.safaricom.namespace), Answer::Silence);
    let evidence = || -> Result<serde_json::Value> { Ok(firewall.status()?["trial"]["evidence"].clone()) };
    holds("the callback that is dropped now", SOON, || {
        evidence().is_ok_and(|evidence| evidence["newly_dropped"][0]["source"] == "196.201.214.200")
    })?;
    let evidence = evidence()?;
    let dropped = evidence["newly_dropped"].as_array().context("a list")?;
    assert_eq!(dropped.len(), 1, "port 81 was closed before too: {evidence}");
    assert_eq!(
        (&dropped[0]["target_port"], &dropped[0]["reason"]),
        (&80.into(), &"source_not_allowed".into())
    );
    assert_eq!(evidence["services"][0]["passed_packets"], 0);
    assert!(Curl::http(field.host.place.v4, 80).from(&field.attacker.namespace).is_ok());
    let passed = firewall.status()?["trial"]["evidence"]["services"][0]["passed_packets"].as_u64();
    assert!(passed > Some(0), "{passed:?}");
    said(&firewall.ask(["status"])?, 0, "DROPPED NOW, PASSED BEFORE")?;
    said(&firewall.ask(["rollback"])?, 0, "is in force")?;
    assert!(right(&field));
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn a_rollback_brings_back_texts_that_no_file_holds_any_more() -> Result<()> {
    let field = Field::new()?;
    let (_web, firewall, _agent) = started(&field)?;
    let first = firewall.status()?["generation"]["number"].as_u64().context("a number")?;
    firewall.write("list.netset", "198.51.100.66\n")?;
    let with_file = policy(&["{ name: web, ports: [80], from: [list] }"], &[])
        .replace("ingress:", "sets: { list: { file: list.netset } }\ningress:");
    firewall.reload(&with_file)?;
    assert!(wrong(&field));
    firewall.reload(&policy(&[WEB, "{ name: more, ports: [81], from: [any] }"], &[]))?;
    fs::remove_file(firewall.directory.join("list.netset"))?;
    fs::remove_file(firewall.directory.join("rules.yaml"))?;

    let listed = firewall.ask(["rollback", "--list", "--format", "json"])?;
    let listed: serde_json::Value = serde_json::from_str(&listed.stdout)?;
    assert_eq!(listed.as_array().map(Vec::len), Some(3), "{listed}");
    said(&firewall.ask(["rollback", "--force"])?, 0, "its text is that of generation")?;
    assert!(wrong(&field), "the one before");
    said(&firewall.ask(["rollback".to_owned(), "--force".to_owned(), first.to_string()])?, 0, "is in force")?;
    assert!(right(&field));
    said(&firewall.ask(["rollback", "999"])?, 1, "is not among those that are kept")?;

    // On trial, a rollback is a return to what was confirmed, and several trials return to the last confirmed one.
    on_trial(&firewall, LONG)?;
    firewall.policy(&policy(&["{ name: none, ports: [82], from: [any] }"], &[]))?;
    said(&firewall.ask(["reload", "--force", "--confirm-within", LONG])?, 0, "ON TRIAL")?;
    said(&firewall.ask(["rollback"])?, 0, "is in force")?;
    assert!(right(&field));
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn without_room_for_the_promise_nothing_is_put_on_trial() -> Result<()> {
    let field = Field::new()?;
    let (_web, firewall, mut agent) = started(&field)?;
    let state = firewall.directory.join("state");
    let trial = |window: &str| -> Result<Ran> {
        firewall.policy(&policy(&[WRONG], &[]))?;
        firewall.ask(["reload", "--force", "--confirm-within", window])
    };
    said(&trial("1s")?, 4, "a trial takes 5 s")?;
    said(&firewall.ask(["reload", "--confirm-within", "soon"])?, 2, "confirm-within")?;
    // A directory stands where the promise is to be written.
    fs::create_dir_all(state.join("trial.new"))?;
    said(&trial(SHORT)?, 4, "could not be taken back")?;
    assert!(right(&field) && watchdogs(&firewall)?.is_empty());
    fs::remove_dir(state.join("trial.new"))?;
    // A clock that jumps by years ends no trial and lengthens none.
    agent.process.kill()?;
    drop(agent);
    let mut firewall = firewall;
    let orders = Orders::new(&mut firewall);
    firewall.policy(&policy(&[WEB], &[]))?;
    let _agent = firewall.start(&["--force"])?;
    on_trial(&firewall, "15s")?;
    orders.shift_clock("100000000")?;
    assert!(wrong(&field));
    assert!(firewall.status()?["trial"]["seconds_left"].as_u64() <= Some(15));
    orders.shift_clock("-100000000")?;
    holds("the return", TAKEN_BACK, || right(&field))?;
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn detached_is_detached_whatever_is_on_trial() -> Result<()> {
    let field = Field::new()?;
    let (_web, firewall, mut agent) = started(&field)?;
    let open = || {
        Curl::http(field.host.place.v4, 80).from(&field.attacker.namespace).is_ok()
            && safaricom_is_let_in(&field)
    };
    on_trial(&firewall, SHORT)?;
    assert_eq!(firewall.ask(["detach"])?.code, Some(0));
    agent.process.wait(SOON)?;
    holds("the end of the watchdog", SOON, || watchdogs(&firewall).is_ok_and(|pids| pids.is_empty()))?;
    assert!(open());

    firewall.policy(&policy(&[WEB], &[]))?;
    let mut agent = firewall.start(&["--force"])?;
    assert!(firewall.status()?["trial"].is_null() && right(&field), "nothing is left of the trial");
    // Likewise without an agent.
    on_trial(&firewall, SHORT)?;
    agent.process.kill()?;
    drop(agent);
    assert_eq!(
        firewall.ask(["detach".as_ref(), "--bpffs".as_ref(), firewall.bpffs.as_os_str()])?.code,
        Some(0)
    );
    holds("the end of the watchdog", TAKEN_BACK, || watchdogs(&firewall).is_ok_and(|pids| pids.is_empty()))?;
    assert!(open());
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn what_was_taken_back_is_remembered_until_its_file_says_something_else() -> Result<()> {
    let field = Field::new()?;
    let (_web, firewall, mut agent) = started(&field)?;
    on_trial(&firewall, SHORT)?;
    holds("the return", TAKEN_BACK, || right(&field))?;
    // Another file in force, and a rollback, are no reason to start with what the first file still says.
    let other =
        firewall.write("other.yaml", &policy(&[WEB, "{ name: more, ports: [81], from: [any] }"], &[]))?;
    let ran = firewall.ask(["reload".as_ref(), other.as_os_str()])?;
    said(&ran, 0, "is in force")?;
    assert!(!ran.stdout.contains("after a restart"), "{}", ran.text());
    agent.process.kill()?;
    drop(agent);
    let mut agent = firewall.start(&[])?;
    assert!(right(&field));
    assert_eq!(firewall.status()?["generation"]["rules"], other.to_string_lossy().as_ref());
    // A promise that can't be given leaves that memory too.
    fs::create_dir_all(firewall.directory.join("state/trial.new"))?;
    said(&firewall.ask(["reload", "--force", "--confirm-within", SHORT])?, 4, "could not be taken back")?;
    fs::remove_dir(firewall.directory.join("state/trial.new"))?;
    said(&firewall.ask(["rollback", "--force"])?, 0, "is in force")?;
    agent.process.kill()?;
    drop(agent);
    let mut agent = firewall.start(&[])?;
    assert!(right(&field), "the file still says what was taken back");
    // Its words change: it counts again.
    firewall.policy(&policy(&[WEB, "{ name: third, ports: [83], from: [any] }"], &[]))?;
    said(
        &firewall.ask(["reload".as_ref(), firewall.directory.join("rules.yaml").as_os_str()])?,
        0,
        "is in force",
    )?;
    agent.process.kill()?;
    drop(agent);
    let _agent = firewall.start(&[])?;
    assert!(firewall.status()?["generation"]["text_of"].is_null());
    let ran = firewall.ask(["rollback", "--force"])?;
    said(&ran, 0, "after a restart of the agent")
}

#[test]
#[ignore = "needs root and a kernel"]
fn a_return_does_not_fail_for_a_text_that_is_lost() -> Result<()> {
    let field = Field::new()?;
    let (_web, firewall, _agent) = started(&field)?;
    on_trial(&firewall, SHORT)?;
    fs::remove_dir_all(firewall.directory.join("state/texts"))?;
    holds("the return", TAKEN_BACK, || right(&field))?;
    Ok(())
}
