//! Ctrl-C without leaving namespaces behind.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{SigSet, Signal};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on SIGINT, SIGTERM and SIGHUP only raise a flag; see [`not_interrupted`]. Call it before there are other
/// threads. Children inherit the mask (Rust 1.66): end them by SIGKILL, and signal none of them otherwise.
///
/// # Errors
/// The signals can't be masked.
pub fn watch_interrupts() -> Result<()> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
    signals.thread_block().context("could not mask signals")?;
    thread::spawn(move || {
        while signals.wait().is_ok() {
            INTERRUPTED.store(true, Ordering::Relaxed);
        }
    });
    Ok(())
}

/// To be asked between steps: an error unwinds, and unwinding cleans up.
///
/// # Errors
/// A signal came.
pub fn not_interrupted() -> Result<()> {
    ensure!(!INTERRUPTED.load(Ordering::Relaxed), "interrupted");
    Ok(())
}
