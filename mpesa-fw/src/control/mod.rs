//! The socket by which the command line talks to the agent: one line of JSON there, one back.

mod client;
mod listener;
mod protocol;
mod server;

pub use client::{Client, ClientError, exchange};
pub use listener::{Listener, ListenerError};
pub use protocol::{Answer, LINE_LIMIT, Refusal, Reply, Request, VERSION};
pub use server::{Answers, attend, serve};
