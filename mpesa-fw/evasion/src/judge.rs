//! Sends the frames of the ingress cases, and tells what became of them.

use std::{collections::BTreeSet, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};
use testbed::{Firewall, Host, Metrics, not_interrupted};

use crate::{
    case::{Case, Expected, Tally},
    checksum,
    field::{Field, Flows, Listeners, POLICY, WITNESS},
    frames, ingress,
    mode::Mode,
    packet_socket::PacketSocket,
    report::{Report, Row, Status},
};

const PATIENCE: Duration = Duration::from_secs(5);
/// First bytes of the hardware source of every frame that is sent; its number follows.
const MARK: [u8; 2] = [0x02, 0xf0];

/// Tries every class in one mode.
pub(crate) fn ingress(mode: Mode, binary: &Path, report: &mut Report) -> Result<()> {
    let field = Field::new()?;
    let listeners = Listeners::new(&field.host)?;
    let firewall = Firewall::new(&field.network, &field.host.namespace, binary)?;
    let options = field.prepare(mode, firewall.bpffs.parent().context("the pins lie in a bpffs")?)?;
    firewall.policy(POLICY)?;
    let agent = match mode {
        Mode::Bare => None,
        Mode::Native | Mode::Generic | Mode::Tc => Some(firewall.start(options)?),
    };
    if agent.is_some() {
        is_judged(mode, &firewall)?;
    }
    let _flows = Flows::open(&field)?;
    let mut range = Range {
        mode,
        firewall: agent.as_ref().map(|_| &firewall),
        sender: PacketSocket::sender(&field.network.router, field.host.place.name)?,
        tap: PacketSocket::tap(&field.host.namespace, witness(mode))?,
        host: octets(&field.host.mac())?,
        listeners: &listeners,
        mark: 0,
        counted: Metrics::default(),
    };
    range.warm_up()?;
    range.counted = range.metrics()?;
    on_one_cpu(|| {
        for (class, cases) in ingress::classes() {
            for case in cases {
                not_interrupted()?;
                let row =
                    range.row(&case).with_context(|| format!("{} ({class}, {})", case.name, mode.label()))?;
                report.add(class, row);
            }
        }
        Ok(())
    })
}

/// Where the witness looks. Behind generic XDP a copied packet has lost the length of its link header
/// (`skb_pp_cow_data`), so that netfilter's duplicate is without one; there a packet socket, which stands behind XDP too,
/// sees it whole.
const fn witness(mode: Mode) -> &'static str {
    match mode {
        Mode::Generic => Host::INTERFACE,
        Mode::Native | Mode::Tc | Mode::Bare => WITNESS,
    }
}

/// Frames that are sent on one CPU arrive in their order.
fn on_one_cpu<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let this = Pid::from_raw(0);
    let all = sched_getaffinity(this).context("could not ask for this thread's CPUs")?;
    let mut first = CpuSet::new();
    let one = (0..CpuSet::count()).find(|cpu| all.is_set(*cpu).unwrap_or(false)).unwrap_or(0);
    first.set(one).context("there is such a CPU")?;
    sched_setaffinity(this, &first).context("could not stay on one CPU")?;
    let done = work();
    sched_setaffinity(this, &all).context("could not go back to all CPUs")?;
    done
}

/// That the agent judges where this mode says.
fn is_judged(mode: Mode, firewall: &Firewall<'_>) -> Result<()> {
    let status = firewall.status()?.to_string();
    let word = match mode {
        Mode::Native => "native",
        Mode::Generic => "generic",
        Mode::Tc | Mode::Bare => "tc",
    };
    ensure!(status.contains(word), "status does not say that ingress is judged at {word}: {status}");
    Ok(())
}

/// The wire and everybody who looks at it.
struct Range<'a> {
    mode: Mode,
    firewall: Option<&'a Firewall<'a>>,
    sender: PacketSocket,
    tap: PacketSocket,
    host: [u8; 6],
    listeners: &'a Listeners,
    mark: u32,
    /// As of the last case.
    counted: Metrics,
}

