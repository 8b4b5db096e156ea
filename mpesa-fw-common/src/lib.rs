//! What the kernel and the agent share: the bytes of a packet become a
//! [`PacketMeta`](packet::PacketMeta), that becomes a [`Decision`](decide::Decision),
//! and both sides agree on the lay-out of every table in between.
//!
//! The crate is `no_std`, allocates nothing and keeps no state. Bytes, tables
//! and time come in through three traits: [`packet::PacketBytes`], [`tables::Tables`] and
//! [`state::State`]. The eBPF programs implement them over maps, the host tests over vectors, so that
//! both run the same code. Parsing gathers all facts first; the decision needs no bytes.
#![no_std]

pub mod address;
pub mod attempt;
pub mod bypass;
pub mod connection;
pub mod counter;
pub mod decide;
pub mod dns;
pub mod event;
pub mod limit;
pub mod owner;
pub mod packet;
mod pod;
pub mod program;
pub mod reason;
pub mod settings;
pub mod state;
pub mod tables;
pub mod tally;
pub mod twin;

pub use address::{Address, Family};
pub use reason::{DropReason, PassReason, Reason};
pub use settings::{Direction, Mode, Verdict};
pub use tables::RuleSet;
/// What any bytes are one of: the programs fill such in place.
pub use zerocopy::FromBytes;

/// Version of every lay-out in this crate; part of the pin directory's name, so that an agent
/// never adopts maps whose values it would misread. Raise it with any change of a shared type.
pub const ABI_VERSION: u32 = 4;
