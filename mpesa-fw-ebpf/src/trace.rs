//! One aya-log line a packet, for debugging: `mpesa-fw run --trace-packets`. Off, the verifier deletes it; on, it was
//! measured to cost a factor of 3 to 5.

use aya_ebpf::EbpfContext;
use aya_log_ebpf::info;
use core::net::IpAddr;
use mpesa_fw_common::{Direction, Reason, decide::Decision, packet::PacketMeta};

use crate::kernel;

/// Logs a decision, if the agent asked for it.
#[inline(always)]
pub fn packet<C: EbpfContext>(context: &C, direction: Direction, meta: &PacketMeta, decision: &Decision) {
    if !kernel::traces() {
        return;
    }
    let (verdict, reason) = match decision.reason {
        Reason::Pass(reason) => ("pass", reason as u8),
        Reason::Drop(reason) => ("drop", reason as u8),
    };
    let (source, target): (IpAddr, IpAddr) = (meta.source.into(), meta.target.into());
    info!(
        context,
        "{} {} reason={} rule={} {} {}:{} -> {}:{}",
        direction as u8,
        verdict,
        reason,
        decision.rule.raw(),
        meta.protocol,
        source,
        meta.source_port,
        target,
        meta.target_port
    );
}
