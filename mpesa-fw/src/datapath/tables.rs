//! Tables of a generation: made in exactly the size that the policy needs, filled through a mapping, frozen.

use std::os::fd::{AsFd, BorrowedFd};

use aya::{Ebpf, maps::Map};
use mpesa_fw_common::tables::AddressTable;
use zerocopy::IntoBytes;

use super::{DatapathError, ErrorKind, Result, error::Context, pins::STAMP};
use crate::{
    compile::{AddressTables, GenerationTables},
    sys,
};

/// Maps that are made anew with each generation; every other map of the object is state.
const ADDRESS_MAPS: [[&str; 6]; 3] = [
    ["SOURCE4_INDEX", "SOURCE4_RANGES", "SOURCE6_INDEX", "SOURCE6_STARTS", "SOURCE6_IDS", "SOURCE_CLASSES"],
    ["LOCAL4_INDEX", "LOCAL4_RANGES", "LOCAL6_INDEX", "LOCAL6_STARTS", "LOCAL6_IDS", "LOCAL_CLASSES"],
    [
        "DESTINATION4_INDEX",
        "DESTINATION4_RANGES",
        "DESTINATION6_INDEX",
        "DESTINATION6_STARTS",
        "DESTINATION6_IDS",
        "DESTINATION_CLASSES",
    ],
];
const OTHER_MAPS: [&str; 5] = ["INGRESS_CLAIMS", "EGRESS_CLAIMS", "RULE_INFO", "NAME_RULES", STAMP];

/// Whether a map belongs to one generation.
pub(super) fn is_table(name: &str) -> bool {
    ADDRESS_MAPS.as_flattened().contains(&name) || OTHER_MAPS.contains(&name)
}

/// The name of such a map, as a constant.
pub(super) fn known(name: &str) -> Option<&'static str> {
    ADDRESS_MAPS.as_flattened().iter().chain(&OTHER_MAPS).find(|known| **known == name).copied()
}

/// Contents of one map.
#[derive(Clone, Copy, Debug)]
pub struct Table<'a> {
    /// The map.
    pub name: &'static str,
    /// Elements that it is to be made with.
    pub entries: u32,
    /// What is in the first of them; the others are zero.
    pub bytes: &'a [u8],
}

impl<'a> Table<'a> {
    pub(super) fn new<T: IntoBytes + zerocopy::Immutable>(name: &'static str, elements: &'a [T]) -> Self {
        // Elements of an array map begin at multiples of 8 bytes.
        const { assert!(size_of::<T>().is_multiple_of(8), "a table's elements must lie as in the map") }
        // A table that the policy does not use keeps one element: a map of none can't be made.
        Self { name, entries: elements.len().max(1) as u32, bytes: elements.as_bytes() }
    }
}

/// All tables of a generation but its stamp. Also for tests and the bench, which load the programs by themselves.
#[must_use]
pub fn tables(tables: &GenerationTables) -> Vec<Table<'_>> {
    let GenerationTables { address, claims, rule_info, name_rules } = tables;
    let mut all = Vec::new();
    for table in AddressTable::ALL {
        let AddressTables { index4, ranges4, index6, starts6, ids6, classes } = &address[table as usize];
        let names = ADDRESS_MAPS[table as usize];
        all.extend([
            Table::new(names[0], index4),
            Table::new(names[1], ranges4),
            Table::new(names[2], index6),
            Table::new(names[3], starts6),
            Table::new(names[4], ids6),
            Table::new(names[5], classes),
        ]);
    }
    let [ingress, egress] = claims;
    all.extend([
        Table::new(OTHER_MAPS[0], ingress),
        Table::new(OTHER_MAPS[1], egress),
        Table::new(OTHER_MAPS[2], rule_info),
        Table::new(OTHER_MAPS[3], name_rules),
    ]);
    all
}

/// Fills the map of a table and freezes it: from now on not even root can change it in place.
pub(super) fn fill(ebpf: &Ebpf, table: &Table<'_>) -> Result<()> {
    let map = array(ebpf, table.name)?;
    sys::fill(map, table.bytes)
        .context(|| format!("fill table {} ({} bytes)", table.name, table.bytes.len()))?;
    sys::freeze(map).context(|| format!("freeze table {}", table.name))
}

/// An array of the object.
pub(super) fn array<'a>(ebpf: &'a Ebpf, name: &str) -> Result<BorrowedFd<'a>> {
    match ebpf.map(name) {
        Some(Map::Array(data)) => Ok(data.fd().as_fd()),
        _ => Err(DatapathError::new(
            ErrorKind::Internal,
            format!("fill table {name}"),
            "the eBPF object has no such array",
            "build the agent and the object from one tree",
        )),
    }
}
