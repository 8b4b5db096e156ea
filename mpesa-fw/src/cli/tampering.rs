//! The part of `mpesa-fw status` on what somebody did to the datapath.

use std::fmt::Write as _;

use time::OffsetDateTime;

use super::when::ago;
use crate::agent::Status;

/// Shown; JSON has more.
const SHOWN: usize = 5;

/// The last tamperings, the latest first.
pub(super) fn tampering(status: &Status, now: OffsetDateTime) -> String {
    let mut text = String::new();
    if status.tampering.is_empty() {
        return text;
    }
    let all: u64 = status.tamper_counts.values().sum();
    let _ = writeln!(text, "\n TAMPERING, {all} so far; the last:");
    for record in status.tampering.iter().rev().take(SHOWN) {
        let mended = if record.mended { "put right" } else { "NOT PUT RIGHT" };
        let _ = writeln!(
            text,
            " {} {} ({}): {}; {mended}",
            ago(record.time, now),
            record.place,
            record.kind,
            record.what
        );
        if let Some(culprit) = &record.culprit {
            let _ = writeln!(text, "   by {culprit}");
        }
    }
    text
}
