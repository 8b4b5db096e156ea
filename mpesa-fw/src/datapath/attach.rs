//! Attaching to an interface that has no hook of ours yet. A foreign program is never replaced.

use std::{
    collections::HashSet,
    io,
    os::fd::{AsFd, BorrowedFd},
};

use mpesa_fw_common::settings::Direction;

use super::{
    DatapathError, ErrorKind, Interface, Options, Result, TcChoice, XdpChoice,
    error::Context,
    generation::Programs,
    hooks::{Hook, PLACE, Way, pin_link},
    netlink::Netlink,
    pins::Pins,
};
use crate::{
    fault::{self, Point},
    sys,
};

/// What attaching needs to know.
pub(super) struct Attacher<'a> {
    pub(super) options: &'a Options,
    pub(super) pins: &'a Pins,
    pub(super) netlink: &'a Netlink,
    pub(super) programs: &'a Programs,
    /// Programs of our pinned generations.
    pub(super) ours: &'a HashSet<u32>,
    /// What the admin should know of the choices that were made.
    pub(super) notes: Vec<String>,
}

impl Attacher<'_> {
    /// Attaches where nothing of ours is attached.
    pub(super) fn attach(&mut self, interface: &Interface, direction: Direction) -> Result<Hook> {
        match direction {
            Direction::Egress => self.tc(interface, direction),
            Direction::Ingress => self.ingress(interface),
        }
    }

    fn ingress(&mut self, interface: &Interface) -> Result<Hook> {
        if let Some(foreign) = self.foreign_xdp(interface)? {
            return self.beside(interface, foreign);
        }
        let (modes, required): (&[_], _) = match self.options.xdp {
            XdpChoice::Auto => (&[Mode::Native, Mode::Generic], false),
            XdpChoice::Native => (&[Mode::Native], true),
            XdpChoice::Generic => (&[Mode::Generic], false),
            XdpChoice::Required => (&[Mode::Native, Mode::Generic], true),
        };
        let mut refusals = Vec::new();
        for mode in modes {
            let error =
                match sys::link_create(self.programs.xdp(), interface.index, sys::BPF_XDP, mode.flags()) {
                    Ok(link) => {
                        let program = program_id(self.programs.xdp())?;
                        let pin = pin_link(self.pins, interface, Direction::Ingress, &link)?;
                        if let Some(refusal) = refusals.pop() {
                            self.notes.push(format!("{}: {} XDP; {refusal}", interface.name, mode.label()));
                        }
                        return Ok(hook(interface, Direction::Ingress, Way::Xdp(pin), program));
                    }
                    Err(error) => error,
                };
            // Somebody was faster.
            if let (Some(libc::EBUSY | libc::EEXIST), Some(foreign)) =
                (error.raw_os_error(), self.foreign_xdp(interface)?)
            {
                return self.beside(interface, foreign);
            }
            let what = format!("attach to {} at {} XDP", interface.name, mode.label());
            if !is_refusal(&error) {
                return Err(DatapathError::system(what, &error));
            }
            refusals.push(format!("{} XDP was refused ({error})", mode.label()));
        }
        let why = refusals.join(", ");
        if required {
            return Err(DatapathError::new(
                ErrorKind::Kernel,
                format!("attach to {} at XDP", interface.name),
                why,
                "`--xdp auto` takes what the interface can do",
            ));
        }
        self.notes.push(format!("{}: ingress is judged at TC; {why}", interface.name));
        self.tc(interface, Direction::Ingress)
    }

    /// A foreign XDP program owns the interface: TC comes after it.
    fn beside(&mut self, interface: &Interface, foreign: u32) -> Result<Hook> {
        let who = program_name(foreign);
        match self.options.xdp {
            XdpChoice::Auto | XdpChoice::Generic => {
                self.notes.push(format!(
                    "{}: the XDP program {who} is somebody else's and is left alone; ingress is judged at TC, after it",
                    interface.name
                ));
                self.tc(interface, Direction::Ingress)
            }
            XdpChoice::Native | XdpChoice::Required => Err(DatapathError::new(
                ErrorKind::Foreign,
                format!("attach to {} at XDP", interface.name),
                format!("the XDP program {who} of somebody else is there, and it is never replaced"),
                "remove it, or let ingress be judged at TC, after it, with `--xdp auto`",
            )),
        }
    }

    fn foreign_xdp(&self, interface: &Interface) -> Result<Option<u32>> {
        let programs = self
            .netlink
            .xdp(interface.index)
            .context(|| format!("ask for the XDP program of {}", interface.name))?;
        Ok(programs.foreign(|id| self.ours.contains(&id)))
    }

    fn tc(&mut self, interface: &Interface, direction: Direction) -> Result<Hook> {
        match self.options.tc {
            TcChoice::Clsact => self.clsact(interface, direction),
            TcChoice::Tcx => {
                let hook = self.tcx(interface, direction)?;
                hook.context(|| format!("attach to {} {} at TCX", interface.name, direction.label()))
            }
            TcChoice::Auto => match self.tcx(interface, direction)? {
                Ok(hook) => Ok(hook),
                Err(error) if is_refusal(&error) => self.clsact(interface, direction),
                Err(error) => {
                    let what = format!("attach to {} {} at TCX", interface.name, direction.label());
                    Err(DatapathError::system(what, &error))
                }
            },
        }
    }

    fn tcx(&self, interface: &Interface, direction: Direction) -> Result<io::Result<Hook>> {
        let program = program_id(self.programs.tc(direction))?;
        let attach_type = match direction {
            Direction::Ingress => sys::BPF_TCX_INGRESS,
            Direction::Egress => sys::BPF_TCX_EGRESS,
        };
        // First of all: one that stands before ours could accept or redirect a packet on its own.
        match sys::link_create(self.programs.tc(direction), interface.index, attach_type, sys::BPF_F_BEFORE) {
            Ok(link) => {
                let pin = pin_link(self.pins, interface, direction, &link)?;
                Ok(Ok(hook(interface, direction, Way::Tcx(pin), program)))
            }
            Err(error) => Ok(Err(error)),
        }
    }

    fn clsact(&self, interface: &Interface, direction: Direction) -> Result<Hook> {
        let what = || format!("attach to {} {} at the clsact qdisc", interface.name, direction.label());
        if self.netlink.add_clsact(interface.index).context(what)? {
            self.pins.note_qdisc(interface.index)?;
        }
        let program = self.programs.tc(direction);
        let hook = hook(interface, direction, Way::Clsact, program_id(program)?);
        match self.netlink.set_filter(interface.index, direction, PLACE, program, false) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
                let (priority, handle) = PLACE;
                Err(DatapathError::new(
                    ErrorKind::Foreign,
                    what(),
                    format!("a filter of somebody else has priority {priority} and handle {handle:#x}"),
                    format!(
                        "look at it with `tc filter show dev {} {}` and remove it, or move it elsewhere",
                        interface.name,
                        direction.label()
                    ),
                ))
            }
            other => {
                other.context(what)?;
                // From here on nothing may fail: whoever undoes the swap knows only of hooks that were answered.
                fault::passed(Point::FilterAdded);
                Ok(hook)
            }
        }
    }
}

