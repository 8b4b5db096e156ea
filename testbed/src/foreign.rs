//! Somebody else's programs at the hooks. They pass everything, or leave it to the next.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{command::ok, network::Host};

/// Attaches an XDP program of another owner to the interface of a host. `bpffs` is a directory to pin it in.
///
/// # Errors
/// python3 or bpftool is missing, or the kernel refuses.
pub fn attach_foreign_xdp(host: &Host, bpffs: &Path) -> Result<()> {
    let pin = load("xdp", bpffs)?;
    let mut attach = host.namespace.command("bpftool");
    attach.args(["net", "attach", "xdp", "pinned"]).arg(&pin).args(["dev", Host::INTERFACE]);
    ok(&mut attach).context("could not attach a foreign XDP program")?;
    Ok(())
}

/// Likewise a TC egress filter, at a clsact qdisc that it makes.
///
/// # Errors
/// python3 or tc is missing, or the kernel refuses.
pub fn attach_foreign_tc(host: &Host, bpffs: &Path) -> Result<()> {
    let pin = load("tc", bpffs)?;
    let (interface, pin) = (Host::INTERFACE, pin.display());
    host.namespace.sh(&format!(
        "tc qdisc add dev {interface} clsact
         tc filter add dev {interface} egress prio 40 bpf direct-action object-pinned {pin}"
    ))?;
    Ok(())
}

/// Attaches a TC egress filter that accepts every packet, at the clsact qdisc that is there and before what is in it:
/// of one priority the latest is asked first.
///
/// # Errors
/// python3 or tc is missing, or the kernel refuses.
pub fn attach_foreign_tc_ahead(host: &Host, bpffs: &Path) -> Result<()> {
    let pin = load("tc-accept", bpffs)?;
    let (interface, pin) = (Host::INTERFACE, pin.display());
    host.namespace.sh(&format!(
        "tc filter add dev {interface} egress prio 1 handle 1 bpf direct-action object-pinned {pin}"
    ))?;
    Ok(())
}

/// Attaches a program that is asked before options of sockets are set, and allows all, to a cgroup. Answers its pin.
///
/// # Errors
/// python3 or bpftool is missing, or the kernel refuses.
pub fn attach_foreign_setsockopt(cgroup: &Path, bpffs: &Path) -> Result<PathBuf> {
    let pin = load("setsockopt", bpffs)?;
    let mut attach = Command::new("bpftool");
    attach
        .args(["cgroup", "attach"])
        .arg(cgroup)
        .args(["cgroup_setsockopt", "pinned"])
        .arg(&pin)
        .arg("multi");
    ok(&mut attach).context("could not attach a foreign program to a cgroup")?;
    Ok(pin)
}

fn load(kind: &str, bpffs: &Path) -> Result<PathBuf> {
    let pin = bpffs.join(format!("foreign-{kind}"));
    ok(Command::new("/usr/bin/python3").args(["-c", include_str!("foreign.py"), kind]).arg(&pin))
        .with_context(|| format!("could not load a foreign {kind} program"))?;
    Ok(pin)
}
