//! Whether a pinned map is the map that the object means: aya reuses whatever lies at the path.

use std::{
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

use aya::{
    Ebpf,
    maps::{Map, MapData},
};
use mpesa_fw_common::settings::Settings;

use super::{DatapathError, ErrorKind, Result, error::Context, object::Object, pins::Pins, tables};
use crate::{
    fault::{self, Point},
    sys::{self, MapInfo, ObjectKind},
};

/// Flow table; its capacity is the admin's choice.
pub(super) const FLOWS: &str = "FLOWS";
/// aya-log's ring buffer; each generation has its own.
pub(super) const LOGS: &str = "AYA_LOGS";
/// What a twin is asked and answers; likewise.
pub(super) const TWIN: &str = "TWIN";
/// Maps that are neither table nor state: every instance of the programs has its own. Were the packet that a program has
/// in hand (`CASES`) shared, a twin's would lie where a hook's does.
const SCRATCH: [&str; 4] = [LOGS, TWIN, "CASES", "READINGS"];

/// Whether all instances of a generation read the same such map.
pub(super) fn is_shared(name: &str) -> bool {
    // Sections (.rodata, .bss) are maps too.
    !name.starts_with('.') && !SCRATCH.contains(&name)
}

/// Opens or creates every state map, and tells the object to use them. A pinned map of another shape is refused.
/// Answers the ids of the maps.
///
/// The object is loaded once without pins, so that the kernel itself says what shape each map ought to have.
pub(super) fn adopt_state(object: &mut Object, pins: &Pins, flows_capacity: u32) -> Result<Vec<u32>> {
    object.size(FLOWS, flows_capacity);
    let ebpf = object.load(&Settings::INERT)?;
    fault::point(Point::StateShaped)?;
    let (mut missing, mut ids) = (Vec::new(), Vec::new());
    for (name, map) in state_maps(&ebpf) {
        let wanted = info_of(name, map)?;
        let pin = pins.state(name);
        match sys::open_pin(&pin) {
            Ok(fd) => {
                expect_map(&pin, fd.as_fd())?;
                let found = sys::map_info(fd.as_fd()).context(|| format!("look at the pinned map {name}"))?;
                compare(name, &pin, &wanted, &found)?;
                ids.push(found.id);
            }
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                missing.push((pin, map));
                ids.push(wanted.id);
            }
            Err(error) if error.raw_os_error() == Some(libc::EACCES) && pin.is_dir() => {
                return Err(no_map(&pin, "a directory"));
            }
            Err(error) => {
                return Err(DatapathError::system(format!("open the pinned map {}", pin.display()), &error));
            }
        }
    }
    for (pin, map) in missing {
        sys::pin(map.fd().as_fd(), &pin).context(|| format!("pin the map {}", pin.display()))?;
        fault::point(Point::StatePinned)?;
    }
    for (name, _) in state_maps(&ebpf) {
        // The loader keeps names for as long as it lives, and there are two dozen of them once in a process.
        object.reuse(String::from(name).leak(), pins.state(name));
    }
    Ok(ids)
}

/// Fails where a state map of a load is not the pinned one: somebody removed the pin meanwhile, and aya made a new map.
pub(super) fn check_reused(ebpf: &Ebpf, is_pinned: impl Fn(u32) -> bool) -> Result<()> {
    for (name, map) in state_maps(ebpf) {
        if !is_pinned(info_of(name, map)?.id) {
            return Err(DatapathError::new(
                ErrorKind::Shape,
                format!("reuse the state map {name}"),
                "its pin was removed or replaced while the agent was running",
                "restart the agent",
            ));
        }
    }
    Ok(())
}

fn state_maps(ebpf: &Ebpf) -> impl Iterator<Item = (&str, &MapData)> {
    ebpf.maps()
        .filter(|(name, _)| is_shared(name) && !tables::is_table(name))
        .filter_map(|(name, map)| Some((name, data_of(map)?)))
}

/// The map, of the kinds that the programs use.
#[expect(clippy::wildcard_enum_match_arm, reason = "aya's enum of thirty kinds grows")]
pub(super) fn data_of(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data)
        | Map::PerCpuArray(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::PerCpuHashMap(data)
        | Map::PerCpuLruHashMap(data)
        | Map::LpmTrie(data)
        | Map::SkStorage(data)
        | Map::RingBuf(data) => Some(data),
        _ => None,
    }
}

fn info_of(name: &str, map: &MapData) -> Result<MapInfo> {
    sys::map_info(map.fd().as_fd()).context(|| format!("look at the map {name}"))
}

fn expect_map(pin: &Path, fd: BorrowedFd<'_>) -> Result<()> {
    let kind = sys::object_kind(fd).context(|| format!("look at {}", pin.display()))?;
    match kind {
        ObjectKind::Map => Ok(()),
        ObjectKind::Program => Err(no_map(pin, "a program")),
        ObjectKind::Link => Err(no_map(pin, "a link")),
        ObjectKind::Other => Err(no_map(pin, "something else")),
    }
}

fn no_map(pin: &Path, what: &str) -> DatapathError {
    DatapathError::new(
        ErrorKind::Shape,
        format!("reuse the pinned map {}", pin.display()),
        format!("{what} lies there, which mpesa-fw did not make"),
        format!("remove it: `rm -r {}`", pin.display()),
    )
}

fn compare(name: &str, pin: &Path, wanted: &MapInfo, found: &MapInfo) -> Result<()> {
    let shape = |info: &MapInfo| (info.kind, info.key_size, info.value_size, info.flags);
    let what = format!("reuse the pinned map {}", pin.display());
    if shape(wanted) != shape(found) {
        let why = format!(
            "it has another shape: type, key, value and flags are {:?}, expected {:?}",
            shape(found),
            shape(wanted)
        );
        return Err(DatapathError::new(
            ErrorKind::Shape,
            what,
            why,
            "another build of mpesa-fw made it: `mpesa-fw detach` removes it (protection ends until the next start)",
        ));
    }
    if wanted.max_entries != found.max_entries {
        let why = format!("it holds {} entries, not {}", found.max_entries, wanted.max_entries);
        let help = if name == FLOWS {
            format!(
                "go back to --flows-capacity {}, or run `mpesa-fw detach` first (open flows are then seeded anew)",
                found.max_entries
            )
        } else {
            String::from(
                "another build of mpesa-fw made it: `mpesa-fw detach` removes it (protection ends until the next start)",
            )
        };
        return Err(DatapathError::new(ErrorKind::Shape, what, why, help));
    }
    Ok(())
}
