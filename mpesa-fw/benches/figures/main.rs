//! The figures of `benches/RESULTS.md`. `cargo xtask bench` builds what is needed and runs this; Markdown on standard
//! output, progress on standard error.

mod agent;
mod answers;
mod callbacks;
mod calls;
mod contender;
mod cpu;
mod datapath;
mod denied;
mod flood;
mod frame;
mod full;
mod kernel;
mod listened;
mod load;
mod memory;
mod open;
mod packet;
mod plot;
mod refusals;
mod rounds;
mod rules;
mod sample;
mod search;
mod sets;
mod traffic;
mod verdicts;
mod why;
mod wire;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Rates mpesa-fw on this machine.
#[derive(Debug, Parser)]
struct Arguments {
    /// What cargo adds.
    #[arg(long, hide = true, global = true)]
    bench: bool,
    #[command(subcommand)]
    part: Part,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Nanoseconds a packet, by BPF_PROG_TEST_RUN
    Datapath(datapath::Arguments),
    /// Rates on a link, beside other firewalls
    Wire(wire::Arguments),
    /// Rates on a link, while somebody follows events or captures
    Listened(listened::Arguments),
    /// Callbacks while floods arrive
    Load(load::Arguments),
    /// Time of a reload, memory and processor time of the agent
    Agent(agent::Arguments),
}

fn main() -> Result<()> {
    // `cargo test --benches` runs this too, without the arguments of a bench: there is nothing to test here.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    match Arguments::parse().part {
        Part::Datapath(arguments) => datapath::run(&arguments),
        Part::Wire(arguments) => wire::run(&arguments),
        Part::Listened(arguments) => listened::run(&arguments),
        Part::Load(arguments) => load::run(&arguments),
        Part::Agent(arguments) => agent::run(&arguments),
    }
}
