//! `cargo xtask demo`: the real agent with a shipped policy, real clients and servers, in network namespaces.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use testbed::{Answer, Firewall, Started, eventually, not_interrupted, watch_interrupts};

use crate::process::{cargo, is_root, run as run_command, workspace};
use policy::Policy;
use report::Report;
use scene::Scene;

mod policy;
mod report;
mod scene;

/// Builds the agent and shows it at work.
///
/// # Errors
/// Something was seen that was not expected, or could not even be tried.
pub(crate) fn run() -> Result<()> {
    ensure!(is_root(), "the demo makes network namespaces: run it as root");
    run_command(cargo().args(["build", "--quiet", "--package", "mpesa-fw"]))?;
    watch_interrupts()?;
    let begun = Instant::now();

    let mut report = Report::default();
    println!(
        "\nmpesa-fw demo: everything happens in network namespaces, none of this machine's interfaces is touched\n"
    );
    let scene = Scene::build()?;
    for line in scene.describe() {
        println!("    {line}");
    }
    println!();
    show(&scene, &mut report)?;

    println!("\n{report}");
    ensure!(report.differences() == 0, "{}", report.summary());
    println!(
        "
{} in {:.0} s; nothing of it is left",
        report.summary(),
        begun.elapsed().as_secs_f32()
    );
    Ok(())
}

fn show(scene: &Scene, report: &mut Report) -> Result<()> {
    report.phase("No firewall: the network lets everybody do everything");
    report.check("forged callback", "HTTP 200", scene.callback_from(&scene.attacker));
    report.check("stray port, from outside", "HTTP 200", scene.stray_from(&scene.attacker));
    report.check("internal API, from outside", "HTTP 200", scene.api_from(&scene.attacker));
    report.check("copy to the drop box", "HTTP 200", scene.send_to_drop_box());
    not_interrupted()?;

    let policy = Policy::shipped(scene)?;
    let mut firewall = Firewall::new(&scene.network, &scene.host.namespace, binary())?;
    firewall.resolv_conf = Some(scene.dns.resolv_conf.clone());
    policy.write(&firewall)?;
    report.phase("mpesa-fw run --rules rules/dedicated.yaml, its example addresses replaced, mode: enforce");
    let agent = firewall.start(&[])?;
    enforced(scene, report);
    not_interrupted()?;

    report.phase("mpesa-fw reload: the stray port becomes a service, for the intranet only");
    policy.with_service("reports", scene::STRAY_PORT).write(&firewall)?;
    let answer = firewall.ask(["reload"])?;
    report.check("exit code of the reload", "0", exit(answer.code));
    report.check("stray port, from the intranet", "HTTP 200", scene.stray_from(&scene.intranet));
    report.check("stray port, from outside", "no connection", scene.stray_from(&scene.attacker));
    report.check("genuine callback", "HTTP 200", scene.callback_from(&scene.safaricom));
    not_interrupted()?;

    report.phase("mpesa-fw reload with a mistake in the file: refused, nothing changes");
    policy.with_mistake().write(&firewall)?;
    let answer = firewall.ask(["reload"])?;
    report.check("exit code of the reload", "1", exit(answer.code));
    report.check("genuine callback", "HTTP 200", scene.callback_from(&scene.safaricom));
    report.check("forged callback", "no connection", scene.callback_from(&scene.attacker));
    not_interrupted()?;

    policy.with_service("reports", scene::STRAY_PORT).write(&firewall)?;
    killed(scene, report, &firewall, agent)
}

fn enforced(scene: &Scene, report: &mut Report) {
    report.check("genuine callback, from 196.201.214.200", "HTTP 200", scene.callback_from(&scene.safaricom));
    report.check("forged callback", "no connection", scene.callback_from(&scene.attacker));
    report.check("forged callback, by IPv6", "no connection", scene.callback_by_ipv6_from(&scene.attacker));
    report.check("stray port, from outside", "no connection", scene.stray_from(&scene.attacker));
    report.check("stray port, from the intranet", "no connection", scene.stray_from(&scene.intranet));
    report.check("internal API, from the intranet", "HTTP 200", scene.api_from(&scene.intranet));
    report.check("internal API, from Safaricom", "no connection", scene.api_from(&scene.safaricom));
    report.check("internal API, from outside", "no connection", scene.api_from(&scene.attacker));
    report.check("request to api.safaricom.co.ke", "HTTP 200", scene.request_daraja());
    // Told at once as soon as the agent is sure by which way packets leave; dropped before.
    let told = || Some(scene.send_to_drop_box()).filter(|answer| *answer == Answer::NotPermitted);
    let told = eventually("the program to be told", Duration::from_secs(10), told);
    report.check("copy to the drop box", "not permitted", told.unwrap_or_else(|_| scene.send_to_drop_box()));
}

fn killed(scene: &Scene, report: &mut Report, firewall: &Firewall<'_>, mut agent: Started) -> Result<()> {
    report.phase("kill -9 of the agent: enforcement stays in the kernel");
    let before = firewall.metrics()?;
    agent.process.kill()?;
    report.check(
        "mpesa-fw status",
        "exit 3, no agent",
        match firewall.ask(["status"])?.code {
            Some(3) => "exit 3, no agent".to_owned(),
            code => exit(code),
        },
    );
    report.check("genuine callback", "HTTP 200", scene.callback_from(&scene.safaricom));
    report.check("forged callback", "no connection", scene.callback_from(&scene.attacker));
    // For a few seconds the program is still told, then packets are dropped without a word.
    report.check(
        "copy to the drop box",
        "nothing gets out",
        match scene.send_to_drop_box() {
            Answer::NotPermitted | Answer::Silence => "nothing gets out".to_owned(),
            other @ (Answer::Status { .. } | Answer::Refused | Answer::Failed { .. }) => other.to_string(),
        },
    );
    not_interrupted()?;

    report.phase("A new agent takes over; what was counted without one is there");
    let _agent = firewall.start(&[])?;
    let forged = |metrics: &testbed::Metrics| metrics.dropped("ingress", "callbacks", "source_not_allowed");
    let counted = eventually("the counts of the time without an agent", Duration::from_secs(5), || {
        let now = firewall.metrics().ok()?;
        (forged(&now) > forged(&before) && now.went_back(&before).is_empty()).then_some(now)
    });
    let metrics = counted.or_else(|_| firewall.metrics())?;
    report.check(
        "counters that went back",
        "none",
        match metrics.went_back(&before) {
            back if back.is_empty() => "none".to_owned(),
            back => back.join(", "),
        },
    );
    let more = |count: f64, before: f64| {
        if count > before { "more than before".to_owned() } else { format!("{count}, was {before}") }
    };
    report.check("forged callbacks dropped", "more than before", more(forged(&metrics), forged(&before)));
    let passed = |metrics: &testbed::Metrics| metrics.passed("ingress", "callbacks");
    report.check("packets of callbacks passed", "more than before", more(passed(&metrics), passed(&before)));
    report.counts(&metrics);
    Ok(())
}

/// The agent that `run` has built.
fn binary() -> std::path::PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), Into::into);
    target.join("debug/mpesa-fw")
}

fn exit(code: Option<i32>) -> String {
    code.map_or_else(|| "ended by a signal".to_owned(), |code| code.to_string())
}
