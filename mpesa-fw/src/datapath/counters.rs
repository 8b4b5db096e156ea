//! Counts, summed over the CPUs. Only rows and interfaces that are in use are read: one system call each.

use std::io;

use mpesa_fw_common::{
    counter::{Counter, CounterBlock, SLOT_EGRESS_NONE, SLOT_INGRESS_NONE, counter_index},
    settings::Direction,
    state::NameSlot,
};

use super::{
    Result,
    error::Context,
    registry::name_of,
    slots,
    state::{State, suppressed},
};
use crate::compile::RegistryRows;

/// Counts of one rule on one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleCounts {
    /// Name of the interface.
    pub interface: String,
    /// Direction of the rule.
    pub direction: Direction,
    /// Name of the rule; empty: no rule claims the packets.
    pub rule: String,
    /// Sums over all CPUs; `last_passed` is the latest.
    pub block: CounterBlock,
}

pub(super) fn read(state: &State, registry: &RegistryRows) -> Result<Vec<RuleCounts>> {
    let nobodys = [(SLOT_INGRESS_NONE, Direction::Ingress), (SLOT_EGRESS_NONE, Direction::Egress)];
    let named = in_use(&registry.rules)
        .filter(|(row, _)| !nobodys.iter().any(|(reserved, _)| row == reserved))
        .map(|(row, slot)| (row, direction_of(slot), name_of(&slot.name)));
    let rows: Vec<_> =
        nobodys.into_iter().map(|(row, direction)| (row, direction, String::new())).chain(named).collect();

    let mut counts = Vec::new();
    for place in slots::taken(state)? {
        for (row, direction, rule) in &rows {
            let blocks = state
                .counters
                .per_cpu(&counter_index(place.number, *row))
                .context(|| format!("read the counts of {}", place.interface.name))?;
            counts.push(RuleCounts {
                interface: place.interface.name.clone(),
                direction: *direction,
                rule: rule.clone(),
                block: blocks.iter().fold(CounterBlock::ZERO, add),
            });
        }
    }
    Ok(counts)
}

pub(super) fn near_misses(state: &State, registry: &RegistryRows) -> Result<Vec<(String, u64)>> {
    in_use(&registry.sets)
        .map(|(bit, slot)| Ok((name_of(&slot.name), state.near_misses.per_cpu(&bit)?.iter().sum())))
        .collect::<io::Result<_>>()
        .context(|| "read the near misses")
}

pub(super) fn events_suppressed(state: &State) -> Result<u64> {
    suppressed(&state.event_buckets)
}

pub(super) fn in_use(rows: &[NameSlot]) -> impl Iterator<Item = (u32, &NameSlot)> {
    (0u32..).zip(rows).filter(|(_, slot)| slot.status != 0)
}

pub(super) fn direction_of(slot: &NameSlot) -> Direction {
    if slot.direction == Direction::Egress as u8 { Direction::Egress } else { Direction::Ingress }
}

fn add(mut sum: CounterBlock, block: &CounterBlock) -> CounterBlock {
    let CounterBlock { passed, dropped, would_drop, last_passed, passed_syns } = block;
    let add = |sum: &mut Counter, more: &Counter| {
        sum.packets += more.packets;
        sum.bytes += more.bytes;
    };
    add(&mut sum.passed, passed);
    sum.dropped.iter_mut().zip(dropped).for_each(|(sum, more)| add(sum, more));
    sum.would_drop.iter_mut().zip(would_drop).for_each(|(sum, more)| add(sum, more));
    sum.passed_syns += passed_syns;
    sum.last_passed = sum.last_passed.max(*last_passed);
    sum
}
