//! A closed world of counters: after a packet exactly those have moved that the oracle's answer says, by so much, and
//! nothing else anywhere.

use std::collections::BTreeMap;

use mpesa_fw::{
    agent::status::{drop_statuses, rule_status},
    cli,
    datapath::RuleCounts,
};
use mpesa_fw_common::{
    Direction, DropReason, Family, PassReason, Reason,
    counter::{COUNTER_BLOCKS, CounterBlock, SLOT_EGRESS_NONE, SLOT_INGRESS_NONE},
    dns::LearnCount,
    packet::{PacketMeta, icmp, icmpv6},
    tables::{Tables as _, WATCHED_SETS},
};
use time::OffsetDateTime;

use super::maps::{DENIED, OPENED, PerCpu, Tallies};
use crate::case::{Expected, Rules};

/// All counts that can move, at one moment.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Ledger {
    rows: Vec<CounterBlock>,
    near_misses: Vec<u64>,
    /// Who opened what: by row, whoever the test run's socket belongs to.
    tallies: Tallies,
    /// What became of answers of name servers.
    learning: LearnCount,
    /// Events that were not sent.
    suppressed: u64,
}

impl Ledger {
    /// Up to the last row and the last bit that the policy has; [`strays`] tells of those behind.
    pub(super) fn read(maps: &PerCpu, rules: &Rules) -> Self {
        let (rows, bits) = in_use(rules);
        Self {
            rows: (0..rows).map(|row| maps.counters(row)).collect(),
            near_misses: (0..bits).map(|bit| maps.near_misses(bit)).collect(),
            tallies: maps.tallies(),
            learning: maps.learning(),
            suppressed: maps.suppressed_events(),
        }
    }

    /// What one packet of `length` bytes moves. In the kernel the time of the last pass is whatever it is, but not 0.
    fn moved_by(&self, after: &Self, rules: &Rules, packet: &Counted<'_>) -> Self {
        let mut moved = self.clone();
        let Counted { direction, length, meta, answer, step: _, learnt } = *packet;
        let row = row(rules, direction, &answer.rule);
        let block = &mut moved.rows[row];
        let counter = match answer.reason {
            Reason::Pass(_) => &mut block.passed,
            Reason::Drop(reason) if rules.compiled.observes() => &mut block.would_drop[reason as usize],
            Reason::Drop(reason) => &mut block.dropped[reason as usize],
        };
        counter.packets += 1;
        counter.bytes += length;
        if answer.reason == Reason::Pass(PassReason::Service) {
            block.passed_syns += u64::from(meta.opens_connection());
            block.last_passed = after.rows[row].last_passed.max(1);
        }
        if let Some(what) = packet.tallied() {
            let tally = moved.tallies.entry(row as u32).or_default();
            tally[what] += 1;
        }
        for (moved, more) in moved.learning.outcomes.iter_mut().zip(learnt.outcomes) {
            *moved += more;
        }
        for set in &answer.near_miss {
            moved.near_misses[usize::from(rules.slots.sets[set])] += 1;
        }
        moved
    }

    /// What has moved since `self` and should not have, or has not and should. Empty: the world is closed.
    pub(super) fn differences(&self, after: &Self, rules: &Rules, packet: &Counted<'_>) -> Vec<String> {
        let expected = self.moved_by(after, rules, packet);
        if expected == *after {
            return Vec::new();
        }
        let mut wrong = Vec::new();
        for (row, (is, should)) in after.rows.iter().zip(&expected.rows).enumerate() {
            if is != should {
                let was = &self.rows[row];
                let (seen, expected) = (difference(was, is), difference(was, should));
                wrong.push(format!("row {row} ({}): {seen}, not {expected}", owner(rules, row)));
            }
        }
        for (bit, (is, should)) in after.near_misses.iter().zip(&expected.near_misses).enumerate() {
            if is != should {
                wrong.push(format!("near misses of set {bit}: {is}, not {should}"));
            }
        }
        if after.tallies != expected.tallies {
            wrong.push(format!("opened and denied by row: {:?}, not {:?}", after.tallies, expected.tallies));
        }
        if after.learning != expected.learning {
            wrong.push(format!("answers: {:?}, not {:?}", after.learning, expected.learning));
        }
        if after.suppressed != expected.suppressed {
            wrong.push(format!("{} events suppressed", after.suppressed));
        }
        wrong.push(format!("before:\n{}after:\n{}", self.shown(rules), after.shown(rules)));
        wrong
    }

    /// As `mpesa-fw status` shows it.
    fn shown(&self, rules: &Rules) -> String {
        let counts = |direction, rule: &str| {
            let block = self.rows[row(rules, direction, rule)];
            RuleCounts { interface: "test run".to_owned(), direction, rule: rule.to_owned(), block }
        };
        let named = rules.slots.rules.keys().map(|(direction, rule)| counts(*direction, rule));
        let nobodys = Direction::ALL.map(|direction| counts(direction, ""));
        let counts: Vec<RuleCounts> = nobodys.into_iter().chain(named).collect();
        let services = rules.policy.ingress.services.iter();
        let services: Vec<_> =
            services.map(|service| rule_status(&counts, Direction::Ingress, &service.name)).collect();
        let destinations = rules.policy.egress.allow.iter();
        let destinations: Vec<_> =
            destinations.map(|allow| rule_status(&counts, Direction::Egress, &allow.name)).collect();
        let near_misses: BTreeMap<String, u64> = rules
            .slots
            .sets
            .iter()
            .map(|(set, bit)| (set.clone(), self.near_misses[usize::from(*bit)]))
            .collect();
        let drops = drop_statuses(&counts);
        cli::counts(&services, &destinations, &drops, &near_misses, OffsetDateTime::now_utc())
    }
}

