//! Callbacks while floods arrive: the same on three hosts, guarded by mpesa-fw, by nftables and by nothing, in turn.

mod table;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use testbed::{
    Host, Network, ok, place,
    serve::{Certificate, Nginx, Site},
};

use crate::{
    agent,
    callbacks::{self, NAME, Outcome},
    contender::{Agent, Contender, Guarded},
    cpu,
    flood::{Flood, Orders, Sent},
    frame::Frame,
    full, rules,
    sample::Sample,
};

use table::{shortfalls, table};

const PORT: u16 = 443;
/// Five of six from anywhere: 1,000,000 denied and 200,000 SYNs with forged allowed sources a second.
const RATE: u64 = 1_200_000;
const SHARE: u64 = 6;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The eBPF object with the programs of the bench
    #[arg(long)]
    object: PathBuf,
    /// Rounds; in each every contender has a quiet turn and one under load
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds a turn
    #[arg(long, default_value_t = 8)]
    seconds: u64,
    /// Packets a second, of which one in six has a forged allowed source
    #[arg(long, default_value_t = RATE)]
    rate: u64,
}

/// One contender: its server, the flood towards it, and what came of the callbacks.
struct Loaded {
    guarded: Guarded,
    flood: Flood,
    /// Packets a second that it takes when more are asked.
    most: u64,
    quiet: Outcome,
    /// At the pace that every contender holds.
    together: Flooded,
    /// At the pace that is asked for.
    asked: Flooded,
    _server: Nginx,
}

/// What came of callbacks during a flood.
struct Flooded {
    outcome: Outcome,
    sent: Sent,
    long: Duration,
}

impl Flooded {
    const fn new() -> Self {
        Self { outcome: Outcome::new(), sent: Sent { any: 0, allowed: 0 }, long: Duration::ZERO }
    }

    /// Takes those of another round too.
    fn add(&mut self, other: Self) {
        self.outcome.add(other.outcome);
        self.sent.any += other.sent.any;
        self.sent.allowed += other.sent.allowed;
        self.long += other.long;
    }

    /// Thousands a second, from anywhere and from forged allowed sources.
    fn kpps(&self) -> [String; 2] {
        let seconds = self.long.as_secs_f64();
        [self.sent.any, self.sent.allowed].map(|packets| format!("{:.0}", packets as f64 / seconds / 1e3))
    }

    /// Packets a second.
    fn rate(&self) -> f64 {
        self.sent.all() as f64 / self.long.as_secs_f64()
    }
}

/// Runs all of it.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let (first, last) = (cpu::first()?, cpu::last()?);
    // Whatever is started from here on stays there too: the agent, the servers, the client.
    cpu::stay_on(first)?;
    let network = Network::new()?;
    let safaricom = network.add(place::SAFARICOM)?;
    sink_replies(&network)?;
    steer(&network, &safaricom, last)?;
    let certificate = Certificate::new(network.scratch.path(), &[NAME])?;
    let mut all = Vec::new();
    for (number, contender) in
        [Contender::Firewall, Contender::Netdev, Contender::Nothing].into_iter().enumerate()
    {
        let guarded =
            Guarded::new(&network, number as u8, contender, &rules::callers(12)?, &arguments.object)?;
        all.push(Loaded::new(&network, guarded, &certificate, arguments)?);
    }
    for loaded in &mut all {
        loaded.find_most(&network, last)?;
    }
    let pace = common_pace(&all, arguments.rate);
    for round in 0..arguments.rounds {
        for loaded in &mut all {
            eprintln!("round {}, {}", round + 1, loaded.guarded.contender);
            loaded.turn(
                &network,
                &safaricom,
                &certificate,
                [pace, arguments.rate],
                arguments.seconds,
                last,
            )?;
        }
    }
    for loaded in &mut all {
        loaded.count()?;
    }
    table(&all);
    shortfalls(&all, pace, arguments.rate);
    println!();
    for loaded in &mut all {
        let Loaded { guarded, flood, .. } = loaded;
        if let Some(agent) = &guarded.agent {
            weight(&network, &guarded.host, agent, flood, last)?;
        }
    }
    println!();
    let seconds = Duration::from_secs(arguments.seconds);
    full::table(&network, &safaricom, &certificate, &arguments.object, seconds, last)
}

