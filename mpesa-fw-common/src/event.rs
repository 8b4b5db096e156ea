//! What the kernel tells the agent of single packets. Map `EVENTS`, a ring buffer.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{address::Address, program::Program};

/// One dropped packet (or one that observe mode would have dropped), or one attempt. Sent alone it is of a packet from
/// outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Event {
    /// Monotonic clock, nanoseconds.
    pub time: u64,
    /// Source of the packet; `::` where it was not understood.
    pub source: Address,
    /// Its target.
    pub target: Address,
    /// Interface index.
    pub interface: u32,
    /// Generation that judged it.
    pub generation: u32,
    /// Length of the frame.
    pub length: u32,
    /// Source port; 0 where there is none.
    pub source_port: u16,
    /// Target port, or ICMP type.
    pub target_port: u16,
    /// IP protocol.
    pub protocol: u8,
    /// A [`Direction`](crate::Direction).
    pub direction: u8,
    /// A [`DropReason`](crate::DropReason).
    pub reason: u8,
    /// A [`RuleIndex`](crate::tables::RuleIndex) of that generation.
    pub rule: u8,
    /// 1: dropped; 0: observe mode let it go.
    pub enforced: u8,
    /// An [`Occasion`].
    pub occasion: u8,
    /// Bytes of the frame that follow; see [`CapturedEvent`].
    pub captured: u16,
}

/// What an event is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Occasion {
    /// A packet.
    Packet = 0,
    /// A program that was to connect or to send ([`Attempt`](crate::attempt::Attempt)): neither interface nor length.
    Attempt = 1,
}

/// What is sent of an attempt, and of a packet from this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ProgramEvent {
    /// Where to, and why not.
    pub event: Event,
    /// Who.
    pub program: Program,
}

/// Bytes of a frame that an event can carry: every header that counts, in all but rare cases.
pub const CAPTURE_BYTES: usize = 256;

/// What is sent of a packet of either direction while somebody captures (map `CAPTURE`, one element, not 0).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CapturedEvent {
    /// What is always sent.
    pub event: Event,
    /// Who; of a packet from outside, nobody.
    pub program: Program,
    /// The beginning of the frame; behind [`Event::captured`] bytes, what was there before.
    pub bytes: [u8; CAPTURE_BYTES],
}

const _: () = assert!(CAPTURE_BYTES <= u16::MAX as usize, "their number fits its field");

/// Whose events. Each kind has a bucket of its own: no flood from outside hides who sends from here, and none of packets who attempted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Quota {
    /// Packets that others cause: from outside, forwarded, the kernel's answers.
    Others = 0,
    /// Packets of programs here.
    Programs = 1,
    /// Attempts ([`Occasion::Attempt`]).
    Attempts = 2,
}

/// How many there are.
pub const QUOTAS: u32 = 3;

impl Quota {
    /// Events a CPU may send until its bucket is filled again.
    #[inline(always)]
    #[must_use]
    pub const fn burst(self) -> u32 {
        match self {
            Self::Others | Self::Programs => EVENT_BURST,
            Self::Attempts => EVENT_BURST / 2,
        }
    }
}

/// Events of packets, of either kind.
pub const EVENT_BURST: u32 = 64;
/// The bucket is filled again each time this many bits of the jiffies have passed: 256 jiffies, which is
/// 0.26 s at HZ=1000 and 1.02 s at HZ=250. `bpf_jiffies64` is inlined by the JIT, the clocks are not.
pub const EVENT_REFILL_SHIFT: u32 = 8;

/// Token bucket of a CPU. Map `EVENT_BUCKETS`, per CPU, an element for each [`Quota`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct EventBucket {
    /// The jiffies, shifted, when it was last filled.
    pub epoch: u64,
    /// Events not sent.
    pub suppressed: u64,
    /// Events sent since then.
    pub spent: u32,
    /// Keeps the size a multiple of 8.
    pub reserved: u32,
}
