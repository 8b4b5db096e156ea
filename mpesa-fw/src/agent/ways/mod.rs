//! Vouches for the ways by which packets leave, so that programs can be refused to connect to where none may go: the kernel asks about
//! sockets before it looks for a route.
//!
//! The lease is short, and dropped at the first sign of a change: whatever is not sure passes there, and is judged as a packet.

mod changes;
mod doubts;
mod nftables;
mod read;
mod routes;

use std::{collections::BTreeMap, io, pin::pin, sync::Arc, time::Duration};

use mpesa_fw_common::attempt::{WAYS_CAPACITY, Way, WayKey};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};

use super::{Agent, clock, kernel::beside};
use crate::datapath::{Attachment, WaysLease};
use changes::Changes;
use routes::Hooks;

/// How long what is known counts without a word of the agent.
const LEASE: Duration = Duration::from_secs(15);
/// How often the lease is renewed, and what changes without a sign is looked at.
const RENEW: Duration = Duration::from_secs(5);
/// Routes are read when none has changed for that long.
const SETTLE: Duration = Duration::from_millis(30);
/// Where they change again before they have counted for that long, they are left to settle twice as long each time.
const BRIEF: Duration = Duration::from_millis(500);
/// But not longer than that.
const SETTLE_LONGEST: Duration = Duration::from_secs(1);
/// Pause before another socket is opened.
const REOPEN: Duration = Duration::from_secs(1);

/// Whether programs hear at once where they may not connect, for `status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptsStatus {
    /// They do, where packets leave by a protected interface.
    pub refused_at_connect: bool,
    /// Why not, and what to do.
    pub doubts: Vec<String>,
}

impl AttemptsStatus {
    fn of(doubts: Vec<String>) -> Self {
        Self { refused_at_connect: doubts.is_empty(), doubts }
    }
}

impl Default for AttemptsStatus {
    fn default() -> Self {
        Self::of(vec!["the routes were not looked at yet".to_owned()])
    }
}

/// What stands before all routes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Footing {
    /// The generation that the agent knows to be in force.
    generation: u32,
    /// Interfaces at which egress is judged.
    hooks: Hooks,
    /// Why nothing is to be vouched for at all.
    against: Option<String>,
}

/// A program before ours may send packets elsewhere.
fn hooks(attachments: &[Attachment]) -> Hooks {
    let one = |attachment: &Attachment| {
        let way = if attachment.ahead_of_egress.is_empty() { Way::Protected } else { Way::Unsure };
        attachment.egress.map(|_| (attachment.interface.index, way))
    };
    attachments.iter().filter_map(one).collect()
}

impl Agent {
    /// Vouches until the agent ends.
    pub(super) async fn watch_ways(self: Arc<Self>) {
        let lease = match self.kernel.with(|datapath| datapath.ways_lease()).await {
            Ok(lease) => lease,
            Err(error) => {
                self.note_attempts(vec![error.to_string()]);
                return std::future::pending().await;
            }
        };
        loop {
            let ended = match Changes::subscribe() {
                Ok(changes) => self.vouch(&changes, &lease).await,
                Err(error) => Err(error),
            };
            self.drop_lease(&lease);
            if let Err(error) = ended {
                self.note_attempts(vec![format!("changes of routes can't be watched: {error}")]);
            }
            sleep(REOPEN).await;
        }
    }

    /// Until changes can't be heard of.
    async fn vouch(&self, changes: &Changes, lease: &WaysLease) -> io::Result<()> {
        let mut told = None;
        let mut settle = SETTLE;
        let mut since = Instant::now();
        loop {
            self.drop_lease(lease);
            if since.elapsed() > RENEW {
                self.note_attempts(vec![
                    "routes change all the time (`ip monitor route rule link`)".to_owned(),
                ]);
            }
            match timeout(RENEW, changes.rest(settle)).await {
                Ok(rest) => rest?,
                Err(_) => continue,
            }
            let footing = self.footing();
            let doubts = self.look_for_ways(&footing, &mut told).await;
            if changes.have_come()? {
                settle = SETTLE_LONGEST.min(settle * 2);
                continue;
            }
            if doubts.is_empty() && !self.renew_lease(&footing).await {
                // A reload is under way, which says when it is done.
                let _done = timeout(REOPEN, self.wake_ways.notified()).await;
                since = Instant::now();
                continue;
            }
            if changes.have_come()? {
                continue;
            }
            self.note_attempts(doubts.clone());
            let begin = Instant::now();
            self.hold(changes, lease, &footing, doubts.is_empty()).await?;
            since = Instant::now();
            settle = if begin.elapsed() < BRIEF { SETTLE_LONGEST.min(settle * 2) } else { SETTLE };
        }
    }

