//! Packets that no test run can send, for want of their sockets: the twin is told whose they are and asked what would become of them. It
//! changes nothing, so the host's state is put into its maps before each.

use mpesa_fw_common::{
    decide::Decision,
    dns::{LearntName, tick},
};
use nix::time::{ClockId, clock_gettime};

use super::{Hook, Pair, maps};
use crate::{
    case::{Packet, TEST_RUN},
    twins::Judged,
};

/// From the host's clock to the kernel's.
#[derive(Clone, Copy)]
pub(super) struct Shift {
    host: u64,
    kernel: u64,
}

impl Shift {
    fn from(host: u64) -> Self {
        // The one that the programs read: of the last tick.
        let kernel = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).expect("a clock");
        Self { host, kernel: std::time::Duration::from(kernel).as_nanos() as u64 }
    }

    /// A moment of the host's, which may be one to come. 0 is none.
    pub(super) fn time(self, host: u64) -> u64 {
        if host == 0 { 0 } else { (self.kernel + host).checked_sub(self.host).expect("up for long enough") }
    }

    /// An address that was learnt.
    pub(super) fn learnt(self, name: LearntName) -> LearntName {
        match name.slot() {
            Some(slot) => {
                LearntName::new(slot, (tick(self.kernel) + name.until()).saturating_sub(tick(self.host)))
            }
            None => name,
        }
    }
}

impl Pair {
    /// Judges a packet by oracle, host and twin; what differs, and None where a test run can't have the frame.
    pub(crate) fn foretell(&mut self, packet: &Packet, hook: Hook) -> Option<(Decision, Vec<String>)> {
        let shift = Shift::from(self.twins.state.now.get());
        maps::put_history(&mut self.kernel.ebpf, &self.twins.state, shift);
        let foretold = self.kernel.ask(packet, hook);
        let Judged { decision, mut wrong, .. } = self.twins.judge(packet, &packet.sender.unwrap_or(TEST_RUN));
        let foretold = Some(foretold?);
        wrong.extend(self.contradictions(packet.direction, foretold, &decision));
        Some((decision, wrong))
    }
}
