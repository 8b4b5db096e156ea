//! What goes on while nobody asks: names, flows, events, interfaces.

use std::{sync::Arc, time::Duration};

use aya::maps::{MapData, RingBuf};
use mpesa_fw_common::Direction;
use tokio::{io::unix::AsyncFd, task::JoinSet, time::sleep};

use super::{
    Agent, clock, flows,
    install::take,
    judge::Judge,
    kernel::beside,
    resolver::ask,
    seed::Ground,
    told::Told,
    witness::{Testimony, Witness},
};

/// How often the flow table is looked through.
const UPKEEP: Duration = Duration::from_secs(30);

impl Agent {
    /// Starts every task. One that ends does so by a panic, which whoever awaits the set passes on.
    #[must_use]
    pub fn tasks(self: &Arc<Self>) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(self).watch_network());
        tasks.spawn(Arc::clone(self).resolve_names());
        tasks.spawn(Arc::clone(self).watch_owners());
        tasks.spawn(Arc::clone(self).watch_ways());
        tasks.spawn(Arc::clone(self).keep_flows());
        tasks.spawn(Arc::clone(self).drain_events());
        tasks.spawn(Arc::clone(self).watch_trial());
        tasks.spawn(Arc::clone(self).remember_counts());
        tasks.spawn(Arc::clone(self).watch_tampering());
        tasks.spawn(Arc::clone(self).watch_listeners());
        tasks.spawn(Arc::clone(self).keep_audit());
        tasks.spawn(Arc::clone(self).name_users());
        if self.options.trace_packets {
            tasks.spawn(Arc::clone(self).trace_packets());
        }
        tasks
    }

    async fn resolve_names(self: Arc<Self>) {
        self.publish_names().await;
        loop {
            let now = clock::unix();
            let wait = self.state().current.names.next_due(now).map(|due| due.saturating_sub(now).max(1));
            tokio::select! {
                () = sleep(Duration::from_secs(wait.unwrap_or(3600))) => {}
                () = self.wake_names.notified() => {}
            }
            let due = self.state().current.names.due(clock::unix());
            if due.is_empty() {
                continue;
            }
            let resolver = self.resolver().current();
            ask(resolver, due, |answer| take(&mut self.state().current.names, answer)).await;
            self.publish_names().await;
        }
    }

    /// Tells the datapath, and the next agent, what names stand for.
    async fn publish_names(&self) {
        let _one = self.change.lock().await;
        let (table, saved) = {
            let state = self.state();
            (state.current.names.table(&[]), state.current.names.to_save())
        };
        if !saved.is_empty() {
            let store = self.names_store.clone();
            if let Err(error) = beside(move || store.write(&saved)).await {
                tracing::warn!(%error, "answers of DNS were not saved: after a restart they are asked for again");
            }
        }
        if table == self.state().current.published {
            return;
        }
        let for_kernel = table.clone();
        match self.kernel.with(move |datapath| datapath.set_resolved(&for_kernel)).await {
            Ok(left_out) => {
                if left_out > 0 {
                    tracing::warn!(left_out, "answers of DNS do not fit their table");
                }
                self.state().current.published = table;
                self.wake_ways.notify_one();
            }
            Err(error) => tracing::error!("answers of DNS could not be put in force: {error}"),
        }
    }

    async fn keep_flows(self: Arc<Self>) {
        loop {
            sleep(UPKEEP).await;
            match self.kernel.with(|datapath| flows::upkeep(datapath)).await {
                Ok(found) => {
                    // A full table displaces connections that wait for their answer, and the programs give a
                    // connection no flow once it is open: they can't tell who opened it.
                    self.put_back_flows().await;
                    tracing::debug!(
                        expired = found.expired,
                        peers = found.remotes.len(),
                        "flows looked through"
                    );
                    self.state().current.names.in_use(&found.remotes, clock::unix());
                }
                Err(error) => tracing::error!("flows could not be looked through: {error}"),
            }
        }
    }

    /// Records the flows of open connections that the table has lost.
    async fn put_back_flows(&self) {
        let _one = self.change.lock().await;
        let (running, own, published) = {
            let current = &self.state().current;
            (Arc::clone(&current.running), current.network.own_addresses(), current.published.clone())
        };
        let put_back = self.kernel.with(move |datapath| {
            let judge = Judge::new(&running.compiled, own.iter().copied(), &published)
                .with_learnt(&datapath.learnt()?);
            let (mode, generation) = (running.mode(), running.stamp.number);
            // Guests' connections open their flows anew with the next packet of the guest.
            Ground { datapath, judge: &judge, mode, generation, own: &own }.seed_sockets()
        });
        match put_back.await {
            Ok(seeded) if seeded.seeded > 0 => {
                tracing::warn!(
                    connections = seeded.seeded,
                    "connections that this host had opened were without a flow: put back"
                );
            }
            Ok(_) => {}
            Err(error) => tracing::error!("flows could not be put back: {error}"),
        }
    }

    async fn drain_events(self: Arc<Self>) {
        let (ring, names) = self.kernel.with(|datapath| (datapath.events(), datapath.asked_names())).await;
        let names = names.inspect_err(|error| tracing::error!("events are told without names: {error}"));
        let mut witness = Witness::new(names.ok());
        let ring = ring.map_err(|e| e.to_string()).and_then(|ring| pollable(ring).map_err(|e| e.to_string()));
        let mut ring = match ring {
            Ok(ring) => ring,
            Err(error) => {
                tracing::error!("events can't be read, drops are counted all the same: {error}");
                return std::future::pending().await;
            }
        };
        loop {
            let mut ready = match ring.readable_mut().await {
                Ok(ready) => ready,
                Err(error) => {
                    tracing::error!(%error, "events can't be waited for");
                    return std::future::pending().await;
                }
            };
            // A copy: its place in the ring is free again.
            while let Some(bytes) = in_turn(|| ready.get_inner_mut().next().map(|bytes| bytes.to_vec())).await
            {
                witness = self.take_event(bytes, witness).await;
            }
            ready.clear_ready();
        }
    }

    /// Enters an event. Who sent it is looked up on a thread that may block: a program with ten thousand threads, or a user with as
    /// many groups, makes that take milliseconds, and nobody is to keep the agent from its other tasks.
    async fn take_event(&self, bytes: Vec<u8>, mut witness: Witness) -> Witness {
        let is_outgoing = match Told::read(&bytes) {
            None => return witness,
            Some(told) if self.event_log().repeats(&told) => return witness,
            Some(told) => told.event.direction == Direction::Egress as u8,
        };
        let (bytes, witness, testimony) = if is_outgoing {
            let running = Arc::clone(&self.state().current.running);
            beside(move || {
                let testimony = Told::read(&bytes).map(|told| witness.testimony(&told, &running));
                (bytes, witness, testimony.unwrap_or_default())
            })
            .await
        } else {
            (bytes, witness, Testimony::default())
        };
        if let Some(told) = Told::read(&bytes) {
            self.event_log().take(&told, |index| self.state().current.network.name(index), testimony);
        }
        witness
    }
}

/// The next of what may have no end. The other tasks of this thread have their turns between.
async fn in_turn<T>(next: impl FnOnce() -> Option<T>) -> Option<T> {
    tokio::task::coop::consume_budget().await;
    next()
}

/// The ring buffer keeps its descriptor open for as long as it lives, which is what the newer constructor is about.
#[expect(deprecated, reason = "its successor is unsafe, to promise what is true of a RingBuf")]
fn pollable(ring: RingBuf<MapData>) -> std::io::Result<AsyncFd<RingBuf<MapData>>> {
    AsyncFd::new(ring)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn events_without_end_leave_time_for_others() {
        let another = tokio::spawn(tokio::task::yield_now());
        for _ in 0..100_000 {
            in_turn(|| Some(())).await;
            if another.is_finished() {
                return;
            }
        }
        panic!("they had all of the time");
    }
}