fn program_id(program: BorrowedFd<'_>) -> Result<u32> {
    Ok(sys::program_info(program).context(|| "look at a program that was just loaded")?.id)
}

fn hook(interface: &Interface, direction: Direction, way: Way, program: u32) -> Hook {
    Hook { interface: interface.clone(), direction, way, program, is_ours: true, of_another_version: false }
}

#[derive(Clone, Copy)]
enum Mode {
    Native,
    Generic,
}

impl Mode {
    const fn flags(self) -> u32 {
        match self {
            Self::Native => sys::XDP_FLAGS_DRV_MODE,
            Self::Generic => sys::XDP_FLAGS_SKB_MODE,
        }
    }

    const fn label(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

/// Whether the driver or kernel can't do this, so that the next best is to be tried. Drivers say so in many ways (too
/// large an MTU, LRO, too few queues); only what the next best would meet as well is excluded.
fn is_refusal(error: &io::Error) -> bool {
    !matches!(
        error.raw_os_error(),
        Some(libc::EPERM | libc::EACCES | libc::ENODEV | libc::EBUSY | libc::ENFILE | libc::EMFILE)
    )
}

/// Name and id of a program, or its id alone where it can't be opened.
fn program_name(id: u32) -> String {
    sys::program_by_id(id)
        .and_then(|fd| sys::program_info(fd.as_fd()))
        .map_or_else(|_| format!("with id {id}"), |info| format!("`{}` (id {id})", info.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(errno: i32) -> bool {
        is_refusal(&io::Error::from_raw_os_error(errno))
    }

    #[test]
    fn what_a_driver_or_an_older_kernel_can_not_do_is_a_refusal() {
        let refusals = [
            libc::EINVAL,     // no such attach type; the driver's own reasons
            libc::EOPNOTSUPP, // no XDP in the driver, LRO
            libc::ERANGE,     // veth: the MTU is too large
            libc::ENOSPC,     // veth: too few queues
            libc::ENOMEM,     // rings that only the driver needs
        ];
        for errno in refusals {
            assert!(refused(errno), "{}", io::Error::from_raw_os_error(errno));
        }
    }

    #[test]
    fn what_the_next_best_would_meet_as_well_is_none() {
        let others = [
            libc::EPERM,
            libc::EACCES,
            libc::ENODEV,
            libc::EBUSY, // somebody else's program: it is looked at, never gone round
            libc::ENFILE,
            libc::EMFILE,
        ];
        for errno in others {
            assert!(!refused(errno), "{}", io::Error::from_raw_os_error(errno));
        }
    }
}