/// Counts that have moved in rows that no rule has, for any interface, or of sets that are none. They start at 0 and would
/// stay, so it is enough to look now and then.
pub(super) fn strays(maps: &PerCpu, rules: &Rules) -> Vec<String> {
    let (rows, bits) = in_use(rules);
    let rows = (rows..COUNTER_BLOCKS as u32).filter(|row| maps.counters(*row) != CounterBlock::ZERO);
    let bits = (bits..WATCHED_SETS as u32).filter(|bit| maps.near_misses(*bit) != 0);
    let rows = rows.map(|row| {
        format!("row {row}, which is nobody's: {}", difference(&CounterBlock::ZERO, &maps.counters(row)))
    });
    rows.chain(bits.map(|bit| format!("near misses of set {bit}, which is none"))).collect()
}

/// Rows and bits up to the last in use.
fn in_use(rules: &Rules) -> (u32, u32) {
    let rows = rules.slots.rules.values().copied().max().unwrap_or(0).max(SLOT_EGRESS_NONE) + 1;
    (rows, rules.slots.sets.values().map(|bit| u32::from(*bit) + 1).max().unwrap_or(0))
}

/// A packet as counters see it.
#[derive(Clone, Copy)]
pub(super) struct Counted<'p> {
    pub(super) direction: Direction,
    /// Bytes of the frame.
    pub(super) length: u64,
    /// What it says of itself.
    pub(super) meta: &'p PacketMeta,
    /// What the oracle says.
    pub(super) answer: &'p Expected,
    /// By which number of the precedence.
    pub(super) step: u8,
    /// What the host has learnt of it.
    pub(super) learnt: LearnCount,
}

impl Counted<'_> {
    /// Whether it asks for an answer: what goes along a connection that nobody knows opens none.
    fn asks(&self) -> bool {
        match self.meta.family {
            _ if !self.meta.is_icmp() => self.meta.opens_connection() || !self.meta.is_tcp(),
            Family::V4 => [icmp::ECHO_REQUEST, icmp::TIMESTAMP_REQUEST].contains(&self.meta.icmp_type),
            Family::V6 => self.meta.icmp_type == icmpv6::ECHO_REQUEST,
        }
    }

    /// Whether it opened a flow ([`OPENED`]), or would have and is denied ([`DENIED`]): egress, and not along a flow (E7).
    fn tallied(&self) -> Option<usize> {
        use DropReason::{DestinationNotAllowed, NameNotAllowed, NoDestination, OwnerNotAllowed};
        const ALONG_A_FLOW: u8 = 7;
        if self.direction != Direction::Egress || self.step == ALONG_A_FLOW {
            return None;
        }
        match self.answer.reason {
            Reason::Pass(reason) => {
                let opens = matches!(reason, PassReason::Destination | PassReason::Default) && self.asks();
                opens.then_some(OPENED)
            }
            Reason::Drop(reason) => {
                let denied = [DestinationNotAllowed, NameNotAllowed, OwnerNotAllowed, NoDestination];
                denied.contains(&reason).then_some(DENIED)
            }
        }
    }
}

/// The row of a rule; of none, the direction's own.
fn row(rules: &Rules, direction: Direction, rule: &str) -> usize {
    let row = match (rule, direction) {
        ("", Direction::Ingress) => SLOT_INGRESS_NONE,
        ("", Direction::Egress) => SLOT_EGRESS_NONE,
        (name, _) => rules.slots.rules[&(direction, name.to_owned())],
    };
    row as usize
}

fn owner(rules: &Rules, row: usize) -> String {
    let owner = rules.slots.rules.iter().find(|(_, slot)| **slot as usize == row);
    owner.map_or_else(
        || String::from("nobody's"),
        |((direction, rule), _)| format!("{} {rule}", direction.label()),
    )
}

/// What a block has more of.
fn difference(was: &CounterBlock, is: &CounterBlock) -> String {
    let mut text = Vec::new();
    let mut say = |what: String,
                   was: &mpesa_fw_common::counter::Counter,
                   is: &mpesa_fw_common::counter::Counter| {
        if was != is {
            let (packets, bytes) = (is.packets.wrapping_sub(was.packets), is.bytes.wrapping_sub(was.bytes));
            text.push(format!("{what} +{packets} +{bytes} B"));
        }
    };
    say("passed".to_owned(), &was.passed, &is.passed);
    for reason in mpesa_fw_common::DropReason::ALL {
        let n = *reason as usize;
        say(reason.label().to_owned(), &was.dropped[n], &is.dropped[n]);
        say(format!("would drop {}", reason.label()), &was.would_drop[n], &is.would_drop[n]);
    }
    let syns = is.passed_syns.wrapping_sub(was.passed_syns);
    format!("[{}], SYNs +{syns}, last passed {}", text.join(", "), is.last_passed)
}
