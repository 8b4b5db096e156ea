//! The line that the programs log of each packet: it also tells why a packet passed, which no counter does.

use std::sync::{Arc, Mutex};

use aya::Ebpf;
use aya_log::EbpfLogger;
use mpesa_fw_common::{Reason, decide::Decision};

/// Keeps the lines.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl log::Log for Lines {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &log::Record<'_>) {
        self.0.lock().expect("nobody panics with it").push(record.args().to_string());
    }
    fn flush(&self) {}
}

pub(super) struct Trace {
    logger: EbpfLogger<Lines>,
    lines: Lines,
}

impl Trace {
    pub(super) fn new(ebpf: &mut Ebpf) -> Self {
        let lines = Lines::default();
        let logger = EbpfLogger::init_with_logger(ebpf, lines.clone()).expect("the object logs");
        Self { logger, lines }
    }

    /// There must be one line, and it must tell the same.
    pub(super) fn compare(&mut self, decision: &Decision, wrong: &mut Vec<String>) {
        self.logger.flush();
        let lines = std::mem::take(&mut *self.lines.0.lock().expect("nobody panics with it"));
        let (drop, reason) = match decision.reason {
            Reason::Pass(reason) => (0, reason as u8),
            Reason::Drop(reason) => (1, reason as u8),
        };
        let expected = format!(" drop={drop} reason={reason} rule={} ", decision.rule.raw());
        if lines.len() != 1 || !lines[0].contains(&expected) {
            wrong.push(format!("logged {lines:?}, not{expected}"));
        }
    }
}
