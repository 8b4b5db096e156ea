//! The kernels, by the Debian release that has them.

use std::fmt;
use std::str::FromStr;

/// A kernel that is booted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Release {
    /// Best effort: it is to be refused with a message.
    V5_10,
    V6_1,
    V6_12,
    V7_2,
}

impl Release {
    pub(crate) const ALL: [Self; 4] = [Self::V5_10, Self::V6_1, Self::V6_12, Self::V7_2];

    /// The suite that has it.
    pub(crate) const fn suite(self) -> &'static str {
        match self {
            Self::V5_10 => "bullseye",
            Self::V6_1 => "bookworm",
            Self::V6_12 => "trixie",
            Self::V7_2 => "forky",
        }
    }

    /// That suite's number.
    pub(crate) const fn debian(self) -> u8 {
        match self {
            Self::V5_10 => 11,
            Self::V6_1 => 12,
            Self::V6_12 => 13,
            Self::V7_2 => 14,
        }
    }

    /// The first two numbers.
    pub(crate) const fn version(self) -> &'static str {
        match self {
            Self::V5_10 => "5.10",
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
            Self::V7_2 => "7.2",
        }
    }

    /// Whether the firewall is to work there; where it is not, it is to refuse with a message.
    pub(crate) const fn is_promised(self) -> bool {
        match self {
            Self::V5_10 => false,
            Self::V6_1 | Self::V6_12 | Self::V7_2 => true,
        }
    }
}

impl fmt::Display for Release {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.version())
    }
}

impl FromStr for Release {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|release| release.version() == text).ok_or_else(|| {
            format!("one of {} is meant", Self::ALL.map(|release| release.version()).join(", "))
        })
    }
}
