//! Nanoseconds for the search for a source alone: in the ranges of mpesa-fw, and in the kernel's trie for longest prefixes.

use anyhow::{Context as _, Result, ensure};
use aya::maps::{
    PerCpuArray,
    lpm_trie::{Key, LpmTrie},
};
use ipnet::IpNet;

use crate::{
    datapath::{Arguments, RULES, compiled},
    kernel::{Kernel, Probe, XDP_DROP},
    packet, rounds,
    sets::{PrefixSet, Spread},
    traffic::Traffic,
};

const PROBES: [Probe; 3] = [
    Probe { name: "bench_parse", answer: XDP_DROP },
    Probe { name: "bench_ranges", answer: XDP_DROP },
    Probe { name: "bench_trie", answer: XDP_DROP },
];
const TRIES: [&str; 2] = ["BENCH_TRIE4", "BENCH_TRIE6"];
/// What the policy allows besides the set.
const OTHERS: [&str; 3] = ["196.201.214.200/32", "2c0f:fe38::200/128", "203.0.113.7/32"];

/// Rates all random sets, with random sources.
pub(crate) fn table(object: &[u8], arguments: &Arguments) -> Result<()> {
    println!(
        "| | prefixes | parsed, ns | and the ranges, ns | and the LPM trie, ns | ranges / LPM trie, ns over parse | trie over ranges |\n|---|---|---|---|---|---|---|"
    );
    for v4 in [true, false] {
        for prefixes in arguments.sizes() {
            println!("{}", row(object, &PrefixSet::new(v4, Spread::Random, prefixes), arguments)?);
        }
    }
    Ok(())
}

fn row(object: &[u8], set: &PrefixSet, arguments: &Arguments) -> Result<String> {
    let (family, count) = (set.family(), set.prefixes.len());
    eprintln!("{family}, ranges and trie, {count} prefixes");
    let traffic = Traffic::from(packet::syn(set.v4, packet::PORT)?, &set.sources()[0]);
    let room = (count + OTHERS.len()) as u32;
    let compiled = compiled(set, RULES)?;
    let mut kernel = Kernel::new(object, &compiled, &traffic, &PROBES, &TRIES.map(|name| (name, room)))?;
    fill(&mut kernel, set)?;
    let [parse, ranges, trie] = &rounds::rate(&mut kernel, PROBES, arguments)?;
    agree(&mut kernel, &traffic, arguments)?;
    let (over_ranges, over_trie) = (ranges.over(parse).median(), trie.over(parse).median());
    Ok(format!(
        "| {family} | {count} | {} | {} | {} | {over_ranges:+.0} / {over_trie:+.0} | {:+.0} |",
        parse.least_and_median(),
        ranges.least_and_median(),
        trie.least_and_median(),
        trie.over(ranges).median(),
    ))
}

/// The tries hold what the ranges hold.
fn fill(kernel: &mut Kernel, set: &PrefixSet) -> Result<()> {
    let others = OTHERS.map(str::parse::<IpNet>).into_iter().collect::<Result<Vec<_>, _>>()?;
    let all = || set.prefixes.iter().chain(&others);
    let mut trie: LpmTrie<_, [u8; 4], u32> = kernel.map(TRIES[0])?.try_into()?;
    for prefix in all() {
        if let IpNet::V4(net) = prefix {
            trie.insert(&Key::new(net.prefix_len().into(), net.network().octets()), 1, 0)?;
        }
    }
    let mut trie: LpmTrie<_, [u8; 16], u32> = kernel.map(TRIES[1])?.try_into()?;
    for prefix in all() {
        if let IpNet::V6(net) = prefix {
            trie.insert(&Key::new(net.prefix_len().into(), net.network().octets()), 1, 0)?;
        }
    }
    Ok(())
}

/// The same packets are in both or in neither.
fn agree(kernel: &mut Kernel, traffic: &Traffic, arguments: &Arguments) -> Result<()> {
    let [_, by_ranges, by_trie] = PROBES;
    let before = found(kernel)?;
    for probe in [by_ranges, by_trie] {
        kernel.begin(traffic)?;
        kernel.rate(probe, arguments.packets)?;
    }
    let after = found(kernel)?;
    let [ranges, trie] = [after[0] - before[0], after[1] - before[1]];
    ensure!(
        ranges == trie,
        "of {} sources {ranges} are in the ranges, {trie} in the trie",
        arguments.packets
    );
    eprintln!("  {ranges} of {} sources are in both", arguments.packets);
    Ok(())
}

/// Sources that were found in the ranges, and in the trie.
fn found(kernel: &mut Kernel) -> Result<[u64; 2]> {
    let counts: PerCpuArray<_, u64> = kernel.map("BENCH_FOUND")?.try_into()?;
    let of = |by| counts.get(&by, 0).map(|counts| counts.iter().sum()).context("the sources found");
    Ok([of(0)?, of(1)?])
}
