//! The first generation.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, DirBuilder},
    net::IpAddr,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::Path,
    sync::{Arc, Mutex},
};

use mpesa_fw_common::tables::GenerationStamp;
use tokio::sync::Notify;
use zerocopy::FromZeros as _;

use super::{
    Agent, Options, Running, SshConnection, State,
    archive::Archive,
    audit::Audit,
    capture::Tap,
    clock,
    cuts::{self, Open},
    error::AgentError,
    events::EventLog,
    evidence::Baseline,
    install::{Before, Surroundings, Tell, install, learn_names, resolver_notes},
    kernel::{Kernel, beside},
    lock::Lock,
    minute::Minute,
    names::Names,
    network::Protection,
    notify,
    origin::Origin,
    prepare::Prepared,
    resolver::Resolver,
    running::hex,
    store::Store,
    trial::{Begin, Trial, TrialRecord},
    watchdog,
};
use crate::{
    compile::RegistryRows,
    datapath::{self, Datapath, ErrorKind},
};

/// An interface may go between the look and the attach.
pub(super) const ATTEMPTS: usize = 3;

impl Agent {
    /// Reads the policy and nothing else: what can be refused without the kernel is.
    ///
    /// # Errors
    /// The policy is not valid, or does not fit.
    pub async fn check(options: &Options) -> Result<(), AgentError> {
        let archive = Archive::below(&options.state_dir);
        let begin = Begin::decide(&TrialRecord::store(&options.state_dir), &options.rules);
        match begin.wanted {
            Origin::File(_) => {
                beside(move || Prepared::read(&begin.wanted, &archive, &RegistryRows::default()).map(drop))
                    .await
            }
            Origin::Kept(_) => Ok(()), // was valid, and the start knows what to do where it is lost
        }
    }

