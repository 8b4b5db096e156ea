//! Who is compared: each does the same job on a host of its own, all of them at the same time.

use std::fmt::{self, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use aya::Ebpf;
use testbed::{Firewall, Host, Network, Place, Started, ok, run};

use crate::{flood, rules};

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_mpesa-fw");

/// What guards a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contender {
    /// An XDP program that drops everything.
    Bare,
    /// The agent, started as an admin does.
    Firewall,
    /// nftables at the netdev hooks.
    Netdev,
    /// nftables at the input hook, with connection tracking.
    Input,
    /// xdp-filter of xdp-tools, denying by default.
    XdpFilter,
    /// Nothing.
    Nothing,
}

impl fmt::Display for Contender {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Bare => "bare `XDP_DROP`",
            Self::Firewall => "mpesa-fw",
            Self::Netdev => "nftables, netdev hooks",
            Self::Input => "nftables, input with conntrack",
            Self::XdpFilter => "xdp-filter",
            Self::Nothing => "nothing",
        })
    }
}

/// A guarded host. What is not read keeps the guard alive.
pub(crate) struct Guarded {
    pub(crate) contender: Contender,
    pub(crate) host: Host,
    pub(crate) agent: Option<Agent>,
    _program: Option<Ebpf>,
}

/// A running mpesa-fw.
pub(crate) struct Agent {
    pub(crate) started: Started,
    pub(crate) bpffs: PathBuf,
}

impl Guarded {
    /// A host on a link of its own, guarded; `callers` are the prefixes that may reach the callback ports.
    pub(crate) fn new(
        network: &Network,
        number: u8,
        contender: Contender,
        callers: &[String],
        object: &Path,
    ) -> Result<Self> {
        let host = network.add(place(number)?)?;
        let mut guarded = Self { contender, host, agent: None, _program: None };
        match contender {
            Contender::Bare => guarded._program = Some(flood::drop_all(object, &guarded.host)?),
            Contender::Firewall => guarded.agent = Some(guarded.start(network, callers)?),
            Contender::Netdev => guarded.nft(network, &rules::nft_netdev(callers))?,
            Contender::Input => guarded.nft(network, &rules::nft_input(callers))?,
            Contender::XdpFilter => guarded.xdp_filter(network, callers)?,
            Contender::Nothing => guarded.receive_frames()?,
        }
        Ok(guarded)
    }

    fn start(&self, network: &Network, callers: &[String]) -> Result<Agent> {
        let firewall = Firewall::new(network, &self.host.namespace, BINARY)?;
        firewall.write("callers.netset", &lines(callers))?;
        for (name, text) in rules::mpesa_fw()? {
            firewall.write(name, &text)?;
        }
        Ok(Agent { started: firewall.start(&[])?, bpffs: firewall.bpffs })
    }

    fn nft(&self, network: &Network, ruleset: &str) -> Result<()> {
        self.receive_frames()?;
        let file = network.scratch.path().join(format!("{}.nft", self.host.place.name));
        std::fs::write(&file, ruleset).with_context(|| format!("write {}", file.display()))?;
        ok(self.host.namespace.command("nft").arg("-f").arg(&file)).context("load the nftables rules")?;
        Ok(())
    }

    /// Frames that the generator sends arrive only where the receiver has NAPI: by an XDP program, else by GRO.
    fn receive_frames(&self) -> Result<()> {
        self.host.namespace.sh(&format!("ethtool -K {} gro on", Host::INTERFACE)).map(drop)
    }

    /// It pins its maps in /sys/fs/bpf: a bpffs of its own is put there for it.
    fn xdp_filter(&self, network: &Network, callers: &[String]) -> Result<()> {
        let bpffs = network.scratch.bpffs(&format!("{}-bpffs", self.host.place.name))?;
        let mut script = format!(
            "mount --bind {} /sys/fs/bpf\nxdp-filter load --mode native --policy deny --features ipv4 {}\n",
            bpffs.display(),
            Host::INTERFACE
        );
        for caller in callers {
            writeln!(script, "xdp-filter ip --mode src {}", caller.trim_end_matches("/32"))?;
        }
        let mut shell = self.host.namespace.command("unshare");
        shell.args(["--mount", "--propagation", "private", "--", "sh", "-euc", &script]);
        ok(&mut shell).context("load xdp-filter")?;
        Ok(())
    }

    /// Packets that the host's interface has received, whatever became of them.
    pub(crate) fn received(&self) -> Result<u64> {
        let said = ok(self.host.namespace.command("ip").args(["-s", "-j", "link", "show", Host::INTERFACE]))?;
        let said: serde_json::Value = serde_json::from_str(&said).context("ip -j")?;
        said[0]["stats64"]["rx"]["packets"].as_u64().context("received packets of `ip -s -j link`")
    }
}

/// Whether a program of another project is there.
pub(crate) fn is_installed(program: &str) -> bool {
    let mut which = Command::new("sh");
    which.args(["-c", &format!("command -v {program}")]);
    run(&mut which).is_ok_and(|ran| ran.code == Some(0))
}

fn lines(callers: &[String]) -> String {
    callers.iter().fold(String::new(), |all, caller| all + caller + "\n")
}

/// A place in benchmarking space (RFC 2544).
pub(crate) fn place(number: u8) -> Result<Place> {
    const NAMES: [&str; 12] = [
        "rated-0", "rated-1", "rated-2", "rated-3", "rated-4", "rated-5", "rated-6", "rated-7", "rated-8",
        "rated-9", "rated-10", "rated-11",
    ];
    let name = NAMES.get(usize::from(number)).context("too many hosts")?;
    let subnet = 0x1000 + u16::from(number);
    Ok(Place {
        name,
        v4: Ipv4Addr::new(198, 18, number, 10),
        v6: Ipv6Addr::new(0x2001, 0xdb8, 0, subnet, 0, 0, 0, 0x10),
    })
}
