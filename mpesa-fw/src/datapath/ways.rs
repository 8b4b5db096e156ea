//! For how long the ways by which packets leave count, and whether the programs that ask for them stand alone.

use std::{collections::BTreeSet, fs::File, io, os::fd::AsFd};

use mpesa_fw_common::attempt::Lease;

use super::{
    Datapath, Result,
    cgroup::{self, CgroupProgram},
    error::Context,
    generation::Programs,
};
use crate::sys::{self, KernelMap};

/// Ends the time for which the ways count, apart from the datapath: also while that is busy.
pub struct WaysLease(KernelMap<u32, Lease>);

impl WaysLease {
    /// Nothing is vouched for any more.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn end(&self) -> Result<()> {
        self.0.put(&0, &Lease { until: 0 }).context(|| "say that the ways hold no longer")
    }
}

impl Datapath {
    /// What ends the lease, to be kept.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub fn ways_lease(&self) -> Result<WaysLease> {
        let map = self.state.lease.fd().try_clone_to_owned().and_then(KernelMap::new);
        map.map(WaysLease).context(|| "keep the map LEASE open")
    }

    /// Vouches for the ways until then (monotonic clock, nanoseconds), if that generation is in force; whether it is. Not while a reload has
    /// put another one in force and is not done with it: interfaces may have been let go.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn lease_ways(&self, generation: u32, until: u64) -> Result<bool> {
        if self.running().is_none_or(|stamp| stamp.number != generation) {
            return Ok(false);
        }
        self.put_lease(until).context(|| "say how long the ways hold").map(|()| true)
    }

    /// Vouches for nothing until the next [`lease_ways`](Self::lease_ways).
    pub(super) fn end_lease(&self) -> Result<()> {
        self.put_lease(0).context(|| "say that the ways hold no longer")
    }

    /// Ends it because somebody else wrote it. Where that fails it is found changed at the next look too.
    pub(super) fn restore_lease(&self) -> Result<()> {
        let ended = self.end_lease();
        self.state.written.borrow_mut().lease = Some(0);
        ended
    }

    fn put_lease(&self, until: u64) -> io::Result<()> {
        self.state.written.borrow_mut().lease = None;
        self.state.lease.put(&0, &Lease { until })?;
        self.state.written.borrow_mut().lease = Some(until);
        Ok(())
    }

    /// Whether somebody else says how long the ways hold. Not where they don't hold any more: [`WaysLease`] says that at any time.
    pub(super) fn is_lease_changed(&self) -> Result<bool> {
        let Some(until) = self.state.written.borrow().lease else { return Ok(false) };
        let lease = self.state.lease.get(&0).context(|| "read how long the ways hold")?;
        Ok(lease.is_some_and(|lease| lease.until != until && lease.until != 0))
    }

    /// Why nobody is refused, or not for sure: a program that is not at the root of the cgroups, or another one that may write another
    /// address into sockets. Those of other agents, in other network namespaces, are told by their instructions, where
    /// this one may look at them.
    #[must_use]
    pub fn doubts_of_attempts(&self) -> Vec<String> {
        match self.strangers_at_attempts() {
            Ok((missing, _)) if !missing.is_empty() => {
                vec![format!("{} not attached: see the warnings, or restart the agent", missing.join(", "))]
            }
            Ok((_, foreign)) if !foreign.is_empty() => vec![format!(
                "other programs are asked too when a socket is connected, and may write another address into it: {} (`bpftool cgroup \
                 show`)",
                foreign.into_iter().collect::<Vec<_>>().join(", ")
            )],
            Ok(_) => Vec::new(),
            Err(error) => vec![error.to_string()],
        }
    }

    /// Which of our programs are not at the root of the cgroups, and names of others that are.
    fn strangers_at_attempts(&self) -> Result<(Vec<&'static str>, BTreeSet<String>)> {
        const PROGRAMS: [(CgroupProgram, u32); 4] = [
            (CgroupProgram::Connect4, sys::BPF_CGROUP_INET4_CONNECT),
            (CgroupProgram::Connect6, sys::BPF_CGROUP_INET6_CONNECT),
            (CgroupProgram::Send4, sys::BPF_CGROUP_UDP4_SENDMSG),
            (CgroupProgram::Send6, sys::BPF_CGROUP_UDP6_SENDMSG),
        ];
        let what = || "read which programs are at the root of the cgroups";
        let root = File::open(cgroup::root()?).context(what)?;
        let programs = self.running.as_ref().map(|(_, generation)| Programs::open(generation)).transpose()?;
        let (mut missing, mut foreign) = (Vec::new(), BTreeSet::new());
        for (program, attach_type) in PROGRAMS {
            // The one of the generation in force, and nothing else; agents of other namespaces have one of the same instructions.
            let ours = programs.as_ref().and_then(|programs| programs.at_cgroups(program));
            let ours = ours.map(sys::program_info).transpose().context(what)?;
            let own = match (program.attached(&self.pins), ours) {
                (Some(attached), Some(ours)) if attached == ours.id => (ours.id, ours.tag),
                (Some(_) | None, _) => {
                    missing.push(program.name());
                    continue;
                }
            };
            for id in sys::cgroup_programs(root.as_fd(), attach_type).context(what)? {
                if id == own.0 {
                    continue;
                }
                let info = match sys::program_by_id(id).and_then(|other| sys::program_info(other.as_fd())) {
                    Ok(info) => info,
                    // Gone meanwhile: another agent has put a new generation in force.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    // That of the package has no CAP_SYS_ADMIN.
                    Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                        foreign.insert(format!("program {id}, at which this agent may not look"));
                        continue;
                    }
                    Err(error) => return Err(error).context(what),
                };
                if (info.tag, info.name.as_str()) != (own.1, program.name()) {
                    foreign.insert(format!("{} ({id})", info.name));
                }
            }
        }
        Ok((missing, foreign))
    }
}
