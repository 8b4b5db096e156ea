//! The last minute of something that only grows: samples to compare with what it is now.

use std::{collections::VecDeque, time::Duration};

/// How often a sample is to be taken.
pub(super) const EVERY: Duration = Duration::from_secs(10);
/// How far back it is compared.
const LENGTH: Duration = Duration::from_secs(60);

/// Samples with nanoseconds of the monotonic clock, oldest first.
pub(super) struct Window<T> {
    samples: VecDeque<(u64, T)>,
}

impl<T> Default for Window<T> {
    fn default() -> Self {
        Self { samples: VecDeque::new() }
    }
}

impl<T> Window<T> {
    /// Takes one.
    pub(super) fn note(&mut self, now: u64, sample: T) {
        self.samples.push_back((now, sample));
        // One that is as old as the window stays, to compare with.
        let is_old = |time: u64| now.saturating_sub(time) >= LENGTH.as_nanos() as u64;
        while self.samples.get(1).is_some_and(|(time, _)| is_old(*time)) {
            self.samples.pop_front();
        }
    }

    /// The oldest, and how many seconds ago that was.
    pub(super) fn oldest(&self, now: u64) -> Option<(u64, &T)> {
        let (time, sample) = self.samples.front()?;
        Some((now.saturating_sub(*time) / 1_000_000_000, sample))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_is_remembered_and_no_more() {
        const SECOND: u64 = 1_000_000_000;
        let mut window = Window::default();
        assert!(window.oldest(0).is_none());
        for tick in 0..=30 {
            window.note(tick * 10 * SECOND, tick);
        }
        assert_eq!(window.oldest(303 * SECOND), Some((63, &24)));
        assert_eq!(window.samples.len(), 7);
    }
}
