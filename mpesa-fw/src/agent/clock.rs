//! The two clocks: the kernel stamps with the monotonic one, people read the other.

use std::time::{Duration, SystemTime};

use nix::time::{ClockId, clock_gettime};
use time::OffsetDateTime;

/// Nanoseconds of the monotonic clock, as in events, flows and counters.
#[must_use]
pub fn monotonic() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |t| Duration::from(t).as_nanos() as u64)
}

/// Nanoseconds since the boot, suspends included: nobody can set it.
#[must_use]
pub fn since_boot() -> u64 {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |t| Duration::from(t).as_nanos() as u64)
}

/// What tells this boot from others.
///
/// # Errors
/// There is no /proc.
pub fn boot() -> std::io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// Seconds since 1970.
#[must_use]
pub fn unix() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    now.saturating_add_signed(crate::fault::clock_offset())
}

/// The wall-clock time of a stamp of the monotonic clock.
#[must_use]
pub fn wall(stamp: u64) -> OffsetDateTime {
    let age = monotonic().saturating_sub(stamp);
    OffsetDateTime::now_utc() - Duration::from_nanos(age)
}

/// The wall-clock time of seconds since 1970; the epoch where they are out of range.
#[must_use]
pub fn at(unix: u64) -> OffsetDateTime {
    i64::try_from(unix)
        .ok()
        .and_then(|s| OffsetDateTime::from_unix_timestamp(s).ok())
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}
