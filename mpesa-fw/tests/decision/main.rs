//! The parser and the decision, on the host and in the kernel: one catalogue of packets, judged both ways, and random
//! ones on which both must agree.

mod attempts;
mod case;
mod catalogue;
#[path = "../../fuzz/src/corpus.rs"]
#[allow(dead_code, unreachable_pub, reason = "of what is shared with the fuzz targets a part is needed")]
mod corpus;
mod frames;
mod fuzz;
mod host;
#[cfg(not(mpesa_fw_no_object))]
mod kernel;
mod law;
mod learning;
mod oracle;
#[path = "../../fuzz/src/packets/mod.rs"]
mod packets;
mod properties;
mod random;
mod second_opinion;
mod twins;

use case::{Case, Step, TEST_RUN};
use twins::{Judged, Twins};

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
    let mut twins = Twins::new(case);
    for step in &case.steps {
        match step {
            Step::Wait(time) => twins.wait(*time),
            Step::Reload(policy) => twins.reload(policy),
            Step::Resolve(names) => twins.resolve(names),
            Step::Packet(packet) => {
                let Judged { wrong: differences, .. } =
                    twins.judge(packet, &packet.sender.unwrap_or(TEST_RUN));
                let say = |what| format!("{} / {}: {what}", case.name, packet.label);
                wrong.extend(differences.into_iter().map(say));
            }
        }
    }
}
