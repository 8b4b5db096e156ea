//! What host and oracle learn from an answer of a name server: the host by the steps that the kernel's program takes, the
//! oracle by a parser of DNS that shares nothing with them.
#![expect(clippy::wildcard_enum_match_arm, reason = "hickory's enum of all records grows")]

use std::{
    collections::{HashSet, hash_map::Entry},
    net::IpAddr,
    time::Duration,
};

use hickory_resolver::proto::{
    op::{Message, MessageType, OpCode, ResponseCode},
    rr::{DNSClass, RData},
};
use ipnet::IpNet;
use mpesa_fw::{
    compile::Compiled,
    policy::model::{Claim, Policy},
};
use mpesa_fw_common::{
    PassReason, Reason,
    decide::{Decision, is_resolver},
    dns::{
        self, LearnCount, LearnOutcome, Learnt, LearntName, MESSAGE, NAME_ROOM, NameSlots, Next, Noted,
        RECORD_STEPS, Reading, Record, WILDCARD,
    },
    packet::{FragmentKind, PacketMeta},
    state::State as _,
};

use crate::{
    case::Rules,
    host::{self, Frame, HostState},
};

const UDP_HEADER: usize = 8;

/// The message of a frame that passed as a part of a flow, from the port of name servers.
fn message<'f>(frame: &'f Frame, decision: &Decision) -> Option<(PacketMeta, &'f [u8])> {
    let meta = host::facts(frame);
    let is_answer = matches!(decision.reason, Reason::Pass(PassReason::Flow))
        && meta.is_udp()
        && meta.source_port == dns::PORT
        && matches!(meta.fragment, FragmentKind::Whole | FragmentKind::First);
    let begin = meta.transport_offset as usize + UDP_HEADER;
    is_answer.then(|| (meta, frame.bytes.get(begin..meta.end as usize).unwrap_or_default()))
}

/// As the program does; what it counts of that. There is room for all, as in the kernel while a name's budget lasts.
pub(crate) fn by_host(
    compiled: &Compiled,
    state: &HostState,
    frame: &Frame,
    decision: &Decision,
) -> LearnCount {
    let mut counts = LearnCount::default();
    let mut count = |outcome: LearnOutcome| counts.outcomes[outcome as usize] += 1;
    let Some((meta, bytes)) = message(frame, decision) else { return counts };
    if compiled.tables.asked_names.is_empty() || !is_resolver(compiled, meta.family, &meta.source) {
        return counts;
    }
    let mut reading = Reading::EMPTY;
    let length = bytes.len().min(MESSAGE);
    reading.message[..length].copy_from_slice(&bytes[..length]);
    if !reading.begin(length as u32) {
        count(LearnOutcome::Unreadable);
        return counts;
    }
    for _ in 0..NAME_ROOM {
        if reading.step_name() != Next::Step {
            break;
        }
    }
    let Some(at) = reading.end_name() else {
        count(LearnOutcome::Unreadable);
        return counts;
    };
    // Of no rule.
    let Some(slots) = asked(compiled, &reading.answered.name.room()[at..]) else { return counts };
    count(LearnOutcome::Answer);
    for _ in 0..RECORD_STEPS {
        match reading.step_record() {
            Record::Step => {}
            Record::Address(ttl) if reading.address.is_host() => {
                let until = dns::until(state.now(), ttl);
                let mut learnt = state.learnt.borrow_mut();
                for slot in slots.into_iter().filter(|slot| *slot != 0) {
                    let slot = (slot & !WILDCARD) - 1;
                    let noted = match learnt.entry(reading.address) {
                        Entry::Occupied(mut known) => {
                            dns::note(known.get_mut(), slot, until, dns::tick(state.now()), || true)
                        }
                        // In the first place: which one is taken over when its time is up depends on that.
                        Entry::Vacant(room) => {
                            let mut fresh: Learnt = [LearntName::NONE; 8];
                            fresh[0] = LearntName::new(slot, until);
                            room.insert(fresh);
                            Noted::New
                        }
                    };
                    match noted {
                        Noted::Known => {}
                        Noted::New => count(LearnOutcome::Address),
                        Noted::NoRoom => count(LearnOutcome::Refused),
                    }
                }
            }
            Record::Address(..) => {}
            Record::End => break,
        }
    }
    counts
}

