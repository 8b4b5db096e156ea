//! What a program of this host attempts before there is a packet: it connects a socket, or sends a datagram by one that is not
//! connected. Refused here, it hears so at once (EPERM).
//!
//! The kernel tells such a hook neither by which interface packets would leave nor what translates them later, so the agent
//! vouches for what it knows of routes (map `WAYS`), and only for so long (map `LEASE`). Whatever is not sure goes on, and egress decides.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    address::{Address, Family},
    reason::DROP_REASONS,
};

/// TCP and UDP; what other sockets do is for egress to judge. So it is when a UDP socket gets a peer: nothing is sent, and mostly
/// nothing will be, for programs do it to learn by which address they would send (RFC 6724, and many to 8.8.8.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptKind {
    /// A TCP socket is about to send its SYN.
    Connect,
    /// A UDP socket is about to send a datagram to an address that goes with it.
    Send,
}

impl AttemptKind {
    /// IP protocol.
    #[inline(always)]
    #[must_use]
    pub const fn protocol(self) -> u8 {
        match self {
            Self::Connect => 6,
            Self::Send => 17,
        }
    }
}

/// One attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// What is attempted.
    pub kind: AttemptKind,
    /// Family of the packets: a socket of both sends IPv4 to a mapped address.
    pub family: Family,
    /// Where to.
    pub remote: Address,
    /// Its port.
    pub remote_port: u16,
    /// The port that the socket is bound to; 0: none yet.
    pub local_port: u16,
}

/// By which way packets to an address leave. Value of `WAYS`, a trie by [`WayKey`] that the agent keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Way {
    /// Not known, or not the same for all packets.
    Unsure = 0,
    /// By a protected interface, where egress judges them as they are.
    Protected = 1,
    /// By another interface, or not at all: this host itself.
    Elsewhere = 2,
}

/// Entries of `WAYS`.
pub const WAYS_CAPACITY: u32 = 1 << 14;

/// Key of `WAYS`, in the shape of the kernel's `bpf_lpm_trie_key`: a prefix. IPv4 in mapped form, so 96 bits longer.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct WayKey {
    /// Length of the prefix, bits, up to 128.
    pub length: u32,
    /// Most significant octet first.
    pub octets: [u8; 16],
}

impl WayKey {
    /// The first `length` of the 128 bits of an address; those behind must be 0.
    #[inline(always)]
    #[must_use]
    pub fn new(address: &Address, length: u32) -> Self {
        let mut octets = [0; 16];
        for (four, word) in octets.chunks_exact_mut(4).zip(address.words) {
            four.copy_from_slice(&word.to_be_bytes());
        }
        Self { length, octets }
    }
}

/// Element of `LEASE` (one).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Lease {
    /// Monotonic clock, nanoseconds, until which the agent vouches for `WAYS`; 0: it does not.
    pub until: u64,
}

/// Attempts that no rule permits. Element of `REFUSALS`, one for each row of the counters
/// ([`COUNTER_SLOTS`](crate::counter::COUNTER_SLOTS)); written by atomic additions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Refusals {
    /// Refused, by the code of the [`DropReason`](crate::DropReason).
    pub refused: [u64; DROP_REASONS],
    /// Let go, likewise: in observe mode, where it is not certain that every packet would be dropped, and what the kernel connects.
    pub let_go: [u64; DROP_REASONS],
}
