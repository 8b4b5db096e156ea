//! What the kernel knows of a program that is not ours. Of who removed something it keeps no record.

use std::{
    fs,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use nix::time::{ClockId, clock_gettime};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    printable::Printable,
    sys::{self, ObjectKind},
};

/// Pins and processes that are looked at, at most: this is asked while the agent mends.
const LOOKS: usize = 20_000;

/// Name, id, tag, who loaded it and when, where it is pinned, who holds it.
pub(super) fn describe(id: u32) -> String {
    let pins = pins_of(id);
    // The kernel gives programs by number only to CAP_SYS_ADMIN.
    let pinned = |_| {
        let objects = pins.iter().filter_map(|pin| sys::open_pin(pin).ok());
        let is_it = |fd: &OwnedFd| sys::object_kind(fd.as_fd()).is_ok_and(|kind| kind == ObjectKind::Program);
        objects.into_iter().find(is_it).ok_or(())
    };
    let Ok(program) = sys::program_by_id(id).or_else(pinned) else {
        return format!(
            "program id {id}, which can't be looked at without CAP_SYS_ADMIN, or is gone{}",
            at(&pins)
        );
    };
    let Ok(info) = sys::program_info(program.as_fd()) else {
        return format!("program id {id}");
    };
    let tag: String = info.tag.iter().map(|byte| format!("{byte:02x}")).collect();
    let loaded = loaded_at(info.load_time);
    let mut text =
        format!("program `{}` (id {id}, tag {tag}), loaded by uid {} at {loaded}", info.name, info.uid);
    text += &at(&pins);
    let holders = holders_of(id);
    if !holders.is_empty() {
        text += &format!(", held by {}", holders.join(", "));
    }
    text
}

fn at(pins: &[PathBuf]) -> String {
    let pins: Vec<_> = pins.iter().map(|pin| pin.display().to_string()).collect();
    if pins.is_empty() { String::new() } else { format!(", pinned at {}", pins.join(", ")) }
}

/// From nanoseconds since boot.
fn loaded_at(since_boot: u64) -> String {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from);
    let age = now.saturating_sub(Duration::from_nanos(since_boot));
    let at = OffsetDateTime::from(SystemTime::now() - age);
    at.replace_nanosecond(0).unwrap_or(at).format(&Rfc3339).unwrap_or_default()
}

/// Pins of the program, and of links that run it, on every bpffs of this mount namespace.
fn pins_of(id: u32) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut open: Vec<PathBuf> = mounts
        .lines()
        .filter_map(|line| {
            let (mount, kind) = line.split_once(" - ")?;
            let point = mount.split(' ').nth(4)?;
            (kind.split(' ').next() == Some("bpf")).then(|| PathBuf::from(point.replace("\\040", " ")))
        })
        .collect();
    let mut found = Vec::new();
    let mut looks = 0;
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            looks += 1;
            if looks > LOOKS {
                return found;
            }
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => open.push(entry.path()),
                Ok(_) if runs(&entry.path(), id) && !found.contains(&entry.path()) => {
                    found.push(entry.path())
                }
                Ok(_) | Err(_) => {}
            }
        }
    }
    found
}

fn runs(pin: &Path, id: u32) -> bool {
    let Ok(fd) = sys::open_pin(pin) else { return false };
    match sys::object_kind(fd.as_fd()) {
        Ok(ObjectKind::Program) => sys::program_info(fd.as_fd()).is_ok_and(|info| info.id == id),
        Ok(ObjectKind::Link) => sys::link_info(fd.as_fd()).is_ok_and(|info| info.program == id),
        Ok(ObjectKind::Map | ObjectKind::Other) | Err(_) => false,
    }
}

/// Processes with a descriptor of the program, or of a link that runs it.
fn holders_of(id: u32) -> Vec<String> {
    let wanted = format!("prog_id:\t{id}");
    let mut holders = Vec::new();
    let mut looks = 0;
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if pid == std::process::id() {
            continue;
        }
        for descriptor in fs::read_dir(process.path().join("fdinfo")).into_iter().flatten().flatten() {
            looks += 1;
            if looks > LOOKS {
                return holders;
            }
            let Ok(text) = fs::read_to_string(descriptor.path()) else { continue };
            if text.lines().any(|line| line == wanted) {
                holders.push(named(pid, &process.path()));
                break;
            }
        }
    }
    holders
}

/// A process: its executable, and whose it is.
fn named(pid: u32, process: &Path) -> String {
    let comm = || fs::read_to_string(process.join("comm")).unwrap_or_default().trim().to_owned();
    let exe = fs::read_link(process.join("exe")).map_or_else(|_| comm(), |path| path.display().to_string());
    let exe = Printable(&exe);
    let uid = fs::metadata(process).map_or_else(|_| "?".to_owned(), |of| of.uid().to_string());
    format!("process {pid} ({exe}, uid {uid})")
}
