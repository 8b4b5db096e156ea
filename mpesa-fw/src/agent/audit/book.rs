//! The book of hours: what the kernel's counts grew by, in one file a day. Each file also says what was seen of the counts when it was
//! written, so that nothing is lost or told twice wherever an agent ends: a row and the count that it was made of are on file
//! together or not at all.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    Sender,
    files::{all_files, files, parse, read},
};
use crate::{
    agent::{clock, start::private_directory, store::Store},
    datapath::{Count, Who},
};

/// Of the files.
pub(super) const VERSION: u32 = 1;
/// Days for which they are kept.
pub(super) const DAYS: u64 = 90;
/// Files that are kept where the clock is nobody's to vouch for.
const MOST_FILES: usize = 120;
/// Rows of an hour; what is more is summed up, one row a destination.
pub(super) const MOST_ROWS: usize = 1000;
/// Seconds.
pub(super) const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

/// What one owner did towards one destination in an hour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Row {
    /// Empty: none claims it.
    pub destination: String,
    pub sender: Sender,
    /// None: nobody's, or not one's alone.
    pub user: Option<u32>,
    pub name: Option<String>,
    pub opened: u64,
    pub denied: u64,
    /// Seconds since 1970.
    pub first: u64,
    pub last: u64,
}

/// Rows by the second at which their hour begins. An hour without rows was looked at too.
pub(super) type Hours = BTreeMap<u64, Vec<Row>>;

/// One file.
#[derive(Debug, Serialize, Deserialize)]
struct Day {
    version: u32,
    /// Grows with every file that is written: the last one has the word on what was seen.
    sequence: u64,
    baseline: Baseline,
    hours: Hours,
}

/// The same without its rows.
#[derive(Debug, Deserialize)]
struct Head {
    sequence: u64,
    baseline: Baseline,
}

/// What was seen of the counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Baseline {
    source: Source,
    /// Seconds since 1970.
    looked: u64,
    seen: Vec<Seen>,
}

/// The table that counts are read from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Source {
    /// Of which boot.
    pub boot: String,
    /// Number of the map, which no other has before the next boot.
    pub map: u32,
}

/// One count as it was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    /// None: without its owner.
    cgroup: Option<u64>,
    uid: u32,
    row: u32,
    destination: String,
    /// When the entry was made.
    first: u64,
    opened: u64,
    denied: u64,
    /// A group may be gone the next time.
    sender: Sender,
}

type Key = (Option<Who>, u32);

/// One moment by both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// Seconds since 1970.
    pub unix: u64,
    /// Nanoseconds.
    pub monotonic: u64,
}

impl Moment {
    pub(super) fn now() -> Self {
        Self { unix: clock::unix(), monotonic: clock::monotonic() }
    }

    /// Seconds since 1970 of a stamp.
    fn wall(self, stamp: u64) -> u64 {
        self.unix.saturating_sub(self.monotonic.saturating_sub(stamp) / 1_000_000_000)
    }
}

/// The files, and the one that is written at the moment.
#[derive(Debug)]
pub(super) struct Book {
    directory: PathBuf,
    /// `2026-11-29`; none: nothing was taken yet.
    day: Option<String>,
    hours: Hours,
    source: Source,
    looked: u64,
    seen: BTreeMap<Key, Seen>,
    sequence: u64,
    /// Not all of it is on file.
    pub(super) is_dirty: bool,
}

impl Book {
    /// Opens what is below `state_dir`. What can't be read is set aside.
    pub(super) fn open(state_dir: &Path) -> Self {
        let directory = state_dir.join("egress");
        let mut last: Option<Head> = None;
        for (_, path) in files(&directory) {
            let Some(head) = read::<Head>(&path) else { continue };
            if last.as_ref().is_none_or(|last| last.sequence < head.sequence) {
                last = Some(head);
            }
        }
        let (sequence, baseline) = last.map_or_else(Default::default, |head| (head.sequence, head.baseline));
        let seen = baseline.seen.into_iter().map(|seen| {
            let who = seen.cgroup.map(|cgroup| Who { cgroup, uid: seen.uid });
            ((who, seen.row), seen)
        });
        Self {
            directory,
            day: None,
            hours: Hours::new(),
            source: baseline.source,
            looked: baseline.looked,
            seen: seen.collect(),
            sequence,
            is_dirty: false,
        }
    }

    /// Enters what the counts grew by since the last time.
    pub(super) fn take(
        &mut self,
        now: Moment,
        source: &Source,
        counts: &[Count],
        sender_of: &mut dyn FnMut(u64) -> Sender,
    ) {
        self.turn_to(now);
        if self.source != *source {
            self.source = source.clone();
            self.seen.clear();
        }
        let hour = now.unix - now.unix % HOUR;
        if let Entry::Vacant(page) = self.hours.entry(hour) {
            page.insert(Vec::new());
            self.is_dirty = true;
        }
        let mut seen = BTreeMap::new();
        for count in counts {
            let key = (count.who, count.row);
            let before = self.seen.remove(&key).filter(|before| before.is_before(count));
            let is_new = before.is_none();
            let (opened, denied) = before.as_ref().map_or((0, 0), |seen| (seen.opened, seen.denied));
            let (opened, denied) = (count.tally.opened - opened, count.tally.denied - denied);
            let known = before.map(|seen| seen.sender).filter(|sender| !matches!(sender, Sender::Gone(_)));
            let sender = match (known, count.who) {
                (Some(sender), _) => sender,
                (None, None) => Sender::NoRoom,
                (None, Some(Who { cgroup: 0, .. })) => Sender::Nobody,
                (None, Some(Who { cgroup, .. })) => sender_of(cgroup),
            };
            if opened > 0 || denied > 0 {
                let last = now.wall(count.tally.last);
                let first = match count.tally.first {
                    0 => last,
                    first if is_new => now.wall(first).min(last),
                    // Somewhen since the last look.
                    _ => self.looked.min(last),
                };
                let user = count.who.filter(|who| who.cgroup != 0).map(|who| who.uid);
                let destination = count.destination.clone();
                let row = Row {
                    destination,
                    sender: sender.clone(),
                    user,
                    name: None,
                    opened,
                    denied,
                    first,
                    last,
                };
                add(self.hours.entry(hour).or_default(), row);
                self.is_dirty = true;
            }
            seen.insert(key, Seen::new(count, sender));
        }
        self.seen = seen;
        self.looked = now.unix;
    }

