//! Of which time, and of what.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::{Args, Subcommand};

use super::FormatArguments;

#[derive(Debug, Args)]
pub(in crate::cli) struct AuditArguments {
    #[command(subcommand)]
    pub command: AuditCommand,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum AuditCommand {
    /// Connections to each destination by unit and user, and what was denied.
    Egress(EgressAuditArguments),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct EgressAuditArguments {
    /// From when on: `7d`, `36h`, `2026-11-01`, `2026-11-01T08:00:00Z`. Whole hours; times are UTC.
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = Since::parse)]
    pub since: Since,
    /// Only to this destination; `--rule ""`: to where none claims it.
    #[arg(long, value_name = "NAME")]
    pub rule: Option<String>,
    #[command(flatten)]
    pub format: FormatArguments,
}

/// A time as it was typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Since {
    /// So long ago.
    Ago(Duration),
    /// Then.
    At(SystemTime),
}

/// What is no time.
#[derive(Debug)]
pub(in crate::cli) struct NoTime;

impl fmt::Display for NoTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a time: write `7d`, `36h`, `2026-11-01` or `2026-11-01T08:00:00Z`")
    }
}

impl std::error::Error for NoTime {}

impl Since {
    fn parse(text: &str) -> Result<Self, NoTime> {
        if let Ok(ago) = humantime::parse_duration(text) {
            return Ok(Self::Ago(ago));
        }
        let at = humantime::parse_rfc3339_weak(text)
            .or_else(|_| humantime::parse_rfc3339_weak(&format!("{text} 00:00:00")));
        at.map(Self::At).map_err(|_| NoTime)
    }

    /// Seconds since 1970.
    pub(in crate::cli) fn unix(self, now: SystemTime) -> u64 {
        let time = match self {
            Self::Ago(ago) => now.checked_sub(ago).unwrap_or(UNIX_EPOCH),
            Self::At(time) => time,
        };
        time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_they_are_typed() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let unix = |text| Since::parse(text).map(|since| since.unix(now)).ok();
        assert_eq!(unix("7d"), Some(1_000_000_000 - 7 * 86_400));
        assert_eq!(unix("90m"), Some(1_000_000_000 - 90 * 60));
        assert_eq!(unix("200y"), Some(0));
        assert_eq!(unix("2026-11-01"), Some(1_793_491_200));
        assert_eq!(unix("2026-11-01T08:00:00Z"), Some(1_793_520_000));
        assert_eq!(unix("2026-11-01 08:00:00"), Some(1_793_520_000));
        for no in ["yesterday", "", "2026-13-01", "7"] {
            assert_eq!(unix(no), None, "{no}");
        }
    }
}
