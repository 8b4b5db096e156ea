//! What a denied packet costs on a link: sent, received and dropped on one CPU, by each contender in turn.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Result, bail, ensure};
use testbed::Network;

use crate::{
    calls,
    contender::{Contender, Guarded, is_installed},
    cpu,
    flood::{Flood, Orders},
    frame::Frame,
    plot::{Line, Plot},
    rules,
    sample::{Sample, at_least},
};

const SIZES: [usize; 3] = [12, 1_000, 100_000];
/// The port of the callbacks.
const PORT: u16 = 443;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The eBPF object with the programs of the bench
    #[arg(long)]
    object: PathBuf,
    /// Rounds; in each every contender has one turn
    #[arg(long, default_value_t = 21)]
    rounds: usize,
    /// Packets a turn
    #[arg(long, default_value_t = 200_000)]
    packets: u32,
    /// Where to draw the figures, as SVG
    #[arg(long)]
    plot: Option<PathBuf>,
}

/// One contender with one set.
struct Rated {
    prefixes: usize,
    guarded: Guarded,
    flood: Flood,
    /// Nanoseconds a packet.
    sample: Sample,
}

/// Rates all of them.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    ensure!(is_installed("perf"), "perf is not there (Debian: linux-perf)");
    let network = Network::new()?;
    let mut all = contenders(&network, arguments)?;
    cpu::stay_on(cpu::last()?)?;
    network.router.inside(|| rounds(&mut all, arguments))?;
    for rated in &mut all {
        count(rated)?;
    }
    table(&all);
    if let Some(path) = &arguments.plot {
        plot(&all).draw(path)?;
    }
    println!();
    for Rated { guarded, .. } in &all {
        if let Some(agent) = &guarded.agent {
            return calls::table(&network, &agent.bpffs, &Frame::syn(&guarded.host, PORT)?);
        }
    }
    bail!("mpesa-fw is none of the contenders")
}

fn contenders(network: &Network, arguments: &Arguments) -> Result<Vec<Rated>> {
    let mut wanted = vec![(Contender::Bare, 0)];
    for size in SIZES {
        wanted.extend(
            [Contender::Firewall, Contender::Netdev, Contender::Input].map(|contender| (contender, size)),
        );
    }
    if is_installed("xdp-filter") {
        wanted.push((Contender::XdpFilter, SIZES[0]));
    }
    let mut all = Vec::new();
    for (number, (contender, prefixes)) in wanted.into_iter().enumerate() {
        eprintln!("{contender}, {prefixes} prefixes");
        let callers = rules::callers(prefixes.max(SIZES[0]))?;
        let guarded = Guarded::new(network, number as u8, contender, &callers, &arguments.object)?;
        let orders = Orders { rate: None, share: 0, allowed: Vec::new() };
        let frame = Frame::syn(&guarded.host, PORT)?;
        let flood = Flood::new(&arguments.object, &network.router, &guarded.host, &frame, &orders)?;
        all.push(Rated { prefixes, guarded, flood, sample: Sample::new() });
    }
    Ok(all)
}

fn rounds(all: &mut [Rated], arguments: &Arguments) -> Result<()> {
    for rated in all.iter_mut() {
        rated.flood.send(arguments.packets)?; // warms the caches, and spends the events
    }
    for _ in 0..arguments.rounds {
        for rated in all.iter_mut() {
            let took = rated.flood.send(arguments.packets)?;
            rated.sample.push(took.as_nanos() as f64);
        }
    }
    Ok(())
}

/// What was sent must have come in.
fn count(rated: &mut Rated) -> Result<()> {
    let (sent, received) = (rated.flood.sent()?.all(), rated.guarded.received()?);
    // A few more: the neighbours' own packets.
    ensure!(
        received >= sent - sent / 1_000,
        "{} received {received} of {sent} packets",
        rated.guarded.contender
    );
    Ok(())
}

fn table(all: &[Rated]) {
    println!(
        "| prefixes | who denies | ns a packet, sent and denied | Mpps | rate over a bare drop's | ns over a bare drop | mpesa-fw is so many times quicker |"
    );
    println!("|---|---|---|---|---|---|---|");
    let bare = &all[0].sample;
    let over_bare: BTreeMap<usize, f64> = all
        .iter()
        .filter(|rated| rated.guarded.contender == Contender::Firewall)
        .map(|rated| (rated.prefixes, rated.sample.over(bare).median()))
        .collect();
    for Rated { prefixes, guarded, sample, .. } in all {
        let contender = guarded.contender;
        let over = sample.over(bare).median();
        let share = bare.ratio(sample).median();
        let (share, times) = match contender {
            Contender::Bare => (String::from("1"), String::new()),
            Contender::Firewall => (at_least(share, wanted_share(*prefixes)), String::new()),
            Contender::Netdev => {
                (format!("{share:.2}"), at_least(over / over_bare[prefixes], wanted_times(*prefixes)))
            }
            Contender::Input | Contender::XdpFilter | Contender::Nothing => {
                (format!("{share:.2}"), format!("{:.1}", over / over_bare[prefixes]))
            }
        };
        let prefixes = if contender == Contender::Bare { String::from("-") } else { prefixes.to_string() };
        println!(
            "| {prefixes} | {contender} | {:.0} / {:.0} | {:.2} | {share} | {over:+.0} | {times} |",
            sample.min(),
            sample.median(),
            1_000.0 / sample.median(),
        );
    }
    // A comparison that was not made is a row too: silence would look like a choice.
    if !all.iter().any(|rated| rated.guarded.contender == Contender::XdpFilter) {
        println!("| {} | {} | not installed (Debian: xdp-tools) | | | | |", SIZES[0], Contender::XdpFilter);
    }
}

/// Of a bare drop's rate.
fn wanted_share(prefixes: usize) -> Option<f64> {
    match prefixes {
        12 => Some(0.90),
        100_000 => Some(0.85),
        _ => None,
    }
}

/// How many times what mpesa-fw takes more than a bare drop nftables at the netdev hook may take.
fn wanted_times(prefixes: usize) -> Option<f64> {
    match prefixes {
        12 => Some(4.0),
        1_000 => Some(5.0),
        100_000 => Some(8.0),
        _ => None,
    }
}

fn plot(all: &[Rated]) -> Plot {
    let line = |contender: Contender| Line {
        name: contender.to_string().replace('`', ""),
        points: all
            .iter()
            .filter(|rated| rated.guarded.contender == contender)
            .map(|rated| (rated.prefixes as f64, rated.sample.median()))
            .collect(),
    };
    let bare = all[0].sample.median();
    let level = Line {
        name: Contender::Bare.to_string().replace('`', ""),
        points: SIZES.map(|size| (size as f64, bare)).to_vec(),
    };
    Plot {
        title: String::from("A denied packet on a veth, sender included"),
        across: String::from("prefixes allowed"),
        up: String::from("ns a packet (median)"),
        lines: vec![level, line(Contender::Firewall), line(Contender::Netdev), line(Contender::Input)],
    }
}
