//! Keeps the datapath as the policy says.

pub mod clock;
pub mod interfaces;
pub mod links;
pub mod lock;
pub mod notify;
pub mod options;
pub mod sockets;
