//! Which bit stands for which watched set.
//!
//! Tables are built with the bits in file order, which makes them, and the digest, the same on every host; then the
//! bits are moved to where the host's registry has its sets.

use mpesa_fw_common::tables::WATCHED_SETS;

use super::{AddressTables, CompileError, Slots};
use crate::policy::model::Policy;

/// For each set of the policy: its bit while the tables are built; 0 if it watches nothing.
pub(super) fn bits_in_file_order(policy: &Policy) -> Result<Vec<u64>, CompileError> {
    let count = policy.sets.iter().filter(|set| !set.watch.is_empty()).count();
    if count > WATCHED_SETS {
        return Err(CompileError::TooManyWatchedSets { count });
    }
    let mut next = 0u32;
    let bit_of = |set: &crate::policy::model::AddressSet| {
        if set.watch.is_empty() {
            return 0;
        }
        next += 1;
        1 << (next - 1)
    };
    Ok(policy.sets.iter().map(bit_of).collect())
}

/// Moves the bits of every class from file order to the slots.
pub(super) fn move_to_slots(
    tables: &mut [AddressTables; 3],
    policy: &Policy,
    slots: &Slots,
) -> Result<(), CompileError> {
    let watched = policy.sets.iter().filter(|set| !set.watch.is_empty());
    let targets = watched
        .map(|set| {
            let slot = slots.sets.get(&set.name).copied().filter(|slot| usize::from(*slot) < WATCHED_SETS);
            slot.map(|slot| 1u64 << slot)
                .ok_or_else(|| CompileError::NoSlot { what: "watched set", name: set.name.clone() })
        })
        .collect::<Result<Vec<u64>, _>>()?;
    for class in tables.iter_mut().flat_map(|table| &mut table.classes) {
        let bits = class.watch;
        class.watch = targets
            .iter()
            .enumerate()
            .filter(|(n, _)| bits >> n & 1 == 1)
            .fold(0, |all, (_, target)| all | target);
    }
    Ok(())
}
