//! All hooks or none: what was done is undone in reverse order when one fails.

use std::os::fd::{AsFd, OwnedFd};

use mpesa_fw_common::settings::Direction;

use super::{
    DatapathError, ErrorKind, Interface, Result,
    attach::Attacher,
    error::Context,
    hooks::{Found, Hook, exists},
    netlink::Netlink,
    pins::{PROGRAMS, Pins},
};
use crate::{
    fault::{self, Point},
    sys,
};

/// For tests: lets a commit fail or stop as if the process had been killed.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The step with this number (from 0) fails.
    Fail(usize),
    /// The process is gone before the step with this number: nothing is undone.
    Vanish(usize),
}

/// What was done to a hook, and how to undo it.
enum Done {
    Attached(Hook),
    Replaced { hook: Hook, previous: OwnedFd },
}

/// One swap of several hooks.
pub(super) struct Swap<'a> {
    attacher: Attacher<'a>,
    done: Vec<Done>,
    fault: Option<Fault>,
}

impl<'a> Swap<'a> {
    pub(super) const fn new(attacher: Attacher<'a>, fault: Option<Fault>) -> Self {
        Self { attacher, done: Vec::new(), fault }
    }

    /// Gives one side of an interface the new program: replaces ours, or attaches.
    pub(super) fn put(&mut self, found: &Found, interface: &Interface, direction: Direction) -> Result<()> {
        self.trip()?;
        fault::point(Point::HookBegun)?;
        if let Some(hook) = found.hook(interface.index, direction) {
            let what = || format!("replace the program at {} {}", interface.name, direction.label());
            if self.attacher.programs.ids().context(what)?.contains(&hook.program) {
                return Ok(());
            }
            let previous = program_by_id(self.attacher.pins, hook.program).context(what)?;
            match hook.replace(self.attacher.netlink, self.attacher.programs) {
                Ok(()) => {
                    self.done.push(Done::Replaced { hook: hook.clone(), previous });
                    fault::point(Point::HookReplaced)?;
                }
                // Gone while we were at work: the agent hears of it and calls `release`.
                Err(_) if !exists(interface) => self.vanished(interface),
                Err(error) => return Err(DatapathError::system(what(), &error)),
            }
            return Ok(());
        }
        match self.attacher.attach(interface, direction) {
            Ok(hook) => self.done.push(Done::Attached(hook)),
            Err(error) if exists(interface) => return Err(error),
            Err(_) => self.vanished(interface),
        }
        Ok(())
    }

    fn vanished(&mut self, interface: &Interface) {
        let note = format!("{}: the interface went away; it is protected when it comes back", interface.name);
        if !self.attacher.notes.contains(&note) {
            self.attacher.notes.push(note);
        }
    }

    fn trip(&self) -> Result<()> {
        let step = self.done.len();
        match self.fault {
            Some(Fault::Fail(at) | Fault::Vanish(at)) if at == step => Err(DatapathError::new(
                ErrorKind::Internal,
                format!("swap hook {step}"),
                "a test asked for it",
                "none",
            )),
            Some(_) | None => Ok(()),
        }
    }

    /// Every hook is done.
    pub(super) fn finish(self) -> Vec<String> {
        self.attacher.notes
    }

    /// Puts everything back as it was, latest first; answers `cause` with what could not be undone.
    pub(super) fn undo(mut self, cause: DatapathError) -> DatapathError {
        if matches!(self.fault, Some(Fault::Vanish(_))) {
            return cause;
        }
        let netlink = self.attacher.netlink;
        let mut failures = Vec::new();
        while let Some(done) = self.done.pop() {
            let (hook, answer) = match &done {
                Done::Attached(hook) => (hook, hook.detach(netlink)),
                Done::Replaced { hook, previous } => (hook, hook.replace_by(netlink, previous.as_fd())),
            };
            if let Err(error) = answer
                && exists(&hook.interface)
            {
                failures.push(format!("{} {}: {error}", hook.interface.name, hook.direction.label()));
            }
            fault::passed(Point::HookUndone);
        }
        if failures.is_empty() {
            return cause.and("nothing has changed");
        }
        cause.and(&format!(
            "putting the hooks back failed too ({}): restart the agent, which mends it",
            failures.join("; ")
        ))
    }
}

/// Opens a program of ours: from the pins, because the kernel gives programs by id only to CAP_SYS_ADMIN.
pub(super) fn program_by_id(pins: &Pins, id: u32) -> std::io::Result<OwnedFd> {
    for generation in pins.generations().unwrap_or_default() {
        for name in PROGRAMS {
            if let Ok(program) = sys::open_pin(&generation.path(name))
                && sys::program_info(program.as_fd()).is_ok_and(|info| info.id == id)
            {
                return Ok(program);
            }
        }
    }
    sys::program_by_id(id)
}

/// The parts of the datapath that are outside the swap but must be opened for it.
pub(super) fn open_netlink() -> Result<Netlink> {
    Netlink::open().context(|| "open a netlink socket")
}
