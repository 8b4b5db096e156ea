//! What is asked of a twin, and what it answers.
//!
//! A twin is a second instance of the programs of a generation that no hook runs, only `BPF_PROG_TEST_RUN`: the same
//! instructions, the same tables, the same state, and [`Settings::twin`](crate::settings::Settings::twin) set. It looks flows,
//! fragments and limits up and changes none of them, counts nothing and sends no event. `mpesa-fw why` asks it.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{decide::Sender, owner::Owner};

/// The element of `TWIN`, a map that every instance has for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TwinCase {
    /// Question: cookie of the socket that sends; 0: none.
    pub cookie: u64,
    /// Question: whose it is.
    pub owner: Owner,
    /// Answer: sets that watch the source of a denied packet.
    pub near_miss: u64,
    /// Answer: the [code](crate::decide::Found::code) of what was found of the packet's flow; 0: none, or nobody asked.
    pub found: u32,
    /// Question: the port that the sending socket is bound to; 0: none.
    pub bound_port: u16,
    /// Question: 1: a program has the sending socket.
    pub is_full: u8,
    /// Answer: 1: the packet was judged.
    pub judged: u8,
    /// Answer: 1: by this decision it is dropped.
    pub drops: u8,
    /// Answer: code of the [`PassReason`](crate::PassReason) or [`DropReason`](crate::DropReason).
    pub reason: u8,
    /// Answer: the [`RuleIndex`](crate::tables::RuleIndex) that is charged.
    pub rule: u8,
    /// Question: 1: it is a raw or a packet socket.
    pub is_raw: u8,
    /// Keeps the size a multiple of 8.
    pub reserved: [u8; 4],
}

impl TwinCase {
    /// A question: the socket that sends the packet, as a test run has none.
    #[must_use]
    pub const fn asked(sender: &Sender) -> Self {
        Self {
            cookie: sender.cookie,
            owner: sender.owner,
            near_miss: 0,
            found: 0,
            bound_port: sender.bound_port,
            is_full: sender.is_full as u8,
            judged: 0,
            drops: 0,
            reason: 0,
            rule: 0,
            is_raw: sender.is_raw as u8,
            reserved: [0; 4],
        }
    }

    /// The socket, as far as a hook would have looked at it, into one of which nothing is known.
    #[inline(always)]
    pub const fn read_sender(&self, matters: bool, sender: &mut Sender) {
        sender.owner = self.owner;
        sender.is_full = self.is_full != 0;
        sender.is_raw = self.is_raw != 0;
        if matters {
            sender.cookie = self.cookie;
            sender.bound_port = self.bound_port;
        }
    }
}
