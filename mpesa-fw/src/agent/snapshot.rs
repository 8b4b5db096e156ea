//! Everything that can be asked of the agent at one moment: metrics and `status` are both made of it.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use super::{
    Agent, AttemptsStatus, NameStatus, OwnerStatus, Running, TamperRecord, clock,
    error::AgentError,
    interfaces::{Refused, Unprotected},
    kernel::beside,
    minute::Recent,
    network::{Network, Protection},
    seed::Denied,
};
use mpesa_fw_common::{attempt::Refusals, bypass::Bypass, dns::LearnOutcome};

use crate::datapath::{Attachment, Handshakes, LearntNames, RuleCounts};

/// One moment. Counts are read from the kernel when it is taken.
pub struct Snapshot {
    /// The generation in force.
    pub running: Arc<Running>,
    /// Whether the policy is in force.
    pub protection: Protection,
    /// Unix time since when that is so.
    pub since: u64,
    /// Unix time of the agent's start.
    pub started_at: u64,
    /// Every count.
    pub counts: Vec<RuleCounts>,
    /// What was dropped lately.
    pub recent: Recent,
    /// Handshakes of services, of those that are gone too; none: completed connections are not counted.
    pub handshakes: Option<Vec<Handshakes>>,
    /// Sockets that were to pass TC by; none: it is not looked for.
    pub bypasses: Option<BTreeMap<Bypass, u64>>,
    /// Programs that were to connect to where no packet may go, by destination; none: they are not asked.
    pub refusals: Option<Vec<(String, Refusals)>>,
    /// Drops from ranges that sets watch.
    pub near_misses: Vec<(String, u64)>,
    /// Events that were too many.
    pub events_suppressed: u64,
    /// Entries of the flow table.
    pub flows: u32,
    /// Room in it.
    pub flows_capacity: u32,
    /// The hooks, as they are in the kernel.
    pub attachments: Vec<Attachment>,
    /// Named and not there.
    pub missing: Vec<String>,
    /// There and not fit.
    pub refused: Vec<Refused>,
    /// Not attached, and why.
    pub failed: BTreeMap<String, String>,
    /// Interfaces with addresses and without protection.
    pub unprotected: Vec<Unprotected>,
    /// Listeners that no service claims.
    pub undeclared_listeners: usize,
    /// DNS names.
    pub names: Vec<NameStatus>,
    /// Owners of rules.
    pub owners: Vec<OwnerStatus>,
    /// Whether programs are refused at connect.
    pub attempts: AttemptsStatus,
    /// What became of answers of name servers.
    pub learning: BTreeMap<LearnOutcome, u64>,
    /// Addresses that were learnt from them and count now.
    pub learnt: usize,
    /// Connections that were open and are not permitted.
    pub denied: Vec<Denied>,
    /// How reloads went.
    pub reloads: BTreeMap<String, u64>,
    /// What somebody did to the datapath, by kind.
    pub tamper_counts: BTreeMap<String, u64>,
    /// The last of it, oldest first.
    pub tampering: Vec<TamperRecord>,
    /// What the admin should know.
    pub notes: Vec<String>,
}

impl Snapshot {
    /// Addresses that names stand for.
    #[must_use]
    pub fn addresses_of(&self, name: &str) -> &[IpAddr] {
        self.names.iter().find(|n| n.name == name).map_or(&[], |n| &n.addresses)
    }
}

impl Agent {
    /// Takes one, beside the tasks.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub async fn snapshot_beside(self: &Arc<Self>) -> Result<Snapshot, AgentError> {
        let agent = Arc::clone(self);
        beside(move || agent.snapshot()).await
    }

    /// Takes one. Blocks: for threads that may.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn snapshot(&self) -> Result<Snapshot, AgentError> {
        let datapath = self.kernel.lock();
        let counts = datapath.counters()?;
        let handshakes = datapath.handshakes()?;
        let bypasses = datapath.bypasses()?;
        let refusals = datapath.refusals()?;
        let near_misses = datapath.near_misses()?;
        let events_suppressed = datapath.events_suppressed()?;
        let flows = datapath.flow_count()?;
        let attachments = datapath.attachments()?;
        let learning = datapath.learning()?;
        let learnt = datapath.learnt()?;
        drop(datapath);
        let state = self.state();
        let current = &state.current;
        // As the kernel says now: somebody may have removed a hook since the last look, or put another before it.
        let has_changed = attachments != current.network.attachments;
        let network =
            Network { attachments: with_bare(attachments, &current.network), ..current.network.clone() };
        let protection = network.protection(current.running.mode());
        if has_changed || protection != state.protection {
            self.wake_network.notify_one();
        }
        let suspects = state.pace.suspects(clock::monotonic(), handshakes.as_deref().unwrap_or_default());
        let notes = suspects.into_values().chain(current.notes.iter().cloned());
        let notes = notes.chain(network.judged_twice()).chain(state.owners.complaints());
        let notes = notes.chain(state.without_metrics.clone()).collect();
        Ok(Snapshot {
            running: Arc::clone(&current.running),
            since: if protection == state.protection { state.since } else { clock::unix() },
            protection,
            started_at: self.started_at,
            recent: Recent::of(&state.minute, clock::monotonic(), &counts),
            counts,
            handshakes,
            bypasses,
            refusals,
            near_misses,
            events_suppressed,
            flows,
            flows_capacity: self.options.flows_capacity,
            unprotected: network.unprotected(),
            attachments: network.attachments,
            missing: current.network.choice.missing.clone(),
            refused: current.network.choice.refused.clone(),
            failed: current.network.failed.clone(),
            undeclared_listeners: state.undeclared.len(),
            names: named(current.names.status(), &current.running.slots.names, &learnt),
            owners: state.owners.statuses.clone(),
            attempts: state.attempts.clone(),
            learning,
            learnt: learnt.len(),
            denied: current.seeded.denied.clone(),
            reloads: state.reloads.clone(),
            tamper_counts: state.tampering.all_counts(),
            tampering: state.tampering.last.iter().cloned().collect(),
            notes,
        })
    }
}

/// The names of a policy, wildcards too, with how many addresses of each were learnt.
fn named(told: Vec<NameStatus>, slots: &BTreeMap<String, u16>, learnt: &LearntNames) -> Vec<NameStatus> {
    let mut counts: BTreeMap<u16, usize> = BTreeMap::new();
    for slot in learnt.values().flatten() {
        *counts.entry(*slot).or_default() += 1;
    }
    let mut told: BTreeMap<String, NameStatus> =
        told.into_iter().map(|status| (status.name.clone(), status)).collect();
    let of = |(name, slot): (&String, &u16)| {
        let status = told.remove(name).unwrap_or_else(|| NameStatus::untold(name));
        NameStatus { learnt: counts.get(slot).copied().unwrap_or_default(), ..status }
    };
    slots.iter().map(of).collect()
}

/// Interfaces that are to be protected and have no hook at all stand in the list too, so that their metrics say 0 instead
/// of nothing.
pub(super) fn with_bare(mut attachments: Vec<Attachment>, network: &Network) -> Vec<Attachment> {
    for interface in network.choice.protect.values() {
        if !attachments.iter().any(|attachment| attachment.interface.index == interface.index) {
            attachments.push(Attachment::bare(interface.clone()));
        }
    }
    attachments
}
