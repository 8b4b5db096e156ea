//! A registry as it is kept in maps.

use std::str;

use mpesa_fw_common::{Direction, state::NameSlot};

/// Value of [`NameSlot::status`].
const FREE: u8 = 0;
const IN_USE: u8 = 1;
const GONE: u8 = 2;

/// The rows of a registry, as they are kept in maps. Too few rows: the rest is free.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryRows {
    /// Map `COUNTER_NAMES`.
    pub rules: Vec<NameSlot>,
    /// Map `SET_NAMES`.
    pub sets: Vec<NameSlot>,
    /// Map `DNS_NAMES`.
    pub names: Vec<NameSlot>,
}

/// What a row says.
pub(super) struct Entry<'a> {
    pub(super) direction: Direction,
    pub(super) name: &'a str,
    pub(super) in_use: bool,
}

/// Longest name that fits.
pub(super) const LONGEST_NAME: usize = NameSlot { name: [0; 254], direction: 0, status: 0 }.name.len();

/// Reads a row; none if it is free or makes no sense.
pub(super) fn read(row: &NameSlot) -> Option<Entry<'_>> {
    let in_use = match row.status {
        IN_USE => true,
        GONE => false,
        _ => return None,
    };
    let direction = Direction::ALL.into_iter().find(|direction| *direction as u8 == row.direction)?;
    let length = row.name.iter().position(|byte| *byte == 0).unwrap_or(LONGEST_NAME);
    let (name, padding) = row.name.split_at(length);
    if name.is_empty() || padding.iter().any(|byte| *byte != 0) {
        return None;
    }
    Some(Entry { direction, name: str::from_utf8(name).ok()?, in_use })
}

/// Writes a row. Names were checked against [`LONGEST_NAME`].
pub(super) fn write(entry: Option<Entry<'_>>) -> NameSlot {
    let mut row = NameSlot { status: FREE, ..NameSlot::default() };
    if let Some(Entry { direction, name, in_use }) = entry {
        for (byte, octet) in row.name.iter_mut().zip(name.bytes()) {
            *byte = octet;
        }
        row.direction = direction as u8;
        row.status = if in_use { IN_USE } else { GONE };
    }
    row
}
