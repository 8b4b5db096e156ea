//! A network namespace with a link to a peer, a bpffs of its own, and policies to load. Nothing outside is touched, and
//! everything goes with the thread.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{
    path::PathBuf,
    process::{Child, Command},
    sync::{PoisonError, RwLock},
    thread,
    time::{Duration, Instant},
};

use mpesa_fw::{
    compile::{Registry, compile},
    datapath::{Datapath, DatapathError, Interface, Options, Report, TcChoice, XdpChoice},
    policy::model::{Addresses, Claim, Destination, Egress, Ingress, Location, Policy, Service},
};
use mpesa_fw_common::{ABI_VERSION, Mode, Verdict, state::FlowState};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    net::if_::if_nametoindex,
    sched::{CloneFlags, unshare},
};

/// Address of the namespace under test.
pub(crate) const LOCAL: &str = "198.51.100.1";
/// Address of the peer that policies allow.
pub(crate) const FRIEND: &str = "198.51.100.2";
/// Another address of the peer.
pub(crate) const STRANGER: &str = "198.51.100.3";

/// Programs at the cgroups' root, which are there where a cgroup v2 is; and their pins.
pub(crate) const OF_SOCKETS: [&str; 7] =
    ["bypass", "connect4", "connect6", "connections", "makers", "sendmsg4", "sendmsg6"];

static ALONE: RwLock<()> = RwLock::new(());

pub(crate) struct Lab {
    directory: PathBuf,
    peer: Child,
}

impl Lab {
    /// Runs a test in a lab of its own, beside others.
    pub(crate) fn run(test: impl FnOnce(&Lab) + Send + 'static) {
        let _others_too = ALONE.read().unwrap_or_else(PoisonError::into_inner);
        Self::run_one(test);
    }

    /// Runs a test while no other of this program runs: its times or the descriptors of the process are counted.
    pub(crate) fn run_alone(test: impl FnOnce(&Lab) + Send + 'static) {
        let _alone = ALONE.write().unwrap_or_else(PoisonError::into_inner);
        Self::run_one(test);
    }

    fn run_one(test: impl FnOnce(&Lab) + Send + 'static) {
        let thread = thread::spawn(|| test(&Self::build()));
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    }

    fn build() -> Self {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).expect("root is needed");
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
            .expect("mounts of our own");
        // A bpffs takes no names with a dot.
        let directory =
            tempfile::Builder::new().prefix("mpesa-fw-datapath-").tempdir().expect("a directory").keep();
        let peer = Command::new("unshare").args(["--net", "sleep", "600"]).spawn().expect("unshare");
        let lab = Self { directory, peer };
        lab.wait_for_peer();
        run("ip link set lo up");
        lab.link("va");
        lab
    }

    fn wait_for_peer(&self) {
        let namespace = |task: &str| std::fs::read_link(format!("/proc/{task}/ns/net")).expect("a task");
        wait_until("the peer's namespace", || {
            namespace(&self.peer.id().to_string()) != namespace("thread-self")
        });
    }

    /// Makes a link to the peer, which has two addresses.
    pub(crate) fn link(&self, name: &str) -> Interface {
        let peer = self.peer.id();
        run(&format!("ip link add {name} type veth peer name p{name} netns {peer}"));
        if name == "va" {
            run(&format!("ip address add {LOCAL}/24 dev {name}"));
            self.in_peer(&format!("ip address add {FRIEND}/24 dev p{name}"));
            self.in_peer(&format!("ip address add {STRANGER}/24 dev p{name}"));
        }
        run(&format!("ip link set {name} up"));
        self.in_peer(&format!("ip link set p{name} up"));
        if name == "va" {
            // The kernel looks for carriers once a second.
            wait_until("the link to carry packets", || self.ping(FRIEND));
        }
        interface(name)
    }

    /// Runs a command in the peer's namespace.
    pub(crate) fn in_peer(&self, command: &str) {
        run(&format!("nsenter --net=/proc/{}/ns/net {command}", self.peer.id()));
    }

    /// Starts pings from an address of the peer; the answer is how many of `count` came back.
    pub(crate) fn pings(&self, from: &str, count: u32, interval: &str) -> thread::JoinHandle<u32> {
        let command = format!(
            "nsenter --net=/proc/{}/ns/net ping -q -I {from} -c {count} -i {interval} -W 1 {LOCAL}",
            self.peer.id()
        );
        thread::spawn(move || {
            let words: Vec<_> = command.split(' ').collect();
            let output = Command::new(words[0]).args(&words[1..]).output().expect("ping");
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let received = text.split(" received").next().and_then(|head| head.rsplit(' ').next());
            received
                .and_then(|number| number.parse().ok())
                .unwrap_or_else(|| panic!("no answer from ping: {text}"))
        })
    }

    /// Whether one ping comes back.
    pub(crate) fn ping(&self, from: &str) -> bool {
        self.pings(from, 1, "1").join().expect("ping") == 1
    }

    pub(crate) fn options(&self) -> Options {
        Options {
            bpffs: self.directory.clone(),
            xdp: XdpChoice::Auto,
            tc: TcChoice::Auto,
            flows_capacity: 65536,
            trace: false,
        }
    }

    pub(crate) fn try_open(&self) -> Result<Datapath, DatapathError> {
        Datapath::open(self.options())
    }

    pub(crate) fn open(&self) -> Datapath {
        Datapath::open(self.options()).expect("the datapath opens")
    }

    pub(crate) fn open_tc(&self, tc: TcChoice) -> Datapath {
        Datapath::open(Options { tc, ..self.options() }).expect("the datapath opens")
    }

    /// Names below the pin directory; of `links` those of interfaces.
    pub(crate) fn pins(&self, directory: &str) -> Vec<String> {
        let directory = self.directory.join(format!("abi-{ABI_VERSION}")).join(directory);
        let mut names: Vec<_> = std::fs::read_dir(directory)
            .map(|entries| {
                entries
                    .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
                    .collect()
            })
            .unwrap_or_default();
        names.retain(|name| !OF_SOCKETS.contains(&name.as_str()));
        names.sort();
        names
    }

    pub(crate) fn generations(&self) -> Vec<String> {
        self.pins("").into_iter().filter(|name| name.starts_with("generation-")).collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _gone = self.peer.kill();
        let _reaped = self.peer.wait();
        while umount2(&self.directory, MntFlags::MNT_DETACH).is_ok() {}
        let _empty = std::fs::remove_dir(&self.directory);
    }
}

