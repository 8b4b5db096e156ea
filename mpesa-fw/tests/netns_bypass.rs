//! Sockets whose frames would pass TC by are refused in the namespace of the agent, and nowhere else.

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use support::{Field, SOON, WEB, groups::without_cgroups, policy};
use testbed::{Curl, Firewall, Host, Process, attach_foreign_setsockopt, holds, ok, place, run};

/// The evasion suite's attackers.
const ATTACK: &str = include_str!("../evasion/src/egress/attack.py");
const QDISC: &str = "qdisc-bypass";
const XDP: &str = "af-xdp";
const REFUSED: &str = "EPERM";
const SENT: &str = "sent";

/// Whether there is a cgroup v2 to refuse at. (The kernel's own tests have none in some guests.)
fn can_refuse() -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let can = mounts.contains(" - cgroup2 ");
    if !can {
        testbed::left_out("refusals of sockets that pass TC by", "no cgroup v2 is mounted");
    }
    can
}

/// What became of an attack by a program at a place, as it sees it.
fn strike(at: &Host, attack: &str) -> Result<String> {
    let (mac, router) = (at.mac(), at.router_mac());
    let constants = format!(
        r#"{{"token":"token","mac":"{mac}","router":"{router}","h4":"{}","h6":"{}","d4":"192.0.2.80",
        "d6":"2001:db8:80::80","s4":"192.0.2.1","a4":"192.0.2.2","a6":"2001:db8:80::2"}}"#,
        at.place.v4, at.place.v6
    );
    let mut python = at.namespace.command("/usr/bin/python3");
    let answer: serde_json::Value =
        serde_json::from_str(&ok(python.args(["-c", ATTACK, attack, &constants]))?)?;
    Ok(answer["said"].as_str().with_context(|| format!("{answer}"))?.to_owned())
}

/// `packet_qdisc_bypass` and `af_xdp`.
fn refusals(firewall: &Firewall<'_>) -> Result<(f64, f64)> {
    let metrics = firewall.metrics()?;
    let of = |kind: &str| metrics.sum("mpesa_fw_refused_bypasses_total", &[("kind", kind)]);
    Ok((of("packet_qdisc_bypass"), of("af_xdp")))
}

