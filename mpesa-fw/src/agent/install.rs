//! Puts a prepared policy in force: the part that start and reload share.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use hickory_resolver::TokioResolver;
use mpesa_fw_common::{Address, Family, packet::protocol::UDP, state::FlowKey};

use super::{
    Agent, Current, clock, cuts,
    ended::EndedList,
    error::AgentError,
    flows,
    guard::SshConnection,
    guests::Whereabouts,
    interfaces::{Choice, choose},
    judge::Judge,
    kernel::Kernel,
    links::{self, Routes},
    names::Names,
    network::{Network, Protection},
    notify,
    prepare::Prepared,
    resolver::{Answer, ask},
    revocation::Revocation,
    running::Running,
    seed::{Ground, Seeded},
    view::View,
};
use crate::{
    datapath::{Attachment, ErrorKind, Interface},
    fault::{self, Point},
    policy::model::{InterfacePattern, Policy},
};

/// How long a start or a reload waits for the first answers of DNS.
const FIRST_ANSWERS: Duration = Duration::from_secs(2);

/// What is known of interfaces from before, for the time in which no default route tells which one is meant.
#[derive(Clone, Debug, Default)]
pub(super) struct Before {
    /// Names of the interfaces that held the default route last.
    pub defaults: BTreeSet<String>,
    /// What has a hook of ours.
    pub hooked: BTreeSet<Interface>,
}

impl Before {
    /// From what an agent knew, and what it attached.
    pub(super) fn new(defaults: BTreeSet<String>, attachments: &[Attachment]) -> Self {
        Self { defaults, hooked: attachments.iter().map(|a| a.interface.clone()).collect() }
    }
}

/// The network as the kernel says it, and what a policy wants of it.
#[derive(Clone)]
pub(super) struct Surroundings {
    pub view: View,
    pub choice: Choice,
}

impl Surroundings {
    /// Looks.
    ///
    /// # Errors
    /// The kernel does not answer, or the policy names an interface that can't be protected.
    pub(super) async fn look(policy: &Policy, before: &Before) -> Result<Self, AgentError> {
        let this = Self::look_leniently(policy, before).await?;
        // A glob may match what can't be protected; a name is meant.
        let named = |name: &str| {
            policy.interfaces.iter().any(|p| matches!(p, InterfacePattern::Name(n) if n == name))
        };
        match this.choice.refused.iter().find(|refused| named(&refused.name)) {
            Some(refused) => Err(AgentError::Unfit(refused.clone())),
            None => Ok(this),
        }
    }

    /// Looks, and puts up with an interface that can't be protected. Where the default route is gone for a while,
    /// the interfaces that held it last count as if they did.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub(super) async fn look_leniently(policy: &Policy, before: &Before) -> Result<Self, AgentError> {
        let routes =
            if policy.interfaces.contains(&InterfacePattern::Default) { Routes::Ask } else { Routes::Leave };
        let view = links::view(routes).await;
        let mut view = view.map_err(AgentError::netlink("list the interfaces of this host"))?;
        view.set_unfit_defaults_aside();
        if view.default_routes.is_empty() {
            let known = view.links.values().filter(|link| before.defaults.contains(&link.name));
            view.default_routes = known.map(|link| link.index).collect();
            view.remembered = !view.default_routes.is_empty();
        }
        view.hooked = before.hooked.iter().map(|interface| interface.index).collect();
        let choice = choose(&policy.interfaces, &view);
        Ok(Self { view, choice })
    }

    fn own(&self) -> BTreeSet<IpAddr> {
        self.view.addresses.iter().map(|(_, address)| *address).collect()
    }

    /// The lock-out guard.
    pub(super) fn guard(
        &self,
        prepared: &mut Prepared,
        names: &Names,
        before: &cuts::Before<'_>,
        open: &cuts::Open,
        caller: Option<SshConnection>,
    ) -> Result<(), AgentError> {
        prepared.look_for_owners();
        let judge = Judge::new(&prepared.compiled, self.own(), &names.table(&[])).with_learnt(&open.learnt);
        let mode = prepared.policy.mode;
        let future = cuts::Future { judge: &judge, mode, view: &self.view, choice: &self.choice };
        Ok(future.guard(before, open, caller)?)
    }
}

/// A generation in force.
pub(super) struct Installed {
    pub running: Running,
    pub attachments: Vec<Attachment>,
    pub detached: Vec<String>,
    pub seeded: Seeded,
    pub flows_removed: usize,
    pub ended: EndedList,
    pub notes: Vec<String>,
    pub published: BTreeMap<IpAddr, Vec<u16>>,
}

