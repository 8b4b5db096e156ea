//! Completed connections: a program at the root of the cgroups counts them. Where there is none, packets are judged all the same.

use std::{
    fs::{self, File},
    io,
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use mpesa_fw_common::{counter::counter_index, settings::Direction};

use super::{
    Datapath, DatapathError, ErrorKind, Result,
    counters::{direction_of, in_use},
    error::Context,
    pins::Pins,
    registry::name_of,
    slots,
    state::State,
};
use crate::{
    compile::RegistryRows,
    fault::{self, Point},
    sys::{self, LinkKind, ObjectKind},
};

/// The program, its pin in a generation, and the pin of its link.
pub(super) const PROGRAM: &str = "connections";

/// What is known of the handshakes of one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handshakes {
    /// Name of the service.
    pub service: String,
    /// SYNs without ACK that it let pass, retransmissions included.
    pub syns: u64,
    /// Connections whose handshake was finished.
    pub completed: u64,
    /// Monotonic clock of the last of these, nanoseconds; 0: never.
    pub last: u64,
}

/// Somebody who finished a handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Name of the service.
    pub service: String,
    /// The peer.
    pub source: IpAddr,
    /// How often, since it was last forgotten for want of room.
    pub connections: u64,
    /// Monotonic clock of the last time, nanoseconds, coarse.
    pub last_seen: u64,
}

impl Datapath {
    /// SYNs and completed connections of every service, sums over all interfaces. None: completed connections are not counted
    /// (no cgroup v2, or somebody detached the program).
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn handshakes(&self) -> Result<Option<Vec<Handshakes>>> {
        if program(&self.pins).is_none() {
            return Ok(None);
        }
        handshakes(&self.state, &self.registry).map(Some)
    }

    /// Who finished handshakes with services lately: the last few thousand callers that services list, and as many of services
    /// that are open to any.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn recent_callers(&self) -> Result<Vec<Caller>> {
        callers(&self.state, &self.registry)
    }
}

/// Attaches the program of a generation, or gives the link that is there this one.
///
/// # Errors
/// There is no cgroup v2, or the kernel refuses.
pub(super) fn attach(pins: &Pins, program: BorrowedFd<'_>) -> Result<()> {
    let pin = pins.connections_link();
    if let Some(link) = open_link(&pin)? {
        sys::link_update(link.as_fd(), program)
            .context(|| format!("replace the program of the link {}", pin.display()))?;
        fault::passed(Point::CountingReplaced);
        return Ok(());
    }
    let root = root()?;
    let what = || format!("attach to the cgroup {}", root.display());
    let cgroup = File::open(&root).context(what)?;
    let link = sys::cgroup_link_create(program, cgroup.as_fd(), sys::BPF_CGROUP_SOCK_OPS).context(what)?;
    fault::passed(Point::CountingLinked);
    sys::pin(link.as_fd(), &pin).context(|| format!("pin the link {}", pin.display()))?;
    fault::passed(Point::CountingPinned);
    Ok(())
}

/// Stops counting, whoever else holds the link. Its pin goes with the others.
pub(super) fn detach(pins: &Pins) -> Result<()> {
    let pin = pins.connections_link();
    let Some(link) = open_link(&pin)? else { return Ok(()) };
    sys::link_detach(link.as_fd()).context(|| format!("detach the link {}", pin.display()))
}

/// The program that counts; none: nothing does.
pub(super) fn program(pins: &Pins) -> Option<u32> {
    let link = open_link(&pins.connections_link()).ok()??;
    sys::link_info(link.as_fd()).ok().map(|info| info.program)
}

