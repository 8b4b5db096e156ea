//! Servers for the places of a testbed.

mod dnsmasq;
mod echo;
mod nginx;
mod resolved;
mod unbound;

pub use dnsmasq::Dnsmasq;
pub use echo::{TcpEcho, UdpEcho};
pub use nginx::{Certificate, Nginx, Site};
pub use resolved::Resolved;
pub use unbound::Unbound;
