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

/// State that the agent alone writes.
#[derive(Clone, Copy)]
enum Kept {
    Own,
    Resolved,
    Owners,
    Ways,
    Lease,
    Names,
    Places,
}

impl Kept {
    /// The maps, as they are told.
    const fn maps(self) -> &'static str {
        match self {
            Self::Own => "OWN_ADDRESSES",
            Self::Resolved => "RESOLVED",
            Self::Owners => "OWNERS",
            Self::Ways => "WAYS",
            Self::Lease => "LEASE",
            Self::Names => "COUNTER_NAMES, SET_NAMES or DNS_NAMES",
            Self::Places => "INTERFACE_SLOTS",
        }
    }
}

impl Datapath {
    /// Compares the state that only the agent writes, and writes it again where it differs.
    pub(super) fn look_at_state(&mut self, found: &mut Vec<Tampering>) -> Result<()> {
        let changed = [
            (Kept::Own, addresses::is_own_changed(&self.state)?),
            (Kept::Resolved, addresses::is_resolved_changed(&self.state)?),
            (Kept::Owners, self.are_owners_changed()?),
            (Kept::Ways, self.are_ways_changed()?),
            (Kept::Lease, self.is_lease_changed()?),
            (Kept::Names, registry::read(&self.state)? != self.registry),
            (Kept::Places, !self.places.is_empty() && slots::read(&self.state)? != self.places),
        ];
        for (kept, _) in changed.iter().filter(|(_, is_changed)| *is_changed) {
            let mended = self.restore(*kept).map_err(std::io::Error::other);
            // What can't be mended is tried at every look, and told once.
            let is_news = match mended {
                Ok(()) => {
                    self.damaged.remove(kept.maps());
                    true
                }
                Err(_) => self.damaged.insert(kept.maps()),
            };
            if is_news {
                let place = format!("map {}", kept.maps());
                let told = Tampering::new(TamperKind::State, place, "somebody wrote into it");
                found.push(told.after(mended));
            }
        }
        self.look_at_counts(found)
    }

    /// Writes again what the agent wrote last.
    fn restore(&mut self, kept: Kept) -> Result<()> {
        match kept {
            Kept::Own => addresses::restore_own(&self.state),
            Kept::Resolved => addresses::restore_resolved(&self.state),
            Kept::Owners => self.restore_owners(),
            Kept::Ways => self.restore_ways(),
            Kept::Lease => self.restore_lease(),
            Kept::Names => registry::write(&self.state, &registry::read(&self.state)?, &self.registry),
            Kept::Places => slots::restore(&self.state, &self.places),
        }
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
