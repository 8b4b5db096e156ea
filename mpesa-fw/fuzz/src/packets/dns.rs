//! Target `dns`: this host asks a name server, and any bytes come back. What a parser of DNS finds in them is learnt, and nothing
//! that is not in them; the programs in the kernel learn what the host learns. The first byte says how the answer comes, the
//! rest is the message.

#[cfg(not(mpesa_fw_no_object))]
use std::cell::RefCell;

use crate::{
    case::Rules,
    frames::{self, ip},
    host::{Frame, HostState},
    learning,
};

const POLICY: &str = r#"
ingress: { default: drop, services: [] }
egress:
  default: drop
  allow:
    - { name: api, to: [api.example], ports: [443] }
    - { name: cloud, to: ["*.cloud.example", "*.example.net"], ports: [443] }
    - { name: dns, to: [10.0.0.2, "fd00::2"], protocol: udp, ports: [53] }
"#;

/// Of the first byte.
const V6: u8 = 1;
#[cfg(not(mpesa_fw_no_object))]
const TC: u8 = 2;

/// More than is read of a message.
const LONGEST: usize = 2400;

thread_local! {
    static RULES: Rules = Rules::new(POLICY);
}

/// This host and the name server.
const fn ends(shape: u8) -> [&'static str; 2] {
    if shape & V6 == 0 { ["10.0.0.5", "10.0.0.2"] } else { ["fd00::5", "fd00::2"] }
}

fn answer(shape: u8, message: &[u8]) -> Frame {
    let [us, server] = ends(shape).map(ip);
    let message = &message[..message.len().min(LONGEST)];
    frames::packet(server, us, frames::UDP, &frames::udp_datagram(53, 4000, message)).into()
}

/// What the host's steps learn, beside the parser.
pub(crate) fn on_host(data: &[u8]) {
    let Some((shape, message)) = data.split_first() else {
        return;
    };
    RULES.with(|rules| {
        let _lessons = learning::check(rules, &HostState::new(), &answer(*shape, message));
    });
}

#[cfg(not(mpesa_fw_no_object))]
pub(crate) use in_this_kernel::run as in_kernel;

#[cfg(not(mpesa_fw_no_object))]
mod in_this_kernel {
    use mpesa_fw_common::Direction;

    use super::{POLICY, RefCell, TC, answer, ends, frames, ip};
    use crate::{
        case::{Case, Packet},
        kernel::{Hook, Pair},
    };

    thread_local! {
        static PAIR: RefCell<Pair> = RefCell::new(Pair::new(&Case::new("dns", POLICY, Vec::new()), false));
    }

    /// The question opens a flow, the answer comes along it; then host and kernel know the same.
    pub(crate) fn run(data: &[u8]) {
        let Some((shape, message)) = data.split_first() else {
            return;
        };
        let hook = if shape & TC == 0 { Hook::Xdp } else { Hook::Tc };
        let [us, server] = ends(*shape).map(ip);
        let question = frames::packet(us, server, frames::UDP, &frames::udp_datagram(4000, 53, &[7; 20]));
        let packets = [(Direction::Egress, question.into()), (Direction::Ingress, answer(*shape, message))];
        PAIR.with_borrow_mut(|pair| {
            for (direction, frame) in packets {
                let packet = Packet { label: String::new(), frame, direction, sender: None, expected: None };
                let Some((decision, differences)) = pair.judge(&packet, hook) else { continue };
                let frame = &packet.frame;
                assert!(
                    differences.is_empty(),
                    "{direction:?}, {hook:?}: {differences:?}; the host says {decision:?} of {frame:02x?}"
                );
            }
            let left = pair.left_over();
            assert!(left.is_empty(), "{left:?}");
            pair.forget();
        });
    }
}
