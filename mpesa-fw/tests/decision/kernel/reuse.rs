//! One loaded generation for many histories: after each, what it left is taken away again, by the keys that the host has
//! of the same history.

#[cfg(test)]
use std::collections::HashMap as Memory;
use std::mem::{replace, take};

use aya::{
    Ebpf,
    maps::{Array, HashMap},
};
use mpesa_fw_common::{
    Address,
    dns::{Learnt, NameBudget},
    state::{FlowKey, FlowState, FragmentKey, FragmentState},
};

use super::{
    Pair,
    maps::{Limits, map, map_mut},
};
#[cfg(test)]
use crate::case::Case;
use crate::{host::HostState, oracle::Oracle, twins::Twins};

/// Generations that are loaded, for cases that differ in their packets only: loading takes far longer than a case.
#[cfg(test)]
#[derive(Default)]
pub(crate) struct Pairs(Memory<(String, bool), Pair>);

#[cfg(test)]
impl Pairs {
    /// A pair in which nothing has happened yet is handed to `run`.
    pub(crate) fn with<T>(&mut self, case: &Case, traced: bool, run: impl FnOnce(&mut Pair) -> T) -> T {
        if case.changes() {
            return run(&mut Pair::new(case, traced));
        }
        let Case { policy, own, names, .. } = case;
        let pair = self
            .0
            .entry((format!("{policy}{own:?}{names:?}"), traced))
            .or_insert_with(|| Pair::new(case, traced));
        let answer = run(pair);
        pair.forget();
        answer
    }
}

impl Pair {
    /// The next generation: takes over what has happened under an older one.
    pub(crate) fn take_over(&mut self, older: &mut Self) {
        let (before, state) = (&mut older.twins.state, &mut self.twins.state);
        copy_known(&older.kernel.ebpf, &mut self.kernel.ebpf, before);
        state.now.set(before.now.get());
        state.flows = take(&mut before.flows);
        state.ports = take(&mut before.ports);
        state.fragments = take(&mut before.fragments);
        state.limits = take(&mut before.limits);
        state.learnt = take(&mut before.learnt);
        // The older one is used again later, and what it keeps would be news to its host.
        forget(&mut older.kernel.ebpf, state);
        let nothing = Oracle::new(&older.twins.rules, &older.twins.state);
        self.twins.oracle = replace(&mut older.twins.oracle, nothing);
        self.twins.oracle.reload(&self.twins.rules);
    }

    /// As before the first packet, but for the counters.
    pub(crate) fn forget(&mut self) {
        let Twins { rules, state, oracle } = &mut self.twins;
        forget(&mut self.kernel.ebpf, state);
        let HostState { flows, ports, fragments, limits, learnt, .. } = &*state;
        learnt.borrow_mut().clear();
        flows.borrow_mut().clear();
        ports.borrow_mut().clear();
        fragments.borrow_mut().clear();
        limits.borrow_mut().clear();
        *oracle = Oracle::new(rules, state);
    }
}

fn copy_known(from: &Ebpf, to: &mut Ebpf, state: &HostState) {
    let old: HashMap<_, FlowKey, FlowState> = map!(from, "FLOWS");
    let mut new: HashMap<_, FlowKey, FlowState> = map_mut!(to, "FLOWS");
    for key in state.flows.borrow().keys() {
        new.insert(key, old.get(key, 0).expect("a flow that the host has"), 0).expect("room");
    }
    let old: HashMap<_, FragmentKey, FragmentState> = map!(from, "FRAGMENTS");
    let mut new: HashMap<_, FragmentKey, FragmentState> = map_mut!(to, "FRAGMENTS");
    for key in state.fragments.borrow().keys() {
        new.insert(key, old.get(key, 0).expect("a fragment that the host has"), 0).expect("room");
    }
    let old: HashMap<_, Address, Learnt> = map!(from, "LEARNT");
    let mut new: HashMap<_, Address, Learnt> = map_mut!(to, "LEARNT");
    for address in state.learnt.borrow().keys() {
        new.insert(address, old.get(address, 0).expect("an address that the host has"), 0).expect("room");
    }
    let old: Array<_, u64> = map!(from, "FLOW_PORTS");
    let mut new: Array<_, u64> = map_mut!(to, "FLOW_PORTS");
    for port in state.ports.borrow().iter() {
        let word = u32::from(port / 64);
        new.set(word, old.get(&word, 0).expect("a word"), 0).expect("set");
    }
    let old: Array<_, Limits> = map!(from, "LIMITS");
    let mut new: Array<_, Limits> = map_mut!(to, "LIMITS");
    for index in state.limits.borrow().keys() {
        new.set(*index, old.get(index, 0).expect("a set"), 0).expect("set");
    }
}

fn forget(ebpf: &mut Ebpf, state: &HostState) {
    let mut flows: HashMap<_, FlowKey, FlowState> = map_mut!(ebpf, "FLOWS");
    for key in state.flows.borrow().keys() {
        flows.remove(key).expect("a flow that the host has");
    }
    let mut fragments: HashMap<_, FragmentKey, FragmentState> = map_mut!(ebpf, "FRAGMENTS");
    for key in state.fragments.borrow().keys() {
        fragments.remove(key).expect("a fragment that the host has");
    }
    let mut learnt: HashMap<_, Address, Learnt> = map_mut!(ebpf, "LEARNT");
    for address in state.learnt.borrow().keys() {
        learnt.remove(address).expect("an address that the host has");
    }
    let mut budgets: Array<_, NameBudget> = map_mut!(ebpf, "NAME_BUDGETS");
    for slot in 0..budgets.len() {
        budgets.set(slot, NameBudget::default(), 0).expect("set");
    }
    let mut ports: Array<_, u64> = map_mut!(ebpf, "FLOW_PORTS");
    for port in state.ports.borrow().iter() {
        ports.set(u32::from(port / 64), 0, 0).expect("set");
    }
    let mut limits: Array<_, Limits> = map_mut!(ebpf, "LIMITS");
    for index in state.limits.borrow().keys() {
        limits.set(*index, Limits::default(), 0).expect("set");
    }
}
