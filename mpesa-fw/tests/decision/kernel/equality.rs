//! Random policies and packets: what the host decides is what the kernel does.

use super::{Hook, Pair};
use crate::{
    case::{Packet, Rules},
    random::{Chance, Tally},
};

/// The same packets each time, unless the environment says otherwise.
const SEED: u64 = 7;
const POLICIES: usize = 110;
const PACKETS: usize = 50;

#[test]
#[ignore = "needs root and a kernel"]
fn host_and_kernel_agree_on_random_packets() {
    let seed = std::env::var("MPESA_FW_TEST_SEED").map_or(SEED, |seed| seed.parse().expect("a number"));
    println!("MPESA_FW_TEST_SEED={seed}");
    let mut chance = Chance::new(seed);
    let (mut wrong, mut tally, mut judged) = (Vec::new(), Tally::default(), 0);
    for policy in 0..POLICIES {
        judged += one_policy(&mut chance, policy, &mut wrong, &mut tally);
    }
    println!("{judged} pairs");
    assert!(wrong.is_empty(), "seed {seed}: {} differ:\n{}", wrong.len(), wrong.join("\n"));
    tally.assert_complete();
}

/// Packets of one policy, and after the half of them of another that takes its state over.
fn one_policy(chance: &mut Chance, number: usize, wrong: &mut Vec<String>, tally: &mut Tally) -> usize {
    let text = chance.policy();
    let rules = Rules::new(&text);
    let state = chance.state(&rules);
    let mut pair = Pair::new(rules, state, number % 4 == 0);
    let (mut history, mut judged, mut texts): (Vec<Packet>, _, _) = (Vec::new(), 0, vec![text]);
    for n in 0..PACKETS {
        if n == PACKETS / 2 && number % 2 == 0 {
            texts.push(chance.policy());
            let rules = pair.rules.reload(&texts[1]);
            pair.reload(rules);
        }
        let packet = chance.packet(&history, format!("policy {number}, packet {n}"));
        let hook = if n % 2 == 0 { Hook::Xdp } else { Hook::Tc };
        if let Some((decision, differences)) = pair.judge(&packet, hook) {
            judged += 1;
            tally.count(packet.direction, decision.reason);
            for what in differences {
                wrong.push(format!(
                    "{}, {:?} {hook:?}: {what}; host {decision:?}\n{:02x?}\n{}",
                    packet.label,
                    packet.direction,
                    packet.frame,
                    texts[texts.len() - 1]
                ));
            }
        }
        history.push(packet);
    }
    let left = pair.left_over();
    wrong.extend(left.into_iter().map(|what| format!("policy {number}: {what}\n{}", texts.join("\n"))));
    judged
}
