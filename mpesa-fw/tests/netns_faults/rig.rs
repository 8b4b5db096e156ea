//! One host whose agent is killed and started again and again.

use std::{
    collections::BTreeSet,
    fs,
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use mpesa_fw::fault;
use mpesa_fw_common::ABI_VERSION;
use testbed::{Firewall, Metrics, Ran, Started, eventually, ok};

use super::{
    plan::{Action, Case, Scenario},
    traces::{self, Traces, below},
};
use crate::support::{
    Field, SOON,
    orders::Orders,
    policy,
    traffic::{ASKED, CLOSED, KEPT, Traffic},
};

/// Both interfaces.
fn both() -> String {
    policy(&[ASKED, CLOSED], &[KEPT]).replace("[eth0]", "[eth0, eth1]")
}

/// Another policy for both.
fn both_otherwise() -> String {
    let more = "{ name: more, ports: [81], from: [any] }";
    policy(&[ASKED, CLOSED, more], &[KEPT]).replace("[eth0]", "[eth0, eth1]")
}

/// Only one of them.
fn one() -> String {
    policy(&[ASKED, CLOSED], &[KEPT])
}

/// A veth keeps what it has not handed over in a ring of 256 while an XDP program is there, and when that goes it frees the ring
/// (Linux 6.18, `veth_napi_del_range`; `VETH_RING_SIZE`). Of a client with a packet every 2 ms that is one; on a busy machine, where
/// it is handed over late, 57 were seen. A firewall that judges what it should not, until somebody mends it, costs more.
const IN_A_RING: u64 = 256;

pub(crate) struct Rig<'a> {
    firewall: Firewall<'a>,
    traffic: &'a Traffic,
    arguments: Vec<&'a str>,
    orders: Orders,
    agent: Option<Started>,
    clean: Option<Traces>,
    last: Option<Metrics>,
    /// Ids of the maps of counters in every life of the state: each program has one of them.
    states: BTreeSet<u64>,
}

