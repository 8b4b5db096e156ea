//! Times as people say them.

use time::{OffsetDateTime, macros::format_description};

/// `3 min ago`.
pub(super) fn ago(time: OffsetDateTime, now: OffsetDateTime) -> String {
    let seconds = (now - time).whole_seconds().max(0);
    match seconds {
        0..=1 => "just now".to_owned(),
        2..=119 => format!("{seconds} s ago"),
        120..=7199 => format!("{} min ago", seconds / 60),
        7200..=172_799 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

/// `2026-11-23 22:30:11 UTC`.
pub(super) fn stamp(time: OffsetDateTime) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second] UTC");
    time.format(format).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::{Duration, macros::datetime};

    #[test]
    fn times_are_rounded_to_what_matters() {
        let now = datetime!(2026-11-23 22:30:11 UTC);
        assert_eq!(ago(now, now), "just now");
        assert_eq!(ago(now - Duration::seconds(90), now), "90 s ago");
        assert_eq!(ago(now - Duration::minutes(90), now), "90 min ago");
        assert_eq!(ago(now - Duration::hours(30), now), "30 h ago");
        assert_eq!(ago(now - Duration::days(9), now), "9 days ago");
        assert_eq!(ago(now + Duration::days(9), now), "just now");
        assert_eq!(stamp(now), "2026-11-23 22:30:11 UTC");
    }
}
