//! Keeps the datapath as the policy says.
//!
//! [`Agent::start`] puts the first generation in force, [`Agent::reload`] the next ones; between them its
//! [tasks](Agent::tasks) watch interfaces, resolve names and keep flows. What changes hooks or tables takes the
//! `change` lock, one at a time.

pub mod archive;
pub(crate) mod ask;
mod attempts;
pub mod audit;
mod callers;
pub mod capture;
pub mod change;
pub mod clock;
mod confirm;
mod conntrack;
mod cuts;
mod destroy;
mod directory;
mod dump;
mod ended;
mod error;
pub mod events;
pub mod evidence;
mod exits;
pub mod feed;
mod flow_owners;
mod flows;
mod frame;
mod groups;
mod guard;
mod guests;
mod handshakes;
mod holder;
mod install;
pub mod interfaces;
mod judge;
mod kept;
mod kernel;
mod links;
mod listeners;
pub mod lock;
mod look;
pub mod minute;
mod names;
pub mod network;
mod notify;
mod options;
pub(crate) mod owners;
mod prepare;
mod processes;
mod program;
mod reload;
mod resolver;
mod revocation;
mod running;
mod seed;
mod selection;

mod origin;
mod snapshot;
mod sockets;
mod start;
pub mod status;
mod store;
mod tamper;
mod tasks;
mod told;
mod trace;
pub mod trial;
pub mod view;
mod watch;
pub mod watchdog;
mod ways;
pub mod why;
mod window;
mod witness;
mod would_cut;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;

pub use archive::KeptGeneration;
pub use attempts::AttemptRecord;
pub use audit::EgressAudit;
pub use callers::CallerStatus;
pub use capture::Depth;
pub use confirm::Confirmed;
pub use ended::Ended;
pub use error::{AgentError, DEFECT, Kind};
pub use events::{EventRecord, ListenerRecord, PacketRecord};
pub use feed::{Following, Told, Why};
pub use guard::SshConnection;
pub use handshakes::HandshakeStatus;
pub use interfaces::Choice;
pub use kernel::beside;
pub use listeners::{Listener, Listeners, Unanswered};
pub use look::look_around;
pub use names::NameStatus;
pub use notify::stopping;
pub use options::Options;
pub use owners::OwnerStatus;
pub use processes::Process;
pub(crate) use processes::holders;
pub use program::ProgramRecord;
pub use reload::{Asked, ReloadRequest, Reloaded};
pub use running::{Running, hex};
pub use seed::Denied;
pub use selection::{Selection, Wanted};
pub use snapshot::Snapshot;
pub use start::private_directory;
pub use status::Status;
pub use tamper::TamperRecord;
pub use trial::TrialStatus;
pub use view::{Link, View};
pub use ways::AttemptsStatus;

use archive::Archive;
use audit::Audit;
use capture::Tap;
use events::EventLog;
use feed::Terms;
use install::Before;
use kernel::Kernel;
use lock::Lock;
use minute::Minute;
use names::Names;
use network::{Network, Protection};
use resolver::Resolver;
use seed::Seeded;
use store::Store;
use trial::Trial;

/// For followers of events to read their last line.
const FAREWELL: Duration = Duration::from_secs(1);

/// The agent: one generation in force, and everything that keeps it so.
pub struct Agent {
    options: Options,
    kernel: Kernel,
    state: Mutex<State>,
    events: Mutex<EventLog>,
    tap: Arc<Tap>,
    /// Held by whatever changes hooks or tables.
    change: tokio::sync::Mutex<()>,
    resolver: Mutex<Resolver>,
    wake_names: Notify,
    wake_owners: Notify,
    /// Other interfaces are protected, or the policy is another.
    wake_ways: Notify,
    /// A hook is gone that the last look still saw.
    wake_network: Notify,
    wake_trace: Notify,
    wake_trial: Notify,
    started_at: u64,
    names_store: Store,
    reloads_store: Store,
    defaults_store: Store,
    twins: why::Twins,
    trial_store: Store,
    archive: Archive,
    audit: Audit,
    tampering_store: Store,
    _bpffs_lock: Lock,
}

/// What the agent knows. Never locked while something blocks.
struct State {
    current: Current,
    /// Who the owners of its rules are.
    owners: owners::Present,
    /// Whether programs are refused at connect.
    attempts: AttemptsStatus,
    /// What is kept of the generation in force; none where its text could not be kept.
    kept: Option<KeptGeneration>,
    /// Unless it is confirmed, the generation in force is taken back.
    trial: Option<Trial>,
    /// Counts of a minute ago.
    minute: Minute,
    /// How reloads went, by label.
    reloads: BTreeMap<String, u64>,
    protection: Protection,
    since: u64,
    pace: handshakes::Pace,
    tampering: tamper::TamperLog,
    /// What was said already.
    said: BTreeSet<String>,
    /// What the file says of [`Current::defaults`].
    saved_defaults: BTreeSet<String>,
    /// Listeners that no service claimed at the last look.
    undeclared: BTreeSet<listeners::Key>,
    /// Why metrics are not served.
    without_metrics: Option<String>,
    /// Nothing is to be attached any more: the agent ends.
    detached: bool,
}

