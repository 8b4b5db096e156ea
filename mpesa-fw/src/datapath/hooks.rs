//! Hooks: where our programs are attached, attaching and replacing them. No state is kept here: the kernel is asked.

use std::{
    collections::HashSet,
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use mpesa_fw_common::settings::Direction;
use nix::net::if_::{if_indextoname, if_nametoindex};

use super::{
    Interface, Result,
    error::Context,
    generation::Programs,
    netlink::Netlink,
    pins::{PROGRAMS, Pins},
};
use crate::sys::{self, LinkKind};

/// Priority and handle of our filter in the clsact qdisc: first, and where nobody else's is likely to be.
pub(super) const PLACE: (u16, u32) = (1, 0x6d70);

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
}

impl Hook {
    /// The program of a generation that belongs here.
    fn program_of<'a>(&self, programs: &'a Programs) -> BorrowedFd<'a> {
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
            Way::Xdp(pin) | Way::Tcx(pin) => {
                // Before the pin goes, so that it is detached even if somebody holds the link.
                sys::link_detach(sys::open_pin(pin)?.as_fd())?;
                fs::remove_file(pin)
            }
            Way::Clsact => netlink.remove_filter(self.interface.index, self.direction, PLACE),
        }
    }
}

/// What is found in the kernel.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) hooks: Vec<Hook>,
    /// Pins of links whose interface is gone.
    pub(super) dead: Vec<PathBuf>,
}

impl Found {
    pub(super) fn hook(&self, index: u32, direction: Direction) -> Option<&Hook> {
        self.hooks.iter().find(|hook| hook.interface.index == index && hook.direction == direction)
    }

    /// Whether a side of the interface has a hook.
    pub(super) fn knows(&self, interface: &Interface) -> bool {
        self.hooks.iter().any(|hook| hook.interface.index == interface.index)
    }

    /// Whether both sides of the interface have a hook.
    pub(super) fn covers(&self, interface: &Interface) -> bool {
        Direction::ALL.into_iter().all(|direction| self.hook(interface.index, direction).is_some())
    }

    /// Removes the pins of dead links, and gives the links of renamed interfaces their new names. Detaches nothing.
    pub(super) fn tidy(&mut self, pins: &Pins) {
        for pin in self.dead.drain(..) {
            warn_if_it_stays(&pin, fs::remove_file(&pin));
        }
        // Through names that no interface has, because two may have changed names with each other, and a rename onto
        // a pin would detach what is pinned there.
        let mut moved = Vec::new();
        for hook in &mut self.hooks {
            let (Way::Xdp(pin) | Way::Tcx(pin)) = &mut hook.way else { continue };
            let wanted = pins.link(&hook.interface.name, hook.direction);
            let passing = pins.link(&format!("/{}", hook.interface.index), hook.direction);
            if *pin != wanted {
                warn_if_it_stays(pin, fs::rename(&pin, &passing));
                moved.push((passing, wanted.clone()));
                *pin = wanted;
            }
        }
        for (passing, wanted) in moved {
            warn_if_it_stays(&passing, fs::rename(&passing, &wanted));
        }
    }
}

fn warn_if_it_stays(pin: &Path, answer: io::Result<()>) {
    if let Err(error) = answer {
        tracing::warn!(pin = %pin.display(), %error, "the pin of a link stays as it is");
    }
}

/// Finds every hook: pinned links, and our filters on the `interfaces` that are known to have been protected.
/// `ours` are the programs of our pinned generations.
pub(super) fn find(
    pins: &Pins,
    netlink: &Netlink,
    interfaces: &[Interface],
    ours: &HashSet<u32>,
) -> Result<Found> {
    let mut found = Found::default();
    for (name, direction, pin) in pins.links()? {
        let what = || format!("look at the pinned link {}", pin.display());
        let link = sys::open_pin(&pin).context(what)?;
        let info = sys::link_info(link.as_fd()).context(what)?;
        let way = match info.kind {
            LinkKind::Xdp => Way::Xdp(pin.clone()),
            LinkKind::TcxIngress | LinkKind::TcxEgress => Way::Tcx(pin.clone()),
            LinkKind::Other => continue,
        };
        if info.interface == 0 {
            found.dead.push(pin);
            continue;
        }
        // By what it is called now; in another network namespace (a mistake) by what it was called.
        let name =
            if_indextoname(info.interface).ok().and_then(|name| name.into_string().ok()).unwrap_or(name);
        let interface = Interface { name, index: info.interface };
        found.hooks.push(Hook { interface, direction, way, program: info.program });
    }
    for interface in interfaces {
        for direction in Direction::ALL {
            if let Some(program) = filter_of_ours(netlink, interface, direction, ours)? {
                found.hooks.push(Hook { interface: interface.clone(), direction, way: Way::Clsact, program });
            }
        }
    }
    Ok(found)
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
    let pin = pins.link(&interface.name, direction);
    sys::pin(link.as_fd(), &pin).context(|| format!("pin the link {}", pin.display()))?;
    Ok(pin)
}

/// Whether an interface is there under this name and index.
pub(super) fn exists(interface: &Interface) -> bool {
    if_nametoindex(interface.name.as_str()) == Ok(interface.index)
}
