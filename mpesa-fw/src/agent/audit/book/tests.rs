use mpesa_fw_common::tally::Tally;

use super::*;
use crate::agent::audit::report::report;

const SECOND: u64 = 1_000_000_000;
/// 2026-11-29T10:00:00Z.
const TEN: u64 = 1_795_946_400;

struct Lab {
    state: tempfile::TempDir,
    book: Book,
    source: Source,
    counts: BTreeMap<(u64, u32, u32), Count>,
}

impl Lab {
    fn new() -> Self {
        let state = tempfile::tempdir().unwrap();
        let book = Book::open(state.path());
        let source = Source { boot: "one".into(), map: 7 };
        Self { state, book, source, counts: BTreeMap::new() }
    }

    /// The programs count.
    fn connects(&mut self, cgroup: u64, uid: u32, row: u32, at: u64) {
        let count = self.counts.entry((cgroup, uid, row)).or_insert_with(|| Count {
            who: Some(Who { cgroup, uid }),
            row,
            destination: format!("rule-{row}"),
            tally: Tally { first: at * SECOND, ..Tally::default() },
        });
        count.tally.opened += 1;
        count.tally.last = at * SECOND;
    }

    /// The agent looks, `seconds` after ten and after the boot.
    fn looks(&mut self, seconds: u64) {
        self.looks_by(TEN + seconds, seconds);
    }

    fn looks_by(&mut self, unix: u64, monotonic: u64) {
        let counts: Vec<Count> = self.counts.values().cloned().collect();
        let now = Moment { unix, monotonic: monotonic * SECOND };
        self.book.take(now, &self.source, &counts, &mut |id| Sender::Unit(format!("{id}.service")));
    }

    fn writes(&mut self) {
        self.book.write().unwrap();
    }

    /// The agent dies, and another one starts.
    fn dies(&mut self) {
        self.book = Book::open(self.state.path());
    }

    /// Connections on file or about to be.
    fn total(&self) -> u64 {
        let mut total = 0;
        assert_eq!(self.book.for_each(|_, rows| total += opened(rows)), Vec::<String>::new());
        total
    }