fn expect(at: &Host, told: &str) -> Result<()> {
    for attack in [QDISC, XDP] {
        let said = strike(at, attack)?;
        ensure!(said == told, "{attack} at {}: {said}, not {told}", at.place.name);
    }
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn senders_past_tc_are_refused_here_and_nowhere_else() -> Result<()> {
    if !can_refuse() {
        return Ok(());
    }
    let field = Field::new()?;
    expect(&field.host, SENT)?;
    let (firewall, agent) = field.protected(&policy(&[WEB], &[]))?;
    let text = firewall.namespace.get(Firewall::METRICS, "/metrics")?.1;
    for kind in ["af_xdp", "packet_qdisc_bypass"] {
        let row = format!("mpesa_fw_refused_bypasses_total{{kind=\"{kind}\"}} 0");
        assert!(text.contains(&row), "a row before the first: {text}");
    }
    assert!(!firewall.ask(["status"])?.stdout.contains("pass TC by"));
    expect(&field.host, REFUSED)?;
    assert_eq!(refusals(&firewall)?, (1.0, 1.0));
    // Neither the attacker's place nor a service of another container is this agent's.
    expect(&field.attacker, SENT)?;
    assert_eq!(refusals(&firewall)?, (1.0, 1.0));
    let status = firewall.status()?;
    assert_eq!(status["bypasses"]["af_xdp"].as_u64(), Some(1), "{status}");
    let said = firewall.ask(["status"])?.stdout;
    assert!(said.contains("1 AF_XDP") && said.contains("1 packet"), "{said}");

    // A reload swaps it, the end of an agent leaves it.
    firewall.reload(&policy(&[], &[]))?;
    expect(&field.host, REFUSED)?;
    drop(agent);
    expect(&field.host, REFUSED)?;
    let agent = firewall.start(&["--force"])?;
    expect(&field.host, REFUSED)?;
    assert_eq!(refusals(&firewall)?, (4.0, 4.0));

    // Nothing is left of it after a detach.
    let ran = firewall.ask(["detach"])?;
    assert_eq!(ran.code, Some(0), "{}", ran.text());
    expect(&field.host, SENT)?;
    drop(agent);
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn other_sockets_go_on_and_are_judged() -> Result<()> {
    if !can_refuse() {
        return Ok(());
    }
    let field = Field::new()?;
    let (firewall, _agent) = field.protected(&policy(&[WEB], &[]))?;
    let before = firewall.metrics()?;
    // TC drops it, as the driver's queue would have: the program that sends is told so, or nothing.
    for attack in ["packet-raw", "tx-ring"] {
        let said = strike(&field.host, attack)?;
        assert!(said == SENT || said == "ENOBUFS", "{attack}: {said}");
    }
    holds("two drops", SOON, || {
        firewall.metrics().is_ok_and(|now| {
            now.drops_since(&before)
                .iter()
                .any(|(what, count)| what.contains("no_destination") && *count >= 2)
        })
    })?;
    // Options of many pages, which the kernel does not show to programs as a whole: what legacy iptables sets is one.
    let large = "import socket, struct\n\
        out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
        members = 6000\n\
        try:\n    \
            out.setsockopt(0, 41, struct.pack('4s4sII', bytes([224, 0, 0, 9]), bytes(4), 1, members) + bytes(4 * members))\n\
        except OSError as error:\n    \
            print(error.errno)";
    let mut python = field.host.namespace.command("/usr/bin/python3");
    let with = ok(python.args(["-c", large]))?;
    let mut python = field.attacker.namespace.command("/usr/bin/python3");
    let beside = ok(python.args(["-c", large]))?;
    assert_eq!((with.trim(), beside.trim()), (errno_of_no_buffers(), errno_of_no_buffers()));

    // A capture sees frames as ever.
    let mut tcpdump = field.host.namespace.command("tcpdump");
    tcpdump.args(["-n", "-l", "-i", "eth0", "-c", "1", "tcp dst port 80"]);
    let mut tcpdump = Process::spawn(tcpdump, "tcpdump", firewall.logs())?;
    tcpdump.wait_for_log("listening on", SOON)?;
    let _refused = Curl::http(field.host.place.v4, 80).from(&field.safaricom.namespace);
    tcpdump.wait_for_log("Flags [S]", SOON)?;
    assert_eq!(refusals(&firewall)?, (0.0, 0.0));
    Ok(())
}

/// `IP_MSFILTER` takes so many sources in no namespace, and says so: ENOBUFS, where EFAULT would come of a program that
/// hands the kernel less than there is.
fn errno_of_no_buffers() -> &'static str {
    "105"
}

#[test]
#[ignore = "needs root and a kernel"]
fn observe_mode_counts_and_refuses_nothing() -> Result<()> {
    if !can_refuse() {
        return Ok(());
    }
    let field = Field::new()?;
    let enforcing = policy(&[WEB], &[]);
    let observing = enforcing.replace("mode: enforce", "mode: observe");
    let (firewall, _agent) = field.protected(&observing)?;
    expect(&field.host, SENT)?;
    assert_eq!(refusals(&firewall)?, (1.0, 1.0));
    firewall.reload(&enforcing)?;
    expect(&field.host, REFUSED)?;
    firewall.reload(&observing)?;
    expect(&field.host, SENT)?;
    assert_eq!(refusals(&firewall)?, (3.0, 3.0));
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn agents_of_one_machine_refuse_each_in_its_own_namespace() -> Result<()> {
    if !can_refuse() {
        return Ok(());
    }
    let field = Field::new()?;
    let other = field.network.add(place::INTRANET)?;
    let (firewall, _agent) = field.protected(&policy(&[WEB], &[]))?;
    let beside = Firewall::new(&field.network, &other.namespace, env!("CARGO_BIN_EXE_mpesa-fw"))?;
    beside.policy(&policy(&[WEB], &[]))?;
    let mut second = beside.start(&["--force"])?;
    expect(&other, REFUSED)?;
    expect(&field.host, REFUSED)?;
    assert_eq!((refusals(&firewall)?, refusals(&beside)?), ((1.0, 1.0), (1.0, 1.0)));
    let ran = beside.ask(["detach"])?;
    assert_eq!(ran.code, Some(0), "{}", ran.text());
    second.process.kill()?;
    expect(&other, SENT)?;
    expect(&field.host, REFUSED)?;
    Ok(())
}

/// A program that has told a socket to pass TC by and keeps it.
fn keeper(field: &Field, logs: &Path, name: &str, setup: &str) -> Result<Process> {
    let script = format!(
        "import mmap, ctypes, socket, struct, time\n{setup}\nprint('kept', flush=True)\ntime.sleep(600)"
    );
    let mut python = field.host.namespace.command("/usr/bin/python3");
    python.args(["-c", &script]);
    let mut process = Process::spawn(python, name, logs)?;
    process.wait_for_log("kept", SOON)?;
    Ok(process)
}

/// What the doctor says of such sockets.
fn examined(firewall: &Firewall<'_>) -> Result<String> {
    let mut command = firewall.ask_command(["doctor", "--rules"]);
    command.arg(firewall.directory.join("rules.yaml")).arg("--bpffs").arg(&firewall.bpffs);
    Ok(run(&mut command)?.stdout)
}

#[test]
#[ignore = "needs root and a kernel"]
fn the_doctor_lists_who_was_there_before() -> Result<()> {
    const PACKET: &str = "out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); out.setsockopt(263, 20, 1)";
    const XDP: &str =
        "out = socket.socket(44, socket.SOCK_RAW); out.setsockopt(283, 3, struct.pack('I', 16))";
    const CAPTURE: &str = "out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)";
    if !can_refuse() {
        return Ok(());
    }
    let field = Field::new()?;
    let firewall = field.firewall()?;
    firewall.policy(&policy(&[WEB], &[]))?;
    let packet = keeper(&field, firewall.logs(), "packet", PACKET)?;
    let mut xdp = keeper(&field, firewall.logs(), "xdp", XDP)?;
    // A process counts as started up to a second earlier than it was.
    std::thread::sleep(std::time::Duration::from_millis(2100));
    let _agent = firewall.start(&["--force"])?;
    std::thread::sleep(std::time::Duration::from_millis(2100));
    let later = keeper(&field, firewall.logs(), "later", CAPTURE)?;
    let said = examined(&firewall)?;
    let named = |process: &Process| format!("({})", process.pid());
    assert!(said.contains(&named(&packet)), "{said}");
    let is_shown = said.contains("AF_XDP sockets that can transmit") && said.contains(&named(&xdp));
    // A kernel without xsk_diag counts them.
    assert!(is_shown || said.contains("AF_XDP sockets: 1;"), "{said}");
    assert!(!said.contains(&named(&later)), "{said}");
    xdp.kill()?;
    drop(packet);
    let said = examined(&firewall)?;
    assert!(said.contains("no socket was opened early enough"), "{said}");
    Ok(())
}

/// A cgroup of our own.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new() -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let line = mounts.lines().find(|line| line.contains(" - cgroup2 ")).context("no cgroup v2")?;
        let root = line.split(' ').nth(4).context("a mount point")?;
        let path = Path::new(root).join(format!("mpesa-fw-bypass-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(Self(path))
    }

    /// The programs at it, in the words of bpftool.
    fn programs(&self) -> Result<String> {
        ok(Command::new("bpftool").args(["cgroup", "show"]).arg(&self.0))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _gone = fs::remove_dir(&self.0);
    }
}

#[test]
#[ignore = "needs root and a kernel"]
fn programs_of_others_stay_and_allow_nothing() -> Result<()> {
    if !can_refuse() {
        return Ok(());
    }
    let field = Field::new()?;
    let firewall = field.firewall()?;
    let cgroup = Cgroup::new()?;
    attach_foreign_setsockopt(&cgroup.0, &field.network.scratch.bpffs("theirs")?)?;
    firewall.policy(&policy(&[WEB], &[]))?;
    let agent = firewall.start(&["--force"])?;
    // A program in that cgroup sets the option, and is asked about by theirs first.
    let set = |told: &str| -> Result<()> {
        let script = format!(
            "echo $$ > {}/cgroup.procs; exec /usr/bin/python3 -c 'import socket; \
             socket.socket(socket.AF_PACKET, socket.SOCK_RAW).setsockopt(263, 20, 1); print(\"set\")'",
            cgroup.0.display()
        );
        let ran = run(field.host.namespace.command("sh").args(["-c", &script]))?;
        ensure!(ran.text().contains(told), "{} and not {told}", ran.text());
        ensure!(cgroup.programs()?.contains("foreign"), "theirs is gone");
        Ok(())
    };
    set("PermissionError")?;
    firewall.reload(&policy(&[], &[]))?;
    set("PermissionError")?;
    let ran = firewall.ask(["detach"])?;
    assert_eq!(ran.code, Some(0), "{}", ran.text());
    set("set")?;
    drop(agent);
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn where_nothing_can_refuse_it_is_said() -> Result<()> {
    if !can_refuse() {
        return Ok(());
    }
    let field = Field::new()?;
    let mut firewall = field.firewall()?;
    firewall.policy(&policy(&[WEB], &[]))?;
    let wrapper = without_cgroups(&firewall)?;
    let real = std::mem::replace(&mut firewall.binary, wrapper);
    let _agent = firewall.start(&["--force"])?;
    firewall.binary = real;
    expect(&field.host, SENT)?;
    let said = firewall.ask(["status"])?.stdout;
    assert!(said.contains("can pass TC by") && said.contains("no cgroup v2 is mounted"), "{said}");
    Ok(())
}
