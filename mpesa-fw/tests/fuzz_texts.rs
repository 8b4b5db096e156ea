//! What fuzzing has kept, replayed: policies, set files and messages of the control socket, through the very functions
//! that the fuzz targets call.

use std::path::Path;

#[path = "../fuzz/src/corpus.rs"]
#[allow(dead_code, unreachable_pub, reason = "of what is shared with the fuzz targets a part is needed")]
mod corpus;
#[path = "../fuzz/src/texts/mod.rs"]
#[allow(unreachable_pub, missing_docs, reason = "shared with the fuzz targets")]
mod texts;

fn replay(target: &str, run: fn(&[u8])) {
    for input in corpus::kept(Path::new("fuzz"), target) {
        println!("{target}: {}", corpus::line(&input)); // shown where it fails
        run(&input);
    }
}

#[test]
fn policies() {
    replay("policy", texts::policy::run);
}

#[test]
fn set_files() {
    replay("set_file", texts::set_file::run);
}

#[test]
fn control_messages() {
    replay("control", texts::control::run);
}
