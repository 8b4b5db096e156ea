//! Answers of guests that were booted before: a run that was interrupted, or of one kernel, spares the next one what
//! it has seen. Only where all was as promised, and only for the very same kernel, root, programs, scripts and machine.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::archive::Kernel;
use super::build::{Built, LEFT_OUT_TESTS};
use super::{guest, image};
use crate::process::capture;

/// Everything that a guest's answers depend on.
pub(crate) fn digest(kernel: &Kernel, root: &Path, built: &Built, minutes: u64) -> Result<String> {
    let mut files = vec![kernel.image.as_path(), &kernel.modules, root, &built.agent];
    files.extend(built.tests.iter().map(|(_, program)| program.as_path()));
    let sums = capture(Command::new("sha256sum").args(&files))?;
    // Where they lie doesn't matter.
    let mut digest: String =
        sums.lines().filter_map(|line| line.split(' ').next()).map(|sum| format!("{sum}\n")).collect();
    for (name, text) in image::SCRIPTS {
        digest.push_str(&format!("{name}\n{text}"));
    }
    for (program, test, _) in LEFT_OUT_TESTS {
        digest.push_str(&format!("without {program} {test}\n"));
    }
    digest.push_str(&format!("{minutes} minutes\n{}", guest::machine()));
    Ok(digest)
}

/// Whether the console is of a guest with just that.
pub(crate) fn is_of(console: &Path, digest: &str) -> bool {
    console.is_file() && fs::read_to_string(place(console)).is_ok_and(|of| of == digest)
}

/// Says of what the console is.
pub(crate) fn keep(console: &Path, digest: &str) -> Result<()> {
    fs::write(place(console), digest).with_context(|| format!("cannot write beside {}", console.display()))
}

/// The console is about to be of something else.
pub(crate) fn forget(console: &Path) -> Result<()> {
    match fs::remove_file(place(console)) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove what is beside {}", console.display()))
        }
        _ => Ok(()),
    }
}

fn place(console: &Path) -> PathBuf {
    console.with_extension("of")
}