pub(crate) fn interface(name: &str) -> Interface {
    Interface { name: name.to_owned(), index: if_nametoindex(name).expect("an interface") }
}

pub(crate) fn run(command: &str) {
    let words: Vec<_> = command.split(' ').collect();
    let output = Command::new(words[0]).args(&words[1..]).output().expect(words[0]);
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

pub(crate) fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + testbed::here(Duration::from_secs(10));
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Pings from these prefixes pass, nothing else does.
pub(crate) fn policy(pings_from: &[&str]) -> Policy {
    Policy {
        serial: None,
        mode: Mode::Enforce,
        interfaces: Vec::new(),
        sets: Vec::new(),
        ingress: Ingress {
            default: Verdict::Drop,
            services: vec![Service {
                name: String::from("ping"),
                claims: vec![Claim::Icmp(vec![8])],
                to: Vec::new(),
                from: inline(pings_from),
                limit: None,
                by: Vec::new(),
                at: location(),
            }],
        },
        egress: Egress {
            default: Verdict::Drop,
            refuses_attempts: true,
            allow: vec![Destination {
                name: String::from("dns"),
                claims: vec![Claim::Udp(vec![53..=53])],
                to: inline(&["192.0.2.53/32"]),
                names: vec![String::from("ns.example.net")],
                by: Vec::new(),
                at: location(),
            }],
        },
        files: Vec::new(),
        source_digest: [pings_from.len() as u8; 32],
    }
}

pub(crate) fn inline(prefixes: &[&str]) -> Addresses {
    let prefixes = prefixes.iter().map(|prefix| prefix.parse().expect("a prefix")).collect();
    Addresses { any: false, prefixes, sets: Vec::new() }
}

fn location() -> Location {
    Location { file: PathBuf::from("test.yaml"), line: 1, column: 1 }
}

/// What the agent does for a reload: names to rows, compile, stage, commit.
pub(crate) fn reload(
    datapath: &mut Datapath,
    policy: &Policy,
    interfaces: &[Interface],
) -> Result<Report, DatapathError> {
    let assignment = Registry::from_rows(datapath.registry_rows()).assign(policy).expect("there is room");
    let compiled = compile(policy, &assignment.slots).expect("it fits");
    let staged = datapath.stage(&compiled, policy.serial)?;
    datapath.commit(staged, &assignment.registry.to_rows(), &assignment.fresh, interfaces, &mut |_| {})
}

/// Whether this kernel has TCX (Linux 6.6).
pub(crate) fn has_tcx() -> bool {
    const LOOPBACK: u32 = 1;
    mpesa_fw::sys::tcx_programs(LOOPBACK, mpesa_fw::sys::BPF_TCX_EGRESS).is_ok()
}

/// TCX and clsact; where there is no TCX, the latter only.
pub(crate) fn tc_ways() -> &'static [TcChoice] {
    if has_tcx() {
        return &[TcChoice::Auto, TcChoice::Clsact];
    }
    testbed::left_out("TCX", "this kernel has none (Linux 6.6)");
    &[TcChoice::Clsact]
}

/// Open descriptors of this process to maps, programs, links and sockets.
pub(crate) fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd")
        .expect("/proc")
        .filter_map(|entry| std::fs::read_link(entry.expect("an entry").path()).ok())
        .filter(|target| {
            ["anon_inode:", "socket:"].iter().any(|kind| target.to_string_lossy().starts_with(kind))
        })
        .count()
}

pub(crate) fn friend() -> String {
    format!("{FRIEND}/32")
}

/// A flow of the first generation, by its first rule.
pub(crate) const fn flow_seen_at(last_seen: u64) -> FlowState {
    FlowState { last_seen, cookie: 0, generation: 1, phase: 1, rule: 0, would_drop: 0, reserved: 0 }
}
