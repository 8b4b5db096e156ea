//! Interfaces come, go and change: each that the policy names is protected, whenever it appears.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::{sleep, timeout};

use super::{
    Agent, Running,
    error::AgentError,
    guests::Whereabouts,
    install::{Surroundings, Tell, install},
    judge::Judge,
    kernel::beside,
    links::{Change, Changes},
    network::Network,
    prepare::Prepared,
    seed::{Denied, Ground},
    status::ahead_notes,
    view::View,
};
use crate::datapath::{Attachment, Datapath, Interface};

/// Belt and braces: everything is looked at again this often.
const RESYNC: Duration = Duration::from_secs(30);
/// Changes come in crowds: wait for the rest of them.
const SETTLE: Duration = Duration::from_millis(50);
/// Pause before another socket is opened.
const REOPEN: Duration = Duration::from_secs(1);

impl Agent {
    /// Watches until the agent ends.
    pub(super) async fn watch_network(self: Arc<Self>) {
        loop {
            match Changes::subscribe() {
                Ok(changes) => self.follow(changes).await,
                Err(error) => {
                    tracing::error!(%error, "changes of interfaces can't be watched: they are looked at every second");
                }
            }
            self.resync().await;
            sleep(REOPEN).await;
        }
    }

    async fn follow(&self, mut changes: Changes) {
        self.resync().await; // what changed before the subscription
        loop {
            tokio::select! {
                change = changes.next() => match change {
                    Change::Any => {}
                    Change::Overrun => tracing::warn!("too many changes of interfaces at once: all are read again"),
                    Change::Closed => return,
                },
                () = sleep(RESYNC) => {}
                () = self.wake_network.notified() => {}
            }
            sleep(SETTLE).await;
            // What came meanwhile, and no more: somebody on the link can make changes without end (router advertisements).
            let until = Instant::now() + SETTLE;
            while Instant::now() < until
                && let Ok(change) = timeout(Duration::ZERO, changes.next()).await
            {
                if change == Change::Closed {
                    return;
                }
            }
            self.resync().await;
        }
    }

    /// Compares what is with what should be, and mends it.
    pub(super) async fn resync(&self) {
        let _one = self.change.lock().await;
        if let Err(error) = self.resync_now().await {
            tracing::error!("interfaces could not be looked at: {error}");
        }
        self.wake_ways.notify_one();
        self.save_defaults().await;
    }

    /// The next agent may start while the default route is away.
    async fn save_defaults(&self) {
        let defaults = {
            let mut state = self.state();
            let defaults = state.current.defaults.clone();
            if state.saved_defaults == defaults {
                return;
            }
            state.saved_defaults.clone_from(&defaults);
            defaults
        };
        let store = self.defaults_store.clone();
        if let Err(error) = beside(move || store.write(&defaults)).await {
            tracing::warn!(%error, "which interface holds the default route was not saved");
        }
    }

    async fn resync_now(&self) -> Result<(), AgentError> {
        if self.state().detached {
            return Ok(());
        }
        // Before anything is changed here: what was done by others meanwhile would not be seen any more.
        self.look().await;
        let running = self.state().current.running.clone();
        let (interim, before) = {
            let current = &self.state().current;
            (current.interim, current.before())
        };
        let surroundings = Surroundings::look_leniently(&running.policy, &before).await?;
        let remembered = surroundings.view.remembered;
        let has_default = !surroundings.view.default_routes.is_empty() && !remembered;
        if interim && has_default {
            return self.narrow(&running, surroundings).await;
        }
        let Surroundings { view, choice } = surroundings;
        let wanted: Vec<Interface> = choice.protect.values().cloned().collect();
        let (attachments, failed) = self.mend(&running, &view, wanted).await?;
        let network = Network { view, choice, attachments, failed };
        self.say_differences(&network);
        {
            let mut state = self.state();
            if has_default {
                state.current.defaults = network.view.default_names();
            }
            // Those that held the route last are protected, so that it may be away for a moment; where more are, they stay
            // until it is back.
            state.current.interim = running.follows_default() && !has_default && (interim || !remembered);
            state.current.network = network;
        }
        self.tell_protection(Tell::Changes);
        self.note_hooks().await;
        Ok(())
    }

    /// Releases what is gone, protects what is new. Nothing that is protected is let go here: a default route that
    /// moves takes protection to another interface and leaves it on the old one until the next reload.
    async fn mend(
        &self,
        running: &Arc<Running>,
        view: &View,
        wanted: Vec<Interface>,
    ) -> Result<(Vec<Attachment>, BTreeMap<String, String>), AgentError> {
        let running = Arc::clone(running);
        let (view, published) = (view.clone(), self.state().current.published.clone());
        let known = self.state().current.seeded.denied.clone();
        let (found, mended) = self
            .kernel
            .with(move |datapath| {
                // At the same moment as what is changed here, which would not be told from what others changed.
                let found = datapath.look(&running.compiled).unwrap_or_default();
                let mended = bring_in_line(datapath, &running, &view, wanted, &published, &known);
                (found, mended)
            })
            .await;
        self.note(found).await;
        mended
    }

