//! Sends one frame again and again from the far side of a link, with varied sources: `bench_flood`, run by
//! BPF_PROG_TEST_RUN with live frames. It stays on the CPU that calls it, and so does the receiving side of the veth.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, Map},
    programs::{TestRun as _, TestRunAttrs, TestRunOptions, Xdp, XdpMode},
};
use testbed::{Host, Namespace};

use crate::frame::Frame;

/// Frames that are sent before the receiver has its turn.
const BATCH: u32 = 64;
/// How long a call should take where the rate is bounded: nothing is sent from call to call for two ticks, longer where RCU has
/// much to wait for, and the end of the work is noticed between calls only.
const CALL: Duration = Duration::from_millis(800);
/// Frames of the first call, and the most; those that are not due count too.
const FRAMES: (u32, u32) = (20_000, 32_000_000);

/// How much delay is made up for: at 1.2 million a second, no burst of more than 240 frames.
const ARREARS: Duration = Duration::from_micros(200);

/// Elements of `FLOOD_ALLOWED`.
const ALLOWED: usize = 16;
/// Elements of `FLOOD_PLACES`.
const PLACES: u32 = 256;

/// How fast, and from whom.
#[derive(Clone, Debug)]
pub(crate) struct Orders {
    /// Packets a second; `None`: as many as can be.
    pub(crate) rate: Option<u64>,
    /// Every so many packets one is from `allowed`; 0: none.
    pub(crate) share: u64,
    /// Sources that are forged.
    pub(crate) allowed: Vec<[u8; 4]>,
}

/// Packets that were sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    /// From anywhere.
    pub(crate) any: u64,
    /// From allowed sources.
    pub(crate) allowed: u64,
}

impl Sent {
    /// What came after the others.
    pub(crate) fn since(self, before: Self) -> Self {
        Self { any: self.any - before.any, allowed: self.allowed - before.allowed }
    }

    pub(crate) fn all(self) -> u64 {
        self.any + self.allowed
    }
}

/// The generator, loaded.
pub(crate) struct Flood {
    ebpf: Ebpf,
    frame: Vec<u8>,
    context: [u8; 24],
}

impl Flood {
    /// One that sends `frame` to a host; run it in the namespace of the host's router.
    pub(crate) fn new(
        object: &Path,
        router: &Namespace,
        host: &Host,
        frame: &Frame,
        orders: &Orders,
    ) -> Result<Self> {
        let said = router.sh(&format!("ip -o link show dev {}", host.place.name))?;
        let interface = said.split(':').next().and_then(|index| index.trim().parse().ok());
        let interface: u32 = interface.context("the index of the router's interface")?;
        let mut flood = Self {
            ebpf: load(object)?,
            frame: frame.bytes.clone(),
            context: context(frame.bytes.len() as u32, interface),
        };
        flood.program()?.load().context("load bench_flood")?;
        flood.order(frame, orders)?;
        Ok(flood)
    }

    fn order(&mut self, frame: &Frame, orders: &Orders) -> Result<()> {
        let mut places: Array<_, u32> = self.map("FLOOD_PLACES")?.try_into()?;
        for place in 0..PLACES {
            // First octets that an honest packet may have; odd, for the prefixes of the bench are even.
            let first = match place {
                0 | 10 | 127 | 224..=239 | 255 => 41 + place % 64,
                possible => possible,
            };
            places.set(place, first << 24 | 1, 0)?;
        }
        let mut allowed: Array<_, u32> = self.map("FLOOD_ALLOWED")?.try_into()?;
        for (place, source) in (0..ALLOWED as u32).zip(orders.allowed.iter().cycle()) {
            allowed.set(place, u32::from_be_bytes(*source), 0)?;
        }
        ensure!(orders.share == 0 || !orders.allowed.is_empty(), "no source to forge");
        let mut map: Array<_, [u64; 7]> = self.map("FLOOD_ORDERS")?.try_into()?;
        let interval = orders.rate.map_or(0, interval);
        let arrears = ARREARS.as_nanos() as u64;
        map.set(
            0,
            [interval, arrears, orders.share, 0x00ff_fffe, frame.vary, frame.header_sum, frame.segment_sum],
            0,
        )?;
        let mut progress: Array<_, [u64; 5]> = self.map("FLOOD_PROGRESS")?.try_into()?;
        progress.set(0, [0x9e37_79b9_7f4a_7c15, 0, 0, 0, 0], 0)?;
        Ok(())
    }

