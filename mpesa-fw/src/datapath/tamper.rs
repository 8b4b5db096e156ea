//! What somebody else does to the datapath: noticed by a look that costs some dozen system calls, and put right where that can
//! be done without the agent. What is ours is known by number (programs, links, pins), not by name.

use std::{io, os::fd::AsFd};

use super::{
    Datapath, Result, baseline,
    baseline::{Baseline, WatchedHook},
    cgroup::CgroupProgram,
    culprit,
    error::Context,
    front,
    hooks::{Hook, PLACE, Way, exists},
    slots, view,
};
use crate::{compile::Compiled, sys};

/// Foreign programs that ours is moved before, in the life of an agent.
const MOVES: usize = 16;

macro_rules! kinds {
    ($($(#[$doc:meta])+ $name:ident: $label:literal,)+) => {
        /// What was done.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum TamperKind {
            $($(#[$doc])+ $name,)+
        }

        impl TamperKind {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The word in metrics, JSON and logs.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)+
                }
            }
        }
    };
}

kinds! {
    /// A hook was detached, or its filter or qdisc removed.
    Hook: "hook_removed",
    /// A link runs another program.
    Program: "program_replaced",
    /// A foreign program was put before ours.
    Order: "preceded",
    /// A pin was removed or replaced.
    Pin: "pin_removed",
    /// A frozen table differs from the generation that was loaded.
    Table: "table_changed",
    /// Addresses, names or places that the agent keeps were changed.
    State: "state_changed",
    /// Counts went back.
    Counts: "counts_changed",
}

/// Something that is not as the datapath left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tampering {
    /// What was done.
    pub kind: TamperKind,
    /// To what: `eth0 ingress`, a pin, a table.
    pub place: String,
    /// In a sentence.
    pub what: String,
    /// What is known of whoever did it; none: nothing.
    pub culprit: Option<String>,
    /// Index of the interface, where it is about a hook.
    pub interface: Option<u32>,
    /// Whether it is as before. A hook that was removed is put back by the agent, which records open connections before.
    pub mended: bool,
}

impl Tampering {
    pub(super) fn new(kind: TamperKind, place: impl Into<String>, what: impl Into<String>) -> Self {
        Self { kind, place: place.into(), what: what.into(), culprit: None, interface: None, mended: false }
    }

    pub(super) fn after(mut self, mended: io::Result<()>) -> Self {
        match mended {
            Ok(()) => self.mended = true,
            Err(error) => self.what += &format!("; it could not be put right: {error}"),
        }
        self
    }

    fn at(mut self, hook: &Hook) -> Self {
        self.interface = Some(hook.interface.index);
        self
    }
}

