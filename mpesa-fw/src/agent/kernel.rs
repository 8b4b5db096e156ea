//! The datapath, shared by the tasks of the agent.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::datapath::Datapath;

/// One datapath, one user at a time. Its calls block, some for seconds (a million prefixes): they run beside the
/// tasks, never in them.
#[derive(Clone)]
pub(super) struct Kernel(Arc<Mutex<Datapath>>);

impl Kernel {
    /// Takes the datapath.
    #[must_use]
    pub(super) fn new(datapath: Datapath) -> Self {
        Self(Arc::new(Mutex::new(datapath)))
    }

    /// Runs `f` on the datapath on a thread that may block. A panic in it goes on in the caller.
    pub(super) async fn with<R: Send + 'static>(
        &self,
        f: impl FnOnce(&mut Datapath) -> R + Send + 'static,
    ) -> R {
        let this = self.clone();
        beside(move || f(&mut this.lock())).await
    }

    /// For threads that may block.
    ///
    /// A panic while the lock was held has ended the agent, or soon will; what others read meanwhile comes from the
    /// kernel and is as good as before.
    pub(super) fn lock(&self) -> MutexGuard<'_, Datapath> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs `f` on a thread that may block. A panic in it goes on in the caller.
pub async fn beside<R: Send + 'static>(f: impl FnOnce() -> R + Send + 'static) -> R {
    match tokio::task::spawn_blocking(f).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends, and this task with it: there is nobody to answer.
            Err(_) => std::future::pending().await,
        },
    }
}