    /// The default route has come: the other physical interfaces are let go, by another generation of the same policy.
    async fn narrow(&self, running: &Arc<Running>, surroundings: Surroundings) -> Result<(), AgentError> {
        self.install_again(running, surroundings).await
    }

    /// Another generation of the policy in force.
    pub(super) async fn install_again(
        &self,
        running: &Arc<Running>,
        surroundings: Surroundings,
    ) -> Result<(), AgentError> {
        let rows = self.kernel.with(|datapath| datapath.registry_rows().clone()).await;
        let again = Arc::clone(running);
        let prepared = beside(move || Prepared::again(&again, &rows)).await?;
        let (published, names) = {
            let state = self.state();
            (state.current.published.clone(), state.current.names.clone())
        };
        let installed = install(&self.kernel, prepared, &surroundings, published, &names).await?;
        let notes = self.state().current.notes.clone();
        self.renumber(&installed.running).await;
        let current = installed.settle(surroundings, names, notes);
        self.event_log().learn(&current.running);
        self.twins.forget();
        self.state().current = current;
        self.tell_protection(Tell::Anew);
        // One that came meanwhile was found for the generation before.
        self.wake_owners.notify_one();
        Ok(())
    }

    fn say_differences(&self, network: &Network) {
        for (name, why) in &network.failed {
            self.say_once(format!("interface {name} is not protected: {why}"));
        }
        for missing in &network.choice.missing {
            self.say_once(format!("interface {missing} is not there: it will be protected when it appears"));
        }
        for refused in &network.choice.refused {
            self.say_once(format!("interface {} can't be protected: {}", refused.name, refused.reason));
        }
        for attachment in &network.attachments {
            for note in ahead_notes(attachment) {
                self.say_once(format!("interface {}: {note}", attachment.interface.name));
            }
        }
        for twice in network.judged_twice() {
            self.say_once(twice);
        }
        // Said at the second look: an interface that has just come is about to be protected, or about to be chosen.
        let before = self.state().current.network.unprotected();
        for open in network.unprotected().into_iter().filter(|open| before.contains(open)) {
            self.say_once(format!(
                "interface {} carries an address and is not protected: add it to `interfaces` if packets from outside reach it",
                open.name
            ));
        }
    }

    pub(super) fn say_once(&self, what: String) {
        let mut state = self.state();
        if state.said.len() > 1000 {
            state.said.clear();
        }
        if !state.said.contains(&what) {
            tracing::warn!("{what}");
            state.said.insert(what);
        }
    }
}

/// Releases what is gone, protects what is new.
fn bring_in_line(
    datapath: &mut Datapath,
    running: &Running,
    view: &View,
    wanted: Vec<Interface>,
    published: &BTreeMap<IpAddr, Vec<u16>>,
    known: &[Denied],
) -> Result<(Vec<Attachment>, BTreeMap<String, String>), AgentError> {
    let own = view.addresses.iter().map(|(_, a)| *a);
    // Not a reason to leave a hook that is gone as it is.
    if let Err(error) = datapath.set_own_addresses(&view.impossible_sources()) {
        tracing::error!("{error}");
    }
    for interface in datapath.release_gone(|index| view.links.contains_key(&index)) {
        tracing::warn!(%interface, "a protected interface is gone");
    }
    let attached = datapath.attachments()?;
    // Renamed, or back from another network namespace: counted under the name that it has now.
    for attachment in &attached {
        if let Err(error) = datapath.keep_place(&attachment.interface) {
            tracing::warn!("{error}");
        }
    }
    let mut failed = BTreeMap::new();
    let judge = Judge::new(&running.compiled, own.clone(), published).with_learnt(&datapath.learnt()?);
    let own: HashSet<IpAddr> = own.collect();
    let hooked = attached.iter().map(|attachment| &attachment.interface);
    let protected: BTreeSet<u32> = wanted.iter().chain(hooked).map(|interface| interface.index).collect();
    let mut guests_are_known = false;
    for interface in wanted {
        if attached.iter().any(|a| a.interface == interface && a.live()) {
            continue;
        }
        let mut seeded = Ok(super::Seeded::default());
        let result = datapath.protect(&interface, &mut |datapath| {
            let (mode, generation) = (running.mode(), running.stamp.number);
            let ground = Ground { datapath, judge: &judge, mode, generation, own: &own };
            // Once for all of them: conntrack may be large, and the next one waits without hooks.
            seeded = if guests_are_known {
                ground.seed_sockets()
            } else {
                ground.seed(Whereabouts { view, protected: &protected, own: &own })
            };
            guests_are_known = true;
        });
        match result {
            Ok(_) => tracing::info!(interface = %interface.name, "protected"),
            Err(error) => {
                failed.insert(interface.name.clone(), error.to_string());
            }
        }
        match seeded {
            Ok(seeded) => seeded.without(known).log(running.mode()),
            Err(error) => {
                tracing::warn!(%error, "connections that were open may lose their replies")
            }
        }
    }
    Ok((datapath.attachments()?, failed))
}
