//! Who the owners of rules are: units are looked for among the cgroups, and watched for; users are looked up.

use std::{
    collections::BTreeMap,
    fs, io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::Path,
    sync::Arc,
    time::Duration,
};

use mpesa_fw_common::owner::{LEVELS, OwnerKey, OwnerRules};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde::{Deserialize, Serialize};
use tokio::{
    io::unix::AsyncFd,
    time::{sleep, timeout},
};

use super::{
    Agent, directory,
    kernel::beside,
    processes::{is_of_root, is_slice},
};
use crate::{
    datapath::{PresentOwners, cgroup_root},
    policy::model::{Owner, Policy},
};

/// Users come and go without a sign.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// At least this long between two looks: a host may start units all the time.
const PAUSE: Duration = Duration::from_millis(20);

/// The rules of each owner of a policy.
pub(super) type Owners = BTreeMap<Owner, OwnerRules>;

/// One owner, for `status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerStatus {
    /// `unit payments.service`, `user payments`.
    pub owner: String,
    /// How many cgroups or users that is now. 0: what only it may do nobody may.
    pub present: usize,
}

/// Who is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Present {
    /// The generation whose rules they are.
    pub generation: u32,
    pub rules: PresentOwners,
    pub statuses: Vec<OwnerStatus>,
    /// Why units could not be looked for.
    pub error: Option<String>,
    /// Users of whom the directory did not say who they are now.
    pub unanswered: Vec<String>,
    /// Why not all of these rules are in force.
    pub not_in_force: Option<String>,
}

impl Present {
    /// What is to be said of it. Nothing: who is there is known, and in force.
    pub(super) fn complaints(&self) -> Vec<String> {
        let unknown = self
            .error
            .iter()
            .map(|error| format!("units can't be looked for, what only units may do is denied: {error}"));
        let missing = self.not_in_force.iter().map(|error| {
            format!(
                "not all owners of rules are in force, what only the missing ones may do is denied: {error}"
            )
        });
        let unanswered = (!self.unanswered.is_empty()).then(|| {
            let users = self.unanswered.join(", ");
            format!(
                "the directory of users does not answer (getpwnam): of {users} counts what it said last; nothing, since the agent began: \
                 denied (a number instead of the name needs no directory)"
            )
        });
        unknown.chain(unanswered).chain(missing).collect()
    }
}

/// Looks for the owners of a policy. `seen` hears of every directory of the cgroups before its contents are looked at.
pub(super) fn look(owners: &Owners, seen: &mut dyn FnMut(&Path)) -> Present {
    let mut present = Present::default();
    let mut counts: BTreeMap<&Owner, usize> = owners.keys().map(|owner| (owner, 0)).collect();
    let mut add = |key: OwnerKey, owner, rules: &OwnerRules| {
        let known = present.rules.entry(key).or_default();
        for (known, more) in known.rules.iter_mut().zip(rules.rules) {
            *known = known.or(more);
        }
        *counts.entry(owner).or_default() += 1;
    };
    let users: Vec<_> = owners
        .iter()
        .filter_map(|(owner, rules)| match owner {
            Owner::User(user) => Some((owner, user.as_str(), rules)),
            Owner::Unit(_) => None,
        })
        .collect();
    for ((owner, user, rules), known) in users.iter().zip(directory::look_up(users.iter().map(|user| user.1)))
    {
        if known.is_old {
            present.unanswered.push((*user).to_owned());
        }
        known.uid.into_iter().for_each(|uid| add(OwnerKey::user(uid), owner, rules));
    }
    let units: Vec<_> = owners
        .iter()
        .filter_map(|(owner, rules)| match owner {
            Owner::Unit(unit) => Some((owner, unit.as_str(), rules)),
            Owner::User(_) => None,
        })
        .collect();
    let mut found = |name: &str, ids: &[u64]| {
        for (owner, _, rules) in units.iter().filter(|(_, unit, _)| is_unit(name, unit)) {
            ids.last().into_iter().for_each(|id| add(OwnerKey::cgroup(*id), owner, rules));
        }
    };
    let walked = match cgroup_root() {
        _ if units.is_empty() => Ok(()),
        Ok(root) => walk(&root, &mut Vec::new(), seen, &mut found).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    present.error = walked.err();
    present.statuses = counts
        .into_iter()
        .map(|(owner, present)| OwnerStatus { owner: owner.to_string(), present })
        .collect();
    present
}

/// The owners that a policy names, and how many cgroups or users each is now; and why units could not be looked for.
pub(crate) fn of_policy(policy: &Policy) -> (Vec<(Owner, usize)>, Option<String>) {
    let services = policy.ingress.services.iter().flat_map(|service| &service.by);
    let all = services.chain(policy.egress.allow.iter().flat_map(|destination| &destination.by));
    let owners: Owners = all.map(|owner| (owner.clone(), OwnerRules::default())).collect();
    let present = look(&owners, &mut |_| {});
    let counts = present.statuses.iter().map(|status| status.present);
    (owners.into_keys().zip(counts).collect(), present.error)
}

/// Every group in `directory` and in the slices of it, with its id behind those of the groups that it is in (`above`, of the directory
/// itself). systemd puts units into slices only: below a unit, or a container, groups have whatever name its root likes. And only
/// what root made and only root can change: below what is delegated to a user (`user@1000.service`), he makes groups of any name.
/// A slice that can't be read is an error when all others were.
pub(super) fn walk(
    directory: &Path,
    above: &mut Vec<u64>,
    seen: &mut dyn FnMut(&Path),
    found: &mut dyn FnMut(&str, &[u64]),
) -> io::Result<()> {
    seen(directory);
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        // Gone meanwhile.
        Err(error) if !above.is_empty() && error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut wrong = Ok(());
    for entry in entries {
        let (Ok(entry), true) = (entry, above.len() < LEVELS) else { continue };
        // A group has dozens of files, of which nothing is asked.
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let Ok(metadata) = entry.metadata() else { continue };
        if !is_of_root(&metadata) {
            continue;
        }
        above.push(metadata.ino());
        let name = entry.file_name();
        let name = name.to_str().unwrap_or_default();
        found(name, above);
        let walked = if is_slice(name) { walk(&entry.path(), above, seen, found) } else { Ok(()) };
        above.pop();
        if let Err(error) = walked
            && error.raw_os_error() != Some(libc::ENODEV)
        {
            wrong = Err(error);
        }
    }
    wrong
}

/// Whether the group of this name is the unit, or an instance of the template.
fn is_unit(name: &str, unit: &str) -> bool {
    if name == unit {
        return true;
    }
    let Some((template, kind)) = unit.split_once("@.") else { return false };
    let instance = name.strip_prefix(template).and_then(|rest| rest.strip_prefix('@'));
    instance
        .and_then(|rest| rest.strip_suffix(kind))
        .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
}

/// Hears of groups that come and go.
struct Watch {
    groups: Arc<Inotify>,
    ready: AsyncFd<OwnedFd>,
}

const CHANGES: AddWatchFlags = AddWatchFlags::IN_CREATE
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_MOVE)
    .union(AddWatchFlags::IN_ATTRIB)
    .union(AddWatchFlags::IN_ONLYDIR);

