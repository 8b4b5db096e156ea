//! Waiting for a condition instead of sleeping.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

const STEP: Duration = Duration::from_millis(20);

/// Asks again and again until there is an answer.
///
/// # Errors
/// There is none within that time; the message says `what` was waited for.
pub fn eventually<T>(what: &str, within: Duration, mut ask: impl FnMut() -> Option<T>) -> Result<T> {
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
