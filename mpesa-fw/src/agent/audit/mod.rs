//! Who spoke to whom: connections to each destination by owner, per hour, on file for 90 days.

mod book;
mod files;
mod report;
mod users;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use mpesa_fw_common::tally::TALLIES_CAPACITY;
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

pub use report::{AuditRow, EgressAudit, Span};

use super::{
    Agent, AgentError, clock,
    groups::Groups,
    kernel::{Kernel, beside},
    selection::unknown,
};
use crate::{
    datapath::{Count, Who},
    printable::Printable,
    sys,
};
use book::{Book, HOUR, Moment, Source};
use users::Users;

/// How often the counts are looked at.
const PERIOD: Duration = Duration::from_secs(10);
/// For so long the clock must not have been set before files go for their age.
const STEADY: Duration = Duration::from_secs(HOUR);
/// Counts that have not moved for so long may go with their owner.
const IDLE: Duration = Duration::from_secs(HOUR);

/// Who opened a connection, or was not let to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sender {
    /// A systemd unit: what lies in slices only, in the part of its cgroup's path that root owns.
    Unit(String),
    /// A cgroup that is below none, by its path.
    Group(String),
    /// A cgroup that had ended before anybody looked, by its id.
    Gone(u64),
    /// There is no socket on this host: the packet is forwarded, or the kernel's.
    Nobody,
    /// More owners than an hour, or an answer, has rows for.
    Others,
    /// More owners than the kernel's table has room for.
    NoRoom,
}

impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unit(unit) => Printable(unit).fmt(f),
            Self::Group(path) => Printable(path).fmt(f),
            Self::Gone(id) => write!(f, "group {id}, gone"),
            Self::Nobody => f.write_str("nobody here"),
            Self::Others => f.write_str("others"),
            Self::NoRoom => f.write_str("not told apart"),
        }
    }
}

/// The book, and what is known of cgroups and users.
#[derive(Clone)]
pub(super) struct Audit {
    inner: Arc<Mutex<Inner>>,
    users: Arc<Users>,
}

struct Inner {
    book: Book,
    groups: Groups,
    boot: String,
    /// What the wall clock said at the boot, and since when (monotonic) it says so.
    steady: (u64, u64),
    /// Why the book could not be written, if that was said.
    said: Option<String>,
}

