//! `run --trace-packets`: what the programs say of each packet (aya-log) goes to the agent's log.

use std::sync::Arc;

use aya_log::EbpfLogger;
use log::{Log, Metadata, Record};
use tokio::io::unix::AsyncFd;

use super::{Agent, error::AgentError};

impl Agent {
    /// Reads the lines of the generation in force, until another one is.
    pub(super) async fn trace_packets(self: Arc<Self>) {
        loop {
            match self.lines().await {
                Ok(lines) => {
                    tokio::select! {
                        error = follow(lines) => tracing::error!(%error, "the trace of packets ends"),
                        () = self.wake_trace.notified() => continue,
                    }
                }
                Err(error) => tracing::error!("packets can't be traced: {error}"),
            }
            self.wake_trace.notified().await;
        }
    }

    async fn lines(&self) -> Result<AsyncFd<EbpfLogger<ToTracing>>, AgentError> {
        let ids = self.kernel.with(|datapath| datapath.program_ids()).await?;
        let id = ids.first().copied().unwrap_or_default();
        let logger = EbpfLogger::init_from_id_with_logger(id, ToTracing);
        let logger = logger.map_err(|error| AgentError::Internal(error.to_string()))?;
        pollable(logger).map_err(|error| AgentError::Internal(error.to_string()))
    }
}

async fn follow(mut lines: AsyncFd<EbpfLogger<ToTracing>>) -> std::io::Error {
    loop {
        match lines.readable_mut().await {
            Ok(mut ready) => {
                ready.get_inner_mut().flush();
                ready.clear_ready();
            }
            Err(error) => return error,
        }
    }
}

/// The logger keeps its descriptor open for as long as it lives, which is what the newer constructor is about.
#[expect(deprecated, reason = "its successor is unsafe, to promise what is true of an EbpfLogger")]
fn pollable(logger: EbpfLogger<ToTracing>) -> std::io::Result<AsyncFd<EbpfLogger<ToTracing>>> {
    AsyncFd::new(logger)
}

struct ToTracing;

impl Log for ToTracing {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &Record<'_>) {
        tracing::info!("packet {}", record.args());
    }
    fn flush(&self) {}
}
