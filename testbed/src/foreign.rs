//! Somebody else's XDP program.

use std::{path::Path, process::Command};

use anyhow::{Context, Result};

use crate::{command::ok, network::Host};

/// Attaches an XDP program of another owner to the interface of a host; it passes everything. `bpffs` is a directory
/// to pin it in.
///
/// # Errors
/// python3 or bpftool is missing, or the kernel refuses.
pub fn attach_foreign_xdp(host: &Host, bpffs: &Path) -> Result<()> {
    let pin = bpffs.join("foreign");
    ok(Command::new("/usr/bin/python3").args(["-c", include_str!("foreign_xdp.py")]).arg(&pin))
        .context("could not load a foreign XDP program")?;
    let mut attach = host.namespace.command("bpftool");
    attach.args(["net", "attach", "xdp", "pinned"]).arg(&pin).args(["dev", Host::INTERFACE]);
    ok(&mut attach).context("could not attach a foreign XDP program")?;
    Ok(())
}
