//! Lay-out of the pin directory.
//!
//! ```text
//! <bpffs>/abi-<n>/                                mode 0700; the version of every shared lay-out
//!   state/<MAP>                                   flows, counters, …: shared by all generations
//!   links/<interface>-<ingress|egress>            one link a hook (clsact filters have none)
//!   links/<connections|bypass|connect4|…>         the links at the cgroups' root
//!   qdiscs/<index of an interface>/               empty: its clsact qdisc was made by us
//!   generation-<number>-<12 hex of the digest>/   ingress_xdp ingress_tc egress_tc connections … GENERATION
//! ```
//!
//! `GENERATION` is pinned last and removed first: a generation that has it is complete.

use std::{
    fs, io,
    os::{fd::AsFd, unix::fs::DirBuilderExt},
    path::{Path, PathBuf},
};

use mpesa_fw_common::{ABI_VERSION, settings::Direction, tables::GenerationStamp};

use super::{Result, cgroup::CgroupProgram, error::Context};
use crate::{
    fault::{self, Point},
    sys::{self, KernelMap, ObjectKind},
};

/// Programs of a generation that judge packets, by the names of their pins and in the kernel.
pub(super) const PROGRAMS: [&str; 3] = ["ingress_xdp", "ingress_tc", "egress_tc"];
/// Map and pin of a generation's stamp.
pub(super) const STAMP: &str = "GENERATION";

const GENERATION_PREFIX: &str = "generation-";
const ABI_PREFIX: &str = "abi-";

/// The directory of one ABI version.
#[derive(Clone, Debug)]
pub(super) struct Pins {
    root: PathBuf,
}

impl Pins {
    /// Of this ABI version.
    pub(super) fn below(bpffs: &Path) -> Self {
        Self { root: bpffs.join(format!("{ABI_PREFIX}{ABI_VERSION}")) }
    }

    /// Of every ABI version that is there.
    pub(super) fn all_below(bpffs: &Path) -> Result<Vec<Self>> {
        let names = names_in(bpffs)?;
        let is_version = |name: &String| {
            name.strip_prefix(ABI_PREFIX).is_some_and(|version| version.parse::<u32>().is_ok())
        };
        Ok(names.into_iter().filter(is_version).map(|name| Self { root: bpffs.join(name) }).collect())
    }

    /// Of the other ABI versions that are there: an upgrade or a downgrade takes their hooks over.
    pub(super) fn others(&self) -> Result<Vec<Self>> {
        let bpffs = self.root.parent().unwrap_or(Path::new("/"));
        Ok(Self::all_below(bpffs)?.into_iter().filter(|other| other.root != self.root).collect())
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn create(&self) -> Result<()> {
        for directory in [self.root.clone(), self.state_directory(), self.links_directory()] {
            make_directory(&directory)?;
        }
        Ok(())
    }

    pub(super) fn state_directory(&self) -> PathBuf {
        self.root.join("state")
    }

    pub(super) fn state(&self, map: &str) -> PathBuf {
        self.state_directory().join(map)
    }

    pub(super) fn links_directory(&self) -> PathBuf {
        self.root.join("links")
    }

    pub(super) fn link(&self, interface: &str, direction: Direction) -> PathBuf {
        self.links_directory().join(format!("{}-{}", escape(interface), direction.label()))
    }

    /// The same link while its name is in the way of another, or its interface is not here.
    pub(super) fn link_aside(&self, link: u32, direction: Direction) -> PathBuf {
        self.link(&format!("/{link}"), direction)
    }

    /// The link of a program at the cgroups' root. No interface's link is called so: those end in a direction.
    pub(super) fn cgroup_link(&self, program: CgroupProgram) -> PathBuf {
        self.links_directory().join(program.name())
    }

    /// Interface, direction and path of every pinned link of an interface.
    pub(super) fn links(&self) -> Result<Vec<(String, Direction, PathBuf)>> {
        let directory = self.links_directory();
        Ok(names_in(&directory)?
            .into_iter()
            .filter_map(|name| {
                let (interface, label) = name.rsplit_once('-')?;
                let direction = Direction::ALL.into_iter().find(|direction| direction.label() == label)?;
                Some((unescape(interface), direction, directory.join(&name)))
            })
            .collect())
    }

    fn qdiscs_directory(&self) -> PathBuf {
        self.root.join("qdiscs")
    }

    /// Notes that the clsact qdisc of an interface is ours to remove.
    pub(super) fn note_qdisc(&self, interface: u32) -> Result<()> {
        make_directory(&self.qdiscs_directory())?;
        make_directory(&self.qdiscs_directory().join(interface.to_string()))
    }

    /// Forgets it.
    pub(super) fn forget_qdisc(&self, interface: u32) -> Result<()> {
        let note = self.qdiscs_directory().join(interface.to_string());
        remove_tree(&note).context(|| format!("remove the note {}", note.display()))
    }

    /// Indices of the interfaces whose clsact qdisc is ours to remove.
    pub(super) fn qdiscs(&self) -> Result<Vec<u32>> {
        Ok(names_in(&self.qdiscs_directory())?.iter().filter_map(|name| name.parse().ok()).collect())
    }

    pub(super) fn generation(&self, stamp: &GenerationStamp) -> GenerationPins {
        let digest: String = stamp.digest[..6].iter().map(|byte| format!("{byte:02x}")).collect();
        let directory = self.root.join(format!("{GENERATION_PREFIX}{}-{digest}", stamp.number));
        GenerationPins { number: stamp.number, directory }
    }

    /// Every generation that is there, complete or not, oldest first.
    pub(super) fn generations(&self) -> Result<Vec<GenerationPins>> {
        let mut found: Vec<_> = names_in(&self.root)?
            .into_iter()
            .filter_map(|name| {
                let number = name.strip_prefix(GENERATION_PREFIX)?.split('-').next()?.parse().ok()?;
                Some(GenerationPins { number, directory: self.root.join(&name) })
            })
            .collect();
        found.sort_by_key(|generation| generation.number);
        Ok(found)
    }
}

/// The directory of one generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GenerationPins {
    /// Its number, as the directory's name says.
    pub(super) number: u32,
    directory: PathBuf,
}