    fn names(&self) -> Vec<String> {
        let names = all_files(&self.state.path().join("egress")).into_iter();
        names.map(|(_, path)| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
    }
}

fn opened(rows: &[Row]) -> u64 {
    rows.iter().map(|row| row.opened).sum()
}

#[test]
fn what_grew_since_the_last_look_counts() {
    let mut lab = Lab::new();
    for look in 1..=5 {
        lab.connects(100, 0, 2, look * 10 - 5);
        lab.connects(100, 0, 3, look * 10 - 5);
        lab.looks(look * 10);
        lab.looks(look * 10);
    }
    assert_eq!(lab.total(), 10);
    let rows = &lab.book.hours[&TEN];
    assert_eq!(rows.len(), 2, "one a destination");
    assert_eq!((rows[0].opened, rows[0].first, rows[0].last), (5, TEN + 5, TEN + 45));
    assert_eq!(rows[0].sender, Sender::Unit("100.service".into()));
    lab.connects(100, 0, 2, 3700);
    lab.looks(3700);
    assert_eq!(lab.book.hours[&(TEN + 3600)][0].opened, 1, "another hour");
    assert_eq!(lab.book.hours[&(TEN + 3600)][0].first, TEN + 50, "somewhen since the last look");
}

#[test]
fn wherever_an_agent_dies_nothing_is_lost_or_told_twice() {
    let mut lab = Lab::new();
    let mut expected = 0;
    for step in 1..40 {
        lab.connects(100 + step % 3, 0, 2, step * 10);
        expected += 1;
        lab.looks(step * 10);
        if step % 2 == 0 {
            lab.writes();
        }
        if step % 3 == 0 {
            lab.dies(); // at times before it has written
            lab.connects(100, 0, 2, step * 10 + 1);
            expected += 1;
        }
        if step % 5 == 0 {
            lab.dies();
        }
    }
    lab.looks(500);
    assert_eq!(lab.total(), expected);
    lab.writes();
    lab.dies();
    lab.looks(510);
    assert_eq!(lab.total(), expected);
}

#[test]
fn a_write_that_fails_is_made_up_for() {
    let mut lab = Lab::new();
    lab.connects(100, 0, 2, 1);
    lab.looks(1);
    fs::write(lab.state.path().join("egress"), "in the way").unwrap();
    lab.book.write().unwrap_err();
    // Also over midnight: the page is not turned before it is on file.
    lab.connects(100, 0, 2, 14 * 3600);
    lab.looks(15 * 3600);
    assert!(lab.book.is_dirty);
    fs::remove_file(lab.state.path().join("egress")).unwrap();
    lab.connects(100, 0, 2, 15 * 3600);
    lab.looks(15 * 3600 + 10);
    lab.writes();
    assert_eq!(lab.total(), 3);
    assert_eq!(lab.names(), ["2026-11-29.json", "2026-11-30.json"]);
    lab.dies();
    lab.looks(15 * 3600 + 20);
    assert_eq!(lab.total(), 3);
}

#[test]
fn midnight_turns_the_page() {
    let mut lab = Lab::new();
    for hours in 0..72 {
        lab.connects(100, 0, 2, hours * 3600);
        lab.looks(hours * 3600 + 1);
        lab.writes();
    }
    assert_eq!(lab.names().len(), 4, "14 hours, two days and 10 hours: {:?}", lab.names());
    lab.dies();
    lab.looks(72 * 3600);
    assert_eq!(lab.total(), 72);
}

#[test]
fn a_boot_and_a_map_made_anew_begin_at_nothing() {
    let mut lab = Lab::new();
    for _ in 0..5 {
        lab.connects(100, 0, 2, 1);
    }
    lab.looks(10);
    lab.writes();
    for source in [Source { boot: "two".into(), map: 7 }, Source { boot: "two".into(), map: 8 }] {
        lab.dies();
        lab.source = source;
        lab.counts.clear();
        for _ in 0..6 {
            lab.connects(100, 0, 2, 1); // more than before, and at the same stamp
        }
        lab.looks(20);
        lab.writes();
    }
    assert_eq!(lab.total(), 17);
}

#[test]
fn an_entry_that_was_removed_and_made_again_is_another() {
    let mut lab = Lab::new();
    lab.connects(100, 0, 2, 1);
    lab.looks(10);
    // Its row went to another rule, between two looks, and it has as many already.
    lab.counts.clear();
    lab.connects(100, 0, 2, 11);
    lab.connects(100, 0, 2, 12);
    lab.counts.values_mut().for_each(|count| count.destination = "renamed".into());
    lab.looks(20);
    assert_eq!(lab.total(), 3);
    let rows = &lab.book.hours[&TEN];
    assert_eq!(rows.iter().map(|row| row.destination.as_str()).collect::<Vec<_>>(), ["rule-2", "renamed"]);
}

#[test]
fn a_clock_that_jumps_loses_nothing() {
    let mut lab = Lab::new();
    let days = |count: u64| count * 86_400;
    for (at, unix) in
        [(10, TEN), (20, TEN - days(3)), (30, TEN + days(4000)), (40, TEN + 40), (50, 0), (60, TEN + 60)]
    {
        lab.connects(100, 0, 2, at);
        lab.looks_by(unix, at);
        lab.writes();
        lab.book.remove_old(Moment { unix, monotonic: at * SECOND }, false).unwrap();
    }
    assert_eq!(lab.total(), 6);
    lab.dies();
    lab.looks_by(TEN + 70, 70);
    assert_eq!(lab.total(), 6, "the last that was written counts, not that of the latest day");
}

#[test]
fn files_go_after_ninety_days() {
    let mut lab = Lab::new();
    for day in 0..100 {
        lab.connects(100, 0, 2, day * 86_400);
        lab.looks(day * 86_400);
        lab.writes();
    }
    let now = Moment { unix: TEN + 99 * 86_400, monotonic: 0 };
    lab.book.remove_old(now, false).unwrap();
    assert_eq!(lab.names().len(), 100, "nobody vouches for the clock");
    lab.book.remove_old(now, true).unwrap();
    assert_eq!((lab.names().len(), lab.total()), (91, 91), "90 days and today");
    for day in 100..200 {
        lab.looks(day * 86_400);
        lab.writes();
    }
    lab.book.remove_old(now, false).unwrap();
    assert_eq!(lab.names().len(), MOST_FILES, "nor are there more than so many");
}

#[test]
fn an_hour_has_so_many_rows() {
    let mut lab = Lab::new();
    for uid in 0..3000 {
        lab.connects(100, uid + 100_000, uid % 2, 1);
    }
    lab.looks(10);
    let rows = &lab.book.hours[&TEN];
    assert_eq!(rows.len(), MOST_ROWS + 2);
    let others: Vec<_> = rows.iter().filter(|row| row.sender == Sender::Others).collect();
    assert_eq!(others.iter().map(|row| row.opened).collect::<Vec<_>>(), [1000, 1000], "one a destination");
    assert_eq!(lab.total(), 3000);
    let audit = report(&lab.book, TEN, TEN + 10, Some("rule-1"));
    assert_eq!(audit.rows.iter().map(|row| row.opened).sum::<u64>(), 1500);
}

#[test]
fn what_is_half_is_set_aside_and_counted_anew() {
    let mut lab = Lab::new();
    lab.connects(100, 0, 2, 1);
    lab.looks(1);
    lab.writes();
    lab.connects(100, 0, 2, 15 * 3600);
    lab.looks(15 * 3600);
    lab.writes();
    let path = lab.state.path().join("egress/2026-11-30.json");
    let text = fs::read(&path).unwrap();
    fs::write(&path, &text[..text.len() / 2]).unwrap();
    lab.dies();
    lab.looks(15 * 3600 + 10);
    lab.writes();
    let mut total = 0;
    let unreadable = lab.book.for_each(|_, rows| total += opened(rows));
    assert_eq!(total, 2, "the word of the day before is taken");
    assert_eq!(unreadable.len(), 1, "{unreadable:?}");
    assert!(unreadable[0].ends_with(".unreadable"), "{unreadable:?}");
}

#[test]
fn hours_without_a_record_are_named() {
    let mut lab = Lab::new();
    lab.looks(0);
    lab.looks(3 * 3600);
    lab.writes();
    let audit = report(&lab.book, TEN - 3600 + 5, TEN + 4 * 3600 + 5, None);
    assert_eq!(audit.unrecorded_hours, 4, "nine, eleven, twelve, and the one that has begun");
    let spans: Vec<_> = audit
        .unrecorded
        .iter()
        .map(|span| (span.from.unix_timestamp() as u64, span.until.unix_timestamp() as u64))
        .collect();
    let hour = |n: u64| TEN + n * 3600;
    assert_eq!(spans, [(TEN - 3600, TEN), (hour(1), hour(3)), (hour(4), hour(5))]);
    let long = report(&lab.book, 0, TEN, None);
    assert_eq!(long.unrecorded_hours, TEN / 3600);
    assert_eq!(long.unrecorded[0].from.unix_timestamp(), 0);
}

#[test]
fn an_answer_has_so_many_rows() {
    let mut lab = Lab::new();
    for hour in 0..3 {
        for uid in 0..900 {
            lab.connects(hour * 1000 + u64::from(uid), uid + 100_000, 1, hour * 3600);
        }
        lab.looks(hour * 3600 + 1);
    }
    let audit = report(&lab.book, TEN, TEN + 3 * 3600, None);
    assert_eq!(audit.rows.len(), 1001);
    assert_eq!(audit.rows.iter().map(|row| row.opened).sum::<u64>(), 2700);
}
