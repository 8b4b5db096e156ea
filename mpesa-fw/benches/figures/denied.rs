//! Nanoseconds for a packet that is denied, by the sets and by where in them its source lies.

use std::fmt::Write as _;

use anyhow::{Result, ensure};
use mpesa_fw::compile::Compiled;
use mpesa_fw_common::{DropReason, settings::Direction};

use crate::{
    datapath::{Arguments, RULES, compiled, slot},
    kernel::{Counted, Kernel, Probe, XDP_DROP},
    packet, rounds,
    sample::against,
    sets::{PrefixSet, Sources, Spread},
    traffic::Traffic,
};

const PROBES: [Probe; 3] = [
    Probe { name: "bench_bare", answer: XDP_DROP },
    Probe { name: "bench_parse", answer: XDP_DROP },
    Probe { name: "bench_ingress", answer: XDP_DROP },
];
/// The rule for the callbacks, in [`RULES`].
const CALLBACKS: usize = 0;

/// Rates all sets.
pub(crate) fn table(object: &[u8], arguments: &Arguments) -> Result<()> {
    println!(
        "| packet | prefixes | set | sources | bare drop, ns | parse and drop, ns | `ingress_xdp`, ns | over parse | over bare |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for v4 in [true, false] {
        for prefixes in arguments.sizes() {
            for spread in [Spread::Random, Spread::Clustered] {
                let set = PrefixSet::new(v4, spread, prefixes);
                let compiled = compiled(&set, RULES)?;
                for sources in set.sources() {
                    println!("{}", row(object, &set, &compiled, &sources, arguments)?);
                }
            }
        }
    }
    Ok(())
}

/// What `ingress_xdp` may take more than parsing, and more than nothing.
fn targets(v4: bool, prefixes: usize) -> (Option<f64>, Option<f64>) {
    match (v4, prefixes) {
        (true, ..=1_000) => (Some(15.0), Some(50.0)),
        (true, ..=100_000) => (Some(45.0), None),
        (true, _) => (Some(120.0), None),
        (false, ..=1_000) => (None, Some(80.0)),
        (false, _) => (None, None),
    }
}

fn row(
    object: &[u8],
    set: &PrefixSet,
    compiled: &Compiled,
    sources: &Sources,
    arguments: &Arguments,
) -> Result<String> {
    let count = set.prefixes.len();
    let family = set.family();
    let from = if sources.spread == Spread::Random { "random" } else { "in the clusters" };
    eprintln!("{family}, {count} prefixes, {}, sources {from}", set.spread);
    let traffic = Traffic::from(packet::syn(set.v4, packet::PORT)?, sources);
    let mut kernel = Kernel::new(object, compiled, &traffic, &PROBES, &[])?;
    let samples = rounds::rate(&mut kernel, PROBES, arguments)?;
    let counted = Counted {
        slot: slot(compiled, Direction::Ingress, CALLBACKS),
        dropped: Some(DropReason::SourceNotAllowed),
    };
    let (denied, other) = kernel.counted(counted)?;
    let expected = rounds::packets(arguments);
    // The callback host itself lies within a cluster.
    ensure!(
        denied + other == expected && other <= expected / 10_000,
        "{denied} denied and {other} others of {expected} packets"
    );

    let [bare, parse, ingress] = &samples;
    let (over_parse, over_bare) = targets(set.v4, count);
    let mut row = format!("| {family} | {count} | {} | {from} |", set.spread);
    for sample in &samples {
        write!(row, " {} |", sample.least_and_median())?;
    }
    write!(row, " {} |", against(ingress.over(parse).median(), over_parse))?;
    write!(row, " {} |", against(ingress.over(bare).median(), over_bare))?;
    Ok(row)
}
