//! Whether the wall clock can be trusted: sets expire by it, and events and counts are dated by it.

use super::Finding;
use crate::sys;

pub(super) fn examine() -> Vec<Finding> {
    vec![match sys::clock_is_synchronized() {
        Ok(true) => Finding::fine("time", "the clock is synchronized"),
        Ok(false) => Finding::wrong(
            "time",
            "the kernel says that the clock is not synchronized",
            "sets expire by it, and times in events, `status` and metrics can't be compared with those of other hosts",
            "run chrony or systemd-timesyncd, and let the policy permit its server (udp port 123)",
        ),
        Err(error) => Finding::note(
            "time",
            format!("the kernel does not say whether the clock is synchronized: {error}"),
            "sets expire by it",
            "run this as root",
        ),
    }]
}