    /// Names users of this hour who have no name yet.
    pub(super) fn name_users(&mut self, now: Moment, name_of: impl Fn(u32) -> Option<String>) {
        let rows = self.hours.get_mut(&(now.unix - now.unix % HOUR));
        for row in rows.into_iter().flatten().filter(|row| row.name.is_none()) {
            row.name = row.user.and_then(&name_of);
            self.is_dirty |= row.name.is_some();
        }
    }

    /// Turns to the page of today. Not before the other is on file: its rows and what was seen belong together.
    fn turn_to(&mut self, now: Moment) {
        let today = clock::at(now.unix).date().to_string();
        if self.day.as_ref() == Some(&today) || self.is_dirty && self.write().is_err() {
            return;
        }
        let path = self.directory.join(format!("{today}.json"));
        let day = if path.exists() { read::<Day>(&path) } else { None };
        self.hours = day.map(|day| day.hours).unwrap_or_default();
        self.day = Some(today);
    }

    /// Writes the day. On the disk when this returns.
    ///
    /// # Errors
    /// The state directory can't be written. All is kept for the next time.
    pub(super) fn write(&mut self) -> io::Result<()> {
        let Some(day) = &self.day else { return Ok(()) };
        private_directory(&self.directory, 0o700).map_err(io::Error::other)?;
        let file = Day {
            version: VERSION,
            sequence: self.sequence + 1,
            baseline: Baseline {
                source: self.source.clone(),
                looked: self.looked,
                seen: self.seen.values().cloned().collect(),
            },
            hours: self.hours.clone(),
        };
        Store::new(&self.directory, &format!("{day}.json")).write_durably(&file)?;
        self.sequence += 1;
        self.is_dirty = false;
        Ok(())
    }

    /// Removes what is too old: by the clock, where it can be trusted, else only what is too much.
    ///
    /// # Errors
    /// The state directory can't be written.
    pub(super) fn remove_old(&self, now: Moment, is_trusted: bool) -> io::Result<()> {
        let oldest = clock::at(now.unix.saturating_sub(DAYS * DAY)).date().to_string();
        let all = all_files(&self.directory);
        let too_many = all.len().saturating_sub(MOST_FILES);
        for (at, (day, path)) in all.iter().enumerate() {
            let is_old = if is_trusted { *day < oldest } else { at < too_many };
            if is_old && self.day.as_ref() != Some(day) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// Calls `each` for every hour that is on file or about to be. Answers the files that can't be read.
    pub(super) fn for_each(&self, mut each: impl FnMut(u64, &[Row])) -> Vec<String> {
        let mut unreadable = Vec::new();
        for (day, path) in all_files(&self.directory) {
            if self.day.as_ref() == Some(&day) && path.extension().is_some_and(|kind| kind == "json") {
                continue;
            }
            match parse::<Day>(&path) {
                Ok(file) => file.hours.iter().for_each(|(hour, rows)| each(*hour, rows)),
                Err(_) => unreadable.extend(path.file_name().map(|name| name.to_string_lossy().into_owned())),
            }
        }
        self.hours.iter().for_each(|(hour, rows)| each(*hour, rows));
        unreadable
    }
}

impl Seen {
    fn new(count: &Count, sender: Sender) -> Self {
        Self {
            cgroup: count.who.map(|who| who.cgroup),
            uid: count.who.map_or(0, |who| who.uid),
            row: count.row,
            destination: count.destination.clone(),
            first: count.tally.first,
            opened: count.tally.opened,
            denied: count.tally.denied,
            sender,
        }
    }

    /// Whether it is the same entry, earlier: not removed and made again, for another destination maybe.
    fn is_before(&self, count: &Count) -> bool {
        self.first == count.tally.first
            && self.destination == count.destination
            && self.opened <= count.tally.opened
            && self.denied <= count.tally.denied
    }
}

/// Adds to the row of the same owner and destination.
pub(super) fn add(rows: &mut Vec<Row>, mut more: Row) {
    let same = |row: &&mut Row, more: &Row| {
        row.destination == more.destination && row.sender == more.sender && row.user == more.user
    };
    if !rows.iter_mut().any(|row| same(&row, &more)) && rows.len() >= MOST_ROWS {
        more.sender = Sender::Others;
        more.user = None;
    }
    match rows.iter_mut().find(|row| same(row, &more)) {
        Some(row) => row.add(&more),
        None => rows.push(more),
    }
}

impl Row {
    pub(super) fn add(&mut self, more: &Self) {
        self.opened += more.opened;
        self.denied += more.denied;
        self.first = self.first.min(more.first);
        self.last = self.last.max(more.last);
    }
}

#[cfg(test)]
mod tests;
