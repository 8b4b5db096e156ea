//! What fuzzing has kept, replayed through the very functions that the fuzz targets call.

use std::path::Path;

use crate::{corpus, packets};

fn replay(target: &str, run: fn(&[u8])) {
    for input in corpus::kept(Path::new("fuzz"), target) {
        println!("{target}: {}", corpus::line(&input)); // shown where it fails
        run(&input);
    }
}

#[test]
fn packets() {
    replay("packet", packets::packet::run);
}

#[test]
fn sequences() {
    replay("sequence", packets::sequence::run);
}

/// In the kernel also what was found by the host alone.
#[cfg(not(mpesa_fw_no_object))]
#[test]
#[ignore = "needs root and a kernel"]
fn host_and_kernel_agree_on_what_was_kept() {
    replay("kernel", packets::kernel::run);
    replay("sequence", |input| {
        for hook in [0, 1] {
            packets::kernel::run(&[&[hook], input].concat());
        }
    });
}
