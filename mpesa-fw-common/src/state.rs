//! What outlives a generation: flows, fragments, limits, the host's own addresses, resolved names.
//! All of it is in pinned maps of fixed size, and only packets that this host sends create flows.

use core::ops::{Deref, DerefMut};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    address::{Address, Family},
    decide::{Found, Sender, find_flow},
    dns::Learnt,
    limit::{LimitSet, conforms, limit_set_index, would_conform},
    packet::PacketMeta,
    settings::Direction,
    tables::{ResolvedNames, Tables},
};

/// Entries of `FLOWS`, a least-recently-used hash, unless the agent is told otherwise.
pub const FLOWS_CAPACITY: u32 = 1 << 16;
/// Entries of `FRAGMENTS`, likewise.
pub const FRAGMENTS_CAPACITY: u32 = 1 << 13;
/// Entries of `OWN_ADDRESSES`.
pub const OWN_ADDRESSES_CAPACITY: u32 = 1 << 12;
/// Entries of `RESOLVED`.
pub const RESOLVED_CAPACITY: u32 = 1 << 14;
/// Words of a bitmap of 65,536 bits: `OWN_HINTS` (by [`Address::hint`]) and `FLOW_PORTS` (by local port).
pub const BITMAP_WORDS: usize = 1 << 10;

const SECOND: u64 = 1_000_000_000;

/// Both ends of a flow, seen from this host. Ports of ICMP: the identifier, and the type of
/// the request, so that a ping allows no timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FlowKey {
    /// Address of this host (or of the guest behind it).
    pub local: Address,
    /// Address of the peer.
    pub remote: Address,
    /// Port of this host.
    pub local_port: u16,
    /// Port of the peer.
    pub remote_port: u16,
    /// IP protocol.
    pub protocol: u8,
    /// A [`Family`].
    pub family: u8,
    /// Keeps the size a multiple of 8.
    pub reserved: [u8; 2],
}

impl FlowKey {
    /// The key of a flow.
    #[inline(always)]
    #[must_use]
    pub const fn new(
        family: Family,
        protocol: u8,
        local: Address,
        local_port: u16,
        remote: Address,
        remote_port: u16,
    ) -> Self {
        Self { local, remote, local_port, remote_port, protocol, family: family as u8, reserved: [0; 2] }
    }
}

/// How far a flow has come; decides how long it may be idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FlowPhase {
    /// Opened; the peer has not answered.
    Opened = 0,
    /// The peer has answered.
    Answered = 1,
    /// This host has said goodbye (FIN or RST).
    Closing = 2,
}

impl FlowPhase {
    /// From its code; what is unknown is the shortest-lived.
    #[inline(always)]
    #[must_use]
    pub const fn from_code(code: u8) -> Self {
        match code {
            0 => Self::Opened,
            1 => Self::Answered,
            _ => Self::Closing,
        }
    }

    /// Nanoseconds that a flow may be idle. The agent keeps a TCP flow whose socket still exists fresh.
    #[inline(always)]
    #[must_use]
    pub const fn idle_limit(self, protocol: u8) -> u64 {
        let tcp = protocol == 6;
        match self {
            Self::Opened if tcp => 130 * SECOND, // tcp_syn_retries = 6: the last SYN is given up after 127 s
            Self::Answered if tcp => 5 * 86_400 * SECOND, // as nf_conntrack_tcp_timeout_established
            Self::Closing if tcp => 120 * SECOND,
            Self::Opened => 60 * SECOND,
            Self::Answered | Self::Closing => 180 * SECOND,
        }
    }
}

/// Value of `FLOWS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FlowState {
    /// Monotonic clock of the last packet, nanoseconds, coarse.
    pub last_seen: u64,
    /// Cookie of the socket that opened it; 0: none (forwarded, seeded).
    pub cookie: u64,
    /// Generation that last judged it.
    pub generation: u32,
    /// A [`FlowPhase`].
    pub phase: u8,
    /// The destination that allows it, a [`RuleIndex`](crate::tables::RuleIndex) of that generation.
    pub rule: u8,
    /// Observe mode: the [`DropReason`](crate::DropReason) it would be denied for, plus one; 0: allowed.
    pub would_drop: u8,
    /// Keeps the size a multiple of 8.
    pub reserved: u8,
}

impl FlowState {
    /// Whether the flow has been idle for too long.
    #[inline(always)]
    #[must_use]
    pub const fn is_expired(&self, protocol: u8, now: u64) -> bool {
        now.saturating_sub(self.last_seen) > FlowPhase::from_code(self.phase).idle_limit(protocol)
    }
}

/// Key of `FRAGMENTS`: what identifies a fragmented packet (RFC 791 3.2, RFC 8200 4.5), and its direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FragmentKey {
    /// Source.
    pub source: Address,
    /// Target.
    pub target: Address,
    /// Identification.
    pub id: u32,
    /// IP protocol of the packet (IPv6: of the header behind the fragment header).
    pub protocol: u8,
    /// A [`Direction`].
    pub direction: u8,
    /// Keeps the size a multiple of 4.
    pub reserved: [u8; 2],
}

