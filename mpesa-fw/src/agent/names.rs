//! What DNS names resolved to. Pure: time comes in as seconds since 1970.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use serde::{Deserialize, Serialize};

/// Addresses kept of one name: what rotates through more loses the one not seen for longest.
pub(super) const ADDRESSES_PER_NAME: usize = 64;
/// Bounds of a TTL, seconds: neither hammer the resolver nor miss a move for a day.
pub(super) const TTL_BOUNDS: (u64, u64) = (5, 3600);
/// An address that is no longer in the answer is kept this long, seconds: load balancers rotate their answers, and
/// programs use what they were told for longer than the TTL says.
pub(super) const GRACE: u64 = 600;
/// First and longest pause after a failure, seconds.
const BACKOFF: (u64, u64) = (5, 300);

/// Every name of the running policy.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    entries: BTreeMap<String, Entry>,
}

#[derive(Clone, Debug, Default)]
struct Entry {
    slot: u16,
    /// When each was last seen in an answer, or in use.
    addresses: BTreeMap<IpAddr, u64>,
    answered_at: Option<u64>,
    due: u64,
    failures: u32,
    error: Option<String>,
    waited_for: bool,
}

/// One name, for `status` and metrics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameStatus {
    /// The name.
    pub name: String,
    /// Its addresses, as the agent was told. A wildcard has none: what is below it is not known before somebody asks.
    pub addresses: Vec<IpAddr>,
    /// How many addresses it has by answers that were learnt on their way in, and that count now.
    #[serde(default)]
    pub learnt: usize,
    /// Seconds since 1970 of the last answer.
    pub answered_at: Option<u64>,
    /// Why the last question was not answered.
    pub error: Option<String>,
}

impl NameStatus {
    /// One that the agent does not ask for.
    pub(super) fn untold(name: &str) -> Self {
        Self { name: name.to_owned(), addresses: Vec::new(), learnt: 0, answered_at: None, error: None }
    }
}

/// What is kept across restarts: name, address, when it was last seen.
pub(super) type Saved = BTreeMap<String, BTreeMap<IpAddr, u64>>;

impl Names {
    /// The names without an address that nobody has waited for yet. The next call leaves them out: a start or a reload
    /// waits once for each.
    pub(super) fn take_new(&mut self) -> Vec<String> {
        let mut names = Vec::new();
        for (name, entry) in &mut self.entries {
            if entry.addresses.is_empty() && !entry.waited_for {
                names.push(name.clone());
            }
            entry.waited_for = true;
        }
        names
    }

    /// Whether it has an address.
    pub(super) fn is_known(&self, name: &str) -> bool {
        self.entries.get(name).is_some_and(|entry| !entry.addresses.is_empty())
    }

    /// The names of a policy with their slots; what is known of those that stay is kept.
    pub(super) fn set_slots(&mut self, slots: &BTreeMap<String, u16>) {
        let mut before = std::mem::take(&mut self.entries);
        self.entries = slots
            .iter()
            // What lies below a wildcard is learnt when somebody asks for it.
            .filter(|(name, _)| !name.starts_with('*'))
            .map(|(name, slot)| {
                let known = before.remove(name).unwrap_or_default();
                (name.clone(), Entry { slot: *slot, ..known })
            })
            .collect();
    }

    /// Takes over what an earlier agent saved, for names without an answer.
    pub(super) fn restore(&mut self, saved: &Saved) {
        for (name, addresses) in saved {
            if let Some(entry) = self.entries.get_mut(name).filter(|e| e.addresses.is_empty()) {
                entry.addresses = addresses.iter().take(ADDRESSES_PER_NAME).map(|(a, t)| (*a, *t)).collect();
            }
        }
    }

    /// What to save.
    #[must_use]
    pub(super) fn to_save(&self) -> Saved {
        self.entries
            .iter()
            .filter(|(_, e)| !e.addresses.is_empty())
            .map(|(name, e)| (name.clone(), e.addresses.clone()))
            .collect()
    }

