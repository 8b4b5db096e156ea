//! Waiting for a condition instead of sleeping.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

const STEP: Duration = Duration::from_millis(20);

/// How many times longer than usual to wait: for machines that are slow, such as emulated ones.
const FACTOR: &str = "MPESA_FW_TEST_PATIENCE";

fn factor() -> u32 {
    let factor = std::env::var(FACTOR).ok().and_then(|factor| factor.parse().ok());
    factor.unwrap_or(1).max(1)
}

/// Whether this machine is one of those.
#[must_use]
pub fn is_slow() -> bool {
    factor() > 1
}

/// As long as that is on this machine.
#[must_use]
pub fn here(within: Duration) -> Duration {
    within.saturating_mul(factor())
}

/// How often to repeat what one does many times over: less on a machine that is slow, but more than once.
#[must_use]
pub fn fewer(times: u32) -> u32 {
    (times / factor()).max(times.min(3))
}

/// Asks again and again until there is an answer.
///
/// # Errors
/// There is none within that time; the message says `what` was waited for.
pub fn eventually<T>(what: &str, within: Duration, mut ask: impl FnMut() -> Option<T>) -> Result<T> {
    let within = here(within);
    let deadline = Instant::now() + within;
    loop {
        if let Some(answer) = ask() {
            return Ok(answer);
        }
        if Instant::now() >= deadline {
            bail!("waited {within:?} in vain for: {what}");
        }
        sleep(STEP);
    }
}

/// Like [`eventually`], for a plain condition.
///
/// # Errors
/// It does not hold within that time.
pub fn holds(what: &str, within: Duration, mut condition: impl FnMut() -> bool) -> Result<()> {
    eventually(what, within, || condition().then_some(()))
}
