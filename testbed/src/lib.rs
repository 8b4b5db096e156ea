//! Networks of namespaces in which the demo and the tests run the real firewall with real clients and servers.
//!
//! A [`Network`] is a router namespace with one namespace a [`Place`] around it: the callback host, Safaricom, an
//! attacker and so on. Every link is made inside the namespaces; the machine's own interfaces are never touched.
//! Everything that is made goes when its value is dropped, also in a panic: processes first (they die with the
//! thread that started them too), then mounts and directories, then namespaces. What a killed run left behind is
//! swept by the next one.
//!
//! [`Firewall`] runs the agent in a namespace and asks it, [`Wire`] sends odd frames and tells which arrived,
//! [`serve`] has the servers.

mod command;
mod curl;
mod firewall;
mod foreign;
mod interrupt;
mod left_out;
mod metrics;
mod namespace;
mod network;
mod process;
mod scratch;
pub mod serve;
mod wait;
mod wire;

pub use command::{Ran, ok, run};
pub use curl::{Answer, Curl};
pub use firewall::{Firewall, Started};
pub use foreign::{
    attach_foreign_setsockopt, attach_foreign_tc, attach_foreign_tc_ahead, attach_foreign_xdp,
};
pub use interrupt::{not_interrupted, watch_interrupts};
pub use left_out::left_out;
pub use metrics::{Drops, Metrics, Sample};
pub use namespace::Namespace;
pub use network::{Host, Network, Place, place};
pub use process::Process;
pub use scratch::Scratch;
pub use wait::{eventually, fewer, here, holds, is_slow};
pub use wire::{Flood, Flooded, Wire};
