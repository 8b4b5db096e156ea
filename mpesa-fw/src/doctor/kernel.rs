//! What the kernel has of what the firewall needs.

use std::{fs, path::Path};

use super::Finding;
use crate::datapath;

const BTF: &str = "/sys/kernel/btf/vmlinux";

pub(super) fn examine(bpffs: &Path) -> Vec<Finding> {
    let mut findings = vec![features()];
    if !Path::new(BTF).exists() {
        findings.push(Finding::wrong(
            "kernel",
            format!("{BTF} is not there"),
            "the programs are fitted to the kernel by its BTF",
            "boot a kernel with CONFIG_DEBUG_INFO_BTF=y; those of Debian and Ubuntu have it",
        ));
    }
    findings.extend(jit());
    findings.extend(lockdown());
    findings.extend(pins(bpffs));
    findings
}

fn features() -> Finding {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    match datapath::requirements() {
        Ok(()) => Finding::fine("kernel", format!("Linux {} has what the programs need", release.trim())),
        Err(error) => Finding::wrong(
            "kernel",
            error.to_string(),
            "the firewall does not start on it",
            "boot Linux 5.18 or later (Debian 12 has 6.1)",
        ),
    }
}

fn jit() -> Option<Finding> {
    let enabled = fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").ok()?;
    (enabled.trim() == "0").then(|| {
        Finding::wrong(
            "kernel",
            "programs are interpreted (net.core.bpf_jit_enable is 0)",
            "each packet costs many times as much: a flood takes the host down before it fills the line",
            "sysctl -w net.core.bpf_jit_enable=1, and keep it in /etc/sysctl.d",
        )
    })
}

/// The word in brackets is in force.
fn lockdown() -> Option<Finding> {
    let text = fs::read_to_string("/sys/kernel/security/lockdown").ok()?;
    text.contains("[confidentiality]").then(|| {
        Finding::wrong(
            "kernel",
            "the kernel is locked down for confidentiality",
            "programs of this kind are refused then",
            "boot with lockdown=integrity or without lockdown",
        )
    })
}

fn pins(bpffs: &Path) -> Option<Finding> {
    match datapath::pins_can_be_kept(bpffs) {
        Ok(true) => Some(Finding::fine("pins", format!("{} is on a bpffs", bpffs.display()))),
        Ok(false) => Some(Finding::note(
            "pins",
            format!("{} is on no bpffs yet", bpffs.display()),
            "what is in the kernel outlives the agent by its pins there",
            "the agent mounts one where it may; in a container mount the host's: --mount type=bind,source=/sys/fs/bpf,target=/sys/fs/bpf",
        )),
        Err(error) => Some(Finding::wrong(
            "pins",
            error.to_string(),
            "without pins the firewall would end with the agent, so it does not start",
            "mount a writable bpffs: mount -t bpf bpf /sys/fs/bpf",
        )),
    }
}
