//! What must hold of any frame that comes first, said without knowing how the decision goes about it.

use std::net::IpAddr;

use mpesa_fw_common::{
    Address, Direction, DropReason, PassReason, Reason, Verdict,
    decide::{Decision, Sender},
    packet::{FragmentKind, PacketMeta, Parsed, Quoted},
};

use super::{model, rules};
use crate::{
    case::{Rules, TEST_RUN},
    frames,
    host::{self, Frame, HostState},
};

/// An Ethernet header without tags.
const ETHERNET: usize = 14;

/// Facts don't change with what is no fact.
pub(super) fn of_bytes(frame: &Frame, meta: &PacketMeta) {
    let meta = &told(*meta);
    assert_eq!(facts(frame), *meta, "read twice");
    if let Some(tagged) = with_another_tag(frame) {
        let more = facts(&tagged);
        assert_eq!(more.parsed, meta.parsed, "behind another tag");
        if meta.parsed == Parsed::Ip {
            let moved = PacketMeta { transport_offset: more.transport_offset - 4, end: more.end - 4, ..more };
            assert_eq!(moved, *meta, "behind another tag");
        }
    }
    if meta.parsed != Parsed::Ip || frame.segmented {
        return;
    }
    let mut padded = frame.clone();
    padded.bytes.extend([0xa5; 7]);
    assert_eq!(facts(&padded), *meta, "with padding");
    let mut cut = frame.clone();
    cut.bytes.truncate(meta.end as usize);
    assert_eq!(facts(&cut), *meta, "without padding");
    let segmented = facts(&Frame { segmented: true, ..cut.clone() });
    if meta.fragment == FragmentKind::Whole {
        assert_eq!(segmented, *meta, "as one segment of many, whose lengths are right");
    }
    for length in (0..cut.bytes.len()).rev().take(24).chain([0, ETHERNET, ETHERNET + 20]) {
        let short = Frame { bytes: cut.bytes[..length.min(cut.bytes.len() - 1)].to_vec(), ..cut.clone() };
        assert_ne!(host::facts(&short).parsed, Parsed::Ip, "{length} bytes of {}", cut.bytes.len());
    }
}

fn facts(frame: &Frame) -> PacketMeta {
    told(host::facts(frame))
}

/// Without what is not to be read: of a packet that is quoted but not all there, some fields are filled.
fn told(meta: PacketMeta) -> PacketMeta {
    let quoted = if meta.quoted.is_readable { meta.quoted } else { Quoted::NOTHING };
    PacketMeta { quoted, ..meta }
}

/// The frame with one more tag in front, where that is still one that is walked.
fn with_another_tag(frame: &Frame) -> Option<Frame> {
    let is_tag = |at: usize| matches!(frame.bytes.get(at..at + 2), Some([0x81, 0x00] | [0x88, 0xa8]));
    let tags = u32::from(is_tag(12)) + u32::from(is_tag(12) && is_tag(16)) + frame.stripped_tags;
    let bytes =
        (tags < 2 && frame.bytes.len() >= 14).then(|| frames::tagged(&[frames::VLAN], &frame.bytes))?;
    Some(Frame { bytes, ..frame.clone() })
}

/// Decisions about a first frame, under each policy.
pub(super) fn of_policies(
    all: &[Rules; rules::COUNT],
    frame: &Frame,
    meta: &PacketMeta,
    direction: Direction,
) {
    let [rich, strict, wide, loose, observed] = all.each_ref().map(|rules| {
        let state = rules::state(rules);
        let decision = host::judge(&rules.compiled, &state, frame, direction, &TEST_RUN);
        coherent(rules, &decision, direction);
        first_leaves(&state, meta, &decision, direction, rules);
        (decision, state, rules)
    });
    for (decision, _, rules) in [&rich, &strict, &wide, &loose, &observed] {
        allowed_by_model(rules, meta, decision, direction);
    }
    assert_eq!(observed.0, rich.0, "observe mode judges otherwise");
    if passes(&strict.0) {
        let bare = matches!(strict.0.reason, Reason::Pass(PassReason::LinkLayer | PassReason::Control));
        assert!(bare && meta.fragment == FragmentKind::Whole, "{:?} where nothing is allowed", strict.0);
        assert!(!meta.is_icmp_error(), "an error about nothing");
        for (decision, ..) in [&rich, &wide, &loose] {
            assert_eq!(*decision, strict.0, "a rule took control traffic away");
        }
    }
    // Whoever is allowed by a narrower policy is allowed by a wider one; but for TCP in fragments, which a service refuses.
    if passes(&rich.0) && !(meta.is_tcp() && meta.fragment == FragmentKind::First) {
        assert!(passes(&wide.0), "{:?} where more is allowed, {:?} where less is", wide.0, rich.0);
    }
    impossible_sources(&wide.0, meta, direction);
    for (decision, state, rules) in [&rich, &wide, &loose] {
        answers_pass(rules, state, frame, meta, decision, direction);
    }
    nothing_else_matters(&rich, frame, meta, direction);
}

