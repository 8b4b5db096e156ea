//! The socket by which the command line talks to the agent: one line of JSON there, one back, or many where
//! events are followed.

mod client;
mod follow;
mod listener;
mod protocol;
mod server;

pub use client::{Client, ClientError, HangUp, Stream, exchange};
pub use listener::{Listener, ListenerError};
pub use protocol::{Answer, LINE_LIMIT, Line, Refusal, Reply, Request, VERSION};
pub use server::{Answers, attend, serve};
