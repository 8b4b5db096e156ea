//! The least of a case that still fails.

use std::borrow::Cow;

use crate::case::{self, Case, Step};

/// Trials; each compiles policies.
const PATIENCE: usize = 1500;

/// Leaves steps out, then rules and sets, then names and addresses, as long as it fails.
pub(crate) fn shrink(case: &Case, fails: impl Fn(&Case) -> bool) -> Case {
    let (mut least, mut trials) = (case.clone(), 0);
    let mut attempt = |least: &mut Case, smaller: Case| {
        trials += 1;
        let is_better = trials < PATIENCE && fails(&smaller);
        if is_better {
            *least = smaller;
        }
        is_better
    };
    let mut chunk = least.steps.len().div_ceil(2);
    while chunk > 0 {
        let mut at = least.steps.len();
        while at > 0 {
            let from = at.saturating_sub(chunk);
            let mut smaller = least.clone();
            smaller.steps.drain(from..at);
            attempt(&mut least, smaller);
            at = from;
        }
        chunk /= 2;
    }
    for n in 0..policies(&mut least).len() {
        let lines = policies(&mut least)[n].lines().count();
        for line in (0..lines).rev() {
            let mut smaller = least.clone();
            let text = policies(&mut smaller).swap_remove(n);
            *text = text
                .lines()
                .enumerate()
                .filter(|(n, _)| *n != line)
                .map(|(_, line)| format!("{line}\n"))
                .collect();
            if case::is_policy(text) {
                attempt(&mut least, smaller);
            }
        }
    }
    for n in (0..least.names.len()).rev() {
        let mut smaller = least.clone();
        smaller.names.remove(n);
        attempt(&mut least, smaller);
    }
    for n in (0..least.own.len()).rev() {
        let mut smaller = least.clone();
        smaller.own.remove(n);
        attempt(&mut least, smaller);
    }
    least
}

/// The first policy, and those of reloads.
fn policies(case: &mut Case) -> Vec<&mut String> {
    let reloads = case.steps.iter_mut().filter_map(|step| match step {
        Step::Reload(policy) => Some(policy.to_mut()),
        Step::Packet(_) | Step::Wait(_) | Step::Resolve(_) => None,
    });
    std::iter::once(Cow::to_mut(&mut case.policy)).chain(reloads).collect()
}
