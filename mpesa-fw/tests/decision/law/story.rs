//! A case that fails, told step by step.

use std::fmt::Write as _;

use mpesa_fw::reference::Facts;

use crate::{
    case::{Case, Step, TEST_RUN},
    host,
    twins::{Judged, Twins},
};

/// Policies, packets (as bytes and as facts), and up to the first difference what each of both makes of them.
pub(crate) fn story(case: &Case) -> String {
    let mut text = format!("--- {}\n{}own {:?}\nnames {:?}\n", case.name, case.policy, case.own, case.names);
    let mut twins = Twins::new(case);
    let mut write = |line: String| text.write_str(&line).expect("a string");
    for step in &case.steps {
        match step {
            Step::Wait(time) => {
                write(format!("wait {} s\n", time / host::SECOND));
                twins.wait(*time);
            }
            Step::Reload(policy) => {
                write(format!("reload\n{policy}"));
                twins.reload(policy);
            }
            Step::Resolve(names) => {
                write(format!("names {names:?}\n"));
                twins.resolve(names);
            }
            Step::Packet(packet) => {
                let facts = Facts::from(&host::facts(&packet.frame));
                write(format!(
                    "{}: {:?}, {:?}\n  {facts:?}\n",
                    packet.label, packet.direction, packet.sender
                ));
                let hex: String = packet.frame.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                write(format!("  {hex}{}\n", if packet.frame.segmented { " segmented" } else { "" }));
                let Judged { decision, wrong, .. } = twins.judge(packet, &packet.sender.unwrap_or(TEST_RUN));
                write(format!("  {decision:?}\n"));
                if !wrong.is_empty() {
                    write(format!("  {}\n{:#?}\n", wrong.join("\n  "), twins.oracle.state));
                    break;
                }
            }
        }
    }
    text
}