/// What a trie answers: the longest of the keys that the octets begin with.
fn asked(compiled: &Compiled, key: &[u8]) -> Option<NameSlots> {
    let data = &key[4..];
    let bits = |key: &[u8]| u32::from_ne_bytes(key[..4].try_into().expect("four octets")) as usize;
    let known = bits(key);
    compiled
        .tables
        .asked_names
        .iter()
        .filter(|name| bits(&name.key) <= known)
        .filter(|name| data.starts_with(&name.key[4..4 + bits(&name.key) / 8]))
        .max_by_key(|name| bits(&name.key))
        .map(|name| name.slots)
}

/// An address, a name of the policy, and until when.
pub(crate) type Lesson = (IpAddr, String, Duration);

/// As `ARCHITECTURE.md` says.
pub(crate) fn by_oracle(policy: &Policy, now: Duration, frame: &Frame, decision: &Decision) -> Vec<Lesson> {
    let Some((meta, bytes)) = message(frame, decision) else { return Vec::new() };
    if !is_listed(policy, meta.source.into()) {
        return Vec::new();
    }
    let Some(message) = as_far_as_it_goes(bytes) else { return Vec::new() };
    let is_answer = message.message_type() == MessageType::Response
        && message.op_code() == OpCode::Query
        && message.response_code() == ResponseCode::NoError;
    let [query] = message.queries() else { return Vec::new() };
    if !is_answer || query.query_class() != DNSClass::IN {
        return Vec::new();
    }
    let asked = query.name().to_ascii().to_ascii_lowercase();
    let asked = asked.trim_end_matches('.');
    if !asked.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')) {
        return Vec::new();
    }
    let names = policy.egress.allow.iter().flat_map(|destination| &destination.names);
    let names: HashSet<_> = names.filter(|name| is_named(name, asked)).collect();
    let addresses = message.answers().iter().filter_map(|record| {
        let address = match record.data() {
            RData::A(address) => IpAddr::V4(address.0),
            RData::AAAA(address) => IpAddr::V6(address.0),
            _ => return None,
        };
        (is_host(address) && record.dns_class() == DNSClass::IN).then(|| {
            let ttl = if record.ttl() > i32::MAX as u32 { 0 } else { record.ttl() };
            (address, until(now, ttl))
        })
    });
    addresses
        .flat_map(|(address, until)| names.iter().map(move |name| (address, (**name).clone(), until)))
        .collect()
}

/// Nobody has the addresses of this network, of loopback, of groups, or of what is reserved or given up (::/96).
fn is_host(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => !matches!(address.octets()[0], 0 | 127 | 224..),
        IpAddr::V6(address) => address.segments()[..6] != [0; 6] && !address.is_multicast(),
    }
}

/// A message that is cut off has the records that are whole.
fn as_far_as_it_goes(bytes: &[u8]) -> Option<Message> {
    let mut bytes = bytes.get(..bytes.len().min(MESSAGE))?.to_vec();
    let claimed = u16::from_be_bytes(bytes.get(6..8)?.try_into().ok()?);
    bytes.get_mut(8..12)?.fill(0);
    let most = u16::try_from(bytes.len() / 11).unwrap_or(u16::MAX); // the shortest record has 11 octets
    (1..=claimed.min(most)).rev().find_map(|count| {
        bytes[6..8].copy_from_slice(&count.to_be_bytes());
        Message::from_vec(&bytes).ok()
    })
}

fn is_named(name: &str, asked: &str) -> bool {
    match name.strip_prefix("*.") {
        Some(domain) => {
            asked.strip_suffix(domain).is_some_and(|below| below.len() > 1 && below.ends_with('.'))
        }
        None => name == asked,
    }
}

/// A destination for port 53, or for single hosts, says that it is a name server; not one that is for all.
fn is_listed(policy: &Policy, server: IpAddr) -> bool {
    policy.egress.allow.iter().any(|destination| {
        let udp = destination.claims.iter().flat_map(|claim| match claim {
            Claim::Udp(ports) => ports.as_slice(),
            _ => &[],
        });
        let ports: Vec<_> = udp.filter(|ports| ports.contains(&53)).collect();
        let sets = destination.to.sets.iter().flat_map(|set| &policy.sets[*set].prefixes);
        let prefixes: Vec<_> = destination.to.prefixes.iter().chain(sets).copied().collect();
        let are_hosts = prefixes.iter().all(|prefix| prefix.trunc().network() == prefix.broadcast());
        let is_for_names = ports.iter().any(|ports| ports.start() == ports.end());
        !ports.is_empty()
            && (is_for_names || are_hosts)
            && !destination.to.any
            && ["0.0.0.0/0", "2000::/3"]
                .iter()
                .all(|all| !is_covered(all.parse().expect("a prefix"), &prefixes))
            && prefixes.iter().any(|prefix| prefix.contains(&server))
    })
}

