//! The last events of one sort, where one that comes again and again is one.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use super::{events::EventRecord, told::Told};

/// Events kept.
pub(super) const KEPT: usize = 1000;
/// For so long after the first of them, more of the same program to the same place are counted with it.
const MINUTE: Duration = Duration::from_secs(60);

/// What makes an event the same as another: the process (where it is not known, the socket) with the socket's cgroup and user, where to, and
/// why not.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Kind {
    is_attempt: bool,
    program: (u32, u64, u64, u32),
    target: ([u32; 4], u16, u8),
    verdict: (u32, u8, u8, u8),
}

impl Kind {
    /// Of an event of a program; none: it is like no other.
    pub(super) fn of(told: &Told<'_>) -> Option<Self> {
        let program = told.program?;
        let process = program.maker.process;
        let socket = if process == 0 { program.cookie } else { 0 };
        let event = &told.event;
        Some(Self {
            is_attempt: told.is_attempt(),
            program: (process, socket, program.cgroup, program.uid),
            target: (event.target.words, event.target_port, event.protocol),
            verdict: (event.generation, event.rule, event.reason, event.enforced),
        })
    }
}

/// The last [`KEPT`] events.
#[derive(Default)]
pub(super) struct Kept {
    records: VecDeque<EventRecord>,
    /// How many there were before those.
    gone: u64,
    /// Of each kind, the number and the time (monotonic, nanoseconds) of the last that was kept.
    last: HashMap<Kind, (u64, u64)>,
}

impl Kept {
    /// Keeps an event, which is the first of a kind at that time.
    pub(super) fn keep(&mut self, record: EventRecord, kind: Option<(Kind, u64)>) {
        let number = self.gone + self.records.len() as u64;
        if let Some((kind, time)) = kind {
            if self.last.len() >= KEPT {
                let gone = self.gone;
                self.last.retain(|_, (number, _)| *number > gone);
            }
            self.last.insert(kind, (number, time));
        }
        if self.records.len() == KEPT {
            self.records.pop_front();
            self.gone += 1;
        }
        self.records.push_back(record);
    }

    /// Counts an event of a kind that came at that time with the one that is kept; none: it is the first.
    pub(super) fn repeat(&mut self, kind: &Kind, time: u64) -> Option<&EventRecord> {
        let (number, first) = self.last.get(kind)?;
        if time.saturating_sub(*first) >= MINUTE.as_nanos() as u64 {
            return None;
        }
        let place = usize::try_from(number.checked_sub(self.gone)?).ok()?;
        let record = self.records.get_mut(place)?;
        record.count_repeat();
        Some(record)
    }

    /// Newest first.
    pub(super) fn newest(&self) -> impl Iterator<Item = &EventRecord> {
        self.records.iter().rev()
    }
}