impl Datapath {
    /// Looks for what somebody else has changed since the last look, and puts right what can be: each is told once. `compiled`
    /// is what the running generation was made of; one table a look is compared with it, so that none costs a large policy much.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn look(&mut self, compiled: &Compiled) -> Result<Vec<Tampering>> {
        if self.running.is_none() {
            return Ok(Vec::new());
        }
        let Some(mut baseline) = self.baseline.take() else {
            self.rebase();
            return Ok(Vec::new());
        };
        self.looks += 1;
        let mut found = Vec::new();
        let looked = self.look_at(&mut baseline, compiled, &mut found);
        self.baseline = Some(baseline);
        looked.map(|()| found)
    }

    fn look_at(
        &mut self,
        baseline: &mut Baseline,
        compiled: &Compiled,
        found: &mut Vec<Tampering>,
    ) -> Result<()> {
        for index in 0..baseline.hooks.len() {
            self.look_at_hook(baseline, index, found)?;
        }
        for at_root in CgroupProgram::ALL {
            self.look_at_cgroups(baseline, at_root, found);
        }
        self.look_at_pins(baseline, found);
        self.look_at_state(found)?;
        self.look_at_table(compiled, found)
    }

    /// What is attached and pinned now is as it ought to be: the datapath itself has changed it.
    pub(super) fn rebase(&mut self) {
        self.departures.forget();
        self.counted.clear();
        self.places = slots::read(&self.state).unwrap_or_default();
        let Some((_, generation)) = &self.running else { return };
        let found = self.find();
        let mut before = self.baseline.take();
        let mut none = Vec::new();
        let pins = before.as_mut().map_or(&mut none, |before| &mut before.pins);
        match found.and_then(|found| Baseline::new(&self.pins, generation, found.hooks, pins)) {
            Ok(made) => self.baseline = Some(made),
            // What is gone is still looked for.
            Err(error) => {
                tracing::warn!("what is attached could not be looked at: {error}");
                self.baseline = before;
            }
        }
    }

    fn look_at_hook(
        &mut self,
        baseline: &mut Baseline,
        index: usize,
        found: &mut Vec<Tampering>,
    ) -> Result<()> {
        let Baseline { programs, hooks, .. } = baseline;
        let watched = &mut hooks[index];
        if watched.is_gone {
            return Ok(());
        }
        let hook = watched.hook.clone();
        let place = format!("{} {}", hook.interface.name, hook.direction.label());
        let what = || format!("look at {place}");
        let ours = hook.program_of(programs);
        let wanted = sys::program_info(ours).context(what)?.id;
        let runs = match running_program(self, watched) {
            // Gone since the agent looked last, and so are its filters: no reason not to look at the others.
            Err(_) if !exists(&hook.interface) => return Ok(()),
            runs => runs.context(what)?,
        };
        if runs == Some(wanted) {
            let is_moved = self.look_at_order(programs, watched, &place, found)?;
            if is_moved && let Way::Tcx(pin) = &hook.way {
                baseline.pin_anew(pin);
            }
            return Ok(());
        }
        if !exists(&hook.interface) || self.departures.includes(hook.interface.index) {
            return Ok(()); // the agent hears of it too, and lets go
        }
        match runs {
            None => {
                watched.is_gone = true;
                let what = match hook.way {
                    Way::Xdp(_) | Way::Tcx(_) => "its link was detached: packets were not judged",
                    Way::Clsact => "its filter or qdisc was removed: packets were not judged",
                };
                found.push(Tampering::new(TamperKind::Hook, place, what).at(&hook));
            }
            Some(foreign) => {
                // Opened first: nothing else may hold it once ours is back.
                let held = sys::program_by_id(foreign);
                let mended = match &watched.link {
                    Some(link) => sys::link_update(link.as_fd(), ours),
                    None => hook.replace_by(&self.netlink, ours),
                };
                let what = "another program was put in the place of ours";
                let mut told = Tampering::new(TamperKind::Program, place, what).at(&hook).after(mended);
                told.culprit = Some(culprit::describe(foreign));
                watched.is_gone = !told.mended;
                found.push(told);
                drop(held);
            }
        }
        Ok(())
    }

    fn look_at_order(
        &mut self,
        programs: &super::generation::Programs,
        watched: &mut WatchedHook,
        place: &str,
        found: &mut Vec<Tampering>,
    ) -> Result<bool> {
        let hook = watched.hook.clone();
        if matches!(hook.way, Way::Xdp(_)) {
            return Ok(false);
        }
        let what = || format!("look at {place}");
        let ahead = view::ahead(&self.netlink, &hook).context(what)?.unwrap_or_default();
        let news: Vec<u32> = ahead.iter().filter(|id| !watched.ahead.contains(id)).copied().collect();
        watched.ahead = ahead;
        if news.is_empty() {
            return Ok(false);
        }
        let mut is_moved = false;
        let what = "a program was put before ours, and may accept packets on its own";
        let mut told = Tampering::new(TamperKind::Order, place, what).at(&hook);
        told.culprit = Some(news.iter().map(|id| culprit::describe(*id)).collect::<Vec<_>>().join("; "));
        // Once for each program: whoever puts his there again and again means it, and it would never end.
        let is_worth_it = self.overtaken.len() < MOVES && news.iter().any(|id| !self.overtaken.contains(id));
        self.overtaken.extend(news.iter().take(MOVES));
        if is_worth_it {
            let moved = front::move_ahead(&self.pins, &self.netlink, watched, hook.program_of(programs));
            is_moved = moved.is_ok();
            if is_moved {
                let left =
                    view::ahead(&self.netlink, &watched.hook).context(|| format!("look at {place}"))?;
                watched.ahead = left.unwrap_or_default();
            }
            told = told.after(moved);
            told.mended &= watched.ahead.is_empty();
        } else {
            told.what += "; ours was moved to the front before, and is not again";
        }
        found.push(told);
        Ok(is_moved)
    }

    fn look_at_cgroups(&self, baseline: &mut Baseline, at_root: CgroupProgram, found: &mut Vec<Tampering>) {
        let (link, ours) = (baseline.at_cgroups.get(at_root), baseline.programs.at_cgroups(at_root));
        let (Some(link), Some(ours)) = (link, ours) else { return };
        let (Ok(info), Ok(wanted)) = (sys::link_info(link.as_fd()), sys::program_info(ours)) else { return };
        let place = format!("cgroup {}", at_root.name());
        if info.cgroup == 0 {
            let mended = at_root.attach(&self.pins, ours).map_err(io::Error::other);
            let what = match at_root {
                CgroupProgram::Connections => "its link was detached: completed connections were not counted",
                CgroupProgram::Bypass => "its link was detached: sockets may have been told to pass TC by",
                CgroupProgram::Makers => "its link was detached: it was not noted who made sockets",
                CgroupProgram::Connect4
                | CgroupProgram::Connect6
                | CgroupProgram::Send4
                | CgroupProgram::Send6 => {
                    "its link was detached: programs were not told what they may not reach"
                }
            };
            found.push(Tampering::new(TamperKind::Hook, place, what).after(mended));
            *baseline.at_cgroups.get_mut(at_root) = at_root.open_link(&self.pins).unwrap_or(None);
            baseline.pin_anew(&self.pins.cgroup_link(at_root));
        } else if info.program != wanted.id {
            let held = sys::program_by_id(info.program);
            let mended = sys::link_update(link.as_fd(), ours);
            let what = "another program was put in the place of ours";
            let mut told = Tampering::new(TamperKind::Program, place, what).after(mended);
            told.culprit = Some(culprit::describe(info.program));
            found.push(told);
            drop(held);
        }
    }

    fn look_at_pins(&mut self, baseline: &mut Baseline, found: &mut Vec<Tampering>) {
        // A link without a hook has no use for its pin: the agent attaches anew.
        let gone: Vec<_> = baseline.hooks.iter().filter(|watched| watched.is_gone).collect();
        let is_moot = |path: &std::path::Path| {
            gone.iter().any(|watched| match &watched.hook.way {
                Way::Xdp(pin) | Way::Tcx(pin) => pin == path,
                Way::Clsact => false,
            })
        };
        let lost: Vec<_> = baseline
            .pins
            .iter_mut()
            .chain(&mut self.state_pins)
            .filter(|pin| !pin.is_there() && !is_moot(&pin.path))
            .collect();
        if lost.is_empty() {
            return;
        }
        let directories = match &self.running {
            Some((_, generation)) => baseline::make_directories(&self.pins, generation),
            None => Ok(()),
        };
        for pin in lost {
            let mended = match &directories {
                Ok(()) => pin.put_back(),
                Err(error) => Err(io::Error::other(error.to_string())),
            };
            if mended.is_ok() || !pin.is_given_up {
                let what = "the pin was removed or replaced: the next agent would not have found it";
                let place = pin.path.display().to_string();
                pin.is_given_up = mended.is_err();
                found.push(Tampering::new(TamperKind::Pin, place, what).after(mended));
            }
        }
    }
}

/// Id of the program that a hook runs; none: none.
fn running_program(datapath: &Datapath, watched: &WatchedHook) -> io::Result<Option<u32>> {
    let hook = &watched.hook;
    if let Some(link) = &watched.link {
        let info = sys::link_info(link.as_fd())?;
        return Ok((info.interface != 0).then_some(info.program));
    }
    let filters = datapath.netlink.filters(hook.interface.index, hook.direction)?;
    let ours = filters.iter().find(|filter| (filter.priority, filter.handle) == PLACE);
    Ok(ours.map(|filter| filter.program))
}
