//! Facts to a decision.
