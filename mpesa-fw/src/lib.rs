//! The agent of mpesa-fw and its command line.
//!
//! [`policy`] reads what the admin wrote, [`compile`] turns it into tables, [`datapath`] puts them into the
//! kernel, [`agent`] keeps them there, [`control`] and [`metrics`] let others ask, [`cli`] is one who asks.
//! [`doctor`] looks for what keeps them from their work.
//! [`mod@reference`] is the oracle of the tests: what a policy says of a packet, told naively.
//! Dependencies point that way only.

pub mod agent;
pub mod cli;
pub mod compile;
pub mod control;
pub mod datapath;
pub mod doctor;
#[doc(hidden)]
pub mod fault;
pub mod metrics;
pub mod policy;
mod printable;
pub mod reference;
pub mod sys;
