//! The law in the kernel: random policies and packets, on which oracle, decision and programs agree.

use super::{Hook, Pair, catalogue::uptime};
use crate::{
    case::{Case, Step},
    law::{number, seed, shrink, story},
    random::{Chance, Tally},
};

/// Pairs in a run of all tests.
const PAIRS: usize = 6_000;
/// Both clocks go alike but for what passes between two looks at them. A difference by that does not come up so often.
pub(super) const TRIALS: usize = 3;

/// Packets whose sockets nobody has, of which the twin is asked. Each has the whole history put into maps, so that a run of all tests
/// has few: the catalogue has one of each kind.
const FORETOLD: usize = 400;
/// Of so many some come to everything that only a sender decides.
const FORETOLD_AT_LENGTH: usize = 1_000;

/// How the kernel is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Packets are sent, as test runs.
    Sent,
    /// The twin is asked about packets of sockets with an owner.
    Foretold,
}

#[test]
#[ignore = "needs root and a kernel"]
fn the_oracle_says_what_the_kernel_does() {
    holds(Way::Sent, number("MPESA_FW_LAW_KERNEL", PAIRS), PAIRS);
}

#[test]
#[ignore = "needs root and a kernel"]
fn the_oracle_says_what_the_twin_foretells() {
    holds(Way::Foretold, number("MPESA_FW_LAW_TWIN", FORETOLD), FORETOLD_AT_LENGTH);
}

fn holds(way: Way, pairs: usize, usual: usize) {
    let seed = seed();
    println!("MPESA_FW_TEST_SEED={seed}");
    let (mut tally, mut wrong, mut judged, mut cases) = (Tally::default(), Vec::new(), 0, 0);
    while judged < pairs {
        let mut case = Chance::of_case(seed, cases).case(way == Way::Foretold);
        bound(&mut case);
        let mut of_case = Tally::default();
        let (count, differences) = patiently(&case, cases, way, &mut of_case);
        tally.add(of_case);
        judged += count;
        if !differences.is_empty() {
            wrong.push((case, cases, differences));
        }
        cases += 1;
    }
    println!("{judged} pairs, {cases} cases\n{tally}");
    let told = wrong.iter().take(2).map(|(case, n, _)| {
        let least = shrink(case, |case| !patiently(case, *n, way, &mut Tally::default()).1.is_empty());
        let (_, differences) = patiently(&least, *n, way, &mut Tally::default());
        format!("{}  kernel: {}", story(&least), differences.join("\n"))
    });
    let told: Vec<_> = told.collect();
    assert!(wrong.is_empty(), "seed {seed}: {} cases differ:\n{}", wrong.len(), told.join("\n"));
    if pairs >= usual {
        match way {
            Way::Sent => tally.assert_complete(false),
            Way::Foretold => tally.assert_senders(),
        }
    }
}

/// Entries are made older instead of the clock being moved: no more time can pass than the machine is up.
/// Nor can a table be full, or a tag be stripped.
fn bound(case: &mut Case) {
    case.full = false;
    for step in &mut case.steps {
        if let Step::Packet(packet) = step {
            packet.frame.stripped_tags = 0;
        }
    }
    let (mut passed, uptime) = (0, uptime());
    case.steps.retain(|step| match step {
        Step::Wait(time) if passed + time < uptime => {
            passed += time;
            true
        }
        Step::Wait(_) => false,
        Step::Packet(_) | Step::Reload(_) | Step::Resolve(_) => true,
    });
}

/// Pairs judged, and how the first packet that differs does; where time passes, only what differs each time.
fn patiently(case: &Case, number: usize, way: Way, tally: &mut Tally) -> (usize, Vec<String>) {
    let waits = case.steps.iter().any(|step| matches!(step, Step::Wait(_)));
    for trial in 1.. {
        let mut of_case = Tally::default();
        let (judged, differences) = run(case, number, way, &mut of_case);
        if differences.is_empty() || !waits || trial == TRIALS {
            tally.add(of_case);
            return (judged, differences);
        }
    }
    unreachable!("it ends at the last trial")
}

fn run(case: &Case, number: usize, way: Way, tally: &mut Tally) -> (usize, Vec<String>) {
    let mut pair = Pair::new(case, number.is_multiple_of(8));
    let (mut judged, mut hook) = (0, Hook::Xdp);
    for step in &case.steps {
        let Step::Packet(packet) = step else {
            pair.go_on(step);
            continue;
        };
        hook = if hook == Hook::Xdp { Hook::Tc } else { Hook::Xdp };
        let answer = match way {
            Way::Sent => pair.judge(packet, hook),
            Way::Foretold => pair.foretell(packet, hook),
        };
        if let Some((decision, differences)) = answer {
            judged += 1;
            if !differences.is_empty() {
                let say = |what| format!("{}, {hook:?}: {what}", packet.label);
                return (judged, differences.into_iter().map(say).collect());
            }
            tally.count(packet, &decision, &pair.twins);
        }
    }
    match way {
        Way::Sent => (judged, pair.left_over()),
        Way::Foretold => (judged, Vec::new()),
    }
}
