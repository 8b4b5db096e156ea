//! Targets about what people and programs write.

pub mod control;
mod findings;
pub mod policy;
mod probe;
pub mod set_file;
