//! Handles of the state maps: what outlives generations and agents.

use std::{cell::RefCell, os::fd::OwnedFd};

use aya::maps::{Array, Map, MapData, RingBuf};
use mpesa_fw_common::{
    Address,
    attempt::{Lease, Refusals, WayKey},
    connection::{CallerKey, ConnectionCount},
    counter::CounterBlock,
    dns::{Answered, LearnCount, Learnt},
    event::{EventBucket, QUOTAS},
    state::{FlowKey, FlowState, InterfaceSlot, NameSlot},
    tables::ResolvedNames,
    tally::{Tally, TallyKey},
};

use super::{Result, error::Context, intact::Written, pins::Pins, shape::FLOWS};
use crate::{
    fault::{self, Point},
    sys::{self, KernelMap, Plain, SharedWords},
};

pub(super) const LIMIT_SEED: &str = "LIMIT_SEED";

/// The state maps that the agent reads or writes.
pub(super) struct State {
    pub(super) flows: KernelMap<FlowKey, FlowState>,
    pub(super) flow_ports: FlowPorts,
    pub(super) counters: KernelMap<u32, CounterBlock>,
    pub(super) connections: KernelMap<u32, ConnectionCount>,
    pub(super) callers: KernelMap<CallerKey, ConnectionCount>,
    pub(super) strangers: KernelMap<CallerKey, ConnectionCount>,
    pub(super) bypasses: KernelMap<u32, u64>,
    pub(super) ways: KernelMap<WayKey, u32>,
    pub(super) lease: KernelMap<u32, Lease>,
    pub(super) refusals: KernelMap<u32, Refusals>,
    pub(super) tallies: KernelMap<TallyKey, Tally>,
    pub(super) tallies_rest: KernelMap<u32, Tally>,
    pub(super) near_misses: KernelMap<u32, u64>,
    pub(super) event_buckets: KernelMap<u32, EventBucket>,
    pub(super) own_hints: KernelMap<u32, u64>,
    pub(super) own_addresses: KernelMap<Address, u8>,
    pub(super) resolved: KernelMap<Address, ResolvedNames>,
    pub(super) learnt: KernelMap<Address, Learnt>,
    pub(super) learning: KernelMap<u32, LearnCount>,
    pub(super) interface_slots: KernelMap<u32, InterfaceSlot>,
    pub(super) counter_names: KernelMap<u32, NameSlot>,
    pub(super) set_names: KernelMap<u32, NameSlot>,
    pub(super) dns_names: KernelMap<u32, NameSlot>,
    /// Ids of all state maps of the object.
    pub(super) ids: Vec<u32>,
    pub(super) written: RefCell<Written>,
}

impl State {
    /// Opens what `shape::adopt_state` has left at the pins.
    pub(super) fn open(pins: &Pins, ids: Vec<u32>) -> Result<Self> {
        Ok(Self {
            flows: open(pins, FLOWS)?,
            flow_ports: FlowPorts::open(pins)?,
            counters: open(pins, "COUNTERS")?,
            connections: open(pins, "CONNECTIONS")?,
            callers: open(pins, "CALLERS")?,
            strangers: open(pins, "STRANGERS")?,
            bypasses: open(pins, "BYPASSES")?,
            ways: open(pins, "WAYS")?,
            lease: open(pins, "LEASE")?,
            refusals: open(pins, "REFUSALS")?,
            tallies: open(pins, "TALLIES")?,
            tallies_rest: open(pins, "TALLIES_REST")?,
            near_misses: open(pins, "NEAR_MISSES")?,
            event_buckets: open(pins, "EVENT_BUCKETS")?,
            own_hints: open(pins, "OWN_HINTS")?,
            own_addresses: open(pins, "OWN_ADDRESSES")?,
            resolved: open(pins, "RESOLVED")?,
            learnt: open(pins, "LEARNT")?,
            learning: open(pins, "LEARNING")?,
            interface_slots: open(pins, "INTERFACE_SLOTS")?,
            counter_names: open(pins, "COUNTER_NAMES")?,
            set_names: open(pins, "SET_NAMES")?,
            dns_names: open(pins, "DNS_NAMES")?,
            ids,
            written: RefCell::default(),
        })
    }
}