/// Answers to forged sources end at the router, without a word; only the real sender has a host, which resets what it has
/// not asked for.
fn sink_replies(network: &Network) -> Result<()> {
    network.router.sh("ip route add blackhole default")?;
    for [a, b, c, d] in rules::safaricom()? {
        if place::SAFARICOM.v4.octets() != [a, b, c, d] {
            network.router.sh(&format!("ip route add blackhole {a}.{b}.{c}.{d}/32"))?;
        }
    }
    Ok(())
}

/// Genuine packets are taken from the router to the hosts on that CPU, where the flood arrives: like those of a network card
/// whose interrupts have a CPU of their own. A veth receives where it is sent to, or where it is receiving already; else the
/// CPU of the server, which sends on the client's behalf too, would fetch the flood from the queue that both share.
fn steer(network: &Network, sender: &Host, cpu: usize) -> Result<()> {
    let file = format!("/sys/class/net/{}/queues/rx-0/rps_cpus", sender.place.name);
    let script = format!("echo {:x} > {file}", 1_u64 << cpu);
    // A /sys of the namespace's own.
    let mut shell = Command::new("ip");
    shell.args(["netns", "exec", network.router.name(), "sh", "-euc", &script]);
    ok(&mut shell).context("receive packet steering")?;
    Ok(())
}

/// A pace that all of them hold, with room: at its end a host answers nobody any more.
fn common_pace(all: &[Loaded], asked: u64) -> u64 {
    const STEP: u64 = 5_000;
    let least = all.iter().map(|loaded| loaded.most).min().unwrap_or(asked);
    (least.min(asked) * 7 / 10 / STEP * STEP).max(STEP)
}

impl Loaded {
    fn new(
        network: &Network,
        guarded: Guarded,
        certificate: &Certificate,
        arguments: &Arguments,
    ) -> Result<Self> {
        let site = Site {
            port: PORT,
            certificate: Some(certificate),
            body: r#"{"ResultCode":0,"ResultDesc":"Accepted"}"#,
        };
        let name = format!("nginx-{}", guarded.host.place.name);
        let server = Nginx::start(&guarded.host.namespace, network.scratch.path(), &name, &[site])?;
        let orders = Orders { rate: Some(arguments.rate), share: SHARE, allowed: rules::safaricom()? };
        let frame = Frame::syn(&guarded.host, PORT)?;
        let flood = Flood::new(&arguments.object, &network.router, &guarded.host, &frame, &orders)?;
        Ok(Self {
            guarded,
            flood,
            most: 0,
            quiet: Outcome::new(),
            together: Flooded::new(),
            asked: Flooded::new(),
            _server: server,
        })
    }

    /// How many packets of what is asked it takes, without callbacks.
    fn find_most(&mut self, network: &Network, cpu: usize) -> Result<()> {
        const LONG: Duration = Duration::from_secs(2);
        let flooded = self.flooded(network, cpu, || {
            thread::sleep(LONG);
            Ok(Outcome::new())
        })?;
        self.most = flooded.rate() as u64;
        eprintln!("{} takes {} packets a second", self.guarded.contender, self.most);
        Ok(())
    }

    /// Callbacks, and callbacks under load: at each of the two paces.
    fn turn(
        &mut self,
        network: &Network,
        safaricom: &Host,
        certificate: &Certificate,
        [together, asked]: [u64; 2],
        seconds: u64,
        cpu: usize,
    ) -> Result<()> {
        let server = SocketAddr::from((self.guarded.host.place.v4, PORT));
        let long = Duration::from_secs(seconds);
        let calls = || safaricom.namespace.inside(|| callbacks::send(server, &certificate.certificate, long));
        self.quiet.add(calls()?);
        self.flood.pace(together)?;
        let flooded = self.flooded(network, cpu, calls)?;
        self.together.add(flooded);
        if self.is_asked() {
            self.flood.pace(asked)?;
            let flooded = self.flooded(network, cpu, calls)?;
            self.asked.add(flooded);
        }
        Ok(())
    }

