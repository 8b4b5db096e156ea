//! Target `kernel`: the sequences of `sequence`, judged by the host and, by `BPF_PROG_TEST_RUN`, by the programs in the
//! kernel. Verdict, counters, near misses and events must agree after each packet. Needs root.

use std::{cell::RefCell, fs};

use super::{
    rules,
    steps::{self, Step},
};
use crate::{
    case::{self, Packet},
    host::SECOND,
    kernel::{Hook, Pair},
    twins::Twins,
};

thread_local! {
    static PAIRS: RefCell<[Pair; rules::COUNT]> = RefCell::new(rules::all().map(|rules| {
        let state = rules::state(&rules);
        Pair::of(Twins::of(rules, state), false)
    }));
}

pub(crate) fn run(data: &[u8]) {
    // The first byte: at which hook ingress is judged.
    let Some((hook, steps)) = data.split_first() else {
        return;
    };
    let hook = if hook & 1 == 0 { Hook::Xdp } else { Hook::Tc };
    PAIRS.with_borrow_mut(|pairs| judge(pairs, hook, steps));
}

fn judge(pairs: &mut [Pair; rules::COUNT], hook: Hook, data: &[u8]) {
    let (mut current, mut waited) = (0, 0);
    for step in steps::read(data) {
        match step {
            // Entries are made older instead of the clock being moved, and can't be older than the machine.
            Step::Wait(time) if waited + time < uptime() => {
                waited += time;
                pairs[current].go_on(&case::Step::Wait(time));
            }
            Step::Wait(_) => {}
            Step::Reload(number) if number != current => {
                let [next, older] = pairs.get_disjoint_mut([number, current]).expect("two policies");
                next.take_over(older);
                current = number;
            }
            Step::Reload(_) => {}
            // A test run gives each packet a socket of its own.
            Step::Packet { frame, direction, sender: _ } => {
                let packet = Packet { label: String::new(), frame, direction, sender: None, expected: None };
                if let Some((decision, differences)) = pairs[current].judge(&packet, hook) {
                    let frame = &packet.frame;
                    assert!(
                        differences.is_empty(),
                        "policy {current}, {direction:?}, {hook:?}: {differences:?}; the host says {decision:?} of {frame:02x?}"
                    );
                }
            }
        }
    }
    let left = if data.len().is_multiple_of(64) { pairs[current].left_over() } else { Vec::new() };
    assert!(left.is_empty(), "{left:?}");
    pairs[current].forget();
}

/// Nanoseconds since boot, a little less.
fn uptime() -> u64 {
    let text = fs::read_to_string("/proc/uptime").expect("readable");
    let seconds = text.split('.').next().and_then(|seconds| seconds.parse::<u64>().ok());
    seconds.expect("seconds").saturating_sub(1) * SECOND
}
