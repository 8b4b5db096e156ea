//! Answers of DNS (RFC 1035), as far as the datapath must understand them: which name was asked for, and which addresses it
//! has.
//!
//! An answer that comes in from a resolver is read in the kernel before the program that asked has it, so that the first
//! packet to the address finds it allowed. Everything is a step that checks, advances and says what comes next: the
//! kernel's program walks by `bpf_loop`, the host by a loop.
//!
//! UDP only. Where a segment of TCP begins is the peer's choice, and the contents of a TXT record are anybody's: what lies
//! at the beginning of a segment proves nothing.

mod answered;
mod learnt;
mod name;
mod reading;

pub use answered::{ANSWERED_AT_ONCE, ANSWERED_CAPACITY, Answered};
pub use learnt::{
    LEARNT_CAPACITY, LearnCount, LearnOutcome, Learnt, LearntName, NameBudget, Noted, PERIOD_SHIFT, note,
    tick, until,
};
pub use name::{NAME_ROOM, NameKey, NameSlots, SLOTS_PER_NAME, TrieKey, WILDCARD, trie_key};
pub use reading::{MESSAGE, Next, RECORD_STEPS, Reading, Record};

/// The port of name servers.
pub const PORT: u16 = 53;