    /// An answer came.
    pub(super) fn answered(
        &mut self,
        name: &str,
        answer: impl IntoIterator<Item = IpAddr>,
        ttl: u64,
        now: u64,
    ) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        // Under a clock that ran ahead: it would stay until the clock gets there once more.
        entry.addresses.values_mut().for_each(|seen| *seen = (*seen).min(now));
        entry.addresses.retain(|_, seen| now - *seen < GRACE);
        entry.addresses.extend(answer.into_iter().filter(is_host).map(|address| (address, now)));
        while entry.addresses.len() > ADDRESSES_PER_NAME {
            let oldest = entry.addresses.iter().min_by_key(|(_, seen)| **seen).map(|(a, _)| *a);
            oldest.map(|address| entry.addresses.remove(&address));
        }
        entry.answered_at = Some(now);
        entry.due = now + ttl.clamp(TTL_BOUNDS.0, TTL_BOUNDS.1);
        entry.failures = 0;
        entry.error = None;
    }

    /// No answer came: what was known stays. True: this is the first failure in a row.
    pub(super) fn failed(&mut self, name: &str, error: String, now: u64) -> bool {
        let Some(entry) = self.entries.get_mut(name) else { return false };
        entry.due = now + (BACKOFF.0 << entry.failures.min(6)).min(BACKOFF.1);
        entry.failures = entry.failures.saturating_add(1);
        entry.error = Some(error);
        entry.failures == 1
    }

    /// Addresses with live flows stay known, or a reload would cut connections that were allowed by name.
    pub(super) fn in_use(&mut self, remotes: &BTreeSet<IpAddr>, now: u64) {
        for entry in self.entries.values_mut() {
            for (_, seen) in entry.addresses.iter_mut().filter(|(address, _)| remotes.contains(*address)) {
                *seen = now;
            }
        }
    }

    /// Names to ask for.
    #[must_use]
    pub(super) fn due(&self, now: u64) -> Vec<String> {
        self.entries.iter().filter(|(_, e)| e.is_due(now)).map(|(name, _)| name.clone()).collect()
    }

    /// When the next question is due.
    #[must_use]
    pub(super) fn next_due(&self, now: u64) -> Option<u64> {
        self.entries.values().map(|e| if e.is_due(now) { now } else { e.due }).min()
    }

    /// Names that have no address.
    #[must_use]
    pub(super) fn unknown(&self) -> Vec<String> {
        self.entries.iter().filter(|(_, e)| e.addresses.is_empty()).map(|(name, _)| name.clone()).collect()
    }

    /// The table of the datapath: which slots each address answers. Slots in `without` are left out.
    #[must_use]
    pub(super) fn table(&self, without: &[u16]) -> BTreeMap<IpAddr, Vec<u16>> {
        let mut table: BTreeMap<IpAddr, Vec<u16>> = BTreeMap::new();
        for entry in self.entries.values().filter(|e| !without.contains(&e.slot)) {
            for address in entry.addresses.keys() {
                table.entry(*address).or_default().push(entry.slot);
            }
        }
        table
    }

    /// For people and metrics.
    #[must_use]
    pub(super) fn status(&self) -> Vec<NameStatus> {
        self.entries
            .iter()
            .map(|(name, e)| NameStatus {
                name: name.clone(),
                addresses: e.addresses.keys().copied().collect(),
                learnt: 0,
                answered_at: e.answered_at,
                error: e.error.clone(),
            })
            .collect()
    }
}

impl Entry {
    /// A question that is due later than any answer is kept was put off before the clock went back.
    const fn is_due(&self, now: u64) -> bool {
        self.due <= now || self.due > now + TTL_BOUNDS.1
    }
}