impl Range<'_> {
    fn row(&mut self, case: &Case) -> Result<Row> {
        let _earlier = self.listeners.heard();
        let first = self.mark + 1;
        for frame in &case.frames {
            self.send(frame.bytes.clone())?;
        }
        let arrived = self.until_the_fence(first, PATIENCE)?;
        let after = self.metrics()?;
        let before = std::mem::replace(&mut self.counted, after);
        let after = &self.counted;

        let mut differences = self.misjudged(case, first, &arrived);
        let expected = case.tally(self.mode);
        let seen = match self.mode {
            Mode::Bare => arrived_only(arrived.len()),
            Mode::Native | Mode::Generic | Mode::Tc => moved(&before, after),
        };
        let strays = self.listeners.strays();
        if strays > 0 && self.mode != Mode::Bare {
            differences.push(format!("the stray listener heard {strays}"));
        }
        let heard = self.listeners.heard();
        if case.heard.is_some_and(|wanted| wanted != heard) && self.mode != Mode::Bare {
            differences.push(format!("the service heard {heard}"));
        }
        let is_as_expected = differences.is_empty() && (seen == expected || self.mode == Mode::Bare);
        Ok(Row {
            mode: self.mode.label(),
            case: case.name.clone(),
            frames: case.frames.len(),
            expected: with_heard(&expected, case.heard),
            seen: with_heard(&seen, case.heard.map(|_| heard)),
            differences,
            status: match self.mode {
                Mode::Bare if arrived.is_empty() => Status::Different,
                _ if is_as_expected => Status::Ok,
                Mode::Bare => Status::Ok,
                Mode::Native | Mode::Generic | Mode::Tc => Status::Different,
            },
        })
    }

    /// Frames that reached the stack and should not have, and the other way round. Without a firewall nothing is wrong.
    fn misjudged(&self, case: &Case, first: u32, arrived: &BTreeSet<u32>) -> Vec<String> {
        if self.mode == Mode::Bare {
            return Vec::new();
        }
        let frames = case.frames.iter().enumerate().filter_map(|(number, frame)| {
            let came = arrived.contains(&(first + number as u32));
            let should = matches!(frame.expected(self.mode), Expected::Pass(_));
            let what = if came { "passed" } else { "was dropped" };
            (came != should).then(|| format!("frame {number} {what}: {}", hex(&frame.bytes)))
        });
        frames.collect()
    }

    fn send(&mut self, mut frame: Vec<u8>) -> Result<()> {
        self.mark += 1;
        checksum::fill(&mut frame);
        // What the builders write unless a case wants another.
        if frame[..6] == [2, 0, 0, 0, 0, 1] {
            frame[..6].copy_from_slice(&self.host);
        }
        frame[6..8].copy_from_slice(&MARK);
        frame[8..12].copy_from_slice(&self.mark.to_be_bytes());
        self.sender.send(&frame)
    }

    /// A fresh link may lose frames for a second, until the kernel has noticed its carrier.
    fn warm_up(&mut self) -> Result<()> {
        let came = (0..30).any(|_| self.until_the_fence(0, Duration::from_millis(200)).is_ok());
        ensure!(came, "no frame that the policy allows reaches the witness");
        Ok(())
    }

    /// After the frames goes one that the policy allows: when it is there, what is missing will not come any more.
    fn until_the_fence(&mut self, first: u32, patience: Duration) -> Result<BTreeSet<u32>> {
        self.send(frames::udp("192.0.2.9:9", "203.0.113.10:9"))?;
        let fence = self.mark;
        let mut arrived = BTreeSet::new();
        let came = self.tap.watch(patience, |frame| {
            if frame.len() >= 14 && frame[6..8] == MARK {
                arrived.insert(u32::from_be_bytes([frame[8], frame[9], frame[10], frame[11]]));
            }
            arrived.contains(&fence)
        })?;
        ensure!(came, "the fence did not arrive");
        arrived.retain(|mark| (first..fence).contains(mark));
        Ok(arrived)
    }

    fn metrics(&self) -> Result<Metrics> {
        self.firewall.map_or_else(|| Ok(Metrics::default()), Firewall::metrics)
    }
}

/// Everything that was counted: of ingress all but the fence, of egress what was dropped. (What the host answers to what
/// passes is its own affair, as long as it may.)
fn moved(before: &Metrics, after: &Metrics) -> Tally {
    let mut tally = Tally::default();
    for name in ["mpesa_fw_passed_packets_total", "mpesa_fw_dropped_packets_total"] {
        for sample in after.samples.iter().filter(|sample| sample.name == name) {
            let label = |key: &str| sample.labels.get(key).map_or("", String::as_str);
            let labels: Vec<(&str, &str)> =
                sample.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
            let count = (sample.value - before.sum(name, &labels)) as u64;
            let (is_drop, is_egress) = (!label("reason").is_empty(), label("direction") == "egress");
            if is_egress && !is_drop || label("rule") == "fence" {
                continue;
            }
            let what = if is_drop { label("reason") } else { "pass" };
            let key = Tally::key(what, label("rule"));
            tally.count(if is_egress { format!("egress {key}") } else { key }, count);
        }
    }
    tally
}

fn arrived_only(count: usize) -> Tally {
    let mut tally = Tally::default();
    tally.count(String::from("pass"), count as u64);
    tally
}

fn with_heard(tally: &Tally, heard: Option<usize>) -> String {
    heard.map_or_else(|| tally.to_string(), |heard| format!("{tally}; heard {heard}"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().skip(12).take(80).map(|byte| format!("{byte:02x}")).collect()
}

fn octets(address: &str) -> Result<[u8; 6]> {
    let parsed: Option<Vec<u8>> = address.split(':').map(|part| u8::from_str_radix(part, 16).ok()).collect();
    parsed
        .and_then(|octets| octets.try_into().ok())
        .with_context(|| format!("no hardware address: {address}"))
}