impl Audit {
    /// Opens the book below the state directory.
    pub(super) fn open(state_dir: &std::path::Path) -> Self {
        let boot = clock::boot().unwrap_or_default();
        let (book, groups) = (Book::open(state_dir), Groups::default());
        let steady = (0, clock::since_boot());
        if let Err(error) = sys::clock_is_synchronized() {
            tracing::warn!(%error, "whether the clock is right can't be known: files of the egress audit go by their number, not by their age");
        }
        let inner = Inner { book, groups, boot, steady, said: None };
        Self { inner: Arc::new(Mutex::new(inner)), users: Arc::default() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters what was counted since the last time. Blocks, and takes the datapath: for threads that may and have it not.
    pub(super) fn collect(&self, kernel: &Kernel) {
        let mut inner = self.inner();
        let read = {
            let datapath = kernel.lock();
            datapath.tallies().and_then(|counts| Ok((counts, datapath.tallies_map()?)))
        };
        match read {
            Ok((counts, map)) => inner.take(kernel, &self.users, &counts, map),
            Err(error) => tracing::error!("who opened connections could not be read: {error}"),
        }
    }
}

impl Inner {
    fn take(&mut self, kernel: &Kernel, users: &Users, counts: &[Count], map: u32) {
        let Self { book, groups, boot, .. } = self;
        let now = Moment::now();
        let mut has_looked = false;
        let source = Source { boot: boot.clone(), map };
        book.take(now, &source, counts, &mut |id| {
            if groups.sender(id).is_none() && !has_looked {
                groups.look();
                has_looked = true;
            }
            groups.sender(id).cloned().unwrap_or(Sender::Gone(id))
        });
        self.book.name_users(now, |user| users.name(user));
        self.keep(now);
        // Not what is not on file.
        if !self.book.is_dirty && counts.len() > TALLIES_CAPACITY as usize / 2 {
            self.make_room(kernel, counts, now);
        }
    }

    fn keep(&mut self, now: Moment) {
        let written = if self.book.is_dirty { self.book.write() } else { Ok(()) };
        let is_trusted = self.trusts_the_clock(now);
        let kept = written.and_then(|()| self.book.remove_old(now, is_trusted));
        let error = kept.err().map(|error| error.to_string());
        if let Some(error) = error.as_ref().filter(|_| error != self.said) {
            tracing::error!(%error, "the egress audit could not be written: it is kept in memory until it can");
        }
        self.said = error;
    }

    /// Whether the wall clock is kept by somebody and was not set for a while: one that jumps years ahead must not remove
    /// what is not old.
    fn trusts_the_clock(&mut self, now: Moment) -> bool {
        let since_boot = clock::since_boot();
        let booted = now.unix.saturating_sub(since_boot / 1_000_000_000);
        if booted.abs_diff(self.steady.0) > 60 {
            self.steady = (booted, since_boot);
        }
        let steady = since_boot.saturating_sub(self.steady.1) >= STEADY.as_nanos() as u64;
        steady && sys::clock_is_synchronized().unwrap_or_default()
    }

    /// Removes counts of groups that are gone.
    fn make_room(&mut self, kernel: &Kernel, counts: &[Count], now: Moment) {
        self.groups.look();
        let is_idle =
            |count: &&Count| now.monotonic.saturating_sub(count.tally.last) > IDLE.as_nanos() as u64;
        let is_gone = |count: &&Count| {
            count.who.is_some_and(|Who { cgroup, .. }| cgroup != 0 && self.groups.sender(cgroup).is_none())
        };
        let gone: Vec<Count> = counts.iter().filter(is_idle).filter(is_gone).cloned().collect();
        if gone.is_empty() {
            return;
        }
        match kernel.lock().remove_tallies(&gone) {
            Ok(()) => tracing::info!(counts = gone.len(), "counts of groups that are gone were removed"),
            Err(error) => tracing::error!("counts of groups that are gone could not be removed: {error}"),
        }
    }
}

impl Agent {
    /// Keeps the audit, until the agent ends.
    pub(super) async fn keep_audit(self: Arc<Self>) {
        loop {
            sleep(PERIOD).await;
            self.collect_audit().await;
        }
    }

    /// Looks for the names of users that the audit asks for, until the agent ends.
    pub(super) async fn name_users(self: Arc<Self>) {
        self.audit.users.look_up().await;
    }

    /// Enters what was counted until now: before rows change hands, and when the agent ends.
    pub async fn collect_audit(&self) {
        let (audit, kernel) = (self.audit.clone(), self.kernel.clone());
        beside(move || audit.collect(&kernel)).await;
    }

    /// Who opened connections since then (seconds since 1970), to one destination or all; empty: to where none claims it.
    ///
    /// # Errors
    /// No destination of the policy or on file has that name, or the time is still to come: nothing found would be no news.
    pub async fn egress_audit(&self, since: u64, rule: Option<String>) -> Result<EgressAudit, AgentError> {
        let now = clock::unix();
        if since > now {
            let (since, now) = (clock::at(since), clock::at(now));
            return Err(AgentError::Question(format!("{since} is still to come: here it is {now}")));
        }
        self.collect_audit().await;
        let running = Arc::clone(&self.state().current.running);
        let audit = self.audit.clone();
        beside(move || {
            let inner = audit.inner();
            if let Some(rule) = rule.as_deref().filter(|rule| !rule.is_empty()) {
                let mut known = report::destinations(&inner.book);
                known.extend(running.policy.egress.allow.iter().map(|allowed| allowed.name.clone()));
                if !known.contains(rule) {
                    return Err(unknown("destination", rule, &known.into_iter().collect::<Vec<_>>()));
                }
            }
            Ok(report::report(&inner.book, since, now, rule.as_deref()))
        })
        .await
    }
}
