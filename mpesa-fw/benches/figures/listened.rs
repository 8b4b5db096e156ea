//! What a denied packet costs while somebody follows events or captures: as [`crate::wire`], one host, by turns.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result};
use testbed::{Firewall, Network, Process, Started, place};

use crate::{
    contender::BINARY,
    cpu,
    flood::{Flood, Orders},
    frame::Frame,
    rules,
    sample::{Sample, at_least},
};

const PREFIXES: usize = 12;
/// The port of the callbacks.
const PORT: u16 = 443;
/// Of the rate without a listener.
const SHARE: f64 = 0.8;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The eBPF object with the programs of the bench
    #[arg(long)]
    object: PathBuf,
    /// Another mpesa-fw, to be rated beside this one without a listener
    #[arg(long)]
    against: Option<PathBuf>,
    /// Rounds; in each every listener has one turn
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Packets a turn
    #[arg(long, default_value_t = 1_000_000)]
    packets: u32,
}

/// Who listens.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Listener {
    Nobody,
    Follow,
    Capture,
    Both,
}

impl Listener {
    const ALL: [Self; 4] = [Self::Nobody, Self::Follow, Self::Capture, Self::Both];

    const fn label(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Follow => "`events --follow`",
            Self::Capture => "`capture --payload`",
            Self::Both => "both of them",
        }
    }

    fn commands(self) -> &'static [&'static [&'static str]] {
        const FOLLOW: &[&str] = &["events", "--follow", "--format", "json"];
        const CAPTURE: &[&str] = &["capture", "--payload", "-w", "-"];
        match self {
            Self::Nobody => &[],
            Self::Follow => &[FOLLOW],
            Self::Capture => &[CAPTURE],
            Self::Both => &[FOLLOW, CAPTURE],
        }
    }
}

/// Rates all of them.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let network = Network::new()?;
    let rated = network.add(place::CALLBACK_HOST)?;
    let (firewall, _agent) = start(&network, &rated.namespace, BINARY.as_ref())?;
    let other_host = network.add(place::INTRANET)?;
    let other = match &arguments.against {
        Some(binary) => Some(start(&network, &other_host.namespace, binary)?),
        None => None,
    };
    let orders = Orders { rate: None, share: 0, allowed: Vec::new() };
    let flood =
        |host| Flood::new(&arguments.object, &network.router, host, &Frame::syn(host, PORT)?, &orders);
    let (mut flood, mut other_flood) = (flood(&rated)?, flood(&other_host)?);
    let beside = cpu::first()?;
    cpu::stay_on(cpu::last()?)?;
    let mut samples = Listener::ALL.map(|_| Sample::new());
    let mut before = Sample::new();
    for round in 0..=arguments.rounds {
        for (listener, sample) in Listener::ALL.into_iter().zip(&mut samples) {
            let listening = listen(&firewall, listener, beside)?;
            let took = network.router.inside(|| flood.send(arguments.packets))?;
            drop(listening);
            // The first round warms the caches.
            if round > 0 {
                sample.push(took.as_nanos() as f64);
            }
        }
        if other.is_some() {
            let took = network.router.inside(|| other_flood.send(arguments.packets))?;
            if round > 0 {
                before.push(took.as_nanos() as f64);
            }
        }
    }
    table(&samples, other.is_some().then_some(&before));
    Ok(())
}

fn start<'a>(
    network: &Network,
    namespace: &'a testbed::Namespace,
    binary: &Path,
) -> Result<(Firewall<'a>, Started)> {
    let firewall = Firewall::new(network, namespace, binary)?;
    let callers = rules::callers(PREFIXES)?;
    firewall.write("callers.netset", &callers.iter().fold(String::new(), |all, one| all + one + "\n"))?;
    for (name, text) in rules::mpesa_fw()? {
        firewall.write(name, &text)?;
    }
    let agent = firewall.start(&[])?;
    Ok((firewall, agent))
}

fn listen(firewall: &Firewall<'_>, listener: Listener, beside: usize) -> Result<Vec<Process>> {
    let mut processes = Vec::new();
    for words in listener.commands() {
        let mut shell = firewall.namespace.command("sh");
        let ask = firewall.ask_command(words.iter());
        let words: Vec<String> = std::iter::once(ask.get_program())
            .chain(ask.get_args())
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        // Beside the flood, as on a server that has room.
        let script = format!("exec taskset -c {beside} {} >/dev/null 2>&1", words.join(" "));
        shell.args(["-c", &script]).stdin(Stdio::null());
        processes.push(Process::spawn(shell, "listener", firewall.logs()).context("a listener")?);
    }
    sleep(Duration::from_millis(if processes.is_empty() { 50 } else { 300 }));
    Ok(processes)
}

fn table(samples: &[Sample; 4], before: Option<&Sample>) {
    println!("| who listens | ns a packet, sent and denied: min / median | rate over nobody's |");
    println!("|---|---|---|");
    let nobody = &samples[0];
    if let Some(before) = before {
        let share = nobody.ratio(before).median();
        println!("| nobody, the other program | {:.0} / {:.0} | {share:.2} |", before.min(), before.median());
    }
    for (listener, sample) in Listener::ALL.into_iter().zip(samples) {
        let wanted = (listener != Listener::Nobody).then_some(SHARE);
        let share = at_least(nobody.ratio(sample).median(), wanted);
        println!("| {} | {:.0} / {:.0} | {share} |", listener.label(), sample.min(), sample.median());
    }
}
