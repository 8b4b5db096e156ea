//! What the book says of a period.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{
    Sender,
    book::{Book, DAYS, HOUR, Row},
};
use crate::agent::clock;

/// Rows of an answer, which has to fit into a line of the control socket; what is more is summed up.
const MOST_ROWS: usize = 1000;
/// Spans that are told.
const MOST_SPANS: usize = 100;

/// Who opened connections to which destination, or was not let to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressAudit {
    /// Begin of the first hour.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
    /// When it was asked.
    #[serde(with = "time::serde::rfc3339")]
    pub until: OffsetDateTime,
    /// By destination, then the most first.
    pub rows: Vec<AuditRow>,
    /// Hours of which there is no record: no agent ran. What was counted meanwhile stands in the hour in which the next one looked.
    pub unrecorded: Vec<Span>,
    /// How many hours that is.
    pub unrecorded_hours: u64,
    /// Files that can't be read: their connections are missing.
    pub unreadable: Vec<String>,
}

/// What one owner did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRow {
    /// Empty: none claims it.
    pub destination: String,
    /// Who.
    pub sender: Sender,
    /// The user of the sockets; none: nobody's, or of several.
    pub user: Option<u32>,
    /// His name when he was counted.
    pub user_name: Option<String>,
    /// Connections.
    pub opened: u64,
    /// Packets and attempts that would have opened one and were denied (observe mode: would have been).
    pub denied: u64,
    /// Not before this.
    #[serde(with = "time::serde::rfc3339")]
    pub first: OffsetDateTime,
    /// The last time.
    #[serde(with = "time::serde::rfc3339")]
    pub last: OffsetDateTime,
}

/// Hours one after another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// Begin of the first.
    #[serde(with = "time::serde::rfc3339")]
    pub from: OffsetDateTime,
    /// End of the last.
    #[serde(with = "time::serde::rfc3339")]
    pub until: OffsetDateTime,
}

/// By whom, towards what.
type Key = (String, Sender, Option<u32>);

/// Sums up a period.
pub(super) fn report(book: &Book, since: u64, until: u64, rule: Option<&str>) -> EgressAudit {
    let since = since - since % HOUR;
    let mut sums: BTreeMap<Key, Row> = BTreeMap::new();
    let mut recorded = BTreeSet::new();
    let unreadable = book.for_each(|hour, rows| {
        if hour < since {
            return;
        }
        recorded.insert(hour);
        for row in rows.iter().filter(|row| rule.is_none_or(|rule| row.destination == rule)) {
            sum(&mut sums, row.clone());
        }
    });
    let mut rows: Vec<Row> = sums.into_values().collect();
    if rows.len() > MOST_ROWS {
        // Whoever did least is summed up: it shows that there were such, and where.
        rows.sort_by_key(|row| std::cmp::Reverse(row.opened + row.denied));
        let mut rest = BTreeMap::new();
        for row in rows.split_off(MOST_ROWS) {
            sum(&mut rest, Row { sender: Sender::Others, user: None, name: None, ..row });
        }
        for row in rest.into_values() {
            let same =
                rows.iter_mut().find(|r| r.sender == Sender::Others && r.destination == row.destination);
            match same {
                Some(same) => same.add(&row),
                None => rows.push(row),
            }
        }
    }
    rows.sort_by(|a, b| {
        let count = |row: &Row| std::cmp::Reverse(row.opened + row.denied);
        (&a.destination, count(a), &a.sender, a.user).cmp(&(&b.destination, count(b), &b.sender, b.user))
    });
    let (unrecorded, unrecorded_hours) = gaps(&recorded, since, until);
    EgressAudit {
        since: clock::at(since),
        until: clock::at(until),
        rows: rows.into_iter().map(AuditRow::from).collect(),
        unrecorded,
        unrecorded_hours,
        unreadable,
    }
}

/// Every destination that is on file.
pub(super) fn destinations(book: &Book) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    book.for_each(|_, rows| names.extend(rows.iter().map(|row| row.destination.clone())));
    names
}

fn sum(sums: &mut BTreeMap<Key, Row>, row: Row) {
    let key = (row.destination.clone(), row.sender.clone(), row.user);
    match sums.get_mut(&key) {
        Some(sum) => {
            sum.add(&row);
            sum.name = row.name.or_else(|| sum.name.take()); // the latest
        }
        None => {
            sums.insert(key, row);
        }
    }
}

/// The hours without a record. Before those that are kept there is none.
fn gaps(recorded: &BTreeSet<u64>, since: u64, until: u64) -> (Vec<Span>, u64) {
    let begin = since.max((until - until % HOUR).saturating_sub((DAYS + 1) * 24 * HOUR));
    let mut spans: Vec<(u64, u64)> = if begin > since { vec![(since, begin)] } else { Vec::new() };
    let mut hour = begin;
    while hour <= until {
        if !recorded.contains(&hour) {
            match spans.last_mut().filter(|(_, end)| *end == hour) {
                Some((_, end)) => *end += HOUR,
                None => spans.push((hour, hour + HOUR)),
            }
        }
        hour += HOUR;
    }
    let hours = spans.iter().map(|(from, until)| (until - from) / HOUR).sum();
    let span = |(from, until)| Span { from: clock::at(from), until: clock::at(until) };
    (spans.into_iter().take(MOST_SPANS).map(span).collect(), hours)
}

impl From<Row> for AuditRow {
    fn from(row: Row) -> Self {
        let Row { destination, sender, user, name, opened, denied, first, last } = row;
        let (first, last) = (clock::at(first), clock::at(last));
        Self { destination, sender, user, user_name: name, opened, denied, first, last }
    }
}
