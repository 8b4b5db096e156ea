//! What a test can't ask of this machine is said, never passed over.

use std::io::{self, Write as _};

/// Says that a part of a test is not run here, and why; `cargo xtask` counts it as skipped.
///
/// Past what libtest keeps of a test's output: of a test that passes it shows nothing.
pub fn left_out(what: &str, why: &str) {
    // The name of the test may stand on this line, without its end.
    let _closed = writeln!(io::stdout().lock(), "\nleft out: {what}: {why}");
}
