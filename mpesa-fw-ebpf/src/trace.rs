//! One aya-log line a packet, for debugging: `mpesa-fw run --trace-packets`. Off, the verifier deletes it; on, it was
//! measured to cost a factor of 3 to 5.

use aya_log_ebpf::info;
use mpesa_fw_common::Reason;

use crate::{case::Case, kernel};

/// Logs a decision, if the agent asked for it: direction, verdict, the codes of reason and rule, protocol, source and
/// target with their ports. IPv6 addresses are four 32-bit words in hexadecimal.
#[inline(always)]
pub fn packet(case: &Case) {
    if !kernel::traces() {
        return;
    }
    let Case { meta, decision, direction, .. } = case;
    let (drops, reason) = match decision.reason {
        Reason::Pass(reason) => (0u8, reason as u8),
        Reason::Drop(reason) => (1u8, reason as u8),
    };
    let (rule, source_port, target_port) = (decision.rule.raw(), meta.source_port, meta.target_port);
    // Verifier: addresses go as words. An IpAddr or an octet array lies unaligned on the stack, which it refuses.
    if meta.source.is_v4() {
        info!(
            (), // aya-log takes a context and does not use it
            "direction={} drop={} reason={} rule={} protocol={} {:i}:{} -> {:i}:{}",
            *direction as u8,
            drops,
            reason,
            rule,
            meta.protocol,
            meta.source.v4_bits(),
            source_port,
            meta.target.v4_bits(),
            target_port
        );
        return;
    }
    let (s, t) = (meta.source.words, meta.target.words);
    info!(
        (),
        "direction={} drop={} reason={} rule={} protocol={} {:x}:{:x}:{:x}:{:x}.{} -> {:x}:{:x}:{:x}:{:x}.{}",
        *direction as u8,
        drops,
        reason,
        rule,
        meta.protocol,
        s[0],
        s[1],
        s[2],
        s[3],
        source_port,
        t[0],
        t[1],
        t[2],
        t[3],
        target_port
    );
}
