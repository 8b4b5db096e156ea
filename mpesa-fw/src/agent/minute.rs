//! What was dropped in the last minute: counts only go up, so those of a minute ago are remembered.

use std::{collections::BTreeMap, sync::Arc};

use mpesa_fw_common::{Direction, DropReason};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::{
    Agent, clock,
    window::{EVERY, Window},
};
use crate::datapath::{DatapathError, RuleCounts};

/// Packets dropped, those that observe mode let go included, by direction and reason.
pub(super) type Sums = BTreeMap<(Direction, DropReason), u64>;

/// The counts of the last minute.
pub(super) type Minute = Window<Sums>;

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

impl Recent {
    /// Compares the counts of now with the oldest that are remembered.
    #[must_use]
    pub(super) fn of(minute: &Minute, now: u64, counts: &[RuleCounts]) -> Self {
        let Some((seconds, before)) = minute.oldest(now) else { return Self::default() };
        let more = |(key, packets): (&(Direction, DropReason), &u64)| {
            let packets = packets.saturating_sub(before.get(key).copied().unwrap_or_default());
            let (direction, reason) = (key.0.label().to_owned(), key.1.label().to_owned());
            (packets > 0).then_some(RecentDrop { direction, reason, packets })
        };
        let mut drops: Vec<RecentDrop> = sums(counts).iter().filter_map(more).collect();
        drops.sort_by_key(|drop| std::cmp::Reverse(drop.packets));
        Self { seconds, drops }
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
    /// Remembers counts and compares SYNs with completed connections, until the agent ends.
    pub(super) async fn remember_counts(self: Arc<Self>) {
        loop {
            let read = self
                .kernel
                .with(|datapath| Ok::<_, DatapathError>((datapath.counters()?, datapath.handshakes()?)));
            match read.await {
                Ok((counts, handshakes)) => {
                    let now = clock::monotonic();
                    self.state().minute.note(now, sums(&counts));
                    self.compare_handshakes(now, &handshakes.unwrap_or_default());
                }
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
        let recent = |minute: &Minute, now, packets| Recent::of(minute, now, &counts(packets));
        assert_eq!(recent(&minute, SECOND, 7), Recent::default(), "there is nothing to compare with");
        for tick in 0..=30 {
            minute.note(tick * 10 * SECOND, sums(&counts(tick)));
        }
        let now = recent(&minute, 303 * SECOND, 40);
        assert_eq!((now.seconds, now.drops[0].packets), (63, 16), "since the 24th");
        assert_eq!(recent(&minute, 303 * SECOND, 24).drops, [], "what did not move is not told");
    }
}
