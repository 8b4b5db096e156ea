//! The catalogue, in the kernel.

use mpesa_fw_common::{PassReason, event::EVENT_BURST};

use super::{Hook, Pair, law::TRIALS, reuse::Pairs};
use crate::{
    case::{self, Case, Step},
    catalogue, frames,
    host::SECOND,
};

/// The catalogue again, in the kernel: at XDP, and at TC with each line of the trace. Cases that are loaded for themselves are at
/// one of them in turn, for the verifier is what this spends its time on; where a load takes seconds, all are.
#[test]
#[ignore = "needs root and a kernel"]
fn the_catalogue_in_the_kernel() {
    let (mut pairs, mut wrong) = (Pairs::default(), Vec::new());
    let (mut cases, mut packets, mut left_out) = (0, 0, 0);
    let uptime = uptime();
    let is_slow = testbed::is_slow();
    if is_slow {
        testbed::left_out("each case at the other hook", "programs take seconds to load here");
    }
    for case in &catalogue::all() {
        if case.is_host_only(uptime) {
            println!("only on the host: {}", case.name);
            continue;
        }
        let hooks = [Hook::Xdp, Hook::Tc];
        // Who sends matters at egress, which has one; and what a reload takes over is the same for both.
        let is_at_one = is_slow || case.has_senders() || case.changes();
        let hooks = if is_at_one { &hooks[cases % 2..][..1] } else { &hooks[..] };
        cases += 1;
        for &hook in hooks {
            let (run, skipped) = if case.has_senders() {
                foretell(case, hook, &mut wrong)
            } else {
                pairs.with(case, hook == Hook::Tc, |pair| run(case, hook, pair, &mut wrong))
            };
            packets += run;
            left_out += skipped;
        }
    }
    println!("{cases} cases, {packets} packets, {left_out} that a test run can't have");
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// Nanoseconds since boot.
pub(super) fn uptime() -> u64 {
    let text = std::fs::read_to_string("/proc/uptime").expect("readable");
    let seconds = text.split('.').next().and_then(|seconds| seconds.parse::<u64>().ok());
    seconds.expect("seconds") * SECOND
}

/// The comparison must be able to fail: the host is asked about another policy than the kernel has.
#[test]
#[ignore = "needs root and a kernel"]
fn a_difference_is_seen() {
    let mut pair = Pair::new(&Case::new("deny", catalogue::DENY_ALL, Vec::new()), true);
    pair.mislead(&Case::new("base", catalogue::BASE, Vec::new()));
    let frame = frames::tcp("203.0.113.9:4000", "10.0.0.5:80", frames::SYN);
    let Step::Packet(packet) = case::to("a visitor", frame, case::pass(PassReason::Service, "site")) else {
        unreachable!("it is a packet")
    };
    for hook in [Hook::Xdp, Hook::Tc] {
        let (_, differences) = pair.judge(&packet, hook).expect("a plain frame");
        for what in ["verdict Drop", "row 0 (nobody's): [no_service +1 +54 B]", "events [Event", "logged ["] {
            let is_seen = differences.iter().any(|difference| difference.starts_with(what));
            assert!(is_seen, "{what} is not among {differences:?}");
        }
    }
}

/// A CPU sends no more than a bucket of events until it is filled again; what it does not send it counts.
#[test]
#[ignore = "needs root and a kernel"]
fn events_are_sent_or_counted() {
    const DROPS: u32 = 1000;
    let mut pair = Pair::new(&Case::new("deny", catalogue::DENY_ALL, Vec::new()), false);
    let frame = frames::tcp("203.0.113.9:4000", "10.0.0.5:80", frames::SYN).into();
    let (sent, suppressed, fills) = pair.flood(&frame, DROPS);
    assert_eq!(sent + suppressed, DROPS as usize, "every drop is one or the other");
    let most = EVENT_BURST as usize * fills;
    assert!(sent >= EVENT_BURST as usize && sent <= most, "{sent} sent of {DROPS}, at most {most} can be");
    assert!(suppressed > 0, "the flood was too slow to show anything: {sent} sent");
}

/// The twin is asked what would become of packets that no test run can send. Packets judged, and those that could not be.
fn foretell(case: &Case, hook: Hook, wrong: &mut Vec<String>) -> (usize, usize) {
    // The clocks are brought together before the maps are written: a pause there makes what they hold older than the host has it.
    for trial in 1.. {
        let mut pair = Pair::new(case, false);
        let (mut run, mut skipped, mut differ) = (0, 0, Vec::new());
        for step in &case.steps {
            let Step::Packet(packet) = step else {
                pair.go_on(step);
                continue;
            };
            match pair.foretell(packet, hook) {
                Some((_, differences)) => {
                    run += 1;
                    let say = |what| format!("{} / {}, {hook:?}, foretold: {what}", case.name, packet.label);
                    differ.extend(differences.into_iter().map(say));
                }
                None => skipped += 1,
            }
        }
        if differ.is_empty() || trial == TRIALS {
            wrong.extend(differ);
            return (run, skipped);
        }
    }
    unreachable!("it ends at the last trial")
}

/// Packets judged, and those that could not be.
fn run(case: &Case, hook: Hook, pair: &mut Pair, wrong: &mut Vec<String>) -> (usize, usize) {
    let (mut run, mut skipped) = (0, 0);
    for step in &case.steps {
        match step {
            Step::Wait(_) | Step::Reload(_) | Step::Resolve(_) => pair.go_on(step),
            Step::Packet(packet) => match pair.judge(packet, hook) {
                Some((_, differences)) => {
                    run += 1;
                    let say = |what| format!("{} / {}, {hook:?}: {what}", case.name, packet.label);
                    wrong.extend(differences.into_iter().map(say));
                }
                None => skipped += 1,
            },
        }
    }
    wrong.extend(pair.left_over().into_iter().map(|what| format!("{}, {hook:?}: {what}", case.name)));
    (run, skipped)
}
