//! The parser and the decision, on the host and in the kernel: one catalogue of packets, judged both ways, and random
//! ones on which both must agree.

mod case;
mod catalogue;
mod frames;
mod host;
#[cfg(not(mpesa_fw_no_object))]
mod kernel;
mod oracle;
mod properties;
#[cfg(not(mpesa_fw_no_object))]
mod random;

use case::{Case, Rules, Step, TEST_RUN};
use oracle::Oracle;

/// Every entry of the catalogue, judged on the host, and by the oracle.
#[test]
fn the_catalogue_on_the_host() {
    let mut wrong = Vec::new();
    let (mut cases, mut packets) = (0, 0);
    for case in catalogue::all() {
        cases += 1;
        packets += case.packets().count();
        run(&case, &mut wrong);
    }
    println!("{cases} cases, {packets} packets");
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

fn run(case: &Case, wrong: &mut Vec<String>) {
    let mut rules = Rules::new(case.policy);
    let state = case.state(&rules);
    let mut oracle = Oracle::new(&rules, &state);
    for step in &case.steps {
        match step {
            Step::Wait(time) => {
                state.wait(*time);
                oracle.wait(*time);
            }
            Step::Reload(policy) => {
                rules = rules.reload(policy);
                oracle.reload(&rules);
            }
            Step::Packet(packet) => {
                let sender = packet.sender.unwrap_or(TEST_RUN);
                let decision = host::judge(&rules.compiled, &state, &packet.frame, packet.direction, &sender);
                let seen = rules.explain(packet.direction, &decision);
                let said = oracle.judge(&rules, &packet.frame, packet.direction, &sender);
                for (who, answer) in [("decided", seen), ("the oracle says", said)] {
                    if answer != packet.expected {
                        wrong.push(format!(
                            "{} / {}: expected {:?}, {who} {answer:?}",
                            case.name, packet.label, packet.expected
                        ));
                    }
                }
            }
        }
    }
}
