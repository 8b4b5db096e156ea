//! Limits of a service, by source or as a whole.
//!
//! The generic cell rate algorithm (ITU-T I.371): one number an entry, the time at which it will have
//! recovered. A packet conforms while that time is no more than the tolerance ahead of now.
//!
//! Map `LIMITS` is an array of [`LIMIT_SETS`] sets of four entries, found by a keyed hash. It never grows. A new
//! source takes the entry that recovers first and **inherits its recovery time**, as far as its own rule knows such a
//! debt: where the victim had not recovered, neither has its successor, so evicting entries by a flood of sources gains
//! nobody a fresh burst, and a slow rule's debts can't keep another rule's sources out for longer than that rule would.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    address::{Address, Family},
    tables::RuleInfo,
};

/// Sets of the table.
pub const LIMIT_SETS: usize = 1 << 14;
/// Entries a set.
pub const LIMIT_WAYS: usize = 4;

/// Services with a limit that may claim the same port (or ICMP type, or protocol): compile refuses more, because the
/// kernel tries no more.
pub const LIMITED_PER_CLAIM: usize = 4;

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum LimitWhat {
    /// TCP: SYNs without ACK. Other protocols: every packet.
    NewConnections = 0,
    /// Every packet.
    Packets = 1,
}

/// Whom a limit counts apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum LimitPer {
    /// Each IPv4 address, each IPv6 /64 (what one subscriber holds).
    Source = 0,
    /// All sources together.
    Service = 1,
}

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct LimitEntry {
    /// Keyed hash of the rule and source; 0: free.
    pub tag: u64,
    /// When it will have recovered: monotonic clock, nanoseconds.
    pub recovered_at: u64,
}

/// Element of `LIMITS`.
pub type LimitSet = [LimitEntry; LIMIT_WAYS];

/// The entry a packet is charged to.
#[inline(always)]
#[must_use]
pub fn limit_tag(seed: u64, rule: &RuleInfo, family: Family, source: &Address) -> u64 {
    let (mut high, mut low) = source.halves();
    if family as u8 == Family::V6 as u8 {
        low = 0;
    }
    if rule.limit_per == LimitPer::Service as u32 {
        high = 0;
        low = 0;
    }
    let mut h = mix(seed ^ u64::from(rule.counter_slot));
    h = mix(h ^ high);
    h = mix(h ^ low);
    h | 1 // never the tag of a free entry
}

/// Set of a tag.
#[inline(always)]
#[must_use]
pub const fn limit_set_index(tag: u64) -> u32 {
    (tag >> 40) as u32 & (LIMIT_SETS as u32 - 1)
}

/// Charges one packet to an entry of its set; `interval` and `tolerance` are those of [`RuleInfo`]. True: it conforms.
#[inline(always)]
pub fn conforms(set: &mut LimitSet, tag: u64, interval: u64, tolerance: u64, now: u64) -> bool {
    let (victim, found) = place(set, tag);
    let entry = &mut set[victim & (LIMIT_WAYS - 1)];
    if !found {
        entry.tag = tag;
        let deepest = now + tolerance + interval;
        if entry.recovered_at > deepest {
            entry.recovered_at = deepest;
        }
    }
    let recovered_at = if entry.recovered_at > now { entry.recovered_at } else { now };
    if recovered_at - now > tolerance {
        return false;
    }
    entry.recovered_at = recovered_at + interval;
    true
}

/// Whether one packet would conform, as [`conforms`] says; nothing is charged.
#[inline(always)]
#[must_use]
pub fn would_conform(set: &LimitSet, tag: u64, interval: u64, tolerance: u64, now: u64) -> bool {
    let (victim, found) = place(set, tag);
    let mut recovered_at = set[victim & (LIMIT_WAYS - 1)].recovered_at;
    if !found {
        recovered_at = recovered_at.min(now + tolerance + interval);
    }
    recovered_at.saturating_sub(now) <= tolerance
}

/// The entry of a tag, and whether it is there; else the one that makes room for it.
#[inline(always)]
fn place(set: &LimitSet, tag: u64) -> (usize, bool) {
    let mut victim = 0usize;
    let mut earliest = u64::MAX;
    let mut found = false;
    for (way, entry) in set.iter().enumerate() {
        if entry.tag == tag && !found {
            victim = way;
            found = true;
        }
        if !found && entry.recovered_at < earliest {
            earliest = entry.recovered_at;
            victim = way;
        }
    }
    (victim, found)
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014).
#[inline(always)]
const fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: u64 = 100;
    /// A burst of three.
    const TOLERANCE: u64 = 2 * INTERVAL;
    const NOW: u64 = 1_000_000;

    fn charge(set: &mut LimitSet, tag: u64, now: u64) -> bool {
        conforms(set, tag, INTERVAL, TOLERANCE, now)
    }

    /// Every entry is a source's that has spent its burst.
    fn spent() -> LimitSet {
        let mut set = LimitSet::default();
        for tag in 1..=LIMIT_WAYS as u64 {
            for _ in 0..3 {
                assert!(charge(&mut set, tag, NOW));
            }
            assert!(!charge(&mut set, tag, NOW));
        }
        set
    }

    #[test]
    fn what_would_conform_is_what_conforms_and_nothing_is_charged() {
        let mut set = spent();
        set[1] = LimitEntry::default();
        set[2].recovered_at += 1000 * INTERVAL;
        for now in [NOW, NOW + INTERVAL / 2, NOW + INTERVAL, NOW + 10 * INTERVAL] {
            for tag in [1, 2, 3, 77] {
                for tolerance in [0, TOLERANCE] {
                    let before = set;
                    let said = would_conform(&set, tag, INTERVAL, tolerance, now);
                    assert_eq!(set, before);
                    let mut charged = set;
                    assert_eq!(said, conforms(&mut charged, tag, INTERVAL, tolerance, now));
                }
            }
        }
    }

    #[test]
    fn who_takes_the_entry_of_another_gets_no_burst_of_its_own() {
        let mut set = spent();
        assert!(!charge(&mut set, 77, NOW), "the debt of the evicted source is the new one's");
        assert!(charge(&mut set, 77, NOW + INTERVAL), "which recovers as it would have");
        assert!(!charge(&mut set, 77, NOW + INTERVAL));
    }

    #[test]
    fn a_debt_of_a_slow_rule_is_no_deeper_than_the_own_rule_knows() {
        let mut set = LimitSet::default();
        for tag in 1..=LIMIT_WAYS as u64 {
            assert!(conforms(&mut set, tag, 1000 * INTERVAL, 0, NOW));
        }
        assert!(!charge(&mut set, 77, NOW));
        assert!(charge(&mut set, 77, NOW + INTERVAL), "not a thousand intervals later");
    }
}
