//! The state maps, as host state.

use std::{collections::BTreeMap, os::fd::AsFd as _};

use aya::{
    Ebpf,
    maps::{Array, HashMap, Map, MapData},
};
use mpesa_fw::sys::{KernelMap, Plain};
use mpesa_fw_common::{
    Address,
    counter::{Counter, CounterBlock},
    dns::{LearnCount, Learnt, LearntName, NameBudget},
    event::{EventBucket, QUOTAS},
    limit::{LIMIT_SETS, LIMIT_WAYS, LimitEntry},
    owner::{OwnerKey, OwnerRules},
    state::{BITMAP_WORDS, FlowKey, FlowState, FragmentKey, FragmentState},
    tables::{NAMES, NAMES_PER_ADDRESS, ResolvedNames},
    tally::{Tally, TallyKey},
};

use super::foretold::Shift;
use crate::{case::Rules, host::HostState};

pub(super) type Limits = [LimitEntry; LIMIT_WAYS];

macro_rules! map {
    ($ebpf:expr, $name:literal) => {
        $ebpf.map($name).expect($name).try_into().expect($name)
    };
}
macro_rules! map_mut {
    ($ebpf:expr, $name:literal) => {
        $ebpf.map_mut($name).expect($name).try_into().expect($name)
    };
}

pub(super) use {map, map_mut};

/// The maps per CPU, which aya reads slowly, and the switch of the capture.
pub(super) struct PerCpu {
    counters: KernelMap<u32, CounterBlock>,
    near_misses: KernelMap<u32, u64>,
    event_buckets: KernelMap<u32, EventBucket>,
    capture: KernelMap<u32, u32>,
    tallies: KernelMap<TallyKey, Tally>,
    tallies_rest: KernelMap<u32, Tally>,
    learning: KernelMap<u32, LearnCount>,
}

/// Opened and denied, by row.
pub(super) type Tallies = BTreeMap<u32, [u64; 2]>;
pub(super) const OPENED: usize = 0;
pub(super) const DENIED: usize = 1;

fn open<K: Plain, V: Plain>(ebpf: &Ebpf, name: &str) -> KernelMap<K, V> {
    let Some(Map::PerCpuArray(map) | Map::Array(map) | Map::HashMap(map)) = ebpf.map(name) else {
        panic!("no map {name}")
    };
    let fd = map.fd().as_fd().try_clone_to_owned().expect("a descriptor");
    KernelMap::new(fd).unwrap_or_else(|error| panic!("{name}: {error}"))
}

impl PerCpu {
    pub(super) fn of(ebpf: &Ebpf) -> Self {
        Self {
            counters: open(ebpf, "COUNTERS"),
            near_misses: open(ebpf, "NEAR_MISSES"),
            event_buckets: open(ebpf, "EVENT_BUCKETS"),
            capture: open(ebpf, "CAPTURE"),
            tallies: open(ebpf, "TALLIES"),
            tallies_rest: open(ebpf, "TALLIES_REST"),
            learning: open(ebpf, "LEARNING"),
        }
    }

    /// A row of counters, all CPUs together.
    pub(super) fn counters(&self, row: u32) -> CounterBlock {
        sum(&self.counters.per_cpu(&row).expect("counters"))
    }

    pub(super) fn near_misses(&self, bit: u32) -> u64 {
        self.near_misses.per_cpu(&bit).expect("near misses").iter().sum()
    }

    /// Sums over all owners; there is always room, so nothing is without one.
    pub(super) fn tallies(&self) -> Tallies {
        let mut tallies = Tallies::new();
        let mut add = |row: u32, tally: &Tally| {
            let Tally { opened, denied, last, first } = *tally;
            assert!(last != 0 && first != 0, "{tally:?}");
            let sum = tallies.entry(row).or_default();
            sum[OPENED] += opened;
            sum[DENIED] += denied;
        };
        self.tallies.for_each(|key, tally| add(key.row, tally)).expect("tallies");
        self.tallies_rest
            .for_each(|row, rest| assert_eq!(*rest, Tally::default(), "row {row}"))
            .expect("their rest");
        tallies
    }

    /// What became of answers, all CPUs together.
    pub(super) fn learning(&self) -> LearnCount {
        let mut sum = LearnCount::default();
        for counts in self.learning.per_cpu(&0).expect("what became of answers") {
            for (sum, count) in sum.outcomes.iter_mut().zip(counts.outcomes) {
                *sum += count;
            }
        }
        sum
    }

    pub(super) fn suppressed_events(&self) -> u64 {
        (0..QUOTAS)
            .flat_map(|quota| self.event_buckets.per_cpu(&quota).expect("event buckets"))
            .map(|bucket| bucket.suppressed)
            .sum()
    }

    /// Whether somebody captures from now on.
    pub(super) fn capture(&self, captures: bool) {
        self.capture.put(&0, &u32::from(captures)).expect("set");
    }

    pub(super) fn fill_event_bucket(&self) {
        (0..QUOTAS).for_each(|quota| self.event_buckets.zero_per_cpu(&quota).expect("filled"));
    }
}

