//! The oracle beside the host: the same facts, a memory of its own.

use std::{net::IpAddr, time::Duration};

use mpesa_fw::reference::{self, Answer, Facts, Socket, State};
use mpesa_fw_common::{
    Direction,
    decide::{Decision, Sender},
};

use crate::{
    case::{Expected, Names, Rules},
    host::{self, Frame, HostState},
    learning::{self, Lesson},
};

pub(crate) struct Oracle {
    pub(crate) state: State,
    /// What DNS answers to the agent.
    names: Names,
    /// What answers said that came in.
    learnt: Vec<Lesson>,
    /// The number of the precedence that decided last.
    pub(crate) step: u8,
}

impl Oracle {
    /// Knows what the host knows, and has seen nothing yet.
    pub(crate) fn new(rules: &Rules, known: &HostState) -> Self {
        let state = State {
            now: Duration::from_nanos(known.now.get()),
            own: known.own.iter().map(|address| IpAddr::from(*address)).collect(),
            is_full: !known.has_room.get(),
            ..State::default()
        };
        let mut oracle = Self { state, names: Names::new(), learnt: Vec::new(), step: 0 };
        oracle.resolve(&known.names);
        oracle.reload(rules);
        oracle
    }

    /// DNS answers so from now on.
    pub(crate) fn resolve(&mut self, names: &Names) {
        self.names.clone_from(names);
    }

    /// All that names stand for at this time.
    fn look_up(&mut self) {
        let told = self.names.iter().map(|(address, names)| (*address, names.iter().cloned().collect()));
        self.state.names = told.collect();
        for (address, name, until) in &self.learnt {
            if self.state.now <= *until {
                self.state.names.entry(*address).or_default().insert(name.clone());
            }
        }
    }

    /// A packet passed, and may be an answer.
    pub(crate) fn learn(&mut self, rules: &Rules, frame: &Frame, decision: &Decision) {
        self.learnt.extend(learning::by_oracle(&rules.policy, self.state.now, frame, decision));
    }

    /// Whether an answer that came in, and nothing else, says that a name stands for the address.
    #[cfg(test)]
    pub(crate) fn learnt(&self, address: IpAddr) -> bool {
        let told = |name| self.names.iter().any(|(known, names)| *known == address && names.contains(name));
        self.learnt.iter().any(|(of, name, until)| *of == address && self.state.now <= *until && !told(name))
    }

    pub(crate) fn wait(&mut self, time: u64) {
        self.state.now += Duration::from_nanos(time);
    }

    pub(crate) fn reload(&mut self, rules: &Rules) {
        self.state.generation = rules.compiled.settings.generation;
    }

    pub(crate) fn judge(
        &mut self,
        rules: &Rules,
        frame: &Frame,
        direction: Direction,
        sender: &Sender,
    ) -> Expected {
        self.look_up();
        let facts = Facts::from(&host::facts(frame));
        let socket = Socket {
            id: sender.cookie,
            owners: rules.owners(&sender.owner),
            port: sender.bound_port,
            is_full: sender.is_full,
            is_raw: sender.is_raw,
        };
        let socket = (*sender != Sender::default()).then_some(&socket);
        let answer = reference::Oracle::new(&rules.policy, &mut self.state).judge(direction, &facts, socket);
        let Answer { step, reason, rule, mut near_misses } = answer;
        self.step = step;
        near_misses.sort();
        Expected { reason, rule, near_miss: near_misses }
    }
}