    /// Who has no guard answers each packet, so that to ask for more shows nothing.
    fn is_asked(&self) -> bool {
        self.guarded.contender != Contender::Nothing
    }

    fn flooded(
        &mut self,
        network: &Network,
        cpu: usize,
        calls: impl FnOnce() -> Result<Outcome>,
    ) -> Result<Flooded> {
        let before = self.flood.sent()?;
        let begin = Instant::now();
        let outcome = flooding(network, &mut self.flood, cpu, calls)??;
        let long = begin.elapsed();
        Ok(Flooded { outcome, sent: self.flood.sent()?.since(before), long })
    }

    /// What was sent must have come in, as far as the host could take it.
    fn count(&mut self) -> Result<()> {
        let (sent, received) = (self.flood.sent()?, self.guarded.received()?);
        eprintln!("{}: sent {sent:?}, received {received}", self.guarded.contender);
        ensure!(
            received >= sent.all() / 2,
            "{} received {received} of {} packets",
            self.guarded.contender,
            sent.all()
        );
        Ok(())
    }
}

/// Does something while the flood is on its way; it has begun before, and ends after.
pub(crate) fn flooding<T: Send>(
    network: &Network,
    flood: &mut Flood,
    cpu: usize,
    work: impl FnOnce() -> T,
) -> Result<T> {
    /// Until the first packets have come and queues are as full as they get.
    const BEGINNING: Duration = Duration::from_millis(200);
    let end = AtomicBool::new(false);
    thread::scope(|scope| {
        let sender = scope.spawn(|| {
            network.router.inside(|| {
                cpu::stay_on(cpu)?;
                flood.send_until(|| end.load(Ordering::Relaxed))
            })
        });
        thread::sleep(BEGINNING);
        let done = work();
        end.store(true, Ordering::Relaxed);
        sender.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok(done)
    })
}

/// What the agent itself takes while its host is flooded.
fn weight(network: &Network, host: &Host, agent: &Agent, flood: &mut Flood, cpu: usize) -> Result<()> {
    /// Without scrapes.
    const WATCHED: Duration = Duration::from_secs(8);
    const SCRAPES: u32 = 50;
    /// More than the agent's own pause between two looks at the kernel.
    const APART: Duration = Duration::from_millis(150);
    let scrapes = || -> Result<Sample> {
        let mut sample = Sample::new();
        for _ in 0..SCRAPES {
            let begin = Instant::now();
            let (status, _) = host.namespace.get(testbed::Firewall::METRICS, "/metrics")?;
            ensure!(status == 200, "/metrics answers {status}");
            sample.push(begin.elapsed().as_secs_f64() * 1e3);
            thread::sleep(APART);
        }
        Ok(sample)
    };
    let watched = || -> Result<f64> {
        let before = agent::processor_time(&agent.started)?;
        thread::sleep(WATCHED);
        Ok((agent::processor_time(&agent.started)? - before) / WATCHED.as_secs_f64() * 100.0)
    };
    let quiet = (watched()?, scrapes()?, agent::resident(&agent.started)?);
    let flooded = flooding(network, flood, cpu, || -> Result<_> {
        Ok((watched()?, scrapes()?, agent::resident(&agent.started)?))
    })?
    .context("under the flood")?;
    println!("| the agent | quiet | under load |");
    println!("|---|---|---|");
    println!("| processor time, % of one CPU | {:.2} | {:.2} |", quiet.0, flooded.0);
    println!("| resident, MB | {:.1} | {:.1} |", quiet.2, flooded.2);
    let scrape = |sample: &Sample| {
        format!("{:.1} / {:.1} / {:.1}", sample.percentile(50.0), sample.percentile(99.0), sample.max())
    };
    println!("| scrape of /metrics, ms: p50 / p99 / max | {} | {} |", scrape(&quiet.1), scrape(&flooded.1));
    Ok(())
}
