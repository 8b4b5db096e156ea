//! `mpesa-fw run`

use std::{
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::Arc,
    time::Duration,
};

use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use super::{
    arguments::{AgentArguments, RunArguments},
    caller,
    failure::Failure,
    logging,
};
use crate::{
    agent::{
        self, Agent, AgentError, Options, ReloadRequest, SshConnection,
        lock::Lock,
        watchdog::{self, Ended},
    },
    control::{self, Client, Listener, Request},
    metrics, sys,
};

/// An agent that has not answered by then hangs.
const PATIENCE_OF_WATCHDOG: Duration = Duration::from_secs(5);
/// Threads for what blocks: the kernel, parsing, the file system.
const BLOCKING_THREADS: usize = 4;
/// They go again when there is nothing to do, and their memory with them.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Runs the agent until it is told to end.
pub(super) fn run(runtime_dir: &Path, arguments: RunArguments) -> Result<(), Failure> {
    sys::map_large_blocks();
    logging::start();
    let options = options(runtime_dir, arguments.agent, arguments.force)?;
    runtime()?.block_on(serve(options, arguments.metrics, caller::ssh_connection()))
}

/// Waits for the end of a trial, in the agent's place where that is gone.
pub(super) fn watchdog(runtime_dir: &Path, arguments: AgentArguments) -> Result<(), Failure> {
    logging::start();
    // Whoever was there when the trial began wants what was confirmed back, whatever that cuts.
    let options = options(runtime_dir, arguments, true)?;
    let client = Client::new(&Options::control_socket(runtime_dir));
    let is_alive = || client.ask_within(Request::Trial, PATIENCE_OF_WATCHDOG).is_ok();
    match runtime()?.block_on(watchdog::watch(options, is_alive))? {
        Ended::Without => {}
        Ended::TakenBack => {
            tracing::warn!("what was on trial was taken back; no agent runs (`systemctl start mpesa-fw`)")
        }
    }
    Ok(())
}

fn options(runtime_dir: &Path, arguments: AgentArguments, force: bool) -> Result<Options, Failure> {
    let AgentArguments { rules, state_dir, bpffs, xdp, tc, flows_capacity, trace_packets } = arguments;
    let rules = std::path::absolute(&rules)
        .map_err(|error| Failure::usage(format!("`{}` is no path: {error}", rules.display())))?;
    let (runtime_dir, xdp, tc) = (runtime_dir.into(), xdp.into(), tc.into());
    Ok(Options { rules, state_dir, runtime_dir, bpffs, xdp, tc, flows_capacity, trace_packets, force })
}

fn runtime() -> Result<Runtime, Failure> {
    Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_keep_alive(KEEP_ALIVE)
        .build()
        .map_err(|error| {
            Failure::system(format!("cannot start: {error}"), "are there file descriptors left?")
        })
}

/// Exit 1 is for what trying again does not mend, and systemd takes it so: a file that somebody was writing is not that.
fn not_started(error: AgentError) -> Failure {
    if let AgentError::Policy(errors) = &error
        && errors.is_passing
    {
        return Failure::system(errors.to_string(), "systemd tries again; else start it again");
    }
    error.into()
}

async fn serve(options: Options, metrics: SocketAddr, caller: Option<SshConnection>) -> Result<(), Failure> {
    // From here on signals wait for the loop below: a start is never cut in the middle.
    let unheard =
        |error| Failure::system(format!("cannot hear of signals: {error}"), "this should not happen");
    let mut terminate = signal(SignalKind::terminate()).map_err(unheard)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(unheard)?;
    let mut hang_up = signal(SignalKind::hangup()).map_err(unheard)?;

    // The policy first: it fails most often. Then whatever another process may hold. The kernel last.
    Agent::check(&options).await.map_err(not_started)?;
    agent::private_directory(&options.runtime_dir, 0o750)?;
    let _lock = Lock::directory(&options.runtime_dir).map_err(agent::AgentError::from)?;
    let listener = Listener::bind(&Options::control_socket(&options.runtime_dir))?;
    if !metrics.ip().is_loopback() {
        tracing::warn!(address = %metrics, "metrics are served beyond this host: whoever reaches that port can read them");
    }
    // Before the datapath: whoever waits for it may scrape at once. Whoever has the port does not keep the host without a firewall.
    let for_metrics = TcpListener::bind(metrics);
    let agent = Agent::start(options, caller).await.map_err(not_started)?;

    let mut tasks = agent.tasks();
    let (detached, mut is_detached) = mpsc::channel(1);
    let for_control = Arc::clone(&agent);
    tasks.spawn(async move {
        if let Err(error) = control::serve(&listener, for_control, detached).await {
            tracing::error!(%error, "the control socket can't be served");
            std::future::pending::<()>().await;
        }
    });
    let for_scrapes = Arc::clone(&agent);
    tasks.spawn(metrics::keep_serving(metrics, for_metrics, for_scrapes));

    let for_hang_ups = Arc::clone(&agent);
    // Signals that come while one is being followed are one signal: a storm of them makes no queue.
    tasks.spawn(async move {
        while hang_up.recv().await.is_some() {
            tracing::info!(
                "reload by signal: whose SSH connection is to be kept is not known (`mpesa-fw reload` knows)"
            );
            // Its result is in the log and in the metrics.
            drop(for_hang_ups.reload(ReloadRequest::default()).await);
        }
    });

    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            // Nobody is left to say it where the control socket's task has panicked: that is the next branch's.
            Some(()) = is_detached.recv() => {
                agent.end_following(agent::Why::Detached).await;
                agent.collect_audit().await;
                agent::stopping();
                return Ok(());
            }
            Some(ended) = tasks.join_next() => {
                if let Err(error) = ended && let Ok(panic) = error.try_into_panic() {
                    std::panic::resume_unwind(panic);
                }
            }
        }
    }
    agent.end_following(agent::Why::AgentEnds).await;
    tasks.abort_all();
    agent.vouch_no_longer().await;
    agent.collect_audit().await;
    agent::stopping();
    tracing::info!("the agent ends; the datapath stays in force (`mpesa-fw detach` would end that)");
    Ok(())
}
