//! Tables of a generation: made in exactly the size that the policy needs, filled through a mapping, frozen.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

use aya::{Ebpf, maps::Map};
use mpesa_fw_common::{
    dns::{NameSlots, TrieKey},
    tables::AddressTable,
};
use zerocopy::{FromBytes as _, IntoBytes};

use super::{DatapathError, ErrorKind, Result, error::Context, pins::STAMP, shape::data_of};
use crate::{
    compile::{AddressTables, AskedName, GenerationTables},
    sys::{self, KernelMap},
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
const OTHER_MAPS: [&str; 7] =
    ["INGRESS_CLAIMS", "EGRESS_CLAIMS", "RULE_INFO", "NAME_RULES", ASKED_NAMES, OWNERS, STAMP];
/// Made anew too, but kept up to date: see [`super::owners`].
pub(super) const OWNERS: &str = "OWNERS";
/// The one that is a trie.
const ASKED_NAMES: &str = "ASKED_NAMES";

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
    let GenerationTables { address, claims, rule_info, name_rules, asked_names } = tables;
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
        Table { name: ASKED_NAMES, entries: asked_names.len().max(1) as u32, bytes: asked_names.as_bytes() },
    ]);
    all
}

impl Table<'_> {
    /// Whether the map holds what this is. Also of a frozen one.
    ///
    /// # Errors
    /// It can't be read.
    pub(super) fn is_in(&self, map: BorrowedFd<'_>) -> io::Result<bool> {
        if self.name != ASKED_NAMES {
            return sys::holds(map, self.bytes);
        }
        let (map, mut count) = (trie(map)?, 0);
        map.for_each(|_, _| count += 1)?;
        for AskedName { key, slots } in self.names()? {
            if map.get(key)? != Some(*slots) {
                return Ok(false);
            }
        }
        Ok(count == self.names()?.len())
    }

    fn names(&self) -> io::Result<&[AskedName]> {
        <[AskedName]>::ref_from_bytes(self.bytes).map_err(|_| io::Error::other("no whole elements"))
    }

    fn put_into(&self, map: BorrowedFd<'_>) -> io::Result<()> {
        if self.name != ASKED_NAMES {
            return sys::fill(map, self.bytes);
        }
        let map = trie(map)?;
        self.names()?.iter().try_for_each(|AskedName { key, slots }| map.put(key, slots))
    }
}

fn trie(map: BorrowedFd<'_>) -> io::Result<KernelMap<TrieKey, NameSlots>> {
    KernelMap::new(map.try_clone_to_owned()?)
}

/// Fills the map of a table and freezes it: from now on not even root can change it in place. Also for tests and the bench.
///
/// # Errors
/// The object has no such map, or the kernel refuses.
pub fn fill(ebpf: &Ebpf, table: &Table<'_>) -> Result<()> {
    let map = ebpf.map(table.name).and_then(data_of).ok_or_else(|| no_map(table.name))?.fd().as_fd();
    table.put_into(map).context(|| format!("fill table {} ({} bytes)", table.name, table.bytes.len()))?;
    sys::freeze(map).context(|| format!("freeze table {}", table.name))
}

/// An array of the object.
pub(super) fn array<'a>(ebpf: &'a Ebpf, name: &str) -> Result<BorrowedFd<'a>> {
    match ebpf.map(name) {
        Some(Map::Array(data)) => Ok(data.fd().as_fd()),
        _ => Err(no_map(name)),
    }
}

fn no_map(name: &str) -> DatapathError {
    DatapathError::new(
        ErrorKind::Internal,
        format!("fill table {name}"),
        "the eBPF object has no such map",
        "build the agent and the object from one tree",
    )
}
