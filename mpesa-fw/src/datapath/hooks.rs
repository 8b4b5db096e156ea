//! Hooks: where our programs are attached, attaching and replacing them. No state is kept here: the kernel is asked.

use std::{
    collections::{BTreeMap, HashSet},
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use mpesa_fw_common::settings::Direction;
use nix::net::if_::{if_indextoname, if_nameindex, if_nametoindex};

use super::{
    DatapathError, ErrorKind, Interface, Result,
    error::Context,
    generation::Programs,
    netlink::{Filter, Netlink, XdpPrograms},
    pins::{GenerationPins, PROGRAMS, Pins},
};
use crate::{
    fault::{self, Point},
    sys::{self, LinkInfo, LinkKind, ObjectKind},
};

/// Priority and handle of our filter in the clsact qdisc: first, and where nobody else's is likely to be.
pub(super) const PLACE: (u16, u32) = (1, 0x6d70);

/// Handle of a second filter of ours, for as long as it takes to move the first.
pub(super) const AT_HAND: (u16, u32) = (1, 0x6d71);

/// Name of the TC program of a direction.
pub(super) const fn tc_program(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => PROGRAMS[1],
        Direction::Egress => PROGRAMS[2],
    }
}

/// By what a program of ours is attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// An XDP link, by its pin.
    Xdp(PathBuf),
    /// A TCX link, by its pin.
    Tcx(PathBuf),
    /// A filter of the clsact qdisc.
    Clsact,
}

/// One program of ours on one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hook {
    pub(super) interface: Interface,
    pub(super) direction: Direction,
    pub(super) way: Way,
    /// Id of the program.
    pub(super) program: u32,
    /// The program is of one of our generations, or of another version's. Not so: somebody put his in the link.
    pub(super) is_ours: bool,
    /// A version with another ABI left it.
    pub(super) of_another_version: bool,
}

impl Hook {
    /// The program of a generation that belongs here.
    pub(super) fn program_of<'a>(&self, programs: &'a Programs) -> BorrowedFd<'a> {
        match self.way {
            Way::Xdp(_) => programs.xdp(),
            Way::Tcx(_) | Way::Clsact => programs.tc(self.direction),
        }
    }

    /// Gives the hook the program of another generation. A packet sees one or the other.
    pub(super) fn replace(&self, netlink: &Netlink, programs: &Programs) -> io::Result<()> {
        self.replace_by(netlink, self.program_of(programs))
    }

    /// Gives the hook another program.
    pub(super) fn replace_by(&self, netlink: &Netlink, program: BorrowedFd<'_>) -> io::Result<()> {
        match &self.way {
            Way::Xdp(pin) | Way::Tcx(pin) => sys::link_update(sys::open_pin(pin)?.as_fd(), program),
            Way::Clsact => netlink.set_filter(self.interface.index, self.direction, PLACE, program, true),
        }
    }

    /// Detaches.
    pub(super) fn detach(&self, netlink: &Netlink) -> io::Result<()> {
        match &self.way {
            Way::Xdp(pin) => detach_link(pin)?,
            Way::Tcx(pin) => {
                detach_link(pin)?;
                self.remove_stand_in(netlink)?;
            }
            Way::Clsact => {
                netlink.remove_filter(self.interface.index, self.direction, AT_HAND)?;
                netlink.remove_filter(self.interface.index, self.direction, PLACE)?;
            }
        }
        fault::point(Point::HookRemoved)?;
        Ok(())
    }
}

impl Hook {
    /// An agent that was killed while it moved a link to the front left a filter in its stead.
    fn remove_stand_in(&self, netlink: &Netlink) -> io::Result<()> {
        let (index, direction) = (self.interface.index, self.direction);
        let is_ours = |filter: &Filter| {
            (filter.priority, filter.handle) == PLACE && filter.name == tc_program(direction)
        };
        if netlink.filters(index, direction)?.iter().any(is_ours) {
            netlink.remove_filter(index, direction, PLACE)?;
        }
        Ok(())
    }
}

/// What is found in the kernel.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) hooks: Vec<Hook>,
    /// Pins of links whose interface is gone.
    pub(super) dead: Vec<PathBuf>,
    /// Pins of links whose interface is in another network namespace now. It may come back, judged as before.
    pub(super) away: Vec<Away>,
    /// What lies among the links and is none of ours.
    pub(super) junk: Vec<PathBuf>,
}

/// A link whose interface is not in this network namespace.
#[derive(Debug)]
pub(super) struct Away {
    pub(super) pin: PathBuf,
    pub(super) direction: Direction,
    pub(super) link: u32,
}