/// The names of a policy, with what is known of them. Those that are new are asked for, within bounds; those that were
/// waited for before are not waited for again.
pub(super) async fn learn_names(
    known: &Names,
    prepared: &Prepared,
    resolver: Result<TokioResolver, String>,
) -> Names {
    let mut names = known.clone();
    names.set_slots(&prepared.assignment.slots.names);
    let unknown = names.take_new();
    if unknown.is_empty() {
        return names;
    }
    let asked = ask(resolver, unknown, |answer| take(&mut names, answer));
    if tokio::time::timeout(FIRST_ANSWERS, asked).await.is_err() {
        tracing::warn!(names = ?names.unknown(), "no answer of DNS yet: egress to these names is denied until there is one");
    }
    names
}

/// Notes an answer.
pub(super) fn take(names: &mut Names, Answer { name, result }: Answer) {
    match result {
        Ok((addresses, ttl)) => names.answered(&name, addresses, ttl, clock::unix()),
        Err(error) => {
            let known = names.is_known(&name);
            if names.failed(&name, error.clone(), clock::unix()) {
                let consequence =
                    if known { "the last good answer counts" } else { "egress to it is denied until it is" };
                tracing::warn!(%name, %error, "a name of the policy was not resolved: {consequence}");
            }
        }
    }
}

/// Loads, swaps, seeds and judges flows again. Fails before the swap or not at all.
pub(super) async fn install(
    kernel: &Kernel,
    mut prepared: Prepared,
    surroundings: &Surroundings,
    before: BTreeMap<IpAddr, Vec<u16>>,
    names: &Names,
) -> Result<Installed, AgentError> {
    let own = surroundings.own();
    let impossible = surroundings.view.impossible_sources();
    let interfaces: Vec<Interface> = surroundings.choice.protect.values().cloned().collect();
    let view = surroundings.view.clone();
    let table = names.table(&[]);
    let new_names = names.clone();
    let unknown_names = names.unknown().len();
    kernel
        .with(move |datapath| {
            // Also what an earlier agent left: a connection that lives keeps the name that it was allowed by.
            flows::keep_names(datapath)?;
            let contested = prepared.contested_name_slots(datapath.registry_rows());
            // Not a reason for a host to be without its policy, or to keep one that nobody confirmed.
            let without_addresses = match datapath.set_own_addresses(&impossible) {
                Err(error) if error.kind() == ErrorKind::Full => Some(error.to_string()),
                Err(error) => return Err(error.into()),
                Ok(()) => None,
            };
            datapath.set_resolved(&union(&before, &new_names.table(&contested), &contested))?;
            fault::point(Point::StatePrepared).map_err(crate::datapath::DatapathError::from)?;
            let mut staged = datapath.stage(&prepared.compiled, prepared.policy.serial)?;
            let stamp = staged.stamp();
            prepared.look_for_owners();
            staged.set_owners(&prepared.compiled.present)?;
            let rows = prepared.assignment.registry.to_rows();
            let mode = prepared.policy.mode;
            let judge =
                Judge::new(&prepared.compiled, own.iter().copied(), &table).with_learnt(&datapath.learnt()?);
            let own_set = own.iter().copied().collect();
            let protected = interfaces.iter().map(|interface| interface.index).collect();
            let mut seeded = Ok(Seeded::default());
            let fresh = &prepared.assignment.fresh;
            let committed = datapath.commit(staged, &rows, fresh, &interfaces, &mut |datapath| {
                // Egress is the new generation's already: names first, or they are denied for a moment.
                if let Err(error) = datapath.set_resolved(&table) {
                    tracing::warn!("{error}");
                }
                let ground =
                    Ground { datapath, judge: &judge, mode, generation: stamp.number, own: &own_set };
                seeded = ground.seed(Whereabouts { view: &view, protected: &protected, own: &own_set });
            });
            let report = match committed {
                Ok(report) => report,
                Err(error) => {
                    if let Err(also) = datapath.set_resolved(&before) {
                        tracing::error!(error = %also, "answers of DNS could not be put back");
                    }
                    return Err(error.into());
                }
            };
            // The new generation judges. What fails from here on is said, not undone.
            let mut notes = report.notes;
            notes.extend(without_addresses);
            let seeded = seeded.unwrap_or_else(|error| {
                notes.push(format!("connections that were open may lose their replies: {error}"));
                Seeded::default()
            });
            match datapath.set_resolved(&table) {
                Ok(0) => {}
                Ok(left_out) => notes.push(format!("{left_out} answers of DNS do not fit their table")),
                Err(error) => notes.push(error.to_string()),
            }
            let flows_removed = flows::judge_again(datapath, &judge, mode).unwrap_or_else(|error| {
                notes.push(format!("flows were not all judged again: {error}"));
                0
            });
            fault::passed(Point::FlowsJudged);
            let revocation = Revocation {
                judge: &judge,
                mode,
                view: &view,
                protected: &protected,
                names_are_known: unknown_names == 0,
            };
            let (ended, note) = revocation.carry_out(datapath).unwrap_or_else(|error| {
                (
                    EndedList::default(),
                    Some(format!("connections that are not permitted stay open, without packets: {error}")),
                )
            });
            notes.extend(note);
            fault::passed(Point::SocketsEnded);
            drop(judge);
            let running = Running::new(prepared, report.stamp);
            let (attachments, detached) = (report.attachments, report.detached);
            Ok(Installed {
                running,
                attachments,
                detached,
                seeded,
                flows_removed,
                ended,
                notes,
                published: table,
            })
        })
        .await
}