/// Whether every address of `network` is in one of the prefixes: as a whole, or each half of it.
fn is_covered(network: IpNet, prefixes: &[IpNet]) -> bool {
    let inside: Vec<_> = prefixes.iter().filter(|prefix| network.contains(*prefix)).copied().collect();
    let mut halves = network.subnets(network.prefix_len() + 1).into_iter().flatten();
    prefixes.iter().any(|prefix| prefix.contains(&network))
        || !inside.is_empty() && halves.all(|half| is_covered(half, &inside))
}

/// One to 86,400 s, a minute at least, and five minutes more; a second counts as 2^30 ns.
fn until(now: Duration, ttl: u32) -> Duration {
    const TICK: u128 = 1 << 30;
    let ticks = now.as_nanos() / TICK + u128::from(ttl.clamp(60, 86_400)) + 300;
    Duration::from_nanos((ticks * TICK + TICK - 1) as u64)
}

/// Whatever comes back to a question: what a parser of DNS finds in it is learnt, and nothing that is not in it. How many
/// lessons the parser found.
pub(crate) fn check(rules: &Rules, state: &HostState, frame: &Frame) -> usize {
    let decision = Decision::pass(PassReason::Flow);
    by_host(&rules.compiled, state, frame, &decision);
    let lessons = by_oracle(&rules.policy, Duration::from_nanos(state.now()), frame, &decision);
    let learnt = state.learnt.borrow();
    for (address, name, _) in &lessons {
        let slot = rules.slots.names[name];
        let known = learnt.get(&(*address).into());
        let is_learnt = known.is_some_and(|known| known.iter().any(|name| name.slot() == Some(slot)));
        assert!(is_learnt, "{address} of {name} was not learnt, but {known:?}");
    }
    let message = host::facts(frame).transport_offset as usize + UDP_HEADER;
    for address in learnt.keys() {
        let octets = match IpAddr::from(*address) {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let is_there = frame.bytes[message..].windows(octets.len()).any(|there| there == octets);
        assert!(is_there, "{:?} is not in the message", IpAddr::from(*address));
    }
    lessons.len()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use mpesa_fw_common::Direction;
    use proptest::{collection::vec, prelude::*, sample};

    use super::*;
    use crate::{case::Case, catalogue};

    const MESSAGE_AT: usize = 14 + 20 + UDP_HEADER;

    /// Every answer of the catalogue that comes by IPv4, and the policy for all of them.
    fn answers() -> (Case, Vec<Frame>) {
        let mut cases: Vec<Case> = catalogue::all();
        cases.retain(|case| case.policy.contains("cloud.example.net"));
        let frames = cases.iter().flat_map(Case::packets).cloned();
        let is_answer = |packet: &crate::case::Packet| {
            let meta = host::facts(&packet.frame);
            packet.direction == Direction::Ingress && meta.is_udp() && packet.frame.bytes.get(12) == Some(&8)
        };
        let frames = frames.filter(is_answer).map(|packet| packet.frame).collect();
        (cases.swap_remove(0), frames)
    }

    #[test]
    fn spoilt_answers_teach_what_is_in_them() {
        let (case, frames) = answers();
        assert!(frames.len() > 40, "{} answers", frames.len());
        let rules = Rules::new(&case.policy);
        let taught = Cell::new(0);
        let edits = vec((0usize..400, any::<u8>()), 0..5);
        let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(4000));
        let ran = runner.run(&(sample::select(frames), edits), |(mut frame, edits)| {
            for (at, octet) in edits {
                let length = frame.bytes.len() - MESSAGE_AT;
                if length > 0 {
                    frame.bytes[MESSAGE_AT + at % length] = octet;
                }
            }
            let lessons = check(&rules, &case.state(&rules), &frame);
            taught.set(taught.get() + usize::from(lessons > 0));
            Ok(())
        });
        ran.unwrap_or_else(|error| panic!("{error}"));
        assert!(taught.get() > 200, "only {} messages taught anything", taught.get());
    }
}