    /// Puts the policy in force. Tasks, control socket and metrics are the caller's to start.
    ///
    /// # Errors
    /// See [`AgentError`]. Whatever judged packets before does so still.
    pub async fn start(options: Options, caller: Option<SshConnection>) -> Result<Arc<Self>, AgentError> {
        private_directory(&options.state_dir, 0o700)?;

        let early_lock = options.bpffs.is_dir().then(|| Lock::directory(&options.bpffs)).transpose()?;
        let early_inode = inode(&options.bpffs);
        let datapath = open(&options).await?;
        let bpffs_lock = match early_lock {
            Some(lock) if inode(&options.bpffs) == early_inode => lock,
            _ => Lock::directory(&options.bpffs)?,
        };
        say_what_was_found(&datapath);
        let tap = Arc::new(Tap::new(datapath.event_switch()?)?);
        let kernel = Kernel::new(datapath);

        let names_store = Store::new(&options.state_dir, "names.json");
        let reloads_store = Store::new(&options.state_dir, "reloads.json");
        let tampering_store = Store::new(&options.state_dir, "tampering.json");
        let defaults_store = Store::new(&options.state_dir, "defaults.json");
        let trial_store = TrialRecord::store(&options.state_dir);
        let archive = Archive::below(&options.state_dir);
        let last = archive.list().first().map_or(0, |kept| kept.number);
        kernel.with(move |datapath| datapath.count_from(last)).await;
        // Before rows change hands.
        let audit = {
            let (state_dir, kernel) = (options.state_dir.clone(), kernel.clone());
            beside(move || {
                let audit = Audit::open(&state_dir);
                audit.collect(&kernel);
                audit
            })
            .await
        };
        let mut begin = Begin::decide(&trial_store, &options.rules);
        let saved_defaults: BTreeSet<String> = defaults_store.read().unwrap_or_default();
        let around = found_before(&kernel, &saved_defaults).await?;
        let past = Past::find(&kernel, &archive).await?;
        let mut resolver = Resolver::default();
        let mut attempt = 1;
        let (installed, surroundings, names, kept) = loop {
            let rows = kernel.with(|datapath| datapath.registry_rows().clone()).await;
            let (wanted, for_read) = (begin.wanted.clone(), archive.clone());
            let mut prepared = match beside(move || Prepared::read(&wanted, &for_read, &rows)).await {
                Ok(prepared) => prepared,
                Err(error) if matches!(begin.wanted, Origin::Kept(_)) => {
                    begin.fall_back(&options.rules, &error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let mut known = Names::default();
            known.set_slots(&prepared.assignment.slots.names);
            known.restore(&names_store.read().unwrap_or_default());
            let names = learn_names(&known, &prepared, resolver.current()).await;
            let surroundings = Surroundings::look(&prepared.policy, &around).await?;
            // What the map holds from an earlier agent is by slots that the registry kept.
            let before = known.table(&[]);
            if !options.force && matches!(begin.wanted, Origin::File(_)) {
                let open = match kernel.with(|datapath| Open::look(datapath)).await {
                    Ok(open) => open,
                    // A host without a firewall is worse than a connection that is cut.
                    Err(error) => {
                        tracing::warn!("the guard sees no connection but your own: {error}");
                        Open::default()
                    }
                };
                surroundings.guard(&mut prepared, &names, &past.before(&before), &open, caller)?;
            }
            let (texts, for_texts) = (std::mem::take(&mut prepared.texts), archive.clone());
            let kept = beside(move || for_texts.keep(&texts)).await.map_err(|error| error.to_string());
            match install(&kernel, prepared, &surroundings, before, &names).await {
                Ok(installed) => break (installed, surroundings, names, kept),
                Err(error) if is_interface_gone(&error) && attempt < ATTEMPTS => attempt += 1,
                Err(error) => return Err(error),
            }
        };

        let own: Vec<_> = surroundings.view.addresses.iter().map(|(_, a)| *a).collect();
        let mut notes = resolver_notes(&installed, &resolver.servers(), &own);
        notes.extend(begin.note.clone());
        let trial = match begin.trial {
            Some(record) => {
                let baseline = kernel.with(|datapath| Baseline::take(datapath)).await?;
                let previous = confirmed(&kernel, &archive, &record).await;
                Some(Trial { record, previous, baseline })
            }
            None => None,
        };
        let mut reloads: BTreeMap<String, u64> = reloads_store.read().unwrap_or_default();
        if begin.taken_back.as_ref().is_some_and(|record| !record.taken_back) {
            *reloads.entry("reverted".to_owned()).or_default() += 1;
            if let Err(error) = reloads_store.write(&reloads) {
                tracing::warn!(%error, "the count of reloads was not saved");
            }
        }
        let current = installed.settle(surroundings, names, notes);
        let mut events = EventLog::default();
        events.learn(&current.running);
        let state = State {
            current,
            owners: super::owners::Present::default(),
            attempts: super::AttemptsStatus::default(),
            kept: None,
            trial: None,
            minute: Minute::default(),
            reloads,
            protection: Protection::Incomplete,
            since: clock::unix(),
            tampering: tampering_store.read().unwrap_or_default(),
            pace: super::handshakes::Pace::default(),
            said: BTreeSet::new(),
            saved_defaults,
            undeclared: BTreeSet::new(),
            without_metrics: None,
            detached: false,
        };
        let agent = Arc::new(Self {
            options,
            kernel,
            state: Mutex::new(state),
            events: Mutex::new(events),
            tap,
            change: tokio::sync::Mutex::new(()),
            resolver: Mutex::new(resolver),
            wake_names: Notify::new(),
            wake_owners: Notify::new(),
            wake_ways: Notify::new(),
            wake_network: Notify::new(),
            wake_trace: Notify::new(),
            wake_trial: Notify::new(),
            started_at: clock::unix(),
            names_store,
            reloads_store,
            defaults_store,
            twins: super::why::Twins::default(),
            trial_store,
            archive,
            audit,
            tampering_store,
            _bpffs_lock: bpffs_lock,
        });
        let goes_on = trial.is_some();
        let running = agent.state().current.running.clone();
        let notes = agent.after_swap(&running, kept, trial, begin.taken_back).await;
        agent.state().current.notes.extend(notes);
        if goes_on && let Err(error) = watchdog::spawn(&agent.options) {
            tracing::error!(%error, "a trial goes on, and its watchdog does not start");
        }
        beside(crate::sys::trim_memory).await;
        agent.tell_protection(Tell::Anew);
        notify::ready(agent.state().protection.label());
        Ok(agent)
    }
}

/// What a trial goes back to, for comparing; none where its text is lost.
async fn confirmed(kernel: &Kernel, archive: &Archive, record: &TrialRecord) -> Option<Arc<Running>> {
    let rows = kernel.with(|datapath| datapath.registry_rows().clone()).await;
    let (archive, kept) = (archive.clone(), Origin::Kept(Box::new(record.confirmed.clone())));
    let stamp = GenerationStamp { number: record.confirmed.number, ..GenerationStamp::new_zeroed() };
    let read = beside(move || Prepared::read(&kept, &archive, &rows)).await;
    read.ok().map(|prepared| Arc::new(Running::new(prepared, stamp)))
}

/// What judges packets before the first generation of this agent does.
enum Past {
    Nothing,
    Policy(Box<Running>),
    Unknown,
}

impl Past {
    /// What is running is known if its text is kept.
    async fn find(kernel: &Kernel, archive: &Archive) -> Result<Self, AgentError> {
        let (stamp, rows) =
            kernel.with(|datapath| (datapath.running(), datapath.registry_rows().clone())).await;
        let Some(stamp) = stamp else { return Ok(Self::Nothing) };
        let archive = archive.clone();
        Ok(beside(move || {
            let kept = archive.get(stamp.number).filter(|kept| kept.digest == hex(&stamp.digest))?;
            let prepared = Prepared::read(&Origin::Kept(Box::new(kept)), &archive, &rows).ok()?;
            Some(Self::Policy(Box::new(Running::new(prepared, stamp))))
        })
        .await
        .unwrap_or(Self::Unknown))
    }

    fn before(&self, resolved: &BTreeMap<IpAddr, Vec<u16>>) -> cuts::Before<'_> {
        match self {
            Self::Nothing => cuts::Before::Nothing,
            Self::Policy(running) => cuts::Before::Policy(running, resolved.clone()),
            Self::Unknown => cuts::Before::Unknown,
        }
    }
}

/// What an earlier agent left. Its word on the default route counts only where its hooks are: after a boot another
/// interface may be meant, and every physical one is protected until the route is there.
async fn found_before(kernel: &Kernel, saved: &BTreeSet<String>) -> Result<Before, AgentError> {
    let attachments = kernel.with(|datapath| datapath.attachments()).await?;
    let is_hooked = |name: &&String| attachments.iter().any(|a| a.interface.name == **name);
    Ok(Before::new(saved.iter().filter(is_hooked).cloned().collect(), &attachments))
}

async fn open(options: &Options) -> Result<Datapath, AgentError> {
    let options = datapath::Options {
        bpffs: options.bpffs.clone(),
        xdp: options.xdp,
        tc: options.tc,
        flows_capacity: options.flows_capacity,
        trace: options.trace_packets,
    };
    Ok(beside(move || Datapath::open(options)).await?)
}

fn say_what_was_found(datapath: &Datapath) {
    if let Some(path) = datapath.mounted_bpffs() {
        tracing::info!(path = %path.display(), "no bpffs was mounted there: mounted one");
    }
    for mended in datapath.mended() {
        tracing::warn!("{mended}");
    }
    if let Some(stamp) = datapath.running().filter(|_| datapath.adopted()) {
        tracing::info!(
            generation = stamp.number,
            digest = &hex(&stamp.digest)[..12],
            "adopted the datapath of an earlier agent: enforcement never stopped, counts go on"
        );
    }
}

/// A directory that only its owner can write. Made with `mode` where it does not exist.
///
/// # Errors
/// It can't be made, or others can write it.
pub fn private_directory(path: &Path, mode: u32) -> Result<(), AgentError> {
    DirBuilder::new().recursive(true).mode(mode).create(path).map_err(AgentError::file("create", path))?;
    let meta = fs::metadata(path).map_err(AgentError::file("read", path))?;
    if meta.uid() != 0 && meta.uid() != nix::unistd::geteuid().as_raw() {
        let why = std::io::Error::other(format!(
            "it belongs to user {}, who could put another in its place",
            meta.uid()
        ));
        return Err(AgentError::file("use", path)(why));
    }
    if meta.mode() & 0o022 != 0 {
        let why =
            std::io::Error::other("group or others can write it; use a directory of its own, mode 0750");
        return Err(AgentError::file("use", path)(why));
    }
    Ok(())
}

pub(super) fn inode(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

/// Whether an interface went away between the look and the attach.
pub(super) fn is_interface_gone(error: &AgentError) -> bool {
    matches!(error, AgentError::Datapath(error) if error.kind() == ErrorKind::Interface)
}
