//! What the datapath must know of a rule besides its bits: where its counts go, and its limit.

use mpesa_fw_common::{
    Direction,
    counter::{SLOT_EGRESS_NONE, SLOT_INGRESS_NONE},
    limit::{LimitPer, LimitWhat},
    tables::{RULE_INFO_LEN, RuleIndex, RuleInfo, rule_info_index},
};

use super::{CompileError, Slots, rule_index};
use crate::policy::model::{Limit, Policy, Service};

/// Longest time, in nanoseconds, that a limit may take to recover: about 146 years. With the monotonic clock added
/// it stays far below the end of 64 bits.
const LONGEST_RECOVERY: u64 = 1 << 62;

/// The table. Positions without a rule count as "no rule" of their direction.
pub(super) fn rule_info(policy: &Policy, slots: &Slots) -> Result<Vec<RuleInfo>, CompileError> {
    let mut table = vec![RuleInfo::default(); RULE_INFO_LEN];
    for direction in Direction::ALL {
        let first = rule_info_index(direction, rule_index(0)) as usize;
        let last = rule_info_index(direction, RuleIndex::NONE) as usize;
        table[first..=last].fill(unlimited(no_rule_slot(direction)));
    }
    for (position, service) in policy.ingress.services.iter().enumerate() {
        let slot = slots.rule(Direction::Ingress, &service.name)?;
        table[rule_info_index(Direction::Ingress, rule_index(position)) as usize] =
            service_info(service, slot)?;
    }
    for (position, destination) in policy.egress.allow.iter().enumerate() {
        let slot = slots.rule(Direction::Egress, &destination.name)?;
        table[rule_info_index(Direction::Egress, rule_index(position)) as usize] = unlimited(slot);
    }
    Ok(table)
}

const fn no_rule_slot(direction: Direction) -> u32 {
    match direction {
        Direction::Ingress => SLOT_INGRESS_NONE,
        Direction::Egress => SLOT_EGRESS_NONE,
    }
}

const fn unlimited(counter_slot: u32) -> RuleInfo {
    RuleInfo {
        limit_interval: 0,
        limit_tolerance: 0,
        limit_what: LimitWhat::NewConnections as u32,
        limit_per: LimitPer::Source as u32,
        counter_slot,
        reserved: 0,
    }
}

fn service_info(service: &Service, counter_slot: u32) -> Result<RuleInfo, CompileError> {
    let Some(limit) = &service.limit else {
        return Ok(unlimited(counter_slot));
    };
    let too_slow = || CompileError::LimitTooSlow { service: service.name.clone(), burst: limit.burst.get() };
    let (limit_interval, limit_tolerance) = pace(limit).ok_or_else(too_slow)?;
    Ok(RuleInfo {
        limit_interval,
        limit_tolerance,
        limit_what: limit.what as u32,
        limit_per: limit.per as u32,
        counter_slot,
        reserved: 0,
    })
}

/// Interval and tolerance of the generic cell rate algorithm, unless a burst would take too long to recover.
fn pace(limit: &Limit) -> Option<(u64, u64)> {
    let period = u64::try_from(limit.period.as_nanos()).ok()?;
    // 0 would mean no limit; more than one a nanosecond is none in effect.
    let interval = (period / limit.rate).max(1);
    let recovery = interval.checked_mul(limit.burst.get())?;
    (recovery <= LONGEST_RECOVERY).then_some((interval, recovery - interval))
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU64, time::Duration};

    use super::*;

    fn limit(rate: u64, period: Duration, burst: u64) -> Limit {
        Limit {
            what: LimitWhat::Packets,
            per: LimitPer::Source,
            rate: NonZeroU64::new(rate).expect("not zero"),
            period,
            burst: NonZeroU64::new(burst).expect("not zero"),
        }
    }

    #[test]
    fn twenty_a_second_with_a_burst_of_forty() {
        assert_eq!(pace(&limit(20, Duration::from_secs(1), 40)), Some((50_000_000, 39 * 50_000_000)));
    }

    #[test]
    fn a_burst_of_one_tolerates_nothing() {
        assert_eq!(pace(&limit(1, Duration::from_secs(3600), 1)), Some((3_600_000_000_000, 0)));
    }

    #[test]
    fn a_rate_beyond_the_clock_is_still_a_limit() {
        assert_eq!(pace(&limit(u64::MAX, Duration::from_secs(1), 1)), Some((1, 0)));
    }

    #[test]
    fn what_would_overflow_is_refused() {
        assert_eq!(pace(&limit(1, Duration::from_secs(3600), u64::MAX)), None);
        assert_eq!(pace(&limit(u64::MAX, Duration::from_secs(1), u64::MAX)), None);
        assert_eq!(pace(&limit(1, Duration::MAX, 1)), None);
    }
}