fn sum(blocks: &[CounterBlock]) -> CounterBlock {
    let add = |a: &mut Counter, b: &Counter| {
        a.packets += b.packets;
        a.bytes += b.bytes;
    };
    let mut sum = CounterBlock::ZERO;
    for block in blocks {
        add(&mut sum.passed, &block.passed);
        for n in 0..sum.dropped.len() {
            add(&mut sum.dropped[n], &block.dropped[n]);
            add(&mut sum.would_drop[n], &block.would_drop[n]);
        }
        sum.passed_syns += block.passed_syns;
        sum.last_passed = sum.last_passed.max(block.last_passed);
    }
    sum
}

/// What the host knows before the first packet.
pub(super) fn put_state(ebpf: &mut Ebpf, state: &HostState) {
    for address in &state.own {
        let mut own: HashMap<_, Address, u8> = map_mut!(ebpf, "OWN_ADDRESSES");
        own.insert(address, 1, 0).expect("room");
        set_bit(ebpf, "OWN_HINTS", address.hint());
    }
    put_names(ebpf, state);
}

/// Who the owners of rules are.
pub(super) fn put_owners(ebpf: &Ebpf, rules: &Rules) {
    let owners: KernelMap<OwnerKey, OwnerRules> = open(ebpf, "OWNERS");
    for (key, rules) in &rules.compiled.present {
        owners.put(key, rules).expect("room");
    }
}

/// What packets have left at the host, and nothing else.
pub(super) fn put_history(ebpf: &mut Ebpf, state: &HostState, shift: Shift) {
    let flows = state.flows.borrow();
    let flow = |flow: &FlowState| FlowState { last_seen: shift.time(flow.last_seen), ..*flow };
    refill(map_mut!(ebpf, "FLOWS"), flows.iter().map(|(key, state)| (*key, flow(state))));
    let fragments = state.fragments.borrow();
    let first = |first: &FragmentState| FragmentState { passed_at: shift.time(first.passed_at), ..*first };
    refill(map_mut!(ebpf, "FRAGMENTS"), fragments.iter().map(|(key, state)| (*key, first(state))));
    let learnt = state.learnt.borrow();
    let names = |names: &Learnt| names.map(|name| shift.learnt(name));
    refill(map_mut!(ebpf, "LEARNT"), learnt.iter().map(|(address, all)| (*address, names(all))));
    let mut limits: Array<_, Limits> = map_mut!(ebpf, "LIMITS");
    for (index, set) in state.limits.borrow().iter() {
        let later = |entry: LimitEntry| LimitEntry { recovered_at: shift.time(entry.recovered_at), ..entry };
        limits.set(*index, set.map(later), 0).expect("set");
    }
    for port in state.ports.borrow().iter() {
        set_bit(ebpf, "FLOW_PORTS", *port);
    }
}

/// What DNS says.
pub(super) fn put_names(ebpf: &mut Ebpf, state: &HostState) {
    let resolved = state.resolved().iter().map(|(address, names)| (*address, *names));
    refill::<Address, ResolvedNames>(map_mut!(ebpf, "RESOLVED"), resolved);
    const { assert!(NAMES_PER_ADDRESS == 8) }
}

/// Makes a map hold these entries and no others.
fn refill<K: aya::Pod, V: aya::Pod>(
    mut map: HashMap<&mut MapData, K, V>,
    entries: impl Iterator<Item = (K, V)>,
) {
    for (key, _) in all(&map) {
        map.remove(&key).expect("it was there");
    }
    for (key, value) in entries {
        map.insert(key, value, 0).expect("room");
    }
}

fn set_bit(ebpf: &mut Ebpf, name: &str, bit: u16) {
    let mut words: Array<_, u64> = ebpf.map_mut(name).expect("a bitmap").try_into().expect("of words");
    let word = u32::from(bit / 64);
    let old = words.get(&word, 0).expect("a word");
    words.set(word, old | 1 << (bit % 64), 0).expect("set");
}

/// Makes everything older, by nanoseconds and by the ticks that these are: the clock can't be moved.
pub(super) fn age(ebpf: &mut Ebpf, time: u64, ticks: u32) {
    let mut flows: HashMap<_, FlowKey, FlowState> = map_mut!(ebpf, "FLOWS");
    for (key, flow) in all(&flows) {
        let older =
            FlowState { last_seen: flow.last_seen.checked_sub(time).expect("up for long enough"), ..flow };
        flows.insert(key, older, 0).expect("it was there");
    }
    let mut fragments: HashMap<_, FragmentKey, FragmentState> = map_mut!(ebpf, "FRAGMENTS");
    for (key, first) in all(&fragments) {
        let older = FragmentState { passed_at: first.passed_at.saturating_sub(time), ..first };
        fragments.insert(key, older, 0).expect("it was there");
    }
    let mut learnt: HashMap<_, Address, Learnt> = map_mut!(ebpf, "LEARNT");
    for (address, names) in all(&learnt) {
        let older = names.map(|name| match name.slot() {
            Some(slot) => LearntName::new(slot, name.until().saturating_sub(ticks)),
            None => name,
        });
        learnt.insert(address, older, 0).expect("it was there");
    }
    let mut limits: Array<_, Limits> = map_mut!(ebpf, "LIMITS");
    for index in 0..LIMIT_SETS as u32 {
        let mut set = limits.get(&index, 0).expect("a set");
        if set != Limits::default() {
            for entry in &mut set {
                entry.recovered_at = entry.recovered_at.saturating_sub(time);
            }
            limits.set(index, set, 0).expect("set");
        }
    }
}