impl Watch {
    fn new() -> io::Result<Self> {
        let groups = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let ready = pollable(groups.as_fd().try_clone_to_owned()?)?;
        Ok(Self { groups: Arc::new(groups), ready })
    }

    /// Waits for anything; what it was does not matter.
    async fn changed(&self) {
        if let Ok(mut ready) = self.ready.readable().await {
            // Until there is no more, or it can't be read: whoever waits looks again after a while anyway.
            while self.groups.read_events().is_ok() {}
            ready.clear_ready();
        }
    }
}

#[expect(
    deprecated,
    reason = "its successor is unsafe, to promise what is true of a descriptor that is owned"
)]
fn pollable(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(descriptor)
}

impl Agent {
    /// Keeps the owners of the running policy up to date.
    pub(super) async fn watch_owners(self: Arc<Self>) {
        loop {
            if self.state().current.running.compiled.owners.is_empty() {
                self.wake_owners.notified().await;
                continue;
            }
            let watch = match Watch::new() {
                Ok(watch) => watch,
                Err(error) => {
                    tracing::error!(%error, "cgroups can't be watched: units are looked for every 30 s");
                    self.look_for_owners(|_| {}).await;
                    sleep(LOOK_AGAIN).await;
                    continue;
                }
            };
            self.watch_groups(&watch).await;
        }
    }

    /// Until the policy has no owners any more.
    async fn watch_groups(self: &Arc<Self>, watch: &Watch) {
        while !self.state().current.running.compiled.owners.is_empty() {
            let groups = Arc::clone(&watch.groups);
            // One that is gone meanwhile has a parent that is watched.
            self.look_for_owners(move |directory| {
                let _watched = groups.add_watch(directory, CHANGES);
            })
            .await;
            sleep(PAUSE).await;
            tokio::select! {
                _ = timeout(LOOK_AGAIN, watch.changed()) => {}
                () = self.wake_owners.notified() => {}
            }
        }
    }

    async fn look_for_owners(self: &Arc<Self>, mut seen: impl FnMut(&Path) + Send + 'static) {
        let running = Arc::clone(&self.state().current.running);
        let owners = running.compiled.owners.clone();
        let present = beside(move || look(&owners, &mut seen)).await;
        let present = Present { generation: running.stamp.number, ..present };
        if present == self.state().owners {
            return;
        }
        let (rules, number) = (present.rules.clone(), running.stamp.number);
        match self.kernel.with(move |datapath| datapath.set_owners(number, &rules)).await {
            Ok(true) => self.note_owners(present),
            // A reload has looked for its own, and wakes this task.
            Ok(false) => {}
            // Tried again at the next look: what is noted is not what will be found then.
            Err(error) => self.note_owners(Present { not_in_force: Some(error.to_string()), ..present }),
        }
    }

    /// Notes who is there, and says what has changed.
    pub(super) fn note_owners(&self, present: Present) {
        let mut state = self.state();
        for now in present.statuses.iter().filter(|now| !state.owners.statuses.contains(now)) {
            match now.present {
                0 => tracing::warn!(owner = %now.owner, "not there: what only it may do is denied"),
                count => tracing::info!(owner = %now.owner, count, "there"),
            }
        }
        let before = state.owners.complaints();
        for complaint in present.complaints().iter().filter(|complaint| !before.contains(complaint)) {
            tracing::error!("{complaint}");
        }
        state.owners = present;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_and_templates() {
        for (name, unit, is) in [
            ("payments.service", "payments.service", true),
            ("payments@ke.service", "payments@.service", true),
            ("payments@ke.service", "payments@ke.service", true),
            ("payments@.service", "payments@.service", true),
            ("payments@ke.service", "payments@tz.service", false),
            ("payments.service", "payments@.service", false),
            ("xpayments@ke.service", "payments@.service", false),
            ("payments@ke.service.d", "payments@.service", false),
            ("payments@ke.slice", "payments@.service", false),
            ("payments.service.slice", "payments.service", false),
        ] {
            assert_eq!(is_unit(name, unit), is, "{name} {unit}");
        }
    }
}
