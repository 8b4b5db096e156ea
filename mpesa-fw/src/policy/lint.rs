//! What is valid and doubtful.

use time::Date;

use super::{model::Policy, report::Report, sets::Sets};

/// Sets that no rule names.
pub(super) fn unused(_sets: &Sets, _report: &mut Report) {}

/// Everything else.
pub(super) fn lint(_policy: &Policy, _today: Date, _report: &mut Report) {}