/// What belongs to the generation in force.
struct Current {
    running: Arc<Running>,
    network: Network,
    names: Names,
    /// What the datapath was last told of `names`.
    published: BTreeMap<IpAddr, Vec<u16>>,
    seeded: Seeded,
    /// What the admin should know of the datapath and the resolvers.
    notes: Vec<String>,
    /// Every physical interface is protected because there was no default route.
    interim: bool,
    /// Names of the interfaces that held the default route last.
    defaults: BTreeSet<String>,
}

impl Current {
    /// What a look at the network may need to know.
    fn before(&self) -> Before {
        Before::new(self.defaults.clone(), &self.network.attachments)
    }
}

impl Agent {
    /// A panic while it was held has ended the agent or soon will; what is in it is as good as before.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn resolver(&self) -> MutexGuard<'_, Resolver> {
        self.resolver.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn event_log(&self) -> MutexGuard<'_, EventLog> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes why metrics are not served, or that they are; whether that is news.
    pub fn note_metrics(&self, why_not: Option<String>) -> bool {
        let mut state = self.state();
        let is_news = state.without_metrics != why_not;
        state.without_metrics = why_not;
        is_news
    }

    /// The last `count` events that are wanted, oldest first.
    ///
    /// # Errors
    /// There can be no such event.
    pub fn last_events(&self, count: usize, wanted: &Wanted) -> Result<Vec<EventRecord>, AgentError> {
        let log = self.event_log();
        Ok(log.last(count, &Selection::new(wanted, &log.rules())?))
    }

    /// The same, and a way to hear of those that come after them: none is left out between, none is told twice.
    ///
    /// # Errors
    /// There can be no such event, or there is no room for another follower.
    pub fn follow_events(
        &self,
        last: usize,
        wanted: &Wanted,
        depth: Option<Depth>,
    ) -> Result<(Vec<EventRecord>, Following), AgentError> {
        let mut log = self.event_log();
        let selection = Selection::new(wanted, &log.rules())?;
        let last = log.last(last, &selection);
        let (tap, before) = (Arc::clone(&self.tap), self.tap.suppressed());
        let terms =
            Terms { selection, depth, suppressed: Box::new(move || tap.suppressed().saturating_sub(before)) };
        let mut following = log.feed.follow(terms)?;
        if depth.is_some() {
            following.keep(self.tap.open()?);
        }
        Ok((last, following))
    }

    /// Tells followers why there is nothing more to follow, and gives them a moment to pass it on.
    pub async fn end_following(&self, why: Why) {
        let places = self.event_log().feed.end(why);
        let gone = places.acquire_many(feed::FOLLOWERS as u32);
        // One that does not read is not waited for.
        let _ = tokio::time::timeout(FAREWELL, gone).await;
        places.close();
    }

    /// Whether every interface that the policy names is protected, as the kernel says now. Blocks: for threads that may.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let Ok(attachments) = self.kernel.lock().attachments() else {
            return false;
        };
        let current = &self.state().current;
        let network = Network { attachments, ..current.network.clone() };
        match network.protection(current.running.mode()) {
            Protection::Enforcing | Protection::Observing => true,
            Protection::Incomplete => false,
        }
    }

    /// Stops judging: removes every hook, table and pin. The agent has nothing to do then and should end.
    ///
    /// # Errors
    /// The pins that are meant (`bpffs`) are not this agent's. Or the kernel refuses; what could be detached is.
    pub async fn detach(&self, bpffs: Option<&Path>) -> Result<Vec<String>, AgentError> {
        if let Some(meant) = bpffs
            && start::inode(meant) != start::inode(&self.options.bpffs)
        {
            return Err(AgentError::OtherPins { meant: meant.into(), own: self.options.bpffs.clone() });
        }
        let _one = self.change.lock().await;
        self.state().detached = true;
        self.wake_ways.notify_one();
        let removed = match self.kernel.with(|datapath| datapath.detach_all()).await {
            Ok(removed) => removed,
            Err(error) => {
                // The agent goes on, and mends what is gone.
                self.state().detached = false;
                self.wake_ways.notify_one();
                self.wake_network.notify_one();
                return Err(error.into());
            }
        };
        // Nothing is in force that could be taken back, and a watchdog must not bring it back either.
        self.state().trial = None;
        if let Err(error) = self.trial_store.remove() {
            tracing::error!(%error, "what is on file of a trial could not be removed");
        }
        tracing::warn!("detached on request: nothing is judged any more");
        Ok(removed)
    }
}
