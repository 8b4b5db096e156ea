//! Sockets that may send past egress: whoever told one to before that was refused can go on.
//!
//! The kernel shows whether an AF_XDP socket has a ring to transmit from (`XDP_DIAG`, linux/xdp_diag.h). Of a packet socket it does
//! not show `PACKET_QDISC_BYPASS`, so that those are listed which were there before.

use std::{
    collections::{BTreeSet, HashSet},
    fs, io,
    path::Path,
    time::{Duration, SystemTime},
};

use mpesa_fw_common::bypass::Bypass;
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use procfs::Current as _;

use super::Finding;
use crate::{
    agent::{Process, Status, ask::ask, holders},
    datapath,
};

const ABOUT: &str = "bypass";

/// Sockets at most.
const LIMIT: usize = 1 << 20;
/// Names of processes in one finding.
const SHOWN: usize = 8;

pub(super) fn examine(bpffs: &Path, status: Option<&Status>) -> Vec<Finding> {
    let since = datapath::refuses_bypasses_since(bpffs);
    // In observe mode sockets were told to, and are counted.
    let counted = status.and_then(|status| status.bypasses.as_ref()?.get(Bypass::Packet.label()).copied());
    let before = since.filter(|_| counted.unwrap_or_default() == 0);
    let mut findings = Vec::new();
    match packet_sockets() {
        Ok(inodes) => findings.extend(packet(&inodes, before)),
        Err(error) => findings.push(unknown("packet sockets", &error)),
    }
    match xdp_sockets() {
        Ok(inodes) => findings.extend(xdp(&inodes)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => findings.extend(uncertain_xdp()),
        Err(error) => findings.push(unknown("AF_XDP sockets", &error)),
    }
    if findings.is_empty() {
        findings.push(Finding::fine(ABOUT, "no socket was opened early enough to send past egress"));
    }
    findings
}

fn packet(inodes: &HashSet<u64>, before: Option<SystemTime>) -> Option<Finding> {
    let owners = owners(inodes, before)?;
    Some(Finding::note(
        ABOUT,
        format!("packet sockets that may have been there before PACKET_QDISC_BYPASS was refused: {owners}"),
        "the kernel does not show whether they were told to send past egress; one that was goes on",
        "know each of these programs, and restart it (captures and DHCP clients have such sockets and need no bypass)",
    ))
}

fn xdp(inodes: &HashSet<u64>) -> Option<Finding> {
    let owners = owners(inodes, None)?;
    Some(Finding::wrong(
        ABOUT,
        format!("AF_XDP sockets that can transmit: {owners}"),
        "what they send is not judged: they were opened before the firewall refused that, or in observe mode",
        "end these programs; started again they are refused",
    ))
}

/// Where the kernel has no `XDP_DIAG`, it says only how many there are.
fn uncertain_xdp() -> Option<Finding> {
    let count = xdp_count();
    (count > 0).then(|| {
        Finding::note(
            ABOUT,
            format!("AF_XDP sockets: {count}; the kernel does not show whose (it has no xsk_diag), nor whether they can transmit"),
            "what one that was opened before the firewall transmits is not judged",
            "whoever has mapped a ring to transmit from: grep -l '80000000 .* socket:' /proc/*/maps",
        )
    })
}

fn unknown(what: &str, error: &io::Error) -> Finding {
    Finding::note(
        ABOUT,
        format!("{what} can't be listed: {error}"),
        "one that was opened before the firewall may send past egress",
        "run this as root; compare `ss --packet` and `ss --xdp`",
    )
}

/// Who has them, of those that may have been opened before; none: nobody.
fn owners(inodes: &HashSet<u64>, before: Option<SystemTime>) -> Option<String> {
    let known = holders(inodes);
    let is_early = |process: &Process| match (before, started(process.pid)) {
        (Some(before), Some(started)) => started <= before,
        (None, _) | (_, None) => true,
    };
    let name = |inode: &u64| match known.get(inode) {
        Some(process) => is_early(process).then(|| process.to_string()),
        None => Some(format!("a process that is not seen (socket {inode})")),
    };
    let names: BTreeSet<String> = inodes.iter().filter_map(name).collect();
    let mut text = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text += &format!(" and {} more", names.len() - SHOWN);
    }
    (!names.is_empty()).then_some(text)
}

/// When a process was started, or a second before.
fn started(pid: i32) -> Option<SystemTime> {
    let ticks = procfs::process::Process::new(pid).ok()?.stat().ok()?.starttime;
    let after_boot = Duration::from_secs(ticks / procfs::ticks_per_second());
    let age = procfs::Uptime::current().ok()?.uptime_duration().saturating_sub(after_boot);
    SystemTime::now().checked_sub(age)
}

/// Inodes of the packet sockets of this network namespace.
fn packet_sockets() -> io::Result<HashSet<u64>> {
    let table = fs::read_to_string("/proc/self/net/packet")?;
    // sk RefCnt Type Proto Iface R Rmem User Inode
    Ok(table.lines().skip(1).filter_map(|line| line.split_whitespace().nth(8)?.parse().ok()).collect())
}

/// Inodes of the AF_XDP sockets of this network namespace that have a ring to transmit from.
fn xdp_sockets() -> io::Result<HashSet<u64>> {
    if xdp_count() == 0 {
        return Ok(HashSet::new());
    }
    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    const AF_XDP: u8 = 44;
    const XDP_SHOW_RING_CFG: u32 = 1 << 1;
    // `struct xdp_diag_req`: family, protocol, inode, what to show, cookie.
    let mut question = [0; 20];
    question[0] = AF_XDP;
    question[8..12].copy_from_slice(&XDP_SHOW_RING_CFG.to_ne_bytes());
    let sockets = ask(NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY, &question, LIMIT)?;
    Ok(sockets.iter().filter_map(|socket| transmitter(socket)).collect())
}

/// The inode of a socket that has a ring to transmit from: `struct xdp_diag_msg` (16 bytes), and attributes.
fn transmitter(message: &[u8]) -> Option<u64> {
    const XDP_DIAG_TX_RING: u16 = 4;
    let inode = u32::from_ne_bytes(*message.get(4..)?.first_chunk()?);
    let mut rest = message.get(16..)?;
    while let Some([a, b, c, d]) = rest.first_chunk() {
        let (length, kind) = (u16::from_ne_bytes([*a, *b]) as usize, u16::from_ne_bytes([*c, *d]));
        if kind == XDP_DIAG_TX_RING {
            return Some(inode.into());
        }
        rest = rest.get(length.next_multiple_of(4).max(4)..)?;
    }
    None
}

/// How many AF_XDP sockets there are in this network namespace. Asked first: `XDP_DIAG` is a module that not every kernel has.
fn xdp_count() -> u64 {
    let table = fs::read_to_string("/proc/self/net/protocols").unwrap_or_default();
    let of_xdp = table.lines().find_map(|line| line.strip_prefix("XDP "));
    // protocol size sockets …
    of_xdp.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_to_transmit_from_is_found() {
        let ring = |kind: u16| [&8u16.to_ne_bytes()[..], &kind.to_ne_bytes(), &16u32.to_ne_bytes()].concat();
        let head = [&[44, 3, 0, 0][..], &77u32.to_ne_bytes(), &[0; 8]].concat();
        let of = |kinds: &[u16]| {
            transmitter(&[head.clone(), kinds.iter().flat_map(|k| ring(*k)).collect()].concat())
        };
        assert_eq!(of(&[3, 4]), Some(77));
        assert_eq!(of(&[3]), None, "it only receives");
        assert_eq!(of(&[]), None);
        assert_eq!(transmitter(&head[..10]), None);
    }
}