fn all<M, K, V>(map: &HashMap<M, K, V>) -> Vec<(K, V)>
where
    M: std::borrow::Borrow<MapData>,
    K: aya::Pod,
    V: aya::Pod,
{
    map.iter().map(|entry| entry.expect("read")).collect()
}

/// The pinned maps, so to say.
pub(super) fn copy_state(from: &Ebpf, to: &mut Ebpf) {
    macro_rules! hash {
        ($name:literal, $key:ty, $value:ty) => {
            let old: HashMap<&MapData, $key, $value> = map!(from, $name);
            let mut new: HashMap<_, $key, $value> = map_mut!(to, $name);
            for (key, value) in all(&old) {
                new.insert(key, value, 0).expect($name);
            }
        };
    }
    macro_rules! array {
        ($name:literal, $value:ty, $entries:expr) => {
            let old: Array<&MapData, $value> = map!(from, $name);
            let mut new: Array<_, $value> = map_mut!(to, $name);
            for index in 0..$entries as u32 {
                let value = old.get(&index, 0).expect($name);
                if value != <$value>::default() {
                    new.set(index, value, 0).expect($name);
                }
            }
        };
    }
    hash!("FLOWS", FlowKey, FlowState);
    hash!("FRAGMENTS", FragmentKey, FragmentState);
    hash!("OWN_ADDRESSES", Address, u8);
    hash!("LEARNT", Address, Learnt);
    array!("NAME_BUDGETS", NameBudget, NAMES);
    array!("FLOW_PORTS", u64, BITMAP_WORDS);
    array!("OWN_HINTS", u64, BITMAP_WORDS);
    array!("LIMITS", Limits, LIMIT_SETS);
}

/// What differs, but for times and for the cookie of the socket that a test run makes.
pub(super) fn compare_state(ebpf: &Ebpf, state: &HostState) -> Vec<String> {
    let mut wrong = Vec::new();
    let flows: HashMap<&MapData, FlowKey, FlowState> = map!(ebpf, "FLOWS");
    let plain = |flow: &FlowState| FlowState { last_seen: 0, cookie: u64::from(flow.cookie != 0), ..*flow };
    let seen: std::collections::HashMap<_, _> =
        all(&flows).into_iter().map(|(key, flow)| (key, plain(&flow))).collect();
    let expected: std::collections::HashMap<_, _> =
        state.flows.borrow().iter().map(|(key, flow)| (*key, plain(flow))).collect();
    for key in seen.keys().chain(expected.keys()) {
        if seen.get(key) != expected.get(key) {
            wrong.push(format!("flow {key:?}: {:?}, not {:?}", seen.get(key), expected.get(key)));
        }
    }
    let fragments: HashMap<&MapData, FragmentKey, FragmentState> = map!(ebpf, "FRAGMENTS");
    let mut seen: Vec<_> =
        all(&fragments).into_iter().map(|(key, first)| (key, first.generation, first.rule)).collect();
    let mut expected: Vec<_> =
        state.fragments.borrow().iter().map(|(key, first)| (*key, first.generation, first.rule)).collect();
    seen.sort_by_key(|entry| format!("{entry:?}"));
    expected.sort_by_key(|entry| format!("{entry:?}"));
    if seen != expected {
        wrong.push(format!("fragments {seen:?}, not {expected:?}"));
    }
    let learnt: HashMap<&MapData, Address, Learnt> = map!(ebpf, "LEARNT");
    let slots = |names: &Learnt| {
        let mut slots: Vec<_> = names.iter().filter_map(|name| name.slot()).collect();
        slots.sort_unstable();
        slots
    };
    let seen: BTreeMap<_, _> = all(&learnt).iter().map(|(address, names)| (*address, slots(names))).collect();
    let expected: BTreeMap<_, _> =
        state.learnt.borrow().iter().map(|(address, names)| (*address, slots(names))).collect();
    if seen != expected {
        wrong.push(format!("learnt {seen:?}, not {expected:?}"));
    }
    let ports: Array<&MapData, u64> = map!(ebpf, "FLOW_PORTS");
    for word in 0..BITMAP_WORDS as u32 {
        let bits = ports.get(&word, 0).expect("a word");
        let expected = (0..64).filter(|bit| state.ports.borrow().contains(&((word * 64 + bit) as u16)));
        if bits != expected.fold(0, |bits, bit| bits | 1 << bit) {
            wrong.push(format!("ports of flows, word {word}: {bits:#x}"));
        }
    }
    wrong
}
