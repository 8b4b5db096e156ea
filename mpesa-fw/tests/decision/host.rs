//! The decision on the host: tables in vectors, state in hash maps, a clock that stands still until it is moved.

use std::{
    cell::{Cell, Ref, RefCell, RefMut},
    collections::{HashMap, HashSet},
    ops::Deref,
};

use mpesa_fw::compile::Compiled;
use mpesa_fw_common::{
    Address, Direction,
    decide::{self, Decision, Sender},
    dns::Learnt,
    limit::{LIMIT_SETS, LimitSet},
    packet::{PacketBytes, PacketMeta, parse},
    state::{FlowKey, FlowState, FragmentKey, FragmentState, State},
    tables::ResolvedNames,
};

use crate::case::{Names, Rules};

/// A frame and what a hook knows of it besides its bytes.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) bytes: Vec<u8>,
    pub(crate) segmented: bool,
    pub(crate) stripped_tags: u32,
}

impl From<Vec<u8>> for Frame {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, segmented: false, stripped_tags: 0 }
    }
}

impl PacketBytes for Frame {
    fn length(&self) -> u32 {
        self.bytes.len() as u32
    }
    fn holds(&self, length: u32) -> bool {
        length <= self.length()
    }
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let offset = offset as usize;
        self.bytes.get(offset..offset + N)?.try_into().ok()
    }
    fn stripped_tags(&self) -> u32 {
        self.stripped_tags
    }
    fn is_segmented(&self) -> bool {
        self.segmented
    }
}

pub(crate) const SECOND: u64 = 1_000_000_000;

/// State as the kernel keeps it, without its capacities.
pub(crate) struct HostState {
    pub(crate) now: Cell<u64>,
    pub(crate) own: HashSet<Address>,
    pub(crate) names: Names,
    resolved: HashMap<Address, ResolvedNames>,
    pub(crate) learnt: RefCell<HashMap<Address, Learnt>>,
    pub(crate) flows: RefCell<HashMap<FlowKey, FlowState>>,
    pub(crate) ports: RefCell<HashSet<u16>>,
    pub(crate) fragments: RefCell<HashMap<FragmentKey, FragmentState>>,
    pub(crate) limits: RefCell<HashMap<u32, LimitSet>>,
    /// Whether flows can be recorded.
    pub(crate) has_room: Cell<bool>,
}

impl HostState {
    pub(crate) fn new() -> Self {
        Self {
            // Longer ago than any flow lives, so that the clock can be taken back.
            now: Cell::new(10 * 86_400 * SECOND),
            own: HashSet::new(),
            names: Names::new(),
            resolved: HashMap::new(),
            learnt: RefCell::default(),
            flows: RefCell::default(),
            ports: RefCell::default(),
            fragments: RefCell::default(),
            limits: RefCell::default(),
            has_room: Cell::new(true),
        }
    }

    /// DNS answers so from now on; also after a reload, for the policy decides which names have a slot.
    pub(crate) fn resolve(&mut self, rules: &Rules, names: &Names) {
        self.names.clone_from(names);
        self.resolved.clear();
        for (address, names) in names {
            let mut slots = ResolvedNames::default();
            for (place, name) in slots.iter_mut().zip(names) {
                *place = rules.slots.names.get(name).map_or(0, |slot| slot + 1);
            }
            self.resolved.insert(Address::from(*address), slots);
        }
    }

    #[cfg(not(mpesa_fw_no_object))]
    pub(crate) fn resolved(&self) -> &HashMap<Address, ResolvedNames> {
        &self.resolved
    }

    pub(crate) fn wait(&self, time: u64) {
        self.now.set(self.now.get() + time);
    }
}

impl State for HostState {
    type Flow<'a> = RefMut<'a, FlowState>;
    type Limits<'a> = RefMut<'a, LimitSet>;

    fn now(&self) -> u64 {
        self.now.get()
    }
    fn is_own(&self, address: &Address) -> bool {
        self.own.contains(address)
    }
    fn resolved(&self, address: &Address) -> Option<ResolvedNames> {
        self.resolved.get(address).copied()
    }
    fn learnt(&self, address: &Address) -> Option<impl Deref<Target = Learnt>> {
        Ref::filter_map(self.learnt.borrow(), |learnt| learnt.get(address)).ok()
    }
    fn flow(&self, key: &FlowKey) -> Option<Self::Flow<'_>> {
        RefMut::filter_map(self.flows.borrow_mut(), |flows| flows.get_mut(key)).ok()
    }
    fn open_flow(&self, key: &FlowKey, flow: &FlowState) -> bool {
        self.ports.borrow_mut().insert(key.local_port);
        if self.has_room.get() {
            self.flows.borrow_mut().insert(*key, *flow);
        }
        self.has_room.get()
    }
    fn may_have_flow(&self, local_port: u16) -> bool {
        self.ports.borrow().contains(&local_port)
    }
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentState> {
        self.fragments.borrow().get(key).copied()
    }
    fn note_fragment(&self, key: &FragmentKey, state: &FragmentState) {
        self.fragments.borrow_mut().insert(*key, *state);
    }
    fn limit_set(&self, index: u32) -> Option<Self::Limits<'_>> {
        assert!((index as usize) < LIMIT_SETS);
        Some(RefMut::map(self.limits.borrow_mut(), |limits| limits.entry(index).or_default()))
    }
}

/// The facts of a frame.
pub(crate) fn facts(frame: &Frame) -> PacketMeta {
    let mut meta = PacketMeta::EMPTY;
    parse(frame, &mut meta);
    meta
}

/// What becomes of a frame.
pub(crate) fn judge(
    compiled: &Compiled,
    state: &HostState,
    frame: &Frame,
    direction: Direction,
    sender: &Sender,
) -> Decision {
    let meta = facts(frame);
    match direction {
        Direction::Ingress => decide::ingress(compiled, state, &meta),
        Direction::Egress => {
            // As the program asks.
            let asks_owners = compiled.settings.owned != [0; 2];
            let sender = if Sender::matters(&meta) || asks_owners {
                *sender
            } else {
                Sender { is_full: sender.is_full, is_raw: sender.is_raw, ..Sender::NONE }
            };
            decide::egress(compiled, state, &meta, &sender)
        }
    }
}