/// What both generations may see while one replaces the other.
fn union(
    old: &BTreeMap<IpAddr, Vec<u16>>,
    new: &BTreeMap<IpAddr, Vec<u16>>,
    without: &[u16],
) -> BTreeMap<IpAddr, Vec<u16>> {
    let mut union = old.clone();
    for (address, slots) in new {
        let known = union.entry(*address).or_default();
        known.extend(slots.iter().filter(|slot| !known.contains(slot)).copied().collect::<Vec<_>>());
    }
    union.retain(|_, slots| {
        slots.retain(|slot| !without.contains(slot));
        !slots.is_empty()
    });
    union
}

/// What to say where the agent's own questions to `servers` would be dropped.
pub(super) fn resolver_notes(
    installed: &Installed,
    servers: &[std::net::SocketAddr],
    own: &[IpAddr],
) -> Vec<String> {
    if installed.running.slots.names.is_empty() {
        return Vec::new();
    }
    let judge = Judge::new(&installed.running.compiled, [], &installed.published);
    let mut notes: Vec<String> = servers
        .iter()
        .filter(|server| !server.ip().is_loopback() && !own.contains(&server.ip()))
        .filter_map(|server| {
            let (family, local) = match server.ip() {
                IpAddr::V4(_) => (Family::V4, Address::v4(0)),
                IpAddr::V6(_) => (Family::V6, Address::UNSPECIFIED),
            };
            let key = FlowKey::new(family, UDP, local, 0, server.ip().into(), server.port());
            let reason = judge.flow(&key).err()?;
            Some(format!(
                "names can't be resolved: no destination permits the resolver {} udp port {} ({}): add one to `egress.allow`",
                server.ip(),
                server.port(),
                reason.label()
            ))
        })
        .collect();
    notes.dedup();
    notes
}

impl Installed {
    /// Takes note of a generation that came into force, and says what it means.
    pub(super) fn settle(self, surroundings: Surroundings, names: Names, notes: Vec<String>) -> Current {
        let Self { running, attachments, detached, seeded, flows_removed: _, ended, notes: said, published } =
            self;
        seeded.log(running.mode());
        ended.log();
        for warning in &running.warnings {
            tracing::warn!("{warning}");
        }
        let let_go = detached
            .into_iter()
            .map(|interface| format!("{interface} is no longer protected: the policy does not name it"));
        let notes: Vec<String> = let_go.chain(said).chain(notes).collect();
        for note in &notes {
            tracing::warn!("{note}");
        }
        let Surroundings { view, choice } = surroundings;
        let interim = running.follows_default() && view.default_routes.is_empty();
        let defaults = view.default_names();
        let network = Network { view, choice, attachments, failed: BTreeMap::new() };
        Current { running: Arc::new(running), network, names, published, seeded, notes, interim, defaults }
    }
}

impl Agent {
    /// Says whether the policy is in force, when that changes (or when another generation runs).
    pub(super) fn tell_protection(&self, tell: Tell) {
        if tell == Tell::Anew {
            self.wake_trace.notify_one();
        }
        let mut state = self.state();
        let running = Arc::clone(&state.current.running);
        let now = state.current.network.protection(running.mode());
        let changed = now != state.protection;
        if changed {
            state.protection = now;
            state.since = clock::unix();
        }
        if !changed && tell == Tell::Changes {
            return;
        }
        let Network { choice, failed, .. } = state.current.network.clone();
        let interfaces = state.current.network.summary();
        drop(state);
        let generation = running.stamp.number;
        match now {
            Protection::Enforcing => tracing::info!(%interfaces, generation, "enforcing"),
            Protection::Observing => tracing::info!(%interfaces, generation, "observing"),
            Protection::Incomplete => tracing::warn!(
                %interfaces, generation, waiting_for = ?choice.missing, refused = ?choice.refused, ?failed,
                "incomplete: not every interface of the policy is protected"
            ),
        }
        notify::status(&format!("{}, generation {generation}: {interfaces}", now.label()));
    }
}

/// When to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tell {
    /// Only if something is different.
    Changes,
    /// In any case.
    Anew,
}
