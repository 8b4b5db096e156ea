//! Counts for Prometheus, read from the kernel when they are scraped.

mod collector;
mod families;
mod server;

pub use collector::AgentCollector;
pub use server::keep_serving;