    /// Sends so many packets a second from now on.
    pub(crate) fn pace(&mut self, rate: u64) -> Result<()> {
        let mut map: Array<_, [u64; 7]> = self.map("FLOOD_ORDERS")?.try_into()?;
        let [_, rest @ ..] = map.get(&0, 0)?;
        let [arrears, share, random, vary, header_sum, segment_sum] = rest;
        map.set(0, [interval(rate), arrears, share, random, vary, header_sum, segment_sum], 0)?;
        Ok(())
    }

    /// Sends so many frames, and gives the time for one. It is the kernel's: a call also waits for the next tick twice
    /// (`bpf_prog_change_xdp`).
    pub(crate) fn send(&mut self, frames: u32) -> Result<Duration> {
        let (frame, context) = (self.frame.clone(), self.context);
        let program = self.program()?;
        let mut options = TestRunOptions::new();
        options.data_in = Some(&frame);
        options.ctx_in = Some(&context);
        options.repeat = frames;
        options.attrs = TestRunAttrs::new().xdp_live_frames(BATCH);
        Ok(program.test_run(options).context("run bench_flood with live frames")?.duration)
    }

    /// Sends at the rate ordered until `end` says so.
    pub(crate) fn send_until(&mut self, mut end: impl FnMut() -> bool) -> Result<()> {
        let (mut frames, most) = FRAMES;
        while !end() {
            // As many as at the pace of the last call; that of the first may be far off.
            let each = self.send(frames)?.max(Duration::from_nanos(1));
            let fitting = u32::try_from(CALL.as_nanos() / each.as_nanos()).unwrap_or(most);
            frames = fitting.clamp(FRAMES.0, most);
        }
        Ok(())
    }

    /// What was sent since the start.
    pub(crate) fn sent(&mut self) -> Result<Sent> {
        let progress: Array<_, [u64; 5]> = self.map("FLOOD_PROGRESS")?.try_into()?;
        let [_, _, _, any, allowed] = progress.get(&0, 0)?;
        Ok(Sent { any, allowed })
    }

    fn map(&mut self, name: &str) -> Result<&mut Map> {
        self.ebpf.map_mut(name).with_context(|| format!("the object has no map {name}"))
    }

    fn program(&mut self) -> Result<&mut Xdp> {
        Ok(self.ebpf.program_mut("bench_flood").context("the object has no bench_flood")?.try_into()?)
    }
}

/// A program that drops everything, on the interface of a host as long as the value lives.
pub(crate) fn drop_all(object: &Path, host: &Host) -> Result<Ebpf> {
    let mut ebpf = load(object)?;
    let program: &mut Xdp =
        ebpf.program_mut("bench_drop").context("the object has no bench_drop")?.try_into()?;
    program.load().context("load bench_drop")?;
    host.namespace
        .inside(|| program.attach(Host::INTERFACE, XdpMode::Driver))
        .context("attach bench_drop")?;
    Ok(ebpf)
}

fn load(object: &Path) -> Result<Ebpf> {
    let bytes = std::fs::read(object).with_context(|| format!("the eBPF object {}", object.display()))?;
    EbpfLoader::new().btf(None).load(&bytes).context("the bench's eBPF object")
}

/// Nanoseconds from packet to packet.
const fn interval(rate: u64) -> u64 {
    1_000_000_000 / rate
}

/// struct `xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
fn context(length: u32, interface: u32) -> [u8; 24] {
    let mut context = [0; 24];
    for (place, field) in context.chunks_exact_mut(4).zip([0, length, 0, interface, 0, 0]) {
        place.copy_from_slice(&u32::to_ne_bytes(field));
    }
    context
}
