//! Whether the tables and the state are what was written into them.

use std::collections::BTreeMap;

use mpesa_fw_common::{
    Address,
    attempt::WayKey,
    counter::{Counter, CounterBlock},
    settings::Direction,
    tables::ResolvedNames,
};

use super::{
    Datapath, Result, addresses, counters,
    error::Context,
    pins::STAMP,
    registry, slots,
    tables::{self, Table},
    tamper::{TamperKind, Tampering},
};
use crate::compile::Compiled;

/// What the agent wrote last into the maps that it alone writes. None: nothing yet, or it is not known.
#[derive(Default)]
pub(super) struct Written {
    pub(super) own: Option<Vec<Address>>,
    pub(super) resolved: Option<BTreeMap<Address, ResolvedNames>>,
    pub(super) ways: Option<BTreeMap<WayKey, u32>>,
    pub(super) lease: Option<u64>,
}

/// Counts at the last look: none ever goes back.
#[derive(Default)]
pub(super) struct Counted {
    rules: BTreeMap<(String, Direction, String), CounterBlock>,
    connections: BTreeMap<u32, u64>,
}

impl Counted {
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Datapath {
    /// Compares the state that only the agent writes, and writes it again where it differs.
    pub(super) fn look_at_state(&mut self, found: &mut Vec<Tampering>) -> Result<()> {
        let tampered =
            |map: &str| Tampering::new(TamperKind::State, format!("map {map}"), "somebody wrote into it");
        if addresses::is_own_changed(&self.state)? {
            let mended = addresses::restore_own(&self.state).map_err(std::io::Error::other);
            found.push(tampered("OWN_ADDRESSES").after(mended));
        }
        if addresses::is_resolved_changed(&self.state)? {
            let mended = addresses::restore_resolved(&self.state).map_err(std::io::Error::other);
            found.push(tampered("RESOLVED").after(mended));
        }
        if self.are_owners_changed()? {
            let mended = self.restore_owners().map_err(std::io::Error::other);
            found.push(tampered("OWNERS").after(mended));
        }
        if self.are_ways_changed()? {
            let mended = self.restore_ways().map_err(std::io::Error::other);
            found.push(tampered("WAYS").after(mended));
        }
        if self.is_lease_changed()? {
            let mended = self.end_lease().map_err(std::io::Error::other);
            found.push(tampered("LEASE").after(mended));
        }
        let rows = registry::read(&self.state)?;
        if rows != self.registry {
            let mended = registry::write(&self.state, &rows, &self.registry).map_err(std::io::Error::other);
            found.push(tampered("COUNTER_NAMES, SET_NAMES or DNS_NAMES").after(mended));
        }
        let places = slots::read(&self.state)?;
        if places != self.places && !self.places.is_empty() {
            let mended = slots::restore(&self.state, &self.places).map_err(std::io::Error::other);
            found.push(tampered("INTERFACE_SLOTS").after(mended));
        }
        self.look_at_counts(found)
    }

    fn look_at_counts(&mut self, found: &mut Vec<Tampering>) -> Result<()> {
        let mut back = Vec::new();
        for now in counters::read(&self.state, &self.registry)? {
            let name = if now.rule.is_empty() { "no rule" } else { &now.rule };
            let place = format!("{} {} {name}", now.interface, now.direction.label());
            let key = (now.interface, now.direction, now.rule);
            let before = self.counted.rules.insert(key, now.block);
            back.extend(before.filter(|before| went_back(before, &now.block)).map(|_| place));
        }
        let known = &mut self.counted.connections;
        let mut is_back = false;
        let read = self.state.connections.for_each(|row, count| {
            is_back |= known.insert(*row, count.completed).is_some_and(|before| before > count.completed);
        });
        read.context(|| "read the counts of connections")?;
        back.extend(is_back.then(|| "completed connections".to_owned()));
        if !back.is_empty() {
            let what = "counts went back, which nothing but a write from outside does; they go on from there";
            found.push(Tampering::new(TamperKind::Counts, back.join(", "), what));
        }
        Ok(())
    }

    /// Compares the next table with what it was filled with. From user space a frozen one can't be changed; another BPF program
    /// can write into it.
    pub(super) fn look_at_table(&mut self, compiled: &Compiled, found: &mut Vec<Tampering>) -> Result<()> {
        let (Some((stamp, _)), Some(loaded)) = (&self.running, &self.loaded) else { return Ok(()) };
        if compiled.settings.generation != stamp.number {
            return Ok(()); // the agent has not heard yet of the generation that it asked for
        }
        let mut all = tables::tables(&compiled.tables);
        all.push(Table::new(STAMP, std::slice::from_ref(stamp)));
        self.next_table = (self.next_table + 1) % all.len();
        let table = all[self.next_table];
        let name = table.name;
        let Some(map) = loaded.map(name) else { return Ok(()) };
        let is_intact = table.is_in(map).context(|| format!("read the table {name}"))?;
        if !is_intact && self.damaged.insert(name) {
            let what = "it differs from what the generation was loaded with";
            found.push(Tampering::new(TamperKind::Table, format!("table {name}"), what));
        }
        Ok(())
    }
}

fn went_back(before: &CounterBlock, now: &CounterBlock) -> bool {
    let less = |before: &Counter, now: &Counter| now.packets < before.packets || now.bytes < before.bytes;
    less(&before.passed, &now.passed)
        || before.dropped.iter().zip(&now.dropped).any(|(before, now)| less(before, now))
        || before.would_drop.iter().zip(&now.would_drop).any(|(before, now)| less(before, now))
        || now.passed_syns < before.passed_syns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_that_grow_are_no_tampering() {
        let mut now = CounterBlock::ZERO;
        now.passed.packets = 3;
        now.dropped[2].packets = 1;
        assert!(!went_back(&CounterBlock::ZERO, &now) && !went_back(&now, &now));
        assert!(went_back(&now, &CounterBlock::ZERO));
        let mut less = now;
        less.dropped[2].packets = 0;
        less.passed.packets = 9;
        assert!(went_back(&now, &less));
    }
}
