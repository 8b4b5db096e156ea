//! `cargo xtask law`: the long run of the law that oracle, decision and kernel say the same.

use std::process::Command;

use anyhow::{Result, bail};

use crate::process::{self, is_root, run as run_command};

/// How many.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Pairs of a policy and a packet on the host
    #[arg(long, default_value_t = 1_000_000)]
    host: usize,
    /// Pairs in the kernel, as root
    #[arg(long, default_value_t = 100_000)]
    kernel: usize,
    /// Pairs with senders, of which a twin in the kernel is asked, as root
    #[arg(long, default_value_t = 10_000)]
    twin: usize,
    /// Another seed gives others
    #[arg(long, default_value_t = 7)]
    seed: u64,
}

/// Judges so many pairs by the oracle, by the decision on the host and, as root, by the programs in the kernel.
///
/// # Errors
/// When they differ, or the tests can't be run.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { host, kernel, twin, seed } = *arguments;
    if host > 0 {
        run_command(
            cargo(seed)
                .env("MPESA_FW_LAW_HOST", host.to_string())
                .args(["law::the_oracle_says_what_is_decided"]),
        )?;
    }
    for (pairs, variable, test) in [
        (kernel, "MPESA_FW_LAW_KERNEL", "kernel::law::the_oracle_says_what_the_kernel_does"),
        (twin, "MPESA_FW_LAW_TWIN", "kernel::law::the_oracle_says_what_the_twin_foretells"),
    ] {
        if pairs > 0 {
            if !is_root() {
                bail!(
                    "programs are loaded as root only: `cargo xtask law --kernel 0 --twin 0` leaves the kernel out"
                );
            }
            run_command(cargo(seed).env(variable, pairs.to_string()).args([test, "--ignored"]))?;
        }
    }
    Ok(())
}

fn cargo(seed: u64) -> Command {
    let mut cargo = process::cargo();
    cargo.args(["test", "--package", "mpesa-fw", "--test", "decision", "--", "--nocapture", "--exact"]);
    cargo.env("MPESA_FW_TEST_SEED", seed.to_string());
    cargo
}
