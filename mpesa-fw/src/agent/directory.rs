//! Numbers of users by their names (NSS). A directory server may not answer for minutes, or be what the policy on trial has
//! cut off: nobody waits for it for long, and what it said last counts until it says something else.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Condvar, LazyLock, Mutex, PoisonError},
    thread,
    time::Duration,
};

use nix::{errno::Errno, unistd::User};

/// What an answer may take before the last one counts.
const PATIENCE: Duration = Duration::from_secs(2);

static DIRECTORY: LazyLock<Arc<Directory>> = LazyLock::new(|| Directory::new(ask));

/// The number of a user now, or as it was known last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// `None`: nobody has that name.
    pub uid: Option<u32>,
    /// The directory did not answer: this is its last answer, if there was one.
    pub is_old: bool,
}

/// Looks names up, all at once. One that is a number stands for itself.
pub(super) fn look_up<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<Known> {
    let names: Vec<&str> = names.into_iter().collect();
    let ask: Vec<&str> = names.iter().copied().filter(|name| name.parse::<u32>().is_err()).collect();
    let known = DIRECTORY.look_up(&ask, PATIENCE);
    let number = |name: &str| Some(Known { uid: Some(name.parse().ok()?), is_old: false });
    names.iter().map(|name| number(name).or_else(|| known.get(*name).copied()).unwrap_or_default()).collect()
}

/// The number of one user; a name that is no user's is nobody.
pub(super) fn uid_of(name: &str) -> Option<u32> {
    look_up([name]).first().and_then(|known| known.uid)
}

fn ask(name: &str) -> io::Result<Option<u32>> {
    match User::from_name(name) {
        // What getpwnam_r(3) may say of a name that is nobody's, too.
        Err(Errno::ENOENT | Errno::ESRCH) => Ok(None),
        user => Ok(user?.map(|user| user.uid.as_raw())),
    }
}

/// What it answers, and what it is asked.
struct Directory {
    ask: fn(&str) -> io::Result<Option<u32>>,
    entries: Mutex<BTreeMap<String, Entry>>,
    answered: Condvar,
}

#[derive(Debug, Default)]
struct Entry {
    known: Known,
    /// A thread waits for the answer.
    is_asked: bool,
    /// Somebody has waited for it in vain.
    is_late: bool,
}

impl Directory {
    fn new(ask: fn(&str) -> io::Result<Option<u32>>) -> Arc<Self> {
        Arc::new(Self { ask, entries: Mutex::default(), answered: Condvar::new() })
    }

    /// Waits as long as `patience`, but only once for an answer that is late.
    fn look_up(self: &Arc<Self>, names: &[&str], patience: Duration) -> BTreeMap<String, Known> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        for name in names {
            let entry = entries.entry((*name).to_owned()).or_default();
            if !entry.is_asked {
                entry.is_asked = self.begin(name);
                entry.known.is_old |= !entry.is_asked;
            }
        }
        let is_awaited = |entries: &mut BTreeMap<String, Entry>| {
            names.iter().any(|name| entries.get(*name).is_some_and(|entry| entry.is_asked && !entry.is_late))
        };
        let waited = self.answered.wait_timeout_while(entries, patience, is_awaited);
        let (mut entries, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let known = names.iter().filter_map(|name| {
            let entry = entries.get_mut(*name)?;
            entry.is_late = entry.is_asked;
            entry.known.is_old |= entry.is_late;
            Some(((*name).to_owned(), entry.known))
        });
        known.collect()
    }

    /// Asks on a thread of its own. Whether there is one.
    fn begin(self: &Arc<Self>, name: &str) -> bool {
        let (this, name) = (Arc::clone(self), name.to_owned());
        let asking = move || {
            let answer = (this.ask)(&name);
            let mut entries = this.entries.lock().unwrap_or_else(PoisonError::into_inner);
            let entry = entries.entry(name).or_default();
            (entry.is_asked, entry.is_late) = (false, false);
            match answer {
                Ok(uid) => entry.known = Known { uid, is_old: false },
                Err(_) => entry.known.is_old = true,
            }
            this.answered.notify_all();
        };
        thread::Builder::new().name("directory".into()).spawn(asking).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(20);

    fn of(directory: &Arc<Directory>, patience: Duration) -> (Option<u32>, bool) {
        let known = directory.look_up(&["payments"], patience)["payments"];
        (known.uid, known.is_old)
    }

    #[test]
    fn what_was_known_last_counts_while_the_directory_fails() {
        static STATE: AtomicU32 = AtomicU32::new(0);
        let directory = Directory::new(|_| match STATE.load(Ordering::SeqCst) {
            0 => Ok(Some(7)),
            1 => Err(io::ErrorKind::ConnectionRefused.into()),
            _ => Ok(None),
        });
        assert_eq!(of(&directory, LONG), (Some(7), false));
        STATE.store(1, Ordering::SeqCst);
        assert_eq!(of(&directory, LONG), (Some(7), true));
        STATE.store(2, Ordering::SeqCst);
        assert_eq!(of(&directory, LONG), (None, false), "gone");
    }

    #[test]
    fn nobody_waits_for_a_directory_that_hangs() {
        static ANSWERS: Mutex<()> = Mutex::new(());
        static ASKED: AtomicU32 = AtomicU32::new(0);
        let directory = Directory::new(|_| {
            ASKED.fetch_add(1, Ordering::SeqCst);
            drop(ANSWERS.lock().unwrap());
            Ok(Some(7))
        });
        let hangs = ANSWERS.lock().unwrap();
        assert_eq!(of(&directory, SHORT), (None, true));
        // Would take a minute for each.
        (0..100).for_each(|_| assert_eq!(of(&directory, LONG), (None, true)));
        assert_eq!(ASKED.load(Ordering::SeqCst), 1, "one thread");
        drop(hangs);
        while of(&directory, LONG) != (Some(7), false) {
            thread::yield_now();
        }
        let _hangs = ANSWERS.lock().unwrap();
        assert_eq!(of(&directory, SHORT), (Some(7), true));
    }

    #[test]
    fn numbers_and_names_of_this_host() {
        let known = look_up(["root", "4711", "no-such-user-here"]).into_iter().map(|known| known.uid);
        assert_eq!(known.collect::<Vec<_>>(), [Some(0), Some(4711), None]);
    }
}
