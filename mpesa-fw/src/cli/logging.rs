//! Logs on stderr.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::{EnvFilter, fmt};

/// What `MPESA_FW_LOG` may change: `debug`, `mpesa_fw=debug,hickory_resolver=info`.
const VARIABLE: &str = "MPESA_FW_LOG";
/// Libraries say what the agent says better.
const DEFAULT: &str =
    "info,hickory_resolver=error,hickory_proto=error,netlink_proto=error,aya=warn,aya_obj=warn";

/// Starts logging, once a process.
pub(super) fn start() {
    let filter = EnvFilter::try_from_env(VARIABLE).unwrap_or_else(|_| EnvFilter::new(DEFAULT));
    // No colours, on a terminal neither: the library was built without them, and complains where it is asked for some.
    let log = fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false).with_target(false);
    // journald stamps lines itself.
    if std::env::var_os("JOURNAL_STREAM").is_some() && !io::stderr().is_terminal() {
        log.without_time().init();
    } else {
        log.init();
    }
}
