//! What was dropped in the last minute: counts only go up, so those of a minute ago are remembered.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use mpesa_fw_common::{Direction, DropReason};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::{Agent, clock};
use crate::datapath::RuleCounts;

/// How often counts are remembered.
const EVERY: Duration = Duration::from_secs(10);
/// How far back they are compared.
const WINDOW: Duration = Duration::from_secs(60);

/// Packets dropped, those that observe mode let go included, by direction and reason.
type Sums = BTreeMap<(Direction, DropReason), u64>;

/// The counts of the last minute.
#[derive(Default)]
pub(super) struct Minute {
    /// With nanoseconds of the monotonic clock, oldest first.
    samples: VecDeque<(u64, Sums)>,
}

/// What was dropped lately.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recent {
    /// In so many seconds.
    pub seconds: u64,
    /// By direction and reason, the most first.
    pub drops: Vec<RecentDrop>,
}

/// What was dropped lately for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecentDrop {
    /// `ingress` or `egress`.
    pub direction: String,
    /// A [`DropReason`]'s label.
    pub reason: String,
    /// Packets, those that observe mode let go included.
    pub packets: u64,
}

impl Minute {
    fn note(&mut self, now: u64, counts: &[RuleCounts]) {
        self.samples.push_back((now, sums(counts)));
        // One that is as old as the window stays, to compare with.
        let is_old = |time: u64| now.saturating_sub(time) >= WINDOW.as_nanos() as u64;
        while self.samples.get(1).is_some_and(|(time, _)| is_old(*time)) {
            self.samples.pop_front();
        }
    }

    /// Compares the counts of now with the oldest that are remembered.
    #[must_use]
    pub(super) fn recent(&self, now: u64, counts: &[RuleCounts]) -> Recent {
        let Some((since, before)) = self.samples.front() else { return Recent::default() };
        let more = |(key, packets): (&(Direction, DropReason), &u64)| {
            let packets = packets.saturating_sub(before.get(key).copied().unwrap_or_default());
            let (direction, reason) = (key.0.label().to_owned(), key.1.label().to_owned());
            (packets > 0).then_some(RecentDrop { direction, reason, packets })
        };
        let mut drops: Vec<RecentDrop> = sums(counts).iter().filter_map(more).collect();
        drops.sort_by_key(|drop| std::cmp::Reverse(drop.packets));
        Recent { seconds: now.saturating_sub(*since) / 1_000_000_000, drops }
    }
}

fn sums(counts: &[RuleCounts]) -> Sums {
    let mut sums = Sums::new();
    for counts in counts {
        for reason in DropReason::ALL {
            let block = &counts.block;
            let packets =
                block.dropped[*reason as usize].packets + block.would_drop[*reason as usize].packets;
            if packets > 0 {
                *sums.entry((counts.direction, *reason)).or_default() += packets;
            }
        }
    }
    sums
}

impl Agent {
    /// Remembers counts, until the agent ends.
    pub(super) async fn remember_counts(self: Arc<Self>) {
        loop {
            match self.kernel.with(|datapath| datapath.counters()).await {
                Ok(counts) => self.state().minute.note(clock::monotonic(), &counts),
                Err(error) => tracing::error!("counts could not be read: {error}"),
            }
            sleep(EVERY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use mpesa_fw_common::counter::CounterBlock;
    use zerocopy::FromZeros as _;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn counts(packets: u64) -> Vec<RuleCounts> {
        let mut block = CounterBlock::new_zeroed();
        block.dropped[DropReason::NoService as usize].packets = packets;
        let interface = "eth0".to_owned();
        vec![RuleCounts { interface, direction: Direction::Ingress, rule: String::new(), block }]
    }

    #[test]
    fn only_the_last_minute_counts() {
        let mut minute = Minute::default();
        assert_eq!(minute.recent(SECOND, &counts(7)), Recent::default(), "there is nothing to compare with");
        for tick in 0..=30 {
            minute.note(tick * 10 * SECOND, &counts(tick));
        }
        let recent = minute.recent(303 * SECOND, &counts(40));
        assert_eq!((recent.seconds, recent.drops[0].packets), (63, 16), "since the 24th");
        assert_eq!(minute.recent(303 * SECOND, &counts(24)).drops, [], "what did not move is not told");
        assert_eq!(minute.samples.len(), 7);
    }
}
