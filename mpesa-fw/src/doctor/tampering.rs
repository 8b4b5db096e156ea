//! What somebody did to the datapath, as the agent has noticed it.

use time::{Duration, OffsetDateTime};

use super::Finding;
use crate::agent::TamperRecord;

/// For so long it is for the doctor; `status` shows what is older.
const FRESH: Duration = Duration::DAY;

pub(super) fn examine(records: &[TamperRecord], now: OffsetDateTime) -> Option<Finding> {
    let fresh: Vec<&TamperRecord> = records.iter().filter(|record| now - record.time < FRESH).collect();
    let last = fresh.last()?;
    let open = fresh.iter().filter(|record| !record.mended).count();
    let right = if open == 0 { "all put right".to_owned() } else { format!("{open} not put right") };
    Some(Finding::wrong(
        "tampering",
        format!(
            "{} time(s) in the last day somebody changed hooks, pins or tables of the firewall ({right}); the last time: {}: {}",
            fresh.len(),
            last.place,
            last.what
        ),
        "only root can: a tool that did not know what it touched, or somebody who wants packets through",
        "`mpesa-fw status` shows each, with what is known of who it was",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_within_a_day_is_wrong_and_what_is_older_is_no_news() {
        let now = OffsetDateTime::now_utc();
        let record = |hours, mended| TamperRecord {
            time: now - Duration::hours(hours),
            kind: "hook_removed".into(),
            place: format!("eth{hours} ingress"),
            what: "its program was taken off".into(),
            culprit: None,
            mended,
        };
        assert_eq!(examine(&[record(25, false)], now), None);
        let told = examine(&[record(25, false), record(3, false), record(2, true)], now).unwrap();
        assert!(told.what.starts_with("2 time(s)") && told.what.contains("1 not put right"), "{}", told.what);
        assert!(told.what.ends_with("eth2 ingress: its program was taken off"), "{}", told.what);
        let told = examine(&[record(2, true)], now).unwrap();
        assert!(told.what.contains("all put right"), "{}", told.what);
    }
}