/// Value of `FRAGMENTS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FragmentState {
    /// Monotonic clock when the first fragment passed, nanoseconds, coarse.
    pub passed_at: u64,
    /// Generation that judged it.
    pub generation: u32,
    /// The rule that allowed it, in that generation; later ones are charged to it.
    pub rule: u32,
}

/// How long later fragments may follow: the reassembly timeout of Linux (`ipfrag_time`), nanoseconds.
pub const FRAGMENT_LIFETIME: u64 = 30 * SECOND;

/// Element of `INTERFACE_SLOTS` ([`INTERFACES`](crate::counter::INTERFACES) elements): the interface in this place, written by
/// the agent. The programs look for `index`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct InterfaceSlot {
    /// Interface index; 0: free, or the interface is gone.
    pub index: u32,
    /// Keeps the size a multiple of 8.
    pub reserved: u32,
    /// Name, padded with zeros (IFNAMSIZ).
    pub name: [u8; 16],
}

/// Element of the agent's registries, which only the agent reads: `COUNTER_NAMES`
/// ([`COUNTER_SLOTS`](crate::counter::COUNTER_SLOTS) elements, which rule has which row), `SET_NAMES`
/// ([`WATCHED_SETS`](crate::tables::WATCHED_SETS)), `DNS_NAMES` ([`NAMES`](crate::tables::NAMES)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct NameSlot {
    /// UTF-8, padded with zeros; a DNS name has up to 253 octets.
    pub name: [u8; 254],
    /// A [`Direction`] for rules, else 0.
    pub direction: u8,
    /// 0: free; 1: in use by the running generation; 2: its rule is gone, its counts are kept.
    pub status: u8,
}

impl Default for NameSlot {
    fn default() -> Self {
        Self { name: [0; 254], direction: 0, status: 0 }
    }
}

/// The state behind the decision, wherever it is kept.
pub trait State {
    /// How a flow is held while it is changed.
    type Flow<'a>: DerefMut<Target = FlowState>
    where
        Self: 'a;
    /// How a set of the limiter is held while it is changed.
    type Limits<'a>: DerefMut<Target = LimitSet>
    where
        Self: 'a;

    /// Whether packets are judged and leave nothing behind: see [`twin`](crate::twin).
    #[inline(always)]
    fn is_twin(&self) -> bool {
        false
    }
    /// Monotonic clock, nanoseconds; coarse will do.
    fn now(&self) -> u64;
    /// Whether an address is one of this host's.
    fn is_own(&self, address: &Address) -> bool;
    /// Names that an address is the current answer to.
    fn resolved(&self, address: &Address) -> Option<ResolvedNames>;
    /// Names that it is an answer to by what was learnt on its way in; also those whose time is over.
    fn learnt(&self, address: &Address) -> Option<impl Deref<Target = Learnt>>;
    /// A flow, if there is one, to be changed in place.
    fn flow(&self, key: &FlowKey) -> Option<Self::Flow<'_>>;
    /// Records a flow and its local port. False: there is no room.
    fn open_flow(&self, key: &FlowKey, flow: &FlowState) -> bool;
    /// Whether any flow may have this local port. False is certain: ports are marked before flows are
    /// recorded and never unmarked, so a denied packet to a port that only serves costs no hash look-up.
    fn may_have_flow(&self, local_port: u16) -> bool;
    /// What is known of a fragmented packet.
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentState>;
    /// Notes that a first fragment passed. Where there is no room the oldest is forgotten, and its rest is dropped.
    fn note_fragment(&self, key: &FragmentKey, state: &FragmentState);
    /// A set of the limiter, to be changed in place.
    fn limit_set(&self, index: u32) -> Option<Self::Limits<'_>>;
    /// Looks for the live flow of a packet and moves it on. The kernel's implementation calls [`find_flow`] as a function
    /// that the verifier looks at only once; likewise [`Self::charge`].
    #[inline(always)]
    fn find_flow<T: Tables>(
        &self,
        tables: &T,
        meta: &PacketMeta,
        direction: Direction,
        sender: &Sender,
    ) -> Found {
        find_flow(tables, self, meta, direction, sender)
    }
    /// Charges a packet to its entry of the limiter. True: it conforms.
    #[inline(always)]
    fn charge(&self, tag: u64, interval: u64, tolerance: u64) -> bool {
        charge(self, tag, interval, tolerance)
    }
}

/// Charges a packet to its entry of the limiter; false also where the table does not answer.
#[inline(always)]
pub fn charge<S: State + ?Sized>(state: &S, tag: u64, interval: u64, tolerance: u64) -> bool {
    match state.limit_set(limit_set_index(tag)) {
        Some(set) if state.is_twin() => would_conform(&set, tag, interval, tolerance, state.now()),
        Some(mut set) => conforms(&mut set, tag, interval, tolerance, state.now()),
        None => false,
    }
}
