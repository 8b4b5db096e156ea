//! What the admin waits for, and what the agent costs: the real agent in a namespace of its own.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use testbed::{Firewall, Host, Network, Started, place};

use crate::{
    memory, open, refusals,
    sample::{Sample, within},
    sets::{PrefixSet, Spread},
    why,
};

const BINARY: &str = env!("CARGO_BIN_EXE_mpesa-fw");

/// The files of the shipped policy that is rated.
const SHIPPED: [&str; 2] = ["dedicated.yaml", "safaricom.yaml"];
const SHIPPED_IN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../rules");

/// How long an agent may calm down after a start.
const CALM: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Reloads of a policy of 12 prefixes; of larger ones a third
    #[arg(long, default_value_t = 21)]
    reloads: usize,
    /// Seconds for which an idle agent is watched
    #[arg(long, default_value_t = 20)]
    idle: u64,
}

/// Times reloads, then weighs the agent.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let network = Network::new()?;
    let host = network.add(place::CALLBACK_HOST)?;
    reloads(&network, &host, arguments.reloads)?;
    println!();
    weight(&network, &host, arguments)?;
    println!();
    open::table(&network, &network.add(place::API)?, BINARY)?;
    println!();
    why::table(&network, &network.add(place::DROP_BOX)?, BINARY)?;
    println!();
    memory::table(&network, &network.add(place::INTRANET)?, BINARY)?;
    println!();
    refusals::table(&network, &network.add(place::SAFARICOM)?, BINARY)
}

/// From the start of `mpesa-fw reload` to its end.
fn reloads(network: &Network, host: &Host, times: usize) -> Result<()> {
    println!("| prefixes | set | reloads | min, ms | median, ms | max, ms | at most |");
    println!("|---|---|---|---|---|---|---|");
    for (prefixes, most, times) in
        [(12, 150.0, times), (100_000, 400.0, times.div_ceil(3)), (1_000_000, 3_000.0, times.div_ceil(3))]
    {
        for spread in [Spread::Random, Spread::Clustered] {
            eprintln!("{times} reloads of {prefixes} prefixes, {spread}");
            let firewall = Firewall::new(network, &host.namespace, BINARY)?;
            let sets = [PrefixSet::new(true, spread, prefixes), PrefixSet::new(true, spread, prefixes - 1)];
            write_rules(&firewall, &sets[0])?;
            let agent = firewall.start(&[])?;
            let mut sample = Sample::new();
            for turn in 0..times {
                // Another policy each time, so that there is something to change.
                write_rules(&firewall, &sets[(turn + 1) % 2])?;
                let mut command = firewall.ask_command(["reload"]);
                let begin = Instant::now();
                let output = command.output().context("run mpesa-fw reload")?;
                sample.push(begin.elapsed().as_secs_f64() * 1e3);
                ensure!(output.status.success(), "reload: {}", String::from_utf8_lossy(&output.stderr));
            }
            println!(
                "| {prefixes} | {spread} | {times} | {:.0} | {:.0} | {:.0} | {} |",
                sample.min(),
                sample.median(),
                sample.max(),
                within(sample.median(), most)
            );
            drop(agent);
            ensure!(
                firewall
                    .ask(["detach", "--bpffs"].iter().map(AsRef::as_ref).chain([firewall.bpffs.as_os_str()]))?
                    .code
                    == Some(0),
                "detach"
            );
        }
    }
    Ok(())
}

/// Memory and processor time of the agent with a shipped policy.
fn weight(network: &Network, host: &Host, arguments: &Arguments) -> Result<()> {
    let firewall = Firewall::new(network, &host.namespace, BINARY)?;
    for name in SHIPPED {
        let text = fs::read_to_string(Path::new(SHIPPED_IN).join(name)).with_context(|| name.to_owned())?;
        firewall.write(if name == SHIPPED[0] { "rules.yaml" } else { name }, &text)?;
    }
    let agent = firewall.start(&[])?;
    std::thread::sleep(CALM);
    let fresh = resident(&agent)?;

    eprintln!("idle for {} s", arguments.idle);
    let before = processor_time(&agent)?;
    std::thread::sleep(Duration::from_secs(arguments.idle));
    let idle = (processor_time(&agent)? - before) / arguments.idle as f64 * 100.0;

    for _ in 0..50 {
        let ran = firewall.ask(["reload"])?;
        ensure!(ran.code == Some(0), "reload: {}", ran.text());
    }
    std::thread::sleep(CALM);
    println!("| agent with `rules/{}` | | at most |", SHIPPED[0]);
    println!("|---|---|---|");
    println!("| resident, {} s after the start | {fresh:.1} MB | {} |", CALM.as_secs(), within(fresh, 30.0));
    let later = resident(&agent)?;
    println!("| resident, after 50 reloads | {later:.1} MB | {} |", within(later, 30.0));
    println!(
        "| processor time while idle, over {} s | {idle:.2} % | {} |",
        arguments.idle,
        within(idle, 0.5)
    );
    Ok(())
}

fn feed(set: &PrefixSet) -> String {
    set.prefixes.iter().fold(String::new(), |mut feed, prefix| {
        let _ = writeln!(feed, "{prefix}");
        feed
    })
}

/// The policy of the bench, with this set.
pub(crate) fn write_rules(firewall: &Firewall<'_>, set: &PrefixSet) -> Result<()> {
    firewall.write("feed.netset", &feed(set))?;
    firewall.policy(crate::datapath::RULES)
}

/// Megabytes (10^6 bytes) of a process that are in memory.
pub(crate) fn resident(agent: &Started) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.process.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse().context("VmRSS")?;
    Ok(kib * 1024.0 / 1e6)
}

/// Seconds of processor time that a process has used.
pub(crate) fn processor_time(agent: &Started) -> Result<f64> {
    /// `USER_HZ` of Linux.
    const TICKS: f64 = 100.0;
    let stat = fs::read_to_string(format!("/proc/{}/stat", agent.process.pid()))?;
    let (_, behind_name) = stat.rsplit_once(')').context("stat")?;
    // Fields 14 and 15 of proc_pid_stat(5); the first behind the name is the third.
    let ticks: Vec<f64> =
        behind_name.split_whitespace().skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
    Ok(ticks.iter().sum::<f64>() / TICKS)
}
