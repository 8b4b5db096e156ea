//! The kernel's own decision, run on the host: over the tables of compile and what the agent knows of the state.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    ops::Deref,
    sync::OnceLock,
};

use mpesa_fw_common::{
    Address, Direction, DropReason,
    decide::{self, Decision, Permission, Sender},
    dns::{Learnt, LearntName},
    limit::{LIMIT_WAYS, LimitEntry, LimitSet},
    owner::Owner,
    packet::{self, PacketBytes, PacketMeta},
    state::{FlowKey, FlowState, FragmentKey, FragmentState, State},
    tables::{NAMES_PER_ADDRESS, ResolvedNames, RuleIndex, RuleSet, Tables as _},
};

use super::{clock, groups::Groups, holder::Holder};
use crate::{compile::Compiled, datapath::LearntNames};

/// One generation with the state that goes with it: no flows, no fragments, every limit unspent.
pub(super) struct Judge<'c> {
    compiled: &'c Compiled,
    state: HostState,
    /// Looked at when the first socket is asked for: a host may have thousands of groups.
    groups: OnceLock<Groups>,
}

struct HostState {
    own: BTreeSet<Address>,
    resolved: HashMap<Address, ResolvedNames>,
    learnt: HashMap<Address, Learnt>,
}

impl<'c> Judge<'c> {
    /// Judges by `compiled`, given this host's addresses and the answers of DNS (slots by address).
    #[must_use]
    pub(super) fn new(
        compiled: &'c Compiled,
        own: impl IntoIterator<Item = IpAddr>,
        resolved: &BTreeMap<IpAddr, Vec<u16>>,
    ) -> Self {
        let resolved = resolved.iter().map(|(address, slots)| ((*address).into(), packed(slots))).collect();
        let own = own.into_iter().map(Into::into).collect();
        let state = HostState { own, resolved, learnt: HashMap::new() };
        Self { compiled, state, groups: OnceLock::new() }
    }

    /// Whether it matters to any rule whose a socket is.
    #[must_use]
    pub(super) fn has_owners(&self) -> bool {
        [Direction::Ingress, Direction::Egress].map(|direction| self.compiled.owned(direction))
            != [RuleSet::NONE; 2]
    }

    /// Also given what was learnt from answers of resolvers.
    #[must_use]
    pub(super) fn with_learnt(mut self, learnt: &LearntNames) -> Self {
        let named = |slots: &Vec<u16>| {
            let mut names = [LearntName::default(); NAMES_PER_ADDRESS];
            for (place, slot) in names.iter_mut().zip(slots) {
                *place = LearntName::new(*slot, u32::MAX);
            }
            names
        };
        self.state.learnt = learnt.iter().map(|(address, slots)| ((*address).into(), named(slots))).collect();
        self
    }

    /// Whose a socket is to a rule; none: it can't be told, or matters to no rule.
    #[must_use]
    pub(super) fn owner(&self, holder: &Holder) -> Option<Owner> {
        let look = || {
            let mut groups = Groups::default();
            groups.look();
            groups
        };
        if self.has_owners() { self.groups.get_or_init(look).owner(holder) } else { None }
    }

    /// Whether egress permits a flow to that owner, and by which rule; else why not. None: to anybody.
    ///
    /// # Errors
    /// The reason for which its first packet would be dropped.
    pub(super) fn flow_of(&self, key: &FlowKey, owner: Option<&Owner>) -> Result<RuleIndex, DropReason> {
        match (decide::flow_permission(self.compiled, &self.state, key), owner) {
            (Permission::Allowed(rules), Some(owner)) => {
                let own = rules.and(self.compiled.rules_of(Direction::Egress, owner));
                if own.is_empty() { Err(DropReason::OwnerNotAllowed) } else { Ok(own.first()) }
            }
            (_, Some(_) | None) => self.flow(key),
        }
    }

    /// Whether egress permits a flow to anybody, and by which rule; else why not.
    ///
    /// # Errors
    /// The reason for which its first packet would be dropped.
    pub(super) fn flow(&self, key: &FlowKey) -> Result<RuleIndex, DropReason> {
        match decide::flow_permission(self.compiled, &self.state, key) {
            Permission::Allowed(rules) => Ok(rules.first()),
            Permission::Denied(reason, _, _) => Err(reason),
            Permission::Unclaimed if self.compiled.default_passes(Direction::Egress) => Ok(RuleIndex::NONE),
            Permission::Unclaimed => Err(DropReason::NoDestination),
        }
    }

    /// Judges a frame towards this host.
    pub(super) fn ingress(&self, frame: &[u8]) -> Decision {
        decide::ingress(self.compiled, &self.state, &parse(frame))
    }

    /// Judges a frame from this host that a socket bound to `port` sends, which is that owner's.
    pub(super) fn egress(&self, frame: &[u8], port: u16, owner: Owner) -> Decision {
        let sender = Sender { cookie: 1, bound_port: port, is_full: true, owner, ..Sender::NONE };
        decide::egress(self.compiled, &self.state, &parse(frame), &sender)
    }
}

fn parse(frame: &[u8]) -> PacketMeta {
    let mut meta = PacketMeta::EMPTY;
    packet::parse(&Frame(frame), &mut meta);
    meta
}

/// Slots as the map holds them: plus one, 0 is an empty place.
fn packed(slots: &[u16]) -> ResolvedNames {
    let mut names = [0; NAMES_PER_ADDRESS];
    for (place, slot) in names.iter_mut().zip(slots) {
        *place = slot + 1;
    }
    names
}

struct Frame<'b>(&'b [u8]);

impl PacketBytes for Frame<'_> {
    fn length(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }
    fn holds(&self, length: u32) -> bool {
        self.length() >= length
    }
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let rest = self.0.get(offset as usize..)?;
        rest.first_chunk().copied()
    }
    fn stripped_tags(&self) -> u32 {
        0
    }
    fn is_segmented(&self) -> bool {
        false
    }
}

impl State for HostState {
    type Flow<'a> = Box<FlowState>;
    type Limits<'a> = Box<LimitSet>;

    fn now(&self) -> u64 {
        clock::monotonic()
    }
    fn is_own(&self, address: &Address) -> bool {
        self.own.contains(address)
    }
    fn resolved(&self, address: &Address) -> Option<ResolvedNames> {
        self.resolved.get(address).copied()
    }
    fn learnt(&self, address: &Address) -> Option<impl Deref<Target = Learnt>> {
        self.learnt.get(address)
    }
    fn flow(&self, _: &FlowKey) -> Option<Self::Flow<'_>> {
        None
    }
    fn open_flow(&self, _: &FlowKey, _: &FlowState) -> bool {
        true
    }
    fn may_have_flow(&self, _: u16) -> bool {
        false
    }
    fn fragment(&self, _: &FragmentKey) -> Option<FragmentState> {
        None
    }
    fn note_fragment(&self, _: &FragmentKey, _: &FragmentState) {}
    fn limit_set(&self, _: u32) -> Option<Self::Limits<'_>> {
        Some(Box::new([LimitEntry::default(); LIMIT_WAYS]))
    }
}
