//! Handshakes that are begun and not finished: the sign of spoofed sources, or of a service that nobody serves.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{Agent, clock, window::Window};
use crate::{
    datapath::Handshakes,
    policy::model::{Claim, Policy, Service},
};

/// Fewer SYNs than this prove nothing.
const MANY: u64 = 20;
/// More SYNs than this a connection do. An honest client repeats a SYN that is not answered six times at most.
const PER_CONNECTION: u64 = 10;

/// Handshakes of one service, as `status` shows them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HandshakeStatus {
    /// Its name.
    pub service: String,
    /// SYNs without ACK that it let pass, retransmissions included. They may be spoofed.
    pub syns: u64,
    /// Connections whose handshake was finished: the peer can receive at its address.
    pub connections: u64,
    /// When the last of these was.
    #[serde(with = "time::serde::rfc3339::option")]
    pub last_connection: Option<OffsetDateTime>,
}

impl HandshakeStatus {
    /// Those of the services of a policy that take TCP, in file order.
    #[must_use]
    pub fn of(policy: &Policy, counts: &[Handshakes]) -> Vec<Self> {
        let services = policy.ingress.services.iter().filter(|service| takes_tcp(service));
        services
            .map(|service| {
                let count = counts.iter().find(|count| count.service == service.name);
                let (syns, connections, last) =
                    count.map_or((0, 0, 0), |count| (count.syns, count.completed, count.last));
                let last_connection = (last > 0).then(|| clock::wall(last));
                Self { service: service.name.clone(), syns, connections, last_connection }
            })
            .collect()
    }
}

fn takes_tcp(service: &Service) -> bool {
    service.claims.iter().any(|claim| matches!(claim, Claim::Tcp(_)))
}

/// SYNs and completed handshakes, by service.
type ByService = BTreeMap<String, (u64, u64)>;

/// The counts of the last minute.
#[derive(Default)]
pub(super) struct Pace {
    samples: Window<ByService>,
    said: BTreeSet<String>,
}

impl Pace {
    /// Remembers counts. Answers what is to be said of services that were not suspected before.
    fn note(&mut self, now: u64, counts: &[Handshakes]) -> Vec<String> {
        let suspects = self.suspects(now, counts);
        let by_service =
            counts.iter().map(|count| (count.service.clone(), (count.syns, count.completed))).collect();
        self.samples.note(now, by_service);
        let known = std::mem::take(&mut self.said);
        self.said = suspects.keys().cloned().collect();
        suspects.into_iter().filter(|(service, _)| !known.contains(service)).map(|(_, what)| what).collect()
    }

    /// What is to be said of services in whose last minute few handshakes were finished, by service.
    pub(super) fn suspects(&self, now: u64, counts: &[Handshakes]) -> BTreeMap<String, String> {
        let Some((seconds, before)) = self.samples.oldest(now) else { return BTreeMap::new() };
        let one = |count: &Handshakes| {
            let (syns, completed) = before.get(&count.service).copied().unwrap_or_default();
            let (syns, completed) =
                (count.syns.saturating_sub(syns), count.completed.saturating_sub(completed));
            (syns >= MANY && syns / PER_CONNECTION > completed).then(|| {
                let what = format!(
                    "service {}: {syns} SYNs passed in the last {seconds} s, and {completed} handshakes were finished: \
                     the sources are spoofed, or nobody answers there",
                    count.service
                );
                (count.service.clone(), what)
            })
        };
        counts.iter().filter_map(one).collect()
    }
}

impl Agent {
    /// Says of which services few handshakes were finished in the last minute.
    pub(super) fn compare_handshakes(&self, now: u64, counts: &[Handshakes]) {
        let news = self.state().pace.note(now, counts);
        for what in news {
            tracing::warn!("{what}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn counts(syns: u64, completed: u64) -> Vec<Handshakes> {
        vec![Handshakes { service: "web".into(), syns, completed, last: 0 }]
    }

    #[test]
    fn many_syns_and_few_connections_are_said_once() {
        let mut pace = Pace::default();
        assert!(pace.note(SECOND, &counts(1000, 0)).is_empty(), "there is nothing to compare with");
        assert!(pace.note(11 * SECOND, &counts(1015, 0)).is_empty(), "too few to tell");
        let said = pace.note(21 * SECOND, &counts(1060, 1));
        assert!(said[0].contains("web: 60 SYNs passed in the last 20 s, and 1 "), "{said:?}");
        assert!(pace.note(31 * SECOND, &counts(1070, 1)).is_empty(), "said already");
        assert_eq!(pace.suspects(32 * SECOND, &counts(1070, 1)).len(), 1);
    }

    #[test]
    fn an_honest_crowd_is_not_suspected_and_a_minute_ends() {
        let mut pace = Pace::default();
        for tick in 0..20 {
            assert!(pace.note(tick * 10 * SECOND, &counts(tick * 1000, tick * 990)).is_empty());
        }
        assert_eq!(pace.suspects(191 * SECOND, &counts(25_000, 18_900)).len(), 0);
        assert_eq!(pace.suspects(191 * SECOND, &counts(91_000, 18_900)).len(), 1);
    }
}
