//! How long an explanation takes: the first of a generation loads a twin of its programs.

use std::time::Instant;

use anyhow::{Result, ensure};
use testbed::{Firewall, Host, Network};

use crate::sample::{Sample, within};

const TIMES: usize = 21;
const RULES: &str = "version: 1\nmode: enforce\ninterfaces: [eth0]\ningress:\n  default: drop\n  services:\n    \
                     - { name: web, ports: [80], from: [196.201.214.200] }\negress:\n  default: drop\n  allow: []\n";

/// From the start of `mpesa-fw why` to its end.
pub(crate) fn table(network: &Network, host: &Host, binary: &str) -> Result<()> {
    let firewall = Firewall::new(network, &host.namespace, binary)?;
    firewall.policy(RULES)?;
    let _agent = firewall.start(&["--force"])?;
    let ask = || -> Result<f64> {
        let begin = Instant::now();
        let ran = firewall.ask(["why", "--from", "192.0.2.1", "--port", "80"])?;
        ensure!(ran.code == Some(1), "a packet that is dropped: {}", ran.text());
        Ok(begin.elapsed().as_secs_f64() * 1e3)
    };
    let first = ask()?;
    let mut later = Sample::new();
    for _ in 0..TIMES {
        later.push(ask()?);
    }
    println!("| `mpesa-fw why` | times | min, ms | median, ms | at most |");
    println!("|---|---|---|---|---|");
    println!("| the first of a generation | 1 | {first:.0} | {first:.0} | |");
    let (min, median) = (later.min(), later.median());
    println!("| after it | {TIMES} | {min:.0} | {median:.0} | {} |", within(median, 100.0));
    Ok(())
}
