//! What an outsider sends. One file a class; each case says what should become of each frame.

mod control;
mod errors;
mod extensions;
mod fragments;
mod lengths;
mod link;
mod options;
mod protocols;
mod reassembly;
mod sources;
mod tcp;
mod truncation;

use crate::case::Case;

/// A class and its cases.
pub(crate) type Class = (&'static str, Vec<Case>);

/// Every class.
pub(crate) fn classes() -> Vec<Class> {
    vec![
        ("truncation", truncation::cases()),
        ("options", options::cases()),
        ("lengths and versions", lengths::cases()),
        ("fragments", fragments::cases()),
        ("reassembly", reassembly::cases()),
        ("extension headers", extensions::cases()),
        ("link layer", link::cases()),
        ("protocols and tunnels", protocols::cases()),
        ("impossible sources", sources::cases()),
        ("TCP flags", tcp::cases()),
        ("ICMP errors", errors::cases()),
        ("control traffic", control::cases()),
    ]
}
