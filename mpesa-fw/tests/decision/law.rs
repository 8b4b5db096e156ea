//! The law: for any policy and any packets, what the oracle says is what is decided (and, in `kernel`, what the programs do).
//!
//! `MPESA_FW_TEST_SEED=n` takes others, `MPESA_FW_LAW_HOST=n` and `MPESA_FW_LAW_KERNEL=n` so many pairs of a policy and a
//! packet: `cargo xtask law`.

mod shrink;
mod story;

use std::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use crate::{
    case::{Case, Step, TEST_RUN},
    random::{Chance, Tally},
    twins::{Judged, Twins},
};

pub(crate) use shrink::shrink;
pub(crate) use story::story;

/// The same packets each time, unless the environment says otherwise.
const SEED: u64 = 7;
/// Pairs in a run of all tests.
const PAIRS: usize = 40_000;
/// Failures that are told; the others are counted.
const TOLD: usize = 2;

#[test]
fn the_oracle_says_what_is_decided() {
    let (seed, pairs) = (seed(), number("MPESA_FW_LAW_HOST", PAIRS));
    println!("MPESA_FW_TEST_SEED={seed}");
    let (next, judged) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let (tally, wrong) = (Mutex::new(Tally::default()), Mutex::new(Vec::new()));
    let work = || {
        let mut own = Tally::default();
        while judged.load(Ordering::Relaxed) < pairs {
            let case = Chance::of_case(seed, next.fetch_add(1, Ordering::Relaxed)).case(true);
            judged.fetch_add(case.packets().count(), Ordering::Relaxed);
            if differs(&case, Some(&mut own)) {
                wrong.lock().expect("nobody panics with it").push(case);
            }
        }
        tally.lock().expect("nobody panics with it").add(own);
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(work);
        }
    });
    println!("{} pairs, {} policies or more", judged.into_inner(), next.into_inner());
    let (tally, wrong) = (tally.into_inner().expect("no panic"), wrong.into_inner().expect("no panic"));
    println!("{tally}");
    let told = wrong.iter().take(TOLD).map(|case| story(&shrink(case, |case| differs(case, None))));
    let told: Vec<_> = told.collect();
    assert!(wrong.is_empty(), "seed {seed}: {} cases differ:\n{}", wrong.len(), told.join("\n"));
    if pairs >= PAIRS {
        tally.assert_complete(true);
    }
}

/// Whether there is a packet on which decision and oracle differ.
fn differs(case: &Case, mut tally: Option<&mut Tally>) -> bool {
    let mut twins = Twins::new(case);
    for step in &case.steps {
        match step {
            Step::Wait(time) => twins.wait(*time),
            Step::Reload(policy) => twins.reload(policy),
            Step::Resolve(names) => twins.resolve(names),
            Step::Packet(packet) => {
                let Judged { decision, wrong, .. } = twins.judge(packet, &packet.sender.unwrap_or(TEST_RUN));
                if !wrong.is_empty() {
                    return true;
                }
                if let Some(tally) = &mut tally {
                    tally.count(packet, &decision, &twins);
                }
            }
        }
    }
    false
}

pub(crate) fn seed() -> u64 {
    number("MPESA_FW_TEST_SEED", SEED as usize) as u64
}

/// A number of the environment.
pub(crate) fn number(name: &str, otherwise: usize) -> usize {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}
