//! Callbacks while floods arrive: the same on three hosts, guarded by mpesa-fw, by nftables and by nothing, in turn.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use testbed::{
    Host, Network, place,
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
    sample::{Sample, within},
};

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
    quiet: Outcome,
    under_load: Outcome,
    sent: Sent,
    flooded: Duration,
    _server: Nginx,
}

/// Runs all of it.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let (first, last) = (cpu::first()?, cpu::last()?);
    // Whatever is started from here on stays there too: the agent, the servers, the client.
    cpu::stay_on(first)?;
    let network = Network::new()?;
    let safaricom = network.add(place::SAFARICOM)?;
    sink_replies(&network)?;
    let certificate = Certificate::new(network.scratch.path(), &[NAME])?;
    let mut all = Vec::new();
    for (number, contender) in
        [Contender::Firewall, Contender::Netdev, Contender::Nothing].into_iter().enumerate()
    {
        let guarded =
            Guarded::new(&network, number as u8, contender, &rules::callers(12)?, &arguments.object)?;
        all.push(Loaded::new(&network, guarded, &certificate, arguments)?);
    }
    for round in 0..arguments.rounds {
        for loaded in &mut all {
            eprintln!("round {}, {}", round + 1, loaded.guarded.contender);
            loaded.turn(&network, &safaricom, &certificate, Duration::from_secs(arguments.seconds), last)?;
        }
    }
    for loaded in &mut all {
        loaded.count()?;
    }
    table(&all);
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
            quiet: Outcome::new(),
            under_load: Outcome::new(),
            sent: Sent::default(),
            flooded: Duration::ZERO,
            _server: server,
        })
    }

    /// Callbacks, and callbacks under load.
    fn turn(
        &mut self,
        network: &Network,
        safaricom: &Host,
        certificate: &Certificate,
        long: Duration,
        cpu: usize,
    ) -> Result<()> {
        let server = SocketAddr::from((self.guarded.host.place.v4, PORT));
        let calls = || safaricom.namespace.inside(|| callbacks::send(server, &certificate.certificate, long));
        self.quiet.add(calls()?);
        let begin = Instant::now();
        let outcome = flooding(network, &mut self.flood, cpu, calls)??;
        self.flooded += begin.elapsed();
        self.under_load.add(outcome);
        Ok(())
    }

    /// What was sent must have come in, as far as the host could take it.
    fn count(&mut self) -> Result<()> {
        self.sent = self.flood.sent()?;
        let received = self.guarded.received()?;
        eprintln!("{}: sent {:?}, received {received}", self.guarded.contender, self.sent);
        ensure!(
            received >= self.sent.all() / 2,
            "{} received {received} of {} packets",
            self.guarded.contender,
            self.sent.all()
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

fn table(all: &[Loaded]) {
    println!(
        "| guarded by | | denied, kpps | forged SYNs, kpps | callbacks | lost | new connection: p50, ms | p99 | max | kept connection: p50, ms | p99 | max |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|");
    for loaded in all {
        let seconds = loaded.flooded.as_secs_f64();
        let kpps = |packets: u64| format!("{:.0}", packets as f64 / seconds / 1e3);
        let is_ours = loaded.guarded.contender == Contender::Firewall;
        row(loaded, "quiet", ["0".into(), "0".into()], &loaded.quiet, None);
        let most = is_ours.then_some(&loaded.quiet);
        row(
            loaded,
            "under load",
            [kpps(loaded.sent.any), kpps(loaded.sent.allowed)],
            &loaded.under_load,
            most,
        );
    }
    for loaded in all {
        if let Some(why) = &loaded.under_load.why {
            println!("\nThe last callback lost by {}: {why}.", loaded.guarded.contender);
        }
    }
}

/// `quiet`: what this is held against.
fn row(
    loaded: &Loaded,
    when: &str,
    [denied, forged]: [String; 2],
    outcome: &Outcome,
    quiet: Option<&Outcome>,
) {
    let lost = quiet.map_or_else(
        || outcome.lost.to_string(),
        |_| format!("{} (at most {})", outcome.lost, within(outcome.lost as f64, 0.0)),
    );
    let latency = |sample: &Sample, quiet: Option<&Sample>| {
        let p99 = sample.percentile(99.0);
        let most = quiet.map_or_else(String::new, |quiet| {
            let times = p99 / quiet.percentile(99.0);
            format!(", {times:.1} times the quiet one (at most {})", within(times, 2.0))
        });
        format!("{:.1} | {p99:.1}{most} | {:.1}", sample.percentile(50.0), sample.max())
    };
    println!(
        "| {} | {when} | {denied} | {forged} | {} | {lost} | {} | {} |",
        loaded.guarded.contender,
        outcome.sent(),
        latency(&outcome.fresh, quiet.map(|quiet| &quiet.fresh)),
        latency(&outcome.kept, quiet.map(|quiet| &quiet.kept)),
    );
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
