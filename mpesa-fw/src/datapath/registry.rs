//! The registry of stable numbers, kept in maps beside the state that it explains.

use std::io;

use mpesa_fw_common::{
    counter::{COUNTER_SLOTS, INTERFACES, counter_index},
    state::NameSlot,
    tables::{NAMES, WATCHED_SETS},
};

use super::{
    Result, addresses::purge_names, attempts, connections, error::Context, learnt, state::State, tallies,
};
use crate::{
    compile::{Fresh, RegistryRows},
    sys::KernelMap,
};

/// Reads it.
pub(super) fn read(state: &State) -> Result<RegistryRows> {
    let read = |map, count| read_rows(map, count).context(|| "read the registry of names");
    Ok(RegistryRows {
        rules: read(&state.counter_names, COUNTER_SLOTS)?,
        sets: read(&state.set_names, WATCHED_SETS)?,
        names: read(&state.dns_names, NAMES)?,
    })
}

fn read_rows(map: &KernelMap<u32, NameSlot>, count: usize) -> io::Result<Vec<NameSlot>> {
    let mut rows = vec![NameSlot::default(); count];
    map.for_each(|row, slot| {
        if let Some(place) = rows.get_mut(*row as usize) {
            *place = *slot;
        }
    })?;
    Ok(rows)
}

/// Writes the rows that differ from `before`.
pub(super) fn write(state: &State, before: &RegistryRows, after: &RegistryRows) -> Result<()> {
    let write = |map, before, after| write_rows(map, before, after).context(|| "write the registry of names");
    write(&state.counter_names, &before.rules, &after.rules)?;
    write(&state.set_names, &before.sets, &after.sets)?;
    write(&state.dns_names, &before.names, &after.names)
}

fn write_rows(map: &KernelMap<u32, NameSlot>, before: &[NameSlot], after: &[NameSlot]) -> io::Result<()> {
    for row in 0..before.len().max(after.len()) {
        let wanted = after.get(row).copied().unwrap_or_default();
        if before.get(row).copied().unwrap_or_default() != wanted {
            map.put(&(row as u32), &wanted)?;
        }
    }
    Ok(())
}

/// Removes what is kept under positions that are about to have a new owner.
pub(super) fn clear(state: &State, fresh: &Fresh) -> Result<()> {
    let Fresh { counter_rows, watch_bits, name_slots } = fresh;
    let clear = || {
        for interface in 0..INTERFACES as u32 {
            for row in counter_rows {
                state.counters.zero_per_cpu(&counter_index(interface, *row))?;
            }
        }
        connections::forget(state, counter_rows)?;
        attempts::forget(state, counter_rows)?;
        tallies::forget(state, counter_rows)?;
        for bit in watch_bits {
            state.near_misses.zero_per_cpu(&u32::from(*bit))?;
        }
        purge_names(state, name_slots)?;
        if name_slots.is_empty() { Ok(()) } else { learnt::purge(state, name_slots) }
    };
    clear().context(|| "clear the counts of rows that have a new owner")
}

/// The name in a row.
pub(super) fn name_of(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