impl GenerationPins {
    pub(super) fn create(&self) -> Result<()> {
        make_directory(&self.directory)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// What it says of itself; none where it is not complete.
    pub(super) fn stamp(&self) -> Option<GenerationStamp> {
        let map = KernelMap::<u32, GenerationStamp>::new(sys::open_pin(&self.path(STAMP)).ok()?).ok()?;
        map.get(&0).ok().flatten()
    }

    /// Ids of its programs.
    pub(super) fn program_ids(&self) -> Vec<u32> {
        PROGRAMS
            .iter()
            .filter_map(|name| sys::open_pin(&self.path(name)).ok())
            .filter(|fd| sys::object_kind(fd.as_fd()).is_ok_and(|kind| kind == ObjectKind::Program))
            .filter_map(|fd| sys::program_info(fd.as_fd()).ok())
            .map(|info| info.id)
            .collect()
    }

    /// Removes it. What is attached stays in the kernel as long as its link.
    pub(super) fn remove(&self) -> io::Result<()> {
        for name in std::iter::once(STAMP).chain(PROGRAMS) {
            match fs::remove_file(self.path(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
            if name == STAMP {
                fault::point(Point::StampRemoved)?;
            }
        }
        remove_tree(&self.directory)?;
        fault::point(Point::GenerationRemoved)?;
        Ok(())
    }
}

/// Removes a directory and all pins in it.
pub(super) fn remove_tree(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Makes a directory that only root may look into; it may be there.
pub(super) fn make_directory(directory: &Path) -> Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.context(|| format!("make the directory {}", directory.display())),
    }
}

/// Names of what is in a directory; none where there is no such directory.
fn names_in(directory: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.context(|| format!("read the directory {}", directory.display()))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.context(|| format!("read the directory {}", directory.display()))?;
        names.extend(entry.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

/// bpffs refuses names with a dot, and VLAN interfaces are called `eth0.10`.
fn escape(interface: &str) -> String {
    let mut escaped = String::new();
    for byte in interface.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-' {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02x}"));
        }
    }
    escaped
}

fn unescape(escaped: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = escaped;
    while let Some(at) = rest.find('%') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let code = rest.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match code {
            Some(code) => {
                bytes.push(code);
                rest = &rest[at + 3..];
            }
            None => {
                bytes.push(b'%');
                rest = &rest[at + 1..];
            }
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_interfaces_survive_the_pin() {
        for name in ["eth0", "eth0.10", "a-b", "50%", "br@x", "é"] {
            let escaped = escape(name);
            assert!(!escaped.contains('.'), "{escaped}");
            assert_eq!(unescape(&escaped), name);
        }
    }

    #[test]
    fn a_link_is_found_by_its_name() {
        let pins = Pins::below(Path::new("/b"));
        let path = pins.link("eth0.10", Direction::Egress);
        let expected = format!("/b/abi-{ABI_VERSION}/links/eth0%2e10-egress");
        assert_eq!(path, Path::new(&expected));
    }
}