/// An answer that is no host (a blocking resolver says 0.0.0.0 or 127.0.0.1) allows nothing.
fn is_host(address: &IpAddr) -> bool {
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        [198, 51, 100, last].into()
    }

    fn names() -> Names {
        let mut names = Names::default();
        names.set_slots(&BTreeMap::from([("a.example".to_owned(), 3), ("b.example".to_owned(), 5)]));
        names
    }

    #[test]
    fn an_answer_is_due_again_by_its_ttl_within_bounds() {
        let mut names = names();
        assert_eq!(names.due(100), ["a.example", "b.example"]);
        names.answered("a.example", [ip(1)], 0, 100);
        names.answered("b.example", [ip(1), ip(2)], 1_000_000, 100);
        assert_eq!(names.next_due(100), Some(105));
        assert_eq!(names.due(3699), ["a.example"]);
        assert_eq!(names.table(&[])[&ip(1)], [3, 5]);
        assert_eq!(names.table(&[5]).get(&ip(2)), None);
    }

    #[test]
    fn a_clock_that_goes_back_puts_no_question_off() {
        let mut names = names();
        names.answered("a.example", [ip(1)], 60, 2_000_000);
        names.answered("b.example", [ip(2)], 60, 2_000_000);
        assert_eq!(names.due(1_000_000), ["a.example", "b.example"]);
        assert_eq!(names.next_due(1_000_000), Some(1_000_000));
        names.answered("a.example", [ip(3)], 60, 1_000_000);
        names.answered("b.example", [ip(3)], 60, 1_000_000);
        assert!(names.due(1_000_000).is_empty());
        assert_eq!(names.next_due(1_000_000), Some(1_000_060));
        assert_eq!(names.table(&[]).len(), 3, "what was known is kept");
        names.answered("a.example", [ip(3)], 60, 1_000_000 + GRACE + 1);
        assert_eq!(names.status()[0].addresses, [ip(3)], "as long as any other");
    }

    #[test]
    fn each_name_is_waited_for_once() {
        let mut names = names();
        names.answered("a.example", [ip(1)], 60, 100);
        assert_eq!(names.take_new(), ["b.example"]);
        assert!(names.take_new().is_empty());
        names.set_slots(&BTreeMap::from([("b.example".to_owned(), 5), ("c.example".to_owned(), 6)]));
        assert_eq!(names.take_new(), ["c.example"]);
    }

    #[test]
    fn a_failure_keeps_the_last_good_answer_and_backs_off() {
        let mut names = names();
        names.answered("a.example", [ip(1)], 60, 100);
        assert!(names.failed("a.example", "timeout".into(), 100_000));
        assert!(!names.failed("a.example", "timeout".into(), 100_005));
        assert_eq!(names.table(&[])[&ip(1)], [3]);
        assert_eq!(names.due(100_014), ["b.example"]);
        for _ in 0..40 {
            names.failed("a.example", "timeout".into(), 200_000);
        }
        assert_eq!(names.due(200_300), ["a.example", "b.example"]);
    }

    #[test]
    fn an_address_that_left_the_answer_goes_after_the_grace_unless_it_is_in_use() {
        let mut names = names();
        names.answered("a.example", [ip(1), ip(2)], 60, 1000);
        names.answered("a.example", [ip(3)], 60, 1000 + GRACE - 1);
        assert_eq!(names.status()[0].addresses, [ip(1), ip(2), ip(3)]);
        names.in_use(&BTreeSet::from([ip(2)]), 1000 + GRACE);
        names.answered("a.example", [ip(3)], 60, 1000 + GRACE + 1);
        assert_eq!(names.status()[0].addresses, [ip(2), ip(3)]);
    }

    #[test]
    fn answers_are_bounded_and_hosts() {
        let mut names = names();
        names.answered("a.example", [[0, 0, 0, 0].into(), [127, 0, 0, 1].into()], 60, 1);
        assert_eq!(names.unknown(), ["a.example", "b.example"]);
        for round in 0..4 {
            names.answered("a.example", (round * 50..round * 50 + 50).map(ip), 60, 10 + u64::from(round));
        }
        let addresses = &names.status()[0].addresses;
        assert_eq!(addresses.len(), ADDRESSES_PER_NAME);
        assert!(addresses.contains(&ip(199)) && !addresses.contains(&ip(0)));
    }

    #[test]
    fn a_restart_has_the_saved_answers_at_once() {
        let mut before = names();
        before.answered("a.example", [ip(1)], 60, 1000);
        let mut after = names();
        after.restore(&before.to_save());
        assert_eq!(after.table(&[])[&ip(1)], [3]);
        assert_eq!(after.due(1001), ["a.example", "b.example"]);
        after.set_slots(&BTreeMap::from([("a.example".to_owned(), 9)]));
        assert_eq!(after.table(&[])[&ip(1)], [9]);
    }
}