    /// Until all has to be looked at again.
    async fn hold(
        &self,
        changes: &Changes,
        lease: &WaysLease,
        footing: &Footing,
        is_sure: bool,
    ) -> io::Result<()> {
        let mut renewals = interval_at(Instant::now() + RENEW, RENEW);
        renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                change = changes.next() => return change,
                () = self.wake_ways.notified() => if self.footing() != *footing {
                    return Ok(());
                },
                _ = renewals.tick() => {
                    if footing.against.is_some() && self.footing() == *footing {
                        continue;
                    }
                    // A reload keeps the datapath for a while, and routes may change meanwhile.
                    let mut renewed = pin!(async {
                        is_sure && self.doubts().await.is_empty() && self.renew_lease(footing).await
                    });
                    let renewed = tokio::select! {
                        change = changes.next() => {
                            change?;
                            self.drop_lease(lease);
                            // It can't be taken back, and must not come after the end.
                            renewed.await;
                            return Ok(());
                        }
                        renewed = &mut renewed => renewed,
                    };
                    if !renewed || changes.have_come()? {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn footing(&self) -> Footing {
        let state = self.state();
        let hooks = hooks(&state.current.network.attachments);
        let against = if state.detached {
            Some("nothing is judged: the agent was told to detach")
        } else if !state.current.running.policy.egress.refuses_attempts {
            Some("the policy wants it so (`egress: { at_connect: pass }`)")
        } else if state.current.interim {
            Some("no interface holds a default route yet: which one is meant is not known")
        } else if !state.current.names.unknown().is_empty() {
            Some("a DNS name of the policy has no address yet: what is denied now may be allowed in a moment")
        } else if !hooks.values().any(|way| *way == Way::Protected) {
            Some("there is no interface at which egress is judged before all others")
        } else {
            None
        };
        let generation = state.current.running.stamp.number;
        Footing { generation, hooks, against: against.map(str::to_owned) }
    }

    /// Reads the routes, and tells the datapath if they are others than it was `told`. Returns why they are not to be relied upon.
    async fn look_for_ways(
        &self,
        footing: &Footing,
        told: &mut Option<BTreeMap<WayKey, Way>>,
    ) -> Vec<String> {
        if let Some(against) = &footing.against {
            return vec![against.clone()];
        }
        let doubts = self.doubts().await;
        if !doubts.is_empty() {
            return doubts;
        }
        let hooks = footing.hooks.clone();
        let ways = match beside(move || Ok::<_, io::Error>(routes::ways(&read::routes()?, &hooks))).await {
            Ok(ways) => ways,
            Err(error) => return vec![format!("the routes can't be read: {error}")],
        };
        if ways.len() > WAYS_CAPACITY as usize {
            return vec![format!(
                "there are routes to {} prefixes, and room for {WAYS_CAPACITY}: this host is a router",
                ways.len()
            )];
        }
        if told.as_ref() != Some(&ways) {
            *told = None;
            let for_kernel = ways.clone();
            if let Err(error) = self.kernel.with(move |datapath| datapath.set_ways(&for_kernel)).await {
                return vec![error.to_string()];
            }
            *told = Some(ways);
        }
        Vec::new()
    }

    async fn doubts(&self) -> Vec<String> {
        let mut doubts = beside(doubts::doubts).await;
        doubts.extend(self.kernel.with(|datapath| datapath.doubts_of_attempts()).await);
        doubts
    }

    /// False: another generation is in force than the agent knows of, or the kernel refuses.
    async fn renew_lease(&self, footing: &Footing) -> bool {
        let generation = footing.generation;
        let until = move || clock::monotonic() + LEASE.as_nanos() as u64;
        match self.kernel.with(move |datapath| datapath.lease_ways(generation, until())).await {
            Ok(is_in_force) => is_in_force,
            Err(error) => {
                tracing::error!("{error}");
                false
            }
        }
    }

    fn drop_lease(&self, lease: &WaysLease) {
        if let Err(error) = lease.end() {
            tracing::error!(
                "routes may change, and programs be refused by the old ones for seconds: {error}"
            );
        }
    }

    /// Before the agent ends: nobody watches the routes any more.
    pub async fn vouch_no_longer(&self) {
        let ended = self.kernel.with(|datapath| datapath.ways_lease()?.end()).await;
        if let Err(error) = ended {
            tracing::error!("{error}");
        }
    }

    fn note_attempts(&self, doubts: Vec<String>) {
        let now = AttemptsStatus::of(doubts);
        let before = std::mem::replace(&mut self.state().attempts, now.clone());
        if now == before {
            return;
        }
        if now.refused_at_connect {
            tracing::info!("programs are refused at connect what the policy permits no packet for");
        }
        for doubt in now.doubts.iter().filter(|doubt| !before.doubts.contains(doubt)) {
            tracing::info!("programs are not refused at connect, packets are judged all the same: {doubt}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::{EgressHook, Interface};

    #[test]
    fn only_what_judges_first_is_protected() {
        let attachment = |index, egress, ahead: &[u32]| Attachment {
            egress,
            ahead_of_egress: ahead.to_vec(),
            ..Attachment::bare(Interface { index, name: format!("if{index}") })
        };
        let attachments = [
            attachment(2, Some(EgressHook::Tcx), &[]),
            attachment(3, Some(EgressHook::Clsact), &[7]),
            attachment(4, None, &[]),
        ];
        assert_eq!(hooks(&attachments), Hooks::from([(2, Way::Protected), (3, Way::Unsure)]));
    }
}
