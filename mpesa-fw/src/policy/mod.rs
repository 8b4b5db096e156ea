//! What the admin wrote.

pub mod model;