/// The link, if it is attached. The pin of one that is not is removed.
pub(super) fn open_link(pin: &Path) -> Result<Option<OwnedFd>> {
    let what = || format!("look at the pinned link {}", pin.display());
    let link = match sys::open_pin(pin) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
        other => other.context(what)?,
    };
    let is_link = sys::object_kind(link.as_fd()).context(what)? == ObjectKind::Link;
    let info = if is_link { Some(sys::link_info(link.as_fd()).context(what)?) } else { None };
    match info {
        Some(info) if info.kind == LinkKind::SockOps && info.cgroup != 0 => Ok(Some(link)),
        Some(info) if info.kind == LinkKind::SockOps => {
            fs::remove_file(pin).context(|| format!("remove the pin {}", pin.display()))?;
            Ok(None)
        }
        Some(_) | None => Err(DatapathError::new(
            ErrorKind::Foreign,
            what(),
            "something lies there that is no link of mpesa-fw",
            format!("remove it: `rm -r {}`", pin.display()),
        )),
    }
}

/// Where the hierarchy of cgroups v2 is mounted, as a whole where that can be had.
pub(super) fn root() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context(|| "read the mounts")?;
    find_root(&mounts).ok_or_else(|| {
        DatapathError::new(
            ErrorKind::Kernel,
            "find the cgroup hierarchy",
            "no cgroup v2 is mounted",
            "mount one: `mount -t cgroup2 cgroup2 /sys/fs/cgroup`",
        )
    })
}

/// In the form of proc_pid_mountinfo(5): id, parent, device, root, mount point, options, …, `-`, type.
fn find_root(mounts: &str) -> Option<PathBuf> {
    let of_cgroups = mounts.lines().filter_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        (kind.split(' ').next() == Some("cgroup2")).then_some((fields.next()?, fields.next()?))
    });
    let (_, point) = of_cgroups.min_by_key(|(root, _)| root.len())?;
    Some(PathBuf::from(point.replace("\\040", " ")))
}

/// The handshakes of every service that has or had a row.
pub(super) fn handshakes(state: &State, registry: &RegistryRows) -> Result<Vec<Handshakes>> {
    let places = slots::taken(state)?;
    let services = in_use(&registry.rules).filter(|(_, slot)| direction_of(slot) == Direction::Ingress);
    let one = |(row, service): (u32, String)| -> io::Result<Handshakes> {
        let count = state.connections.get(&row)?.unwrap_or_default();
        let mut syns = 0;
        for place in &places {
            let blocks = state.counters.per_cpu(&counter_index(place.number, row))?;
            syns += blocks.iter().map(|block| block.passed_syns).sum::<u64>();
        }
        Ok(Handshakes { service, syns, completed: count.completed, last: count.last })
    };
    services
        .map(|(row, slot)| one((row, name_of(&slot.name))))
        .collect::<io::Result<_>>()
        .context(|| "read the counts of connections")
}

/// Everybody who is known to have finished a handshake with a service of the registry.
pub(super) fn callers(state: &State, registry: &RegistryRows) -> Result<Vec<Caller>> {
    let mut callers = Vec::new();
    for map in [&state.callers, &state.strangers] {
        map.for_each(|key, count| {
            let slot = registry.rules.get(key.slot as usize).filter(|slot| slot.status != 0);
            callers.extend(slot.map(|slot| Caller {
                service: name_of(&slot.name),
                source: key.source.into(),
                connections: count.completed,
                last_seen: count.last,
            }));
        })
        .context(|| "read who called")?;
    }
    Ok(callers)
}

/// Forgets what is kept under rows that are about to have a new owner.
pub(super) fn forget(state: &State, rows: &[u32]) -> io::Result<()> {
    for row in rows {
        state.connections.put(row, &Default::default())?;
    }
    if rows.is_empty() {
        return Ok(());
    }
    for map in [&state.callers, &state.strangers] {
        let mut gone = Vec::new();
        map.for_each(|key, _| gone.extend(rows.contains(&key.slot).then_some(*key)))?;
        for key in gone {
            map.remove(&key)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_hierarchy_is_preferred() {
        let mounts = "25 1 0:21 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
             31 25 0:27 /a/b /run/part rw,relatime shared:9 - cgroup2 cgroup2 rw\n\
             30 25 0:27 / /sys/fs/cgroup/uni\\040fied rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(find_root(mounts), Some(PathBuf::from("/sys/fs/cgroup/uni fied")));
        assert_eq!(find_root("25 1 0:21 / /sys/fs/cgroup rw - cgroup cgroup rw,cpu\n"), None);
    }
}
