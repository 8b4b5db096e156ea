//! After a crash: hooks that run different generations are brought to one of them, and what nothing runs is removed.

use std::collections::BTreeMap;

use mpesa_fw_common::tables::GenerationStamp;

use super::{
    Result,
    error::Context,
    generation::Programs,
    hooks::{Found, Hook},
    netlink::Netlink,
    pins::{GenerationPins, Pins},
};
use crate::fault::{self, Point};

/// What was found running, and what was done.
#[derive(Default)]
pub(super) struct Healed {
    /// The generation that every hook runs now.
    pub(super) running: Option<(GenerationStamp, GenerationPins)>,
    /// For the log.
    pub(super) notes: Vec<String>,
}

/// Finishes the swap to the newest generation that any hook runs, or reverts it where that one is not complete.
/// With all hooks on one generation nothing is touched.
pub(super) fn heal(pins: &Pins, netlink: &Netlink, found: &Found) -> Result<Healed> {
    let mut healed = Healed::default();
    let generations = pins.generations()?;
    let by_program: BTreeMap<u32, &GenerationPins> = generations
        .iter()
        .flat_map(|generation| generation.program_ids().into_iter().map(move |id| (id, generation)))
        .collect();
    let runs = |hook: &Hook| by_program.get(&hook.program).copied();

    let newest = found
        .hooks
        .iter()
        .filter_map(runs)
        .filter_map(|generation| Some((generation.stamp()?, generation)))
        .max_by_key(|(_, generation)| generation.number);
    if let Some((stamp, target)) = newest {
        // What another version left is taken over by the next commit, which records open connections before.
        let other = |hook: &&Hook| runs(hook) != Some(target) && !hook.of_another_version;
        let stray: Vec<_> = found.hooks.iter().filter(other).collect();
        if !stray.is_empty() {
            let programs = Programs::open(target)?;
            for hook in stray {
                let place = format!("{} {}", hook.interface.name, hook.direction.label());
                hook.replace(netlink, &programs)
                    .context(|| format!("bring {place} to generation {}", stamp.number))?;
                fault::point(Point::HookHealed)?;
                let from =
                    runs(hook).map_or(String::from("one that is not pinned"), |from| from.number.to_string());
                healed.notes.push(format!("{place} ran generation {from}, now {}", stamp.number));
            }
        }
        healed.running = Some((stamp, target.clone()));
    }
    for generation in &generations {
        if healed.running.as_ref().is_none_or(|(_, running)| running != generation) {
            // With hooks but no complete generation, what they run is better kept for the next commit's undo.
            if healed.running.is_none() && found.hooks.iter().any(|hook| runs(hook) == Some(generation)) {
                continue;
            }
            match generation.remove() {
                Ok(()) => {
                    healed.notes.push(format!("removed generation {}, which nothing runs", generation.number))
                }
                Err(error) => healed
                    .notes
                    .push(format!("generation {} could not be removed: {error}", generation.number)),
            }
        }
    }
    Ok(healed)
}
