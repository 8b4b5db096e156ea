//! Followers of events. Each has a queue of a fixed size and loses what does not fit in it, which is counted: one that does
//! not read costs neither memory nor time.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, mpsc, watch};

use super::{
    AgentError,
    capture::{Depth, Frame, Open},
    events::EventRecord,
    selection::Selection,
};

/// Followers at the same time.
pub const FOLLOWERS: usize = 8;
/// Events that wait for a follower.
pub const QUEUE: usize = 512;

/// An event, with what only some followers want of it.
#[derive(Debug)]
pub struct Occurrence {
    /// What happened.
    pub record: EventRecord,
    /// Of a packet, while somebody captures.
    pub frame: Option<Frame>,
    /// False: it is counted with one that was told before. Only whoever captures hears of it.
    pub is_first: bool,
}

/// What a follower wants to hear.
pub struct Terms {
    /// Which events.
    pub selection: Selection,
    /// Frames, and those packets alone that have one.
    pub depth: Option<Depth>,
    /// How many events the kernel has not sent since then.
    pub suppressed: Box<dyn Fn() -> u64 + Send>,
}

/// What a follower hears.
#[derive(Clone, Debug)]
pub enum Told {
    /// An event.
    Event(Arc<Occurrence>),
    /// So many that it wanted are lost: it did not read.
    Missed(u64),
}

/// Why there is nothing more to follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// The follower wants no more.
    Asked,
    /// The agent ends, and the datapath stays.
    AgentEnds,
    /// The datapath was detached.
    Detached,
}

/// All followers.
pub struct Feed {
    followers: Vec<Follower>,
    places: Arc<Semaphore>,
    end: watch::Sender<Option<Why>>,
}

struct Follower {
    selection: Selection,
    captures: bool,
    queue: mpsc::Sender<Told>,
    missed: Arc<AtomicU64>,
}

/// A follower's end. Whoever drops it follows no more.
pub struct Following {
    /// How much of frames it wants.
    pub depth: Option<Depth>,
    suppressed: Box<dyn Fn() -> u64 + Send>,
    tap: Option<Open>,
    queue: mpsc::Receiver<Told>,
    missed: Arc<AtomicU64>,
    end: watch::Receiver<Option<Why>>,
    _place: OwnedSemaphorePermit,
}

impl Default for Feed {
    fn default() -> Self {
        Self {
            followers: Vec::new(),
            places: Arc::new(Semaphore::new(FOLLOWERS)),
            end: watch::Sender::new(None),
        }
    }
}

impl Feed {
    /// Hears of what is wanted from now on.
    ///
    /// # Errors
    /// There are too many followers, or the agent ends.
    pub fn follow(&mut self, terms: Terms) -> Result<Following, AgentError> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|error| match error {
            TryAcquireError::NoPermits => AgentError::TooManyFollowers(FOLLOWERS),
            TryAcquireError::Closed => AgentError::Detached,
        })?;
        let (sender, queue) = mpsc::channel(QUEUE);
        let missed = Arc::new(AtomicU64::new(0));
        self.followers.retain(|follower| !follower.queue.is_closed());
        let Terms { selection, depth, suppressed } = terms;
        let captures = depth.is_some();
        self.followers.push(Follower { selection, captures, queue: sender, missed: Arc::clone(&missed) });
        let end = self.end.subscribe();
        Ok(Following { depth, suppressed, tap: None, queue, missed, end, _place: place })
    }

    /// Tells whoever wants to hear of it. Never waits.
    pub fn tell(&mut self, occurrence: Occurrence) {
        if self.followers.is_empty() {
            return;
        }
        self.followers.retain(|follower| !follower.queue.is_closed());
        let occurrence = Arc::new(occurrence);
        for follower in &self.followers {
            follower.offer(&occurrence);
        }
    }

    /// Ends them all. What is answered is whole again when the last of them has gone.
    pub fn end(&self, why: Why) -> Arc<Semaphore> {
        self.end.send_replace(Some(why));
        Arc::clone(&self.places)
    }
}

impl Follower {
    fn offer(&self, occurrence: &Arc<Occurrence>) {
        let is_whole = if self.captures { occurrence.frame.is_some() } else { occurrence.is_first };
        if !is_whole || !self.selection.takes(&occurrence.record) {
            return;
        }
        let missed = self.missed.swap(0, Ordering::Relaxed);
        // What is lost is told where it is missing.
        if missed > 0 && self.queue.try_send(Told::Missed(missed)).is_err() {
            self.missed.fetch_add(missed, Ordering::Relaxed);
        }
        if self.queue.try_send(Told::Event(Arc::clone(occurrence))).is_err() {
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Following {
    /// Frames come as long as it follows.
    pub fn keep(&mut self, tap: Open) {
        self.tap = Some(tap);
    }

    /// Events since it began to follow that the kernel did not send.
    #[must_use]
    pub fn suppressed(&self) -> u64 {
        (self.suppressed)()
    }

    /// The next; none: it is over.
    ///
    /// # Errors
    /// Why it is over. What was in the queue then was given before.
    pub async fn next(&mut self) -> Result<Told, Why> {
        if let Some(told) = self.waiting() {
            return Ok(told);
        }
        let ended = async {
            match self.end.wait_for(Option::is_some).await {
                Ok(why) => why.unwrap_or(Why::AgentEnds),
                Err(_) => Why::AgentEnds, // the agent is gone, as in a test
            }
        };
        tokio::select! {
            Some(told) = self.queue.recv() => Ok(told),
            why = ended => Err(why),
        }
    }

    /// What there is at once: of the queue, then of what did not fit.
    pub fn waiting(&mut self) -> Option<Told> {
        self.queue.try_recv().ok().or_else(|| match self.missed.swap(0, Ordering::Relaxed) {
            0 => None,
            missed => Some(Told::Missed(missed)),
        })
    }
}