impl Away {
    /// Detaches, wherever the interface is.
    pub(super) fn detach(&self) -> io::Result<()> {
        detach_link(&self.pin)
    }
}

fn detach_link(pin: &Path) -> io::Result<()> {
    // Before the pin goes, so that it is detached even if somebody holds the link.
    sys::link_detach(sys::open_pin(pin)?.as_fd())?;
    fault::point(Point::LinkDetached)?;
    fs::remove_file(pin)
}

impl Found {
    pub(super) fn hook(&self, index: u32, direction: Direction) -> Option<&Hook> {
        self.hooks.iter().find(|hook| hook.interface.index == index && hook.direction == direction)
    }

    /// Whether a side of the interface has a hook.
    pub(super) fn knows(&self, interface: &Interface) -> bool {
        self.hooks.iter().any(|hook| hook.interface.index == interface.index)
    }

    /// Whether both sides of the interface have a hook with this version's state: its flows are recorded.
    pub(super) fn covers(&self, interface: &Interface) -> bool {
        let covered = |hook: &Hook| !hook.of_another_version;
        Direction::ALL.into_iter().all(|direction| self.hook(interface.index, direction).is_some_and(covered))
    }
}

/// Finds every hook: pinned links, those of other versions too, and our filters on the `interfaces` that are known to have
/// been protected. `ours` are the programs of our pinned generations.
pub(super) fn find(
    pins: &Pins,
    netlink: &Netlink,
    interfaces: &[Interface],
    ours: &HashSet<u32>,
) -> Result<Found> {
    let mut found = Found::default();
    let others = pins.others()?;
    let theirs: HashSet<u32> =
        others.iter().map(programs_of).collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
    for place in std::iter::once(pins).chain(&others) {
        for (name, direction, pin) in place.links()? {
            found.look_at_link(netlink, (ours, &theirs), &name, direction, pin)?;
        }
    }
    // Where filters of another version are can't be known from our own places.
    let everywhere = if others.is_empty() { Vec::new() } else { all_interfaces()? };
    let interfaces: BTreeMap<u32, &Interface> =
        interfaces.iter().chain(&everywhere).map(|interface| (interface.index, interface)).collect();
    let known: HashSet<u32> = ours.union(&theirs).copied().collect();
    for interface in interfaces.into_values() {
        for direction in Direction::ALL {
            if found.hook(interface.index, direction).is_some() {
                continue;
            }
            if let Some(program) = filter_of_ours(netlink, interface, direction, &known)? {
                let of_another_version = theirs.contains(&program);
                found.hooks.push(Hook {
                    interface: named_now(interface.index, &interface.name),
                    direction,
                    way: Way::Clsact,
                    program,
                    is_ours: true,
                    of_another_version,
                });
            }
        }
    }
    Ok(found)
}

impl Found {
    fn look_at_link(
        &mut self,
        netlink: &Netlink,
        (ours, theirs): (&HashSet<u32>, &HashSet<u32>),
        name: &str,
        direction: Direction,
        pin: PathBuf,
    ) -> Result<()> {
        let what = || format!("look at the pinned link {}", pin.display());
        let link = match sys::open_pin(&pin) {
            Ok(link) => link,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(()),
            // A directory, or what only its owner may use.
            Err(error) if error.raw_os_error() == Some(libc::EACCES) => {
                self.junk.push(pin);
                return Ok(());
            }
            Err(error) => return Err(error).context(what),
        };
        if sys::object_kind(link.as_fd()).context(what)? != ObjectKind::Link {
            self.junk.push(pin);
            return Ok(());
        }
        let info = sys::link_info(link.as_fd()).context(what)?;
        let way = match info.kind {
            LinkKind::Xdp => Way::Xdp(pin.clone()),
            LinkKind::TcxIngress | LinkKind::TcxEgress => Way::Tcx(pin.clone()),
            LinkKind::Cgroup(_) | LinkKind::Other => {
                self.junk.push(pin);
                return Ok(());
            }
        };
        if info.interface == 0 {
            self.dead.push(pin);
            return Ok(());
        }
        // An index means another interface in another network namespace: the hook itself is asked.
        if !runs_here(netlink, &info).context(what)? {
            self.away.push(Away { pin, direction, link: info.id });
            return Ok(());
        }
        let interface = named_now(info.interface, name);
        let of_another_version = theirs.contains(&info.program);
        let is_ours = of_another_version || ours.contains(&info.program);
        self.hooks.push(Hook {
            interface,
            direction,
            way,
            program: info.program,
            is_ours,
            of_another_version,
        });
        Ok(())
    }
}

