//! What holds for any bytes, and a second opinion on the good ones.

use std::net::IpAddr;

use etherparse::{PacketBuilder, VlanId};
use mpesa_fw_common::{
    Direction, PassReason, Reason, Verdict,
    decide::Decision,
    packet::{FragmentKind, Parsed},
};
use proptest::{collection::vec, prelude::*, sample};

use crate::{
    case::{Rules, TEST_RUN},
    catalogue::{self, BASE, DENY_ALL, NETS},
    frames,
    host::{self, Frame, HostState},
};

/// Every frame of the catalogue.
fn frames() -> Vec<Frame> {
    let cases = catalogue::all();
    let frames = cases.iter().flat_map(|case| case.packets()).map(|packet| packet.frame.clone());
    let mut frames: Vec<Frame> = frames.filter(|frame| frame.bytes.len() < 400).collect();
    frames.sort_by(|a, b| a.bytes.cmp(&b.bytes));
    frames.dedup_by(|a, b| a.bytes == b.bytes);
    frames
}

/// What passes under a policy that allows nothing: the link layer's own protocols, and whole control packets.
fn may_pass_a_deny_all(frame: &Frame, decision: &Decision) -> bool {
    match decision.reason {
        Reason::Drop(_) => true,
        Reason::Pass(PassReason::LinkLayer) => host::facts(frame).parsed == Parsed::LinkLayer,
        Reason::Pass(PassReason::Control) => {
            let meta = host::facts(frame);
            meta.parsed == Parsed::Ip
                && meta.end as usize <= frame.bytes.len()
                && meta.fragment == FragmentKind::Whole
        }
        Reason::Pass(_) => false,
    }
}

fn judge_both_ways(rules: &Rules, frame: &Frame) -> [Decision; 2] {
    let state = HostState::new();
    Direction::ALL.map(|direction| host::judge(&rules.compiled, &state, frame, direction, &TEST_RUN))
}

#[test]
fn no_packet_cut_short_passes_a_deny_all() {
    let rules = Rules::new(DENY_ALL);
    let mut cuts = 0;
    for frame in frames().iter().filter(|frame| !frame.segmented) {
        for length in 0..frame.bytes.len() {
            let cut = Frame { bytes: frame.bytes[..length].to_vec(), ..frame.clone() };
            for decision in judge_both_ways(&rules, &cut) {
                assert!(
                    may_pass_a_deny_all(&cut, &decision),
                    "{length} of {:02x?}: {decision:?}",
                    frame.bytes
                );
            }
            cuts += 1;
        }
    }
    println!("{cuts} frames");
}

#[test]
fn no_packet_cut_short_passes_where_the_whole_does_not() {
    let rules = Rules::new(BASE);
    for frame in frames().iter().filter(|frame| !frame.segmented) {
        let whole = judge_both_ways(&rules, frame);
        let end = host::facts(frame).end as usize;
        for length in 0..frame.bytes.len() {
            let cut = Frame { bytes: frame.bytes[..length].to_vec(), ..frame.clone() };
            for (decision, whole) in judge_both_ways(&rules, &cut).iter().zip(whole) {
                let passes = matches!(decision.verdict(), Verdict::Pass);
                let is_link = decision.reason == Reason::Pass(PassReason::LinkLayer);
                // Padding may be missing.
                assert!(
                    !passes || is_link || length >= end && whole == *decision,
                    "{length} of {:02x?}: {decision:?}",
                    frame.bytes
                );
            }
        }
    }
}

/// A frame of the catalogue, spoilt.
fn spoilt() -> impl Strategy<Value = Frame> {
    let change = (any::<sample::Index>(), any::<u8>());
    (sample::select(frames()), vec(change, 0..6), any::<Option<sample::Index>>(), any::<bool>()).prop_map(
        |(mut frame, changes, length, segmented)| {
            for (index, byte) in changes {
                // The headers, mostly.
                let place = index.index(frame.bytes.len().clamp(1, 96));
                if let Some(old) = frame.bytes.get_mut(place) {
                    *old = byte;
                }
            }
            if let Some(length) = length {
                let length = length.index(frame.bytes.len() + 1);
                frame.bytes.truncate(length);
            }
            Frame { segmented, ..frame }
        },
    )
}

fn any_bytes() -> impl Strategy<Value = Frame> {
    let kind = sample::select(vec![frames::IPV4, frames::IPV6, frames::VLAN, 0x0806, 40]);
    let first = sample::select(vec![0x45u8, 0x4f, 0x60]);
    (kind, first, vec(any::<u8>(), 0..160), any::<bool>()).prop_map(|(kind, first, mut bytes, segmented)| {
        if let Some(byte) = bytes.first_mut() {
            *byte = first;
        }
        Frame { segmented, ..frames::ethernet(kind, &bytes).into() }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn nothing_panics_or_passes_a_deny_all(frame in prop_oneof![spoilt(), any_bytes(), vec(any::<u8>(), 0..100).prop_map(Frame::from)]) {
        thread_local! {
            static RULES: (Rules, Rules) = (Rules::new(DENY_ALL), Rules::new(BASE));
        }
        RULES.with(|(deny_all, base)| {
            for decision in judge_both_ways(deny_all, &frame) {
                prop_assert!(may_pass_a_deny_all(&frame, &decision), "{decision:?}");
            }
            let _any = judge_both_ways(base, &frame);
            Ok(())
        })?;
    }
}

/// The network header behind a step of the builder; each step has a type of its own.
macro_rules! on {
    ($builder:expr, $source:expr, $target:expr) => {
        match ($source, $target) {
            (IpAddr::V4(source), IpAddr::V4(target)) => $builder.ipv4(source.octets(), target.octets(), 64),
            (IpAddr::V6(source), IpAddr::V6(target)) => $builder.ipv6(source.octets(), target.octets(), 64),
            _ => panic!("two families"),
        }
    };
}

/// Frames that somebody else has built, checksums and all.
#[test]
fn frames_of_etherparse_are_understood() {
    let outer = VlanId::try_new(7).expect("an id");
    for tags in 0..=2 {
        for net in NETS {
            let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
            let (source, target) = (frames::ip(net.outsider), frames::ip(net.us));
            let network = match tags {
                0 => on!(ethernet, source, target),
                1 => on!(ethernet.single_vlan(outer), source, target),
                _ => on!(ethernet.double_vlan(outer, outer), source, target),
            };
            let mut bytes = Vec::new();
            network.tcp(4000, 80, 1, 1000).syn().write(&mut bytes, b"data").expect("built");
            let meta = host::facts(&bytes.into());
            assert_eq!(meta.parsed, Parsed::Ip);
            assert_eq!((meta.source_port, meta.target_port, meta.payload), (4000, 80, 4));
            assert!(meta.opens_connection());
            assert_eq!((meta.source, meta.target), (source.into(), target.into()));
        }
    }
}