pub(super) fn passes(decision: &Decision) -> bool {
    matches!(decision.verdict(), Verdict::Pass)
}

/// Reason, rule and near miss must go together.
pub(super) fn coherent(rules: &Rules, decision: &Decision, direction: Direction) {
    let charged = decision.rule.index().is_some();
    let expected = match decision.reason {
        Reason::Pass(PassReason::Service | PassReason::Destination) => Some(true),
        Reason::Pass(PassReason::Flow | PassReason::Fragment) => None,
        Reason::Pass(
            PassReason::LinkLayer | PassReason::Control | PassReason::ServiceReply | PassReason::Default,
        ) => Some(false),
        Reason::Drop(
            DropReason::SourceNotAllowed
            | DropReason::RateLimited
            | DropReason::DestinationNotAllowed
            | DropReason::NameNotAllowed,
        ) => Some(true),
        Reason::Drop(DropReason::Fragment) => None,
        Reason::Drop(
            DropReason::UnknownEthertype
            | DropReason::Malformed
            | DropReason::Spoofed
            | DropReason::NoService
            | DropReason::NoDestination,
        ) => Some(false),
        Reason::Drop(
            reason @ (DropReason::OwnerNotAllowed | DropReason::FlowTableFull | DropReason::Internal),
        ) => {
            panic!("{reason:?} can't be here")
        }
    };
    assert!(expected.is_none_or(|expected| expected == charged), "{decision:?}");
    let watched = matches!(decision.reason, Reason::Drop(DropReason::SourceNotAllowed));
    assert!(decision.near_miss == 0 || watched && direction == Direction::Ingress, "{decision:?}");
    let _it_exists = rules.rule_name(direction, decision.rule);
}

/// What one packet may leave behind: a flow where this host sent it, a first fragment that passed, nothing else.
fn first_leaves(
    state: &HostState,
    meta: &PacketMeta,
    decision: &Decision,
    direction: Direction,
    rules: &Rules,
) {
    let observes = rules.policy.mode == mpesa_fw_common::Mode::Observe;
    let flows = state.flows.borrow();
    let may_open = direction == Direction::Egress && (passes(decision) || observes);
    assert!(flows.len() <= usize::from(may_open), "{flows:?} of {decision:?}");
    assert!(flows.keys().all(|key| *key == meta.flow_key(Direction::Egress)), "{flows:?}");
    let first = passes(decision) && meta.fragment == FragmentKind::First;
    assert_eq!(state.fragments.borrow().len(), usize::from(first), "fragments after {decision:?}");
}

/// A rule that is charged for a pass must say so; looked up naively, in the policy as it was written.
fn allowed_by_model(rules: &Rules, meta: &PacketMeta, decision: &Decision, direction: Direction) {
    let (reason, rule) = (decision.reason, decision.rule.index());
    match (reason, direction) {
        (Reason::Pass(PassReason::Service), _) => {
            let (local, remote) = (meta.target, meta.source);
            assert_eq!(model::service(rules, &model::Asked::by(meta), local, remote), rule);
        }
        (Reason::Pass(PassReason::Destination), _) => {
            assert_eq!(model::destination(rules, &model::Asked::by(meta), meta.target), rule);
        }
        (Reason::Drop(DropReason::NoService | DropReason::SourceNotAllowed), _) => {
            let (local, remote) = (meta.target, meta.source);
            assert_eq!(model::service(rules, &model::Asked::by(meta), local, remote), None);
        }
        (
            Reason::Drop(
                DropReason::NoDestination | DropReason::DestinationNotAllowed | DropReason::NameNotAllowed,
            ),
            _,
        ) => {
            assert_eq!(model::destination(rules, &model::Asked::by(meta), meta.target), None);
        }
        (Reason::Pass(_) | Reason::Drop(_), Direction::Ingress | Direction::Egress) => {}
    }
}

/// 3, told with the standard library's words for addresses.
fn impossible_sources(decision: &Decision, meta: &PacketMeta, direction: Direction) {
    let spoofed = decision.reason == Reason::Drop(DropReason::Spoofed);
    if direction == Direction::Egress || meta.parsed != Parsed::Ip {
        assert!(!spoofed);
        return;
    }
    let source = model::address(meta.family, meta.source);
    let dhcp = meta.is_udp() && (meta.source_port, meta.target_port) == (68, 67);
    let unnumbered = meta.is_icmp() && matches!(meta.icmp_type, 131 | 132 | 133 | 135 | 143);
    let expected = is_impossible(meta.source, meta)
        && !(source.is_ipv4() && source.is_unspecified() && dhcp)
        && !(source.is_ipv6() && source.is_unspecified() && unnumbered);
    assert_eq!(spoofed, expected, "{source}: {decision:?}");
}

