//! Names of users. They are looked up by a task of their own: a directory server may take a minute, or be what the policy on trial has
//! cut off, and neither the book nor the return from that trial waits for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use nix::unistd::{Uid, User};
use tokio::sync::Notify;

use crate::agent::kernel::beside;

/// For so long a name is taken to be right.
const FRESH: Duration = Duration::from_secs(600);
/// Users that are remembered at most.
const MOST: usize = 4096;

/// What is known by now.
#[derive(Debug, Default)]
pub(super) struct Users {
    known: Mutex<Known>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Known {
    /// None: nobody by that number has a name.
    names: BTreeMap<u32, (Option<String>, Instant)>,
    wanted: BTreeSet<u32>,
}

impl Users {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The name of a user, if it is known. Else, or where it may have changed, it is known later.
    pub(super) fn name(&self, user: u32) -> Option<String> {
        let mut known = self.known();
        let (name, is_fresh) = match known.names.get(&user) {
            Some((name, at)) => (name.clone(), at.elapsed() < FRESH),
            None => (None, false),
        };
        if !is_fresh && known.wanted.len() < MOST {
            known.wanted.insert(user);
            self.wake.notify_one();
        }
        name
    }

    /// Looks up what was asked for, one after the other, until the agent ends.
    pub(super) async fn look_up(&self) {
        self.look_up_by(name_of).await;
    }

    async fn look_up_by(&self, name_of: fn(u32) -> Option<String>) {
        loop {
            let next = self.known().wanted.first().copied();
            let Some(user) = next else {
                self.wake.notified().await;
                continue;
            };
            let name = beside(move || name_of(user)).await;
            let mut known = self.known();
            known.wanted.remove(&user);
            if known.names.len() >= MOST {
                known.names.clear();
            }
            known.names.insert(user, (name, Instant::now()));
        }
    }
}

fn name_of(user: u32) -> Option<String> {
    User::from_uid(Uid::from_raw(user)).ok().flatten().map(|user| user.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn nobody_waits_for_a_name() {
        let users = Users::default();
        let slow = |user: u32| {
            std::thread::sleep(Duration::from_millis(50));
            (user == 7).then(|| "payments".to_owned())
        };
        assert_eq!((users.name(7), users.name(8)), (None, None), "not yet");
        let known = async {
            while users.name(7).is_none() || users.known().names.len() < 2 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = users.look_up_by(slow) => panic!("it goes on"),
            () = known => {}
        }
        assert_eq!((users.name(7), users.name(8)), (Some("payments".into()), None));
        assert!(users.known().wanted.is_empty(), "one that has no name is not asked for again at once");
    }
}
