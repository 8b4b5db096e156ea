//! Constants of one generation. They are written into `.rodata` before the programs are loaded, so that
//! the verifier knows them and deletes what the policy does not use.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::tables::Window;

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Direction {
    /// Towards this host.
    Ingress = 0,
    /// From this host.
    Egress = 1,
}

impl Direction {
    /// Both, in the order of their codes.
    pub const ALL: [Self; 2] = [Self::Ingress, Self::Egress];

    /// The word in metrics, JSON and logs.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
#[repr(u32)]
pub enum Verdict {
    /// It goes on.
    Pass = 0,
    /// It ends here.
    Drop = 1,
}

/// Whether verdicts are carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Mode {
    /// Drop what the policy denies.
    Enforce = 0,
    /// Judge and count everything, drop nothing.
    Observe = 1,
}

impl Mode {
    /// The word in the policy file, metrics, JSON and logs.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Observe => "observe",
        }
    }
}

/// Parts of the datapath that a policy uses; the verifier deletes the others.
pub mod feature {
    /// [`AddressTable::Source`](crate::tables::AddressTable) has IPv4 ranges.
    pub const SOURCE4: u32 = 1 << 0;
    /// It has IPv6 ranges.
    pub const SOURCE6: u32 = 1 << 1;
    /// [`AddressTable::Local`](crate::tables::AddressTable) has IPv4 ranges.
    pub const LOCAL4: u32 = 1 << 2;
    /// It has IPv6 ranges.
    pub const LOCAL6: u32 = 1 << 3;
    /// [`AddressTable::Destination`](crate::tables::AddressTable) has IPv4 ranges.
    pub const DESTINATION4: u32 = 1 << 4;
    /// It has IPv6 ranges.
    pub const DESTINATION6: u32 = 1 << 5;
    /// Some service says `to:`. Without it the local address is not looked at.
    pub const LOCAL: u32 = 1 << 6;
    /// Some service has a limit.
    pub const LIMITS: u32 = 1 << 7;
    /// Some destination is given by DNS name.
    pub const NAMES: u32 = 1 << 8;
    /// Few buckets of the IPv4 index of [`AddressTable::Source`](crate::tables::AddressTable) hold anything but the
    /// outside class: the marks behind it are asked first, which stay in the first-level cache.
    pub const SPARSE_SOURCE4: u32 = 1 << 9;
    /// Likewise of its IPv6 index; then of the other tables.
    pub const SPARSE_SOURCE6: u32 = 1 << 10;
    /// Programs hear at once that they may not connect or send somewhere: see [`attempt`](crate::attempt).
    pub const REFUSES_ATTEMPTS: u32 = 1 << 16;
}

/// The constants. The programs read each field by a volatile load of its own.
///
/// `.rodata` symbol `SETTINGS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Settings {
    /// Windows of the IPv6 indexes, by [`AddressTable`](crate::tables::AddressTable).
    pub windows: [Window; 3],
    /// Rules that every address satisfies, by [`AddressTable`](crate::tables::AddressTable).
    pub outside: [u64; 3],
    /// Destinations whose `to` holds DNS names only.
    pub names_only: u64,
    /// Rules with `by`, by direction.
    pub owned: [u64; 2],
    /// Destinations some of whose owners are users.
    pub owned_by_users: u64,
    /// Destinations that list name servers, whose answers are learnt from.
    pub resolvers: u64,
    /// Secret of the limiter's hash, so that nobody can choose sources that share a set.
    pub limit_seed: u64,
    /// Cookie of the agent's network namespace: programs at a cgroup see the sockets of every one.
    pub netns_cookie: u64,
    /// Number of the generation.
    pub generation: u32,
    /// A [`Mode`].
    pub mode: u32,
    /// A [`Verdict`] for each [`Direction`].
    pub defaults: [u32; 2],
    /// Bits of [`feature`].
    pub features: u32,
    /// Keeps the next two in one word.
    pub reserved: u32,
    /// 1: one aya-log line a packet.
    pub trace: u32,
    /// 1: the programs are a [twin](crate::twin): they judge and leave nothing behind but the answer.
    pub twin: u32,
}

const _: () = assert!(
    core::mem::offset_of!(Settings, trace).is_multiple_of(8)
        && core::mem::offset_of!(Settings, twin) == core::mem::offset_of!(Settings, trace) + 4,
    "the programs read both at once"
);

impl Settings {
    /// Observes and drops nothing; what the object holds before the agent writes the policy's constants.
    pub const INERT: Self = Self {
        windows: [Window::ALL; 3],
        outside: [0; 3],
        names_only: 0,
        owned: [0; 2],
        owned_by_users: 0,
        resolvers: 0,
        limit_seed: 0,
        netns_cookie: 0,
        generation: 0,
        mode: Mode::Observe as u32,
        defaults: [Verdict::Drop as u32; 2],
        features: 0,
        reserved: 0,
        trace: 0,
        twin: 0,
    };
}
