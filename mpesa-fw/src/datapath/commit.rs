//! Making a generation judge packets: on all interfaces, or on one more.

use std::collections::HashSet;

use mpesa_fw_common::settings::Direction;

use super::{
    Attachment, Datapath, DatapathError, ErrorKind, Fault, Interface, Report, Result, Staged,
    attach::Attacher,
    cgroup::CgroupProgram,
    error::Context,
    generation::{Programs, Without},
    hooks::{self, Found},
    pins::remove_tree,
    registry, slots,
    swap::Swap,
};
use crate::{
    compile::{Fresh, RegistryRows},
    fault::{self, Point},
};

impl Datapath {
    /// Makes a staged generation judge `interfaces`: clears what is kept under `fresh` positions, writes the registry, swaps
    /// all egress hooks, calls `between` if an interface is newly protected (seed flows now), swaps all ingress hooks, and at
    /// last lets go of interfaces that are not in the list. If one hook fails, those done are undone in reverse order.
    ///
    /// # Errors
    /// A hook could not be swapped or attached; the previous generation judges on, as before.
    pub fn commit(
        &mut self,
        staged: Staged,
        rows: &RegistryRows,
        fresh: &Fresh,
        interfaces: &[Interface],
        between: &mut dyn FnMut(&Datapath),
    ) -> Result<Report> {
        // Until it is known by which ways packets leave from then on, and that the same policy is asked everywhere.
        self.end_lease()?;
        let committed = self.commit_now(staged, rows, fresh, interfaces, between);
        if committed.is_err() {
            self.rebase();
        }
        committed
    }

    fn commit_now(
        &mut self,
        mut staged: Staged,
        rows: &RegistryRows,
        fresh: &Fresh,
        interfaces: &[Interface],
        between: &mut dyn FnMut(&Datapath),
    ) -> Result<Report> {
        let programs = Programs::open(&staged.pins)?;
        let mut found = self.find()?;
        found.tidy(&self.pins);
        let places = slots::read(&self.state)?;
        let before = self.registry.clone();
        if let Err(error) = self.make_room(rows, fresh, interfaces) {
            slots::restore(&self.state, &places)?;
            return Err(error);
        }
        let notes = match self.swap(&found, &programs, interfaces, between) {
            Ok(notes) => notes,
            Err(error) => {
                if matches!(self.fault, Some(Fault::Vanish(_))) {
                    staged.keep();
                    return Err(error);
                }
                registry::write(&self.state, rows, &before)?;
                fault::passed(Point::RegistryRestored);
                slots::restore(&self.state, &places)?;
                return Err(error);
            }
        };
        fault::passed(Point::HooksSwapped);
        staged.keep();
        self.registry = rows.clone();
        self.running = Some((staged.stamp(), staged.pins.clone()));
        self.loaded = Some(std::mem::take(&mut staged.loaded));
        let mut report =
            Report { stamp: staged.stamp(), attachments: Vec::new(), detached: Vec::new(), notes };
        report.notes.extend(self.swap_at_cgroups(&programs, &mut staged.without));
        self.let_go(&found, interfaces, &mut report);
        self.remove_old_generations(&mut report);
        self.bury_other_versions(&mut report);
        self.damaged.clear();
        self.rebase();
        // The new generation judges: that its hooks can't be listed must not be told as a failure to load it.
        let listed = fault::point(Point::CommitReported).map_err(DatapathError::from);
        match listed.and_then(|()| self.attachments()) {
            Ok(attachments) => report.attachments = attachments,
            Err(error) => report.notes.push(error.to_string()),
        }
        Ok(report)
    }

    /// Places in the counters for interfaces and rules.
    fn make_room(&self, rows: &RegistryRows, fresh: &Fresh, interfaces: &[Interface]) -> Result<()> {
        let is_spare = |index: u32| interfaces.iter().all(|wanted| wanted.index != index);
        for interface in interfaces {
            slots::assign(&self.state, interface, is_spare)?;
            fault::point(Point::PlaceAssigned)?;
        }
        registry::clear(&self.state, fresh)?;
        fault::point(Point::CountsCleared)?;
        registry::write(&self.state, &self.registry, rows)?;
        fault::point(Point::RegistryWritten)?;
        Ok(())
    }

    /// Lets the running generation judge one more interface (new, or created again under an old name): egress, then `between`
    /// (seed flows now), then ingress.
    ///
    /// # Errors
    /// Nothing is loaded yet, the interface is gone, or a hook can't be attached; nothing is half attached then.
    pub fn protect(
        &mut self,
        interface: &Interface,
        between: &mut dyn FnMut(&Datapath),
    ) -> Result<Attachment> {
        let protected = self.protect_now(interface, between);
        self.rebase();
        protected
    }

    fn protect_now(
        &mut self,
        interface: &Interface,
        between: &mut dyn FnMut(&Datapath),
    ) -> Result<Attachment> {
        let Some((_, generation)) = &self.running else {
            return Err(DatapathError::new(
                ErrorKind::Internal,
                format!("protect {}", interface.name),
                "no generation is loaded yet",
                "commit one first",
            ));
        };
        let programs = Programs::open(generation)?;
        let mut found = self.find()?;
        found.tidy(&self.pins);
        let known = found.knows(interface);
        slots::assign(&self.state, interface, |_| false)?;
        if let Err(error) = self.swap(&found, &programs, std::slice::from_ref(interface), between) {
            if !known {
                slots::release(&self.state, interface.index)?;
            }
            return Err(error);
        }
        let attachments = self.attachments()?;
        attachments.into_iter().find(|attachment| attachment.interface.index == interface.index).ok_or_else(
            || {
                DatapathError::new(
                    ErrorKind::Interface,
                    format!("protect {}", interface.name),
                    "the interface went away meanwhile",
                    "it is protected when it comes back",
                )
            },
        )
    }

