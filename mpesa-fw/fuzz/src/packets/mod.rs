//! Targets about packets. They stand on what the tests of the decision stand on (`crate::{case, frames, host, kernel}`),
//! which the fuzz crate takes from `tests/decision`.

pub(crate) mod dns;
mod facts;
#[cfg(not(mpesa_fw_no_object))]
pub(crate) mod kernel;
mod laws;
mod model;
pub(crate) mod packet;
mod rules;
pub(crate) mod sequence;
mod steps;
