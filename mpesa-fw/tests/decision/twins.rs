//! The host's decision and the oracle side by side: the same policy, the same packets, each with a state of its own.

use mpesa_fw_common::{
    Direction,
    decide::{Decision, Sender},
    dns::LearnCount,
};

use crate::{
    attempts,
    case::{Case, Expected, Names, Packet, Rules},
    host::{self, HostState},
    learning,
    oracle::Oracle,
};

pub(crate) struct Twins {
    pub(crate) rules: Rules,
    pub(crate) state: HostState,
    pub(crate) oracle: Oracle,
}

pub(crate) struct Judged {
    pub(crate) decision: Decision,
    /// By the oracle.
    #[cfg_attr(mpesa_fw_no_object, expect(dead_code, reason = "only the kernel is compared with it apart"))]
    pub(crate) said: Expected,
    /// What the host has learnt of it.
    #[cfg_attr(mpesa_fw_no_object, expect(dead_code, reason = "only the kernel is compared with it"))]
    pub(crate) learnt: LearnCount,
    /// What of that contradicts the other, or what the catalogue expects.
    pub(crate) wrong: Vec<String>,
}

impl Twins {
    pub(crate) fn new(case: &Case) -> Self {
        let rules = Rules::new(&case.policy);
        let state = case.state(&rules);
        Self::of(rules, state)
    }

    /// With whatever the host knows.
    pub(crate) fn of(rules: Rules, state: HostState) -> Self {
        let oracle = Oracle::new(&rules, &state);
        Self { rules, state, oracle }
    }

    pub(crate) fn wait(&mut self, time: u64) {
        self.state.wait(time);
        self.oracle.wait(time);
    }

    pub(crate) fn reload(&mut self, policy: &str) {
        self.rules = self.rules.reload(policy);
        self.oracle.reload(&self.rules);
        let names = self.state.names.clone();
        self.state.resolve(&self.rules, &names);
    }

    pub(crate) fn resolve(&mut self, names: &Names) {
        self.state.resolve(&self.rules, names);
        self.oracle.resolve(names);
    }

    /// Judges a packet both ways.
    pub(crate) fn judge(&mut self, packet: &Packet, sender: &Sender) -> Judged {
        let Packet { frame, direction, expected, .. } = packet;
        let decision = host::judge(&self.rules.compiled, &self.state, frame, *direction, sender);
        let decided = self.rules.explain(*direction, &decision);
        let said = self.oracle.judge(&self.rules, frame, *direction, sender);
        let mut learnt = LearnCount::default();
        if *direction == Direction::Ingress {
            learnt = learning::by_host(&self.rules.compiled, &self.state, frame, &decision);
            self.oracle.learn(&self.rules, frame, &decision);
        }
        let mut wrong = Vec::new();
        if decided != said {
            wrong.push(format!("decided {decided:?}, the oracle says {said:?}"));
        }
        if let Some(expected) = expected {
            for (who, answer) in [("decided", &decided), ("the oracle says", &said)] {
                if answer != expected {
                    wrong.push(format!("expected {expected:?}, {who} {answer:?}"));
                }
            }
        }
        if *direction == Direction::Egress {
            wrong.extend(attempts::contradiction(&self.rules, &self.state, frame, sender, &said));
        }
        Judged { decision, said, learnt, wrong }
    }
}