fn is_impossible(address: Address, meta: &PacketMeta) -> bool {
    let source = model::address(meta.family, address);
    let never = is_mapped(address, meta)
        || match source {
            IpAddr::V4(v4) => {
                v4.octets()[0] == 0 || v4.is_loopback() || v4.is_multicast() || v4.is_broadcast()
            }
            IpAddr::V6(v6) => v6.is_unspecified() || v6.is_loopback() || v6.is_multicast(),
        };
    never || rules::OWN.iter().any(|own| frames::ip(own) == source)
}

/// An address that maps one of IPv4 inside an IPv6 packet.
fn is_mapped(address: Address, meta: &PacketMeta) -> bool {
    matches!(model::address(meta.family, address), IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some())
}

/// What this host lets in it may answer, and what it sends may be answered.
fn answers_pass(
    rules: &Rules,
    state: &HostState,
    frame: &Frame,
    meta: &PacketMeta,
    decision: &Decision,
    direction: Direction,
) {
    let (ingress, egress) = (Reason::Pass(PassReason::Service), Reason::Pass(PassReason::Destination));
    let asks = meta.is_udp() || meta.opens_connection();
    if !asks || meta.fragment != FragmentKind::Whole || ![ingress, egress].contains(&decision.reason) {
        return;
    }
    let Some(answer) = answered(frame, meta) else {
        return;
    };
    let (back, sender) = match direction {
        Direction::Ingress => (Direction::Egress, Sender { bound_port: meta.target_port, ..TEST_RUN }),
        Direction::Egress => (Direction::Ingress, TEST_RUN),
    };
    let returned = host::judge(&rules.compiled, state, &answer, back, &sender);
    let from_nobody = back == Direction::Ingress && is_impossible(meta.target, meta);
    // As a target a mapped address is refused in any packet.
    let to_nobody = is_mapped(meta.source, meta);
    assert!(passes(&returned) || from_nobody || to_nobody, "{decision:?}, but its answer {returned:?}");
}

/// The frame with its ends exchanged, a SYN acknowledged.
fn answered(frame: &Frame, meta: &PacketMeta) -> Option<Frame> {
    let mut answer = frame.clone();
    let length = if meta.family == mpesa_fw_common::Family::V4 { 4 } else { 16 };
    let network = network_offset(frame)?;
    let (first, transport) = (network + if length == 4 { 12 } else { 8 }, meta.transport_offset as usize);
    for n in 0..length {
        answer.bytes.swap(first + n, first + length + n);
    }
    answer.bytes.swap(transport, transport + 2);
    answer.bytes.swap(transport + 1, transport + 3);
    if meta.is_tcp() {
        answer.bytes[transport + 13] |= 0x10;
    }
    Some(answer)
}

fn network_offset(frame: &Frame) -> Option<usize> {
    (0..=2usize)
        .map(|tags| ETHERNET + 4 * tags)
        .find(|offset| matches!(frame.bytes.get(offset - 2..*offset), Some([0x08, 0x00] | [0x86, 0xdd])))
}

/// Bytes that no rule of the policy language names don't decide: type of service, identification of a whole packet,
/// checksums, sequence numbers, windows, flow labels.
fn nothing_else_matters(
    (decision, _, rules): &(Decision, HostState, &Rules),
    frame: &Frame,
    meta: &PacketMeta,
    direction: Direction,
) {
    let Some(network) = network_offset(frame).filter(|_| meta.parsed == Parsed::Ip) else {
        return;
    };
    let mut other = frame.clone();
    let mut change = |from: usize, count: usize| {
        if let Some(bytes) = other.bytes.get_mut(from..from + count) {
            bytes.iter_mut().for_each(|byte| *byte ^= 0xa5);
        }
    };
    let whole = meta.fragment == FragmentKind::Whole;
    change(0, 12);
    match meta.family {
        mpesa_fw_common::Family::V4 => {
            change(network + 1, 1);
            change(network + 10, 2);
            if whole {
                change(network + 4, 2);
                change(network + 8, 1);
            }
        }
        mpesa_fw_common::Family::V6 => change(network + 2, 2),
    }
    let transport = meta.transport_offset as usize;
    if whole && meta.is_tcp() {
        change(transport + 4, 8);
        change(transport + 14, 6);
    } else if whole && meta.is_udp() {
        change(transport + 6, 2);
    } else if whole && meta.is_icmp() {
        change(transport + 1, 3);
    }
    let state = rules::state(rules);
    let changed = host::judge(&rules.compiled, &state, &other, direction, &TEST_RUN);
    assert_eq!(changed, *decision, "for bytes that no rule names");
}
