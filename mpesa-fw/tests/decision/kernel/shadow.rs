//! A twin leaves nothing behind: every state map, byte by byte, before and after it was asked.

use std::{collections::BTreeMap, os::fd::AsFd as _};

use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData},
};
use mpesa_fw::{
    datapath::Falsehood,
    sys::{KernelMap, Plain},
};
use mpesa_fw_common::{
    counter::{COUNTER_BLOCKS, CounterBlock},
    dns::LearnCount,
    event::{EventBucket, QUOTAS},
    limit::LIMIT_SETS,
    state::{BITMAP_WORDS, FlowKey, FlowState, FragmentKey, FragmentState},
    tables::WATCHED_SETS,
};

use super::{
    Hook, Pair,
    catalogue::uptime,
    maps::{Limits, map},
    reuse::Pairs,
};
use crate::{
    case::{Case, Packet, Step},
    catalogue,
};

/// All that packets can change.
#[derive(PartialEq)]
struct Dump(BTreeMap<&'static str, Vec<Vec<u8>>>);

impl Dump {
    fn of(pair: &mut Pair) -> Self {
        let ebpf = &pair.kernel.ebpf;
        let mut dump = BTreeMap::new();
        let flows: HashMap<&MapData, FlowKey, FlowState> = map!(ebpf, "FLOWS");
        dump.insert(
            "FLOWS",
            sorted(flows.iter().map(|entry| entry.expect("read")).map(|(k, v)| bytes(&k, &v))),
        );
        let fragments: HashMap<&MapData, FragmentKey, FragmentState> = map!(ebpf, "FRAGMENTS");
        dump.insert(
            "FRAGMENTS",
            sorted(fragments.iter().map(|entry| entry.expect("read")).map(|(k, v)| bytes(&k, &v))),
        );
        let limits: Array<&MapData, Limits> = map!(ebpf, "LIMITS");
        dump.insert(
            "LIMITS",
            (0..LIMIT_SETS as u32).map(|i| bytes(&i, &limits.get(&i, 0).expect("a set"))).collect(),
        );
        let ports: Array<&MapData, u64> = map!(ebpf, "FLOW_PORTS");
        dump.insert(
            "FLOW_PORTS",
            (0..BITMAP_WORDS as u32).map(|i| bytes(&i, &ports.get(&i, 0).expect("a word"))).collect(),
        );
        dump.insert("COUNTERS", per_cpu::<CounterBlock>(ebpf, "COUNTERS", COUNTER_BLOCKS as u32));
        dump.insert("NEAR_MISSES", per_cpu::<u64>(ebpf, "NEAR_MISSES", WATCHED_SETS as u32));
        dump.insert("LEARNING", per_cpu::<LearnCount>(ebpf, "LEARNING", 1));
        dump.insert("EVENT_BUCKETS", per_cpu::<EventBucket>(ebpf, "EVENT_BUCKETS", QUOTAS));
        let mut events = Vec::new();
        while let Some(event) = pair.kernel.events.next() {
            events.push(event.to_vec());
        }
        dump.insert("EVENTS", events);
        Self(dump)
    }

    fn differences(&self, after: &Self) -> Vec<&'static str> {
        self.0.iter().filter(|(name, before)| after.0[*name] != **before).map(|(name, _)| *name).collect()
    }
}

fn bytes<K: Plain, V: Plain>(key: &K, value: &V) -> Vec<u8> {
    [key.as_bytes(), value.as_bytes()].concat()
}

fn sorted(entries: impl Iterator<Item = Vec<u8>>) -> Vec<Vec<u8>> {
    let mut entries: Vec<_> = entries.collect();
    entries.sort();
    entries
}

fn per_cpu<V: Plain>(ebpf: &Ebpf, name: &str, rows: u32) -> Vec<Vec<u8>> {
    let Some(aya::maps::Map::PerCpuArray(map)) = ebpf.map(name) else { panic!("no map {name}") };
    let fd = map.fd().as_fd().try_clone_to_owned().expect("a descriptor");
    let map = KernelMap::<u32, V>::new(fd).unwrap_or_else(|error| panic!("{name}: {error}"));
    let row =
        |row: u32| map.per_cpu(&row).expect("a row").iter().flat_map(|v| v.as_bytes().to_vec()).collect();
    (0..rows).map(row).collect()
}

/// Each case of the catalogue happens, so that there are flows, fragments and debts; then the twin is asked about all of its
/// packets, with every sender, several times. Not those in which the policy changes: after it they are cases like others.
#[test]
#[ignore = "needs root and a kernel"]
fn a_twin_leaves_no_trace() {
    let (mut pairs, mut asked, mut wrong) = (Pairs::default(), 0, Vec::new());
    let uptime = uptime();
    let is_slow = testbed::is_slow();
    if is_slow {
        testbed::left_out("three of four cases", "programs take seconds to load here");
    }
    for (number, case) in catalogue::all()
        .iter()
        .enumerate()
        .filter(|(_, case)| !case.is_host_only(uptime) && !case.has_senders() && !case.changes())
        .filter(|(number, _)| !is_slow || number % 4 == 0)
    {
        // One of the hooks, in turn.
        let hook = [Hook::Xdp, Hook::Tc][number % 2];
        let changed = pairs.with(case, false, |pair| {
            happen(case, pair, hook);
            while pair.kernel.events.next().is_some() {}
            let before = Dump::of(pair);
            for packet in case.packets().chain(case.packets()) {
                let senders = [None, Some(mpesa_fw_common::decide::Sender::default())];
                for sender in senders {
                    let packet = Packet { sender, ..packet.clone() };
                    asked += usize::from(pair.kernel.ask(&packet, hook).is_some());
                }
            }
            before.differences(&Dump::of(pair))
        });
        if !changed.is_empty() {
            wrong.push(format!("{} at {hook:?}: {changed:?}", case.name));
        }
    }
    println!("asked {asked} times");
    assert!(asked > 500, "{asked} is not all sorts");
    assert!(wrong.is_empty(), "asking has changed:\n{}", wrong.join("\n"));
}

/// What is not the loaded object is not asked.
#[test]
#[ignore = "needs root and a kernel"]
fn another_object_is_no_twin() {
    let mut pair = Pair::new(&Case::new("base", catalogue::BASE, Vec::new()), false);
    let mut compare = |falsely| pair.kernel.twin.compare_falsely(&pair.kernel.ebpf, falsely);
    compare(None).expect("a twin as it should be");
    for (falsely, word) in [
        (Falsehood::Instructions, "instructions"),
        (Falsehood::Maps, "other maps"),
        (Falsehood::Constants, "constants"),
        (Falsehood::Digest, "digest"),
    ] {
        let error = compare(Some(falsely)).expect_err(word).to_string();
        assert!(error.contains(word), "{error}");
    }
}

fn happen(case: &Case, pair: &mut Pair, hook: Hook) {
    for step in &case.steps {
        match step {
            Step::Wait(_) | Step::Reload(_) | Step::Resolve(_) => pair.go_on(step),
            Step::Packet(packet) => drop(pair.judge(packet, hook)),
        }
    }
}