/// An interface by what it is called now; by what it was called where it is gone.
fn named_now(index: u32, before: &str) -> Interface {
    let name = if_indextoname(index).ok().and_then(|name| name.into_string().ok());
    Interface { name: name.unwrap_or_else(|| before.to_owned()), index }
}

/// Whether the interface of a link is in this network namespace.
fn runs_here(netlink: &Netlink, link: &LinkInfo) -> io::Result<bool> {
    let tcx = |attach_type| match sys::tcx_programs(link.interface, attach_type) {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(false),
        programs => Ok(programs?.contains(&link.program)),
    };
    match link.kind {
        LinkKind::Xdp => match netlink.xdp(link.interface) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(false),
            programs => {
                let XdpPrograms { native, generic, offloaded } = programs?;
                Ok([native, generic, offloaded].contains(&link.program))
            }
        },
        LinkKind::TcxIngress => tcx(sys::BPF_TCX_INGRESS),
        LinkKind::TcxEgress => tcx(sys::BPF_TCX_EGRESS),
        LinkKind::Cgroup(_) | LinkKind::Other => Ok(false),
    }
}

/// Every interface of this network namespace.
pub(super) fn all_interfaces() -> Result<Vec<Interface>> {
    let all = if_nameindex().map_err(io::Error::from).context(|| "list the interfaces")?;
    Ok(all
        .iter()
        .map(|interface| Interface {
            name: interface.name().to_string_lossy().into_owned(),
            index: interface.index(),
        })
        .collect())
}

/// Ids of the programs of all pinned generations.
fn programs_of(pins: &Pins) -> Result<Vec<u32>> {
    Ok(pins.generations()?.iter().flat_map(GenerationPins::program_ids).collect())
}

/// Id of our program in the clsact qdisc of an interface.
fn filter_of_ours(
    netlink: &Netlink,
    interface: &Interface,
    direction: Direction,
    ours: &HashSet<u32>,
) -> Result<Option<u32>> {
    let filters = netlink
        .filters(interface.index, direction)
        .context(|| format!("list the TC filters of {}", interface.name))?;
    Ok(filters
        .into_iter()
        .find(|filter| {
            (filter.priority, filter.handle) == PLACE
                && filter.name == tc_program(direction)
                && ours.contains(&filter.program)
        })
        .map(|filter| filter.program))
}

/// Pins a new link. Until then it lives as long as this descriptor: a crash leaves nothing behind.
pub(super) fn pin_link(
    pins: &Pins,
    interface: &Interface,
    direction: Direction,
    link: &OwnedFd,
) -> Result<PathBuf> {
    fault::point(Point::LinkMade)?;
    let pin = pins.link(&interface.name, direction);
    let what = || format!("pin the link {}", pin.display());
    if let Err(error) = sys::pin(link.as_fd(), &pin) {
        if error.kind() == io::ErrorKind::AlreadyExists {
            return Err(DatapathError::new(
                ErrorKind::Foreign,
                what(),
                "something lies there that is no link of mpesa-fw",
                format!("look at it with `bpftool` or `ls`, and remove it: `rm -r {}`", pin.display()),
            ));
        }
        return Err(DatapathError::system(what(), &error));
    }
    fault::passed(Point::LinkPinned);
    Ok(pin)
}

/// Removes the clsact qdiscs that we made, but for those of interfaces that are kept and those in which somebody else has
/// filters. Answers what could not be removed.
pub(super) fn remove_qdiscs(pins: &Pins, netlink: &Netlink, is_kept: impl Fn(u32) -> bool) -> Vec<String> {
    let interfaces = match pins.qdiscs() {
        Ok(interfaces) => interfaces,
        Err(error) => return vec![error.to_string()],
    };
    let remove = |index: u32| {
        netlink.remove_empty_clsact(index).context(|| {
            let name = named_now(index, &format!("interface {index}")).name;
            format!("remove the empty clsact qdisc of {name}")
        })?;
        pins.forget_qdisc(index)
    };
    let failures = interfaces.into_iter().filter(|index| !is_kept(*index)).filter_map(|i| remove(i).err());
    failures.map(|error| error.to_string()).collect()
}

/// Whether an interface is there under this name and index.
pub(super) fn exists(interface: &Interface) -> bool {
    if_nametoindex(interface.name.as_str()) == Ok(interface.index)
}