/// Ports that flows may have. The programs set bits in the same words meanwhile, so they are shared memory where the
/// map allows it; a read and a write of the whole word could lose one of theirs.
pub(super) enum FlowPorts {
    Shared(SharedWords),
    Copied(KernelMap<u32, u64>),
}

impl FlowPorts {
    fn open(pins: &Pins) -> Result<Self> {
        let map: KernelMap<u32, u64> = open(pins, "FLOW_PORTS")?;
        let info = sys::map_info(map.fd()).context(|| "look at the map FLOW_PORTS")?;
        if info.flags & sys::BPF_F_MMAPABLE == 0 {
            return Ok(Self::Copied(map));
        }
        SharedWords::new(map.fd()).map(Self::Shared).context(|| "map the ports of flows into memory")
    }

    /// Marks a port. Before its flow is recorded.
    pub(super) fn mark(&self, port: u16) -> Result<()> {
        let (word, bit) = (u32::from(port) / 64, 1u64 << (port % 64));
        let what = || format!("mark the local port {port}");
        match self {
            Self::Shared(words) => {
                words.set_bits(word as usize, bit);
                Ok(())
            }
            Self::Copied(map) => {
                let bits = map.get(&word).context(what)?.unwrap_or(0);
                if bits & bit != 0 { Ok(()) } else { map.put(&word, &(bits | bit)).context(what) }
            }
        }
    }
}

fn open<K: Plain, V: Plain>(pins: &Pins, name: &str) -> Result<KernelMap<K, V>> {
    open_map(pins, name).and_then(|fd| KernelMap::new(fd).context(|| format!("use the pinned map {name}")))
}

fn open_map(pins: &Pins, name: &str) -> Result<OwnedFd> {
    sys::open_pin(&pins.state(name)).context(|| format!("open the pinned map {name}"))
}

/// What events carry, and how many are not sent. With descriptors of its own: it is asked while others hold the datapath.
pub struct EventSwitch {
    capture: KernelMap<u32, u32>,
    buckets: KernelMap<u32, EventBucket>,
}

impl EventSwitch {
    pub(super) fn open(pins: &Pins) -> Result<Self> {
        Ok(Self { capture: open(pins, "CAPTURE")?, buckets: open(pins, "EVENT_BUCKETS")? })
    }

    /// Whether events carry the beginning of their frame from now on.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn carry_frames(&self, carry: bool) -> Result<()> {
        self.capture.put(&0, &u32::from(carry)).context(|| "switch the capture of frames")
    }

    /// Events that were not sent, since the maps were made.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn suppressed(&self) -> Result<u64> {
        suppressed(&self.buckets)
    }
}

/// Sum over all CPUs and kinds.
pub(super) fn suppressed(buckets: &KernelMap<u32, EventBucket>) -> Result<u64> {
    let all = (0..QUOTAS).map(|quota| buckets.per_cpu(&quota)).collect::<Result<Vec<_>, _>>();
    let all = all.context(|| "read the counts of events not sent")?;
    Ok(all.iter().flatten().map(|bucket| bucket.suppressed).sum())
}

/// Names that addresses were answers to.
pub(super) fn answered(pins: &Pins) -> Result<KernelMap<Address, Answered>> {
    open(pins, "ANSWERED")
}

/// The ring buffer of events.
pub(super) fn events(pins: &Pins) -> Result<RingBuf<MapData>> {
    let what = || "open the ring buffer of events";
    let map = MapData::from_pin(pins.state("EVENTS")).and_then(Map::from_map_data).context(what)?;
    RingBuf::try_from(map).context(what)
}

/// Secret of the limiter's hash. It is kept with the state: with another one every source would have a fresh burst.
pub(super) fn limit_seed(pins: &Pins) -> Result<u64> {
    let what = || "open the limiter's secret";
    let pin = pins.state(LIMIT_SEED);
    if !pin.exists() {
        let mut map = Array::<MapData, u64>::create(1, 0).context(what)?;
        map.set(0, rand::random::<u64>(), 0).context(what)?;
        fault::point(Point::SecretMade)?;
        map.pin(&pin).map_err(std::io::Error::other).context(what)?;
    }
    let map: KernelMap<u32, u64> = open(pins, LIMIT_SEED)?;
    Ok(map.get(&0).context(what)?.unwrap_or_default())
}