    /// Gives an interface that is protected its place in the counters, if it has lost it: one that was in another network
    /// namespace comes back with its hooks.
    ///
    /// # Errors
    /// No place is left.
    pub fn keep_place(&mut self, interface: &Interface) -> Result<()> {
        slots::assign(&self.state, interface, |_| false)?;
        self.places = slots::read(&self.state)?;
        Ok(())
    }

    /// Lets go of interfaces that are gone: frees their places, whose counts are kept, and removes their dead pins.
    /// `there` says whether an index is one of an interface. Answers the names of those that were there before.
    pub fn release_gone(&mut self, there: impl Fn(u32) -> bool) -> Vec<String> {
        let release = || {
            let gone: Vec<_> = slots::taken(&self.state)?
                .into_iter()
                .map(|place| place.interface)
                .filter(|interface| interface.index != 0 && !there(interface.index))
                .collect();
            for interface in &gone {
                slots::release(&self.state, interface.index)?;
            }
            let mut found = self.find()?;
            found.tidy(&self.pins);
            let names: Vec<_> = gone.into_iter().map(|interface| interface.name).collect();
            Ok::<_, DatapathError>((names, found.hooks))
        };
        match release() {
            Ok((gone, hooks)) => {
                let same = self.baseline.as_ref().is_some_and(|baseline| baseline.is_of(&hooks));
                if !gone.is_empty() || !same {
                    self.rebase();
                }
                gone
            }
            Err(error) => {
                tracing::warn!(%error, "interfaces that are gone were not released");
                Vec::new()
            }
        }
    }

    /// The programs at the cgroups' root. Answers what is not so for want of one.
    fn swap_at_cgroups(&self, programs: &Programs, without: &mut Without) -> Vec<String> {
        let one = |at_root: CgroupProgram| {
            let swapped = match (programs.at_cgroups(at_root), without.get_mut(at_root).take()) {
                (Some(program), _) => at_root.attach(&self.pins, program),
                // None rather than one that goes by another generation's rules.
                (None, why_not) => at_root.detach(&self.pins).and(why_not.map_or(Ok(()), Err)),
            };
            swapped.err().map(|error| format!("{}: {error}", at_root.absence()))
        };
        CgroupProgram::ALL.into_iter().filter_map(one).collect()
    }

    /// Every side of every interface, egress first.
    fn swap(
        &self,
        found: &Found,
        programs: &Programs,
        interfaces: &[Interface],
        between: &mut dyn FnMut(&Datapath),
    ) -> Result<Vec<String>> {
        let ours = self.our_programs()?;
        let attacher = Attacher {
            options: &self.options,
            pins: &self.pins,
            netlink: &self.netlink,
            programs,
            ours: &ours,
            notes: Vec::new(),
        };
        let mut swap = Swap::new(attacher, self.fault);
        for direction in [Direction::Egress, Direction::Ingress] {
            if direction == Direction::Ingress && interfaces.iter().any(|new| !found.covers(new)) {
                fault::passed(Point::EgressDone);
                between(self);
                fault::passed(Point::FlowsSeeded);
            }
            for interface in interfaces {
                if let Err(error) = swap.put(found, interface, direction) {
                    return Err(swap.undo(error));
                }
            }
        }
        Ok(swap.finish())
    }

    /// Detaches from interfaces that are not to be protected any more. What fails is said; the next commit tries again.
    fn let_go(&self, found: &Found, interfaces: &[Interface], report: &mut Report) {
        let wanted: HashSet<u32> = interfaces.iter().map(|interface| interface.index).collect();
        for hook in found.hooks.iter().filter(|hook| !wanted.contains(&hook.interface.index)) {
            let name = &hook.interface.name;
            let done = hook
                .detach(&self.netlink)
                .context(|| format!("detach from {name} {}", hook.direction.label()))
                .and_then(|()| slots::release(&self.state, hook.interface.index));
            match done {
                Ok(()) if !report.detached.contains(name) => report.detached.push(name.clone()),
                Ok(()) => {}
                Err(error) => report.notes.push(error.to_string()),
            }
        }
        report.notes.extend(hooks::remove_qdiscs(&self.pins, &self.netlink, |index| wanted.contains(&index)));
        for away in &found.away {
            if let Err(error) = away.detach() {
                report.notes.push(format!("an interface in another network namespace is judged on: {error}"));
            }
        }
    }

    /// No hook runs what other versions loaded any more.
    fn bury_other_versions(&self, report: &mut Report) {
        for other in self.pins.others().unwrap_or_default() {
            let qdiscs =
                other.qdiscs().and_then(|all| all.into_iter().try_for_each(|i| self.pins.note_qdisc(i)));
            if let Err(error) = qdiscs {
                report.notes.push(error.to_string());
            }
            match remove_tree(other.root()) {
                Ok(()) => {
                    fault::passed(Point::VersionBuried);
                    report.notes.push(format!(
                        "took over from another version of mpesa-fw: its counts and pins in {} are gone",
                        other.root().display()
                    ));
                }
                Err(error) => report.notes.push(format!("the pins {} stay: {error}", other.root().display())),
            }
        }
    }

    fn remove_old_generations(&self, report: &mut Report) {
        for generation in self.pins.generations().unwrap_or_default() {
            if generation.number != report.stamp.number
                && let Err(error) = generation.remove()
            {
                report.notes.push(format!("the pins of generation {} stay: {error}", generation.number));
            }
        }
    }
}