impl<'a> Rig<'a> {
    pub(crate) fn new(field: &'a Field, traffic: &'a Traffic, arguments: &[&'a str]) -> Result<Self> {
        field
            .host
            .namespace
            .sh("ip link add eth1 type veth peer name eth1p; ip link set eth1 up; ip link set eth1p up")?;
        let mut firewall = field.firewall()?;
        let orders = Orders::new(&mut firewall);
        let mut rig = Self {
            firewall,
            traffic,
            arguments: arguments.to_vec(),
            orders,
            agent: None,
            clean: None,
            last: None,
            states: BTreeSet::new(),
        };
        rig.ensure_running()?;
        rig.reload(&both_otherwise(), Some(true))?;
        rig.reload(&both(), Some(true))?;
        // The kernel lets go of what was replaced a while later.
        let mut last = rig.traces()?;
        rig.clean = Some(eventually("the traces to rest", SOON, || {
            sleep(Duration::from_millis(200));
            let now = rig.traces().ok()?;
            let rests = now == last;
            last = now;
            rests.then(|| last.clone())
        })?);
        Ok(rig)
    }

    pub(crate) fn clsact(&self) -> bool {
        self.arguments.contains(&"clsact")
    }

    /// The points that a scenario crosses, one a line.
    pub(crate) fn trace(&mut self, scenario: Scenario) -> Result<String> {
        let told = || format!("{scenario:?}, traced");
        self.prepare(scenario).with_context(told)?;
        self.orders.give(&format!("{}\n{}", fault::TRACE, base(scenario)))?;
        let before = self.judged_so_far()?;
        self.act(scenario).with_context(told)?;
        self.orders.withdraw();
        let text = self.orders.take_trace().with_context(told)?;
        self.recover(scenario, before, Action::Fail).with_context(told)?;
        Ok(text)
    }

    /// Visits a point, and looks whether everything is as it should be.
    pub(crate) fn visit(&mut self, case: &Case) -> Result<()> {
        let begun = Instant::now();
        self.prepare(case.scenario).context("before")?;
        let before = self.judged_so_far()?;
        self.orders.give(&format!("{}{}", base(case.scenario), case.order()))?;
        self.act(case.scenario)?;
        ensure!(!self.orders.left().contains(&case.order()), "the point was not reached");
        self.orders.withdraw();
        if case.action == Action::Kill && case.scenario != Scenario::DetachFromPins {
            eventually("the death of the agent", SOON, || (!self.running()).then_some(()))?;
        }
        self.recover(case.scenario, before, case.action)?;
        if std::env::var_os("MPESA_FW_FAULTS_TIMES").is_some() {
            println!("{:>5} ms  {case}", begun.elapsed().as_millis());
        }
        Ok(())
    }

    /// Forgets what a failed case left.
    pub(crate) fn begin_anew(&mut self) -> Result<()> {
        self.orders.withdraw();
        self.kill()?;
        self.detach_all()
    }

    fn running(&mut self) -> bool {
        self.agent.as_mut().is_some_and(|agent| agent.process.running())
    }

    fn kill(&mut self) -> Result<()> {
        self.agent.take().map_or(Ok(()), |mut agent| agent.process.kill())
    }

    fn prepare(&mut self, scenario: Scenario) -> Result<()> {
        self.orders.withdraw();
        match scenario {
            Scenario::Reload | Scenario::Trial | Scenario::Undo | Scenario::Detach => self.ensure_running(),
            Scenario::Restart | Scenario::DetachFromPins => {
                self.ensure_running()?;
                self.kill()
            }
            Scenario::Mixed => {
                self.ensure_running()?;
                self.orders.give("HookReplaced kill 1")?;
                self.firewall.policy(&both_otherwise())?;
                self.firewall.ask(["reload"])?;
                eventually("a death between two hooks", SOON, || (!self.running()).then_some(()))?;
                self.kill()
            }
            Scenario::Upgrade => {
                self.ensure_running()?;
                self.kill()?;
                self.last = None;
                let root = |version: u32| self.firewall.bpffs.join(format!("abi-{version}"));
                fs::rename(root(ABI_VERSION), root(ABI_VERSION - 1)).context("pins of another version")
            }
            Scenario::Start => {
                self.kill()?;
                self.detach_all()
            }
        }
    }

    fn ensure_running(&mut self) -> Result<()> {
        if !self.running() {
            self.kill()?;
            self.firewall.policy(&both())?;
            self.start()?;
        }
        Ok(())
    }

    fn start(&mut self) -> Result<()> {
        self.agent = Some(self.firewall.start(&self.arguments)?);
        self.remember_state()
    }

    fn remember_state(&mut self) -> Result<()> {
        for map in ["COUNTERS", "CONNECTIONS"] {
            let pin = self.firewall.bpffs.join(format!("abi-{ABI_VERSION}/state/{map}"));
            let shown = ok(Command::new("bpftool").args(["-j", "map", "show", "pinned"]).arg(pin))?;
            let shown: serde_json::Value = serde_json::from_str(&shown)?;
            self.states.insert(shown["id"].as_u64().context("a map has an id")?);
        }
        Ok(())
    }

    /// What the clients have seen until now, where packets are judged.
    fn judged_so_far(&self) -> Result<(u64, (u64, u64))> {
        Ok((self.traffic.lost()?, self.traffic.through()))
    }

    fn act(&mut self, scenario: Scenario) -> Result<()> {
        match scenario {
            Scenario::Reload => {
                self.reload(&one(), None)?;
                if self.running() {
                    self.reload(&both(), None)?;
                }
                Ok(())
            }
            Scenario::Trial => {
                self.reload_with(&one(), &["--confirm-within", "60s"], None)?;
                if self.running() {
                    let confirmed = self.firewall.ask(["confirm"])?;
                    if confirmed.code == Some(3) {
                        eventually("the end of an agent that hung up", SOON, || {
                            (!self.running()).then_some(())
                        })?;
                    }
                }
                Ok(())
            }
            Scenario::Undo => self.reload(&both_otherwise(), Some(false)),
            Scenario::Mixed | Scenario::Restart | Scenario::Upgrade | Scenario::Start => {
                self.firewall.policy(&both())?;
                let mut agent = self.firewall.spawn(&self.arguments)?;
                eventually("the agent to be ready or gone", Duration::from_secs(20), || {
                    let ready = self
                        .firewall
                        .namespace
                        .get(Firewall::METRICS, "/readyz")
                        .is_ok_and(|(status, _)| status == 200);
                    (ready || !agent.process.running()).then_some(())
                })
                .with_context(|| agent.process.log())?;
                self.agent = Some(agent);
                Ok(())
            }
            Scenario::Detach | Scenario::DetachFromPins => self.detach().map(drop),
        }
    }

    /// A reload, and whether what was said of it is true. `good`: whether it must succeed, if that is known; an agent
    /// that is killed can't say.
    fn reload(&mut self, yaml: &str, good: Option<bool>) -> Result<()> {
        self.reload_with(yaml, &[], good)
    }

    fn reload_with(&mut self, yaml: &str, more: &[&str], good: Option<bool>) -> Result<()> {
        let before = self.firewall.status()?["generation"].clone();
        self.firewall.policy(yaml)?;
        let ran = self.firewall.ask(["reload"].iter().chain(more))?;
        if ran.code == Some(3) {
            // The client hears of it a moment before its parent does.
            eventually("the end of an agent that hung up", SOON, || (!self.running()).then_some(()))?;
        }
        if !self.running() {
            ensure!(ran.code == Some(3), "of an agent that died: {}", ran.text());
            ensure!(ran.stderr.contains("hung up") || ran.stderr.contains("reset"), "{}", ran.text());
            return Ok(());
        }
        ensure!(matches!(ran.code, Some(0 | 4)), "{}", ran.text());
        let said = ran.code == Some(0);
        let after = self.firewall.status()?["generation"].clone();
        ensure!(said == (after["number"] != before["number"]), "{}: {before} then {after}", ran.text());
        ensure!(said || after["digest"] == before["digest"], "{before} then {after}");
        ensure!(good.is_none_or(|good| good == said), "{}", ran.text());
        ensure!(said || ran.stderr.contains("a test asked for"), "says why: {}", ran.text());
        Ok(())
    }

    fn detach(&self) -> Result<Ran> {
        self.firewall.ask(["detach".as_ref(), "--bpffs".as_ref(), self.firewall.bpffs.as_os_str()])
    }

    /// Detaches whatever is there, and looks whether something is left.
    fn detach_all(&mut self) -> Result<()> {
        let ran = self.detach()?;
        ensure!(ran.code == Some(0), "detach: {}", ran.text());
        self.kill()?;
        self.last = None;
        ensure!(below(&self.firewall.bpffs)?.is_empty(), "pins: {:?}", below(&self.firewall.bpffs)?);
        eventually("the end of every program", SOON, || {
            traces::owned(&self.states).is_ok_and(|(programs, _)| programs == 0).then_some(())
        })?;
        let hooks = self.firewall.namespace.sh(
            "for i in eth0 eth1; do tc filter show dev $i ingress; tc filter show dev $i egress; done; ip link | grep xdp || true",
        )?;
        ensure!(hooks.trim().is_empty(), "{hooks}");
        Ok(())
    }

    /// From whatever state a case left, to an agent in force as after a clean start; or to nothing at all.
    fn recover(&mut self, scenario: Scenario, before: (u64, (u64, u64)), action: Action) -> Result<()> {
        if matches!(scenario, Scenario::Detach | Scenario::DetachFromPins) {
            self.detach_all()?;
            self.traffic.connection()?;
            // What is permitted passes before, meanwhile and behind; what is denied does once nothing judges.
            return self.none_lost(before.0, IN_A_RING);
        }
        if !self.running() {
            self.kill()?;
            self.start().context("after")?;
        }
        let upgraded = scenario == Scenario::Upgrade;
        if upgraded || scenario == Scenario::Start {
            self.remember_state()?;
        }
        if !self.firewall.status()?["trial"].is_null() {
            // Killed in the middle of it: the next agent goes on with it.
            ensure!(scenario == Scenario::Trial, "a trial that nobody began");
            let ran = self.firewall.ask(["rollback"])?;
            ensure!(ran.code == Some(0), "{}", ran.text());
        }
        // A policy for one interface may be in force, or some step may have left something for the next one.
        self.reload(&both(), Some(true)).context("after")?;
        self.traffic.connection()?;
        if scenario == Scenario::Start {
            // Also here: what is permitted passes without a firewall too. A step that fails takes the program away again.
            self.none_lost(before.0, IN_A_RING)?;
            // Enforcement has begun by now; before it, everything passed.
            let through = self.traffic.through();
            std::thread::sleep(Duration::from_millis(20));
            ensure!(
                self.traffic.through() == through,
                "enforced: {:?} then {:?}",
                through,
                self.traffic.through()
            );
        } else {
            self.none_lost(before.0, 0)?;
            let through = self.traffic.through();
            ensure!(through == before.1, "denied packets got through: {:?} then {through:?}", before.1);
        }
        let metrics = self.firewall.metrics()?;
        if let Some(last) = self.last.replace(metrics) {
            let back = self.last.as_ref().map(|now| now.went_back(&last)).unwrap_or_default();
            ensure!(back.is_empty(), "counts went back after {action}: {back:?}");
        }
        let status = self.firewall.status()?;
        ensure!(status["protection"] == "enforcing", "{status}");
        let interfaces = status["interfaces"].as_array().context("a list")?;
        ensure!(interfaces.len() == 2 && interfaces.iter().all(|i| i["ingress"] == "xdp_native"), "{status}");
        self.as_after_a_clean_start()
    }

    /// The allowed client has lost no more than `most` packets since it had lost `before`.
    fn none_lost(&self, before: u64, most: u64) -> Result<()> {
        // What was given up and came after all is none.
        let lost = self.traffic.lost()?.saturating_sub(before);
        ensure!(lost <= most, "an allowed client lost {lost} packets");
        Ok(())
    }

    fn as_after_a_clean_start(&self) -> Result<()> {
        let Some(clean) = &self.clean else { return Ok(()) };
        let mut last = None;
        let settled = eventually("the traces of a clean start", Duration::from_secs(3), || {
            last = self.traces().ok();
            (last.as_ref() == Some(clean)).then_some(())
        });
        if settled.is_err() {
            bail!("left behind or missing: {last:?}\n  a clean start has {clean:?}");
        }
        Ok(())
    }

    fn traces(&self) -> Result<Traces> {
        let pid = self.agent.as_ref().context("an agent runs")?.process.pid();
        Traces::of(&self.firewall, pid, &self.states)
    }
}

/// Orders that make a scenario what it is.
fn base(scenario: Scenario) -> &'static str {
    match scenario {
        Scenario::Undo => "HookReplaced fail 3\n",
        Scenario::Reload
        | Scenario::Trial
        | Scenario::Mixed
        | Scenario::Restart
        | Scenario::Upgrade
        | Scenario::Start
        | Scenario::Detach
        | Scenario::DetachFromPins => "",
    }
}
