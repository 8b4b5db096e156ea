//! Nobody locks himself out by accident.

mod support;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use support::{Field, NEVER, SOON, WEB, policy};
use testbed::{
    Answer, Curl, Firewall, Host, Namespace, Process, Ran, holds, ok, place, run,
    serve::{TcpEcho, UdpEcho},
};

const SSH: &str = "{ name: ssh, ports: [2222], from: [198.51.100.66] }";
/// The admin sits where the other tests have the attacker.
const CONNECTION: &str = "198.51.100.66 50000 203.0.113.10 2222";

#[test]
#[ignore = "needs root and a kernel"]
fn a_start_that_would_cut_the_admin_is_refused() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let firewall = field.firewall()?;
    firewall.policy(&policy(&[WEB], &[]))?;
    let ran = run(firewall.run_command(&[]).env("SSH_CONNECTION", CONNECTION))?;
    assert_eq!(ran.code, Some(1), "{}", ran.text());
    assert!(ran.stderr.contains("--force") && ran.stderr.contains("198.51.100.66"), "{}", ran.stderr);
    assert!(
        Curl::http(field.host.place.v4, 80).from(&field.attacker.namespace).is_ok(),
        "nothing is attached"
    );

    firewall.policy(&policy(&[WEB, SSH], &[]))?;
    let mut agent = firewall.start(&[])?;
    agent.process.kill()?;
    firewall.policy(&policy(&[WEB], &[]))?;
    let mut forced = firewall.run_command(&["--force"]);
    forced.env("SSH_CONNECTION", CONNECTION);
    let mut forced = Process::spawn(forced, "forced", firewall.logs())?;
    forced.wait_for_log("enforcing", SOON)?;
    assert_eq!(Curl::http(field.host.place.v4, 80).from(&field.attacker.namespace), Answer::Silence);
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn a_reload_that_would_cut_the_admin_is_refused() -> Result<()> {
    let field = Field::new()?;
    let (firewall, _agent) = field.protected(&policy(&[WEB, SSH], &[]))?;
    let reload = |more: &[&str], connection: &str| -> Result<Ran> {
        let arguments = ["reload"].iter().chain(more);
        run(firewall.ask_command(arguments).env("SSH_CONNECTION", connection))
    };
    assert_eq!(reload(&[], CONNECTION)?.code, Some(0), "the connection stays allowed");
    firewall.policy(&policy(&[WEB], &[]))?;
    let ran = reload(&[], CONNECTION)?;
    assert_eq!(ran.code, Some(1), "{}", ran.text());
    assert!(ran.stderr.contains("--force"), "{}", ran.stderr);
    assert_eq!(firewall.metrics()?.sum("mpesa_fw_reloads_total", &[("result", "refused")]), 1.0);
    assert_eq!(
        reload(&[], "196.201.214.9 50000 203.0.113.10 22")?.code,
        Some(1),
        "port 22 is not allowed either"
    );
    assert_eq!(reload(&[], "127.0.0.1 50000 127.0.0.1 22")?.code, Some(0), "loopback is never touched");
    firewall.reload(&policy(&[WEB, SSH], &[]))?;
    firewall.policy(&policy(&[WEB], &[]).replace("mode: enforce", "mode: observe"))?;
    assert_eq!(reload(&[], CONNECTION)?.code, Some(0), "observing cuts nothing");
    firewall.reload(&policy(&[WEB, SSH], &[]))?;
    firewall.policy(&policy(&[WEB], &[]))?;
    assert_eq!(reload(&["--force"], CONNECTION)?.code, Some(0));
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn the_guard_knows_a_real_session_even_without_its_environment() -> Result<()> {
    let field = Field::new()?;
    let (firewall, _agent) = field.protected(&policy(&[WEB, SSH], &[]))?;
    let session = Session::open(&field.host, firewall.logs())?;
    let reload = |prefix: &str| {
        session.say(
            &field,
            &format!(
                "{prefix}{} --runtime-dir {} reload",
                firewall.binary.display(),
                firewall.runtime().display()
            ),
        )
    };
    assert_eq!(reload("")?.code, Some(0), "{}", reload("")?.text());
    firewall.policy(&policy(&[WEB], &[]))?;
    for prefix in ["", "setsid --wait env -i ", "setsid --wait env -u SSH_CONNECTION ", "exec env -i "] {
        let ran = reload(prefix)?;
        assert_eq!(ran.code, Some(1), "{prefix}: {}", ran.text());
        assert!(ran.text().contains("--force"), "{prefix}: {}", ran.text());
    }
    assert_eq!(session.say(&field, "echo still here")?.stdout.trim(), "still here");
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn the_guard_knows_that_a_bridge_stands_on_a_protected_port() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let (v4, v6) = (field.host.place.v4, field.host.place.v6);
    field.host.namespace.sh(&format!(
        "ip link add br0 address {} type bridge
         ip link set br0 up
         ip link set eth0 master br0
         ip address flush dev eth0
         ip address add {v4}/24 dev br0
         ip address add {v6}/64 dev br0 nodad
         ip route add default via 203.0.113.1",
        field.host.mac()
    ))?;
    let firewall = field.firewall()?;
    firewall.policy(&policy(&[WEB], &[]))?;
    let ran = run(firewall.run_command(&[]).env("SSH_CONNECTION", CONNECTION))?;
    assert_eq!(ran.code, Some(1), "the address is the bridge's, the hook is at its port: {}", ran.text());

    let _agent = firewall.start(&[])?;
    let web = || Curl::http(v4, 80);
    assert!(web().patience(3.0).from(&field.safaricom.namespace).is_ok());
    assert_eq!(web().from(&field.attacker.namespace), Answer::Silence);
    assert_eq!(
        firewall.metrics()?.sum("mpesa_fw_unprotected_interfaces", &[]),
        0.0,
        "what reaches the bridge was judged at its only port"
    );
    Ok(())
}

/// An sshd on the host, and the key that opens it.
struct Session {
    _sshd: Process,
    key: std::path::PathBuf,
}

impl Session {
    fn open(host: &Host, directory: &Path) -> Result<Self> {
        let (host_key, key) = (directory.join("host_key"), directory.join("user_key"));
        for path in [&host_key, &key] {
            ok(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path))?;
        }
        let authorized = directory.join("authorized_keys");
        fs::copy(key.with_extension("pub"), &authorized).context("could not authorize the key")?;
        // sshd wants a directory in /run, which this machine need not have: it gets a /run of its own.
        let mut sshd = host.namespace.command("unshare");
        let private_run =
            "mount -t tmpfs tmpfs /run && mkdir -m 0755 /run/sshd && exec /usr/sbin/sshd \"$@\"";
        sshd.args(["--mount", "--propagation", "private", "--", "sh", "-c", private_run, "sshd"]);
        sshd.args(["-D", "-e", "-f", "/dev/null", "-p", "2222", "-h"]).arg(&host_key);
        for option in ["PermitRootLogin=prohibit-password", "UsePAM=no", "StrictModes=no", "PidFile=none"] {
            sshd.args(["-o", option]);
        }
        sshd.arg("-o").arg(format!("AuthorizedKeysFile={}", authorized.display()));
        let mut sshd = Process::spawn(sshd, "sshd", directory)?;
        sshd.wait_for_log("listening on", SOON)?;
        Ok(Self { _sshd: sshd, key })
    }

    /// Runs a command in a session from where the admin sits.
    fn say(&self, field: &Field, command: &str) -> Result<Ran> {
        let mut ssh = field.attacker.namespace.command("ssh");
        for option in [
            "BatchMode=yes",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
            "ConnectTimeout=5",
        ] {
            ssh.args(["-o", option]);
        }
        ssh.args(["-F", "/dev/null", "-p", "2222", "-i"])
            .arg(&self.key)
            .arg(format!("root@{}", field.host.place.v4))
            .arg(command);
        run(&mut ssh)
    }
}

/// The program as another user may run it, and that user's command line.
fn as_nobody(field: &Field, firewall: &Firewall<'_>, binary: &Path, command: &str) -> Command {
    let mut nobody = field.host.namespace.command("setpriv");
    nobody.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(binary);
    nobody.arg("--runtime-dir").arg(firewall.runtime()).arg(command);
    nobody
}

#[test]
#[ignore = "needs root and a kernel"]
fn only_root_may_ask_the_agent() -> Result<()> {
    let field = Field::new()?;
    let (firewall, mut agent) = field.protected(&policy(&[WEB], &[]))?;
    let socket = firewall.runtime().join("control.sock");
    holds("the control socket", SOON, || socket.exists())?;
    // The directories above must not be what keeps the other user out.
    let public = tempfile::Builder::new().prefix("mpfw-public-").tempdir()?;
    for directory in [field.network.scratch.path(), &firewall.directory, &firewall.runtime(), public.path()] {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
    }
    let binary = public.path().join("mpesa-fw");
    firewall.copy_program(&binary)?;

    // Its mode keeps them out.
    let ran = run(&mut as_nobody(&field, &firewall, &binary, "reload"))?;
    assert_eq!(ran.code, Some(4), "{}", ran.text());
    assert!(ran.stderr.contains("user 65534 may not talk to the agent"), "{}", ran.stderr);

    // Somebody has opened it, or hands the connection over: the agent itself asks the kernel who is there.
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666))?;
    for command in ["reload", "status", "events", "detach"] {
        let ran = run(&mut as_nobody(&field, &firewall, &binary, command))?;
        assert_eq!(ran.code, Some(4), "{command}: {}", ran.text());
        assert!(ran.stdout.is_empty(), "{command}: {}", ran.stdout);
        assert!(
            ran.stderr.contains("user 65534 (process ") && ran.stderr.contains("as root"),
            "{}",
            ran.stderr
        );
    }
    agent.process.wait_for_log("a client of the control socket was refused", SOON)?;
    assert!(agent.process.log().contains("user 65534 (process "), "{}", agent.process.log());
    assert_eq!(firewall.metrics()?.sum("mpesa_fw_reloads_total", &[]), 0.0, "nothing was done for them");
    assert_eq!(firewall.ask(["status"])?.code, Some(0), "root is answered");
    Ok(())
}

const VISITED: &str = "{ name: echo, ports: [7000], from: [196.201.214.200] }";
const API: &str = "{ name: api, protocol: [tcp, udp], ports: [5000], to: [192.0.2.80] }";

/// A reload that the guard has nothing to say against.
fn accepted(firewall: &Firewall<'_>, yaml: &str) -> Result<()> {
    firewall.policy(yaml)?;
    let ran = firewall.ask(["reload"])?;
    ensure!(ran.code == Some(0), "{}", ran.text());
    Ok(())
}

/// A stream that was used once, so that both ends know it is open.
fn open(from: &Namespace, to: (Ipv4Addr, u16)) -> Result<TcpStream> {
    let stream = from.inside(move || TcpStream::connect_timeout(&SocketAddr::from(to), SOON))?;
    stream.set_read_timeout(Some(SOON))?;
    ensure!(echoes(&stream), "the connection to {to:?} does not work");
    Ok(stream)
}

fn echoes(mut stream: &TcpStream) -> bool {
    stream.write_all(b"?").is_ok() && stream.read_exact(&mut [0]).is_ok()
}

#[test]
#[ignore = "needs root and a kernel"]
fn a_reload_that_would_cut_open_connections_is_refused_and_lists_them() -> Result<()> {
    let field = Field::new()?;
    let api = field.network.add(place::API)?;
    let _echo = TcpEcho::start(&field.host.namespace, 7000)?;
    let (_tcp, _udp) = (TcpEcho::start(&api.namespace, 5000)?, UdpEcho::start(&api.namespace, 5000)?);
    let (firewall, mut agent) = field.protected(&policy(&[VISITED], &[API]))?;
    let host = field.host.place.v4;
    let visitor = open(&field.safaricom.namespace, (host, 7000))?;
    let ours = open(&field.host.namespace, (api.place.v4, 5000))?;
    let datagrams = field.host.namespace.inside(|| UdpSocket::bind("0.0.0.0:0"))?;
    datagrams.set_read_timeout(Some(SOON))?;
    datagrams.send_to(b"?", (api.place.v4, 5000))?;
    datagrams.recv_from(&mut [0])?;

    let refused = |services: &[&str], allow: &[&str]| -> Result<String> {
        firewall.policy(&policy(services, allow))?;
        let ran = firewall.ask(["reload"])?;
        ensure!(ran.code == Some(1) && ran.stderr.contains("--force"), "{}", ran.text());
        ensure!(echoes(&visitor) && echoes(&ours), "the policy in force stays");
        Ok(ran.stderr)
    };
    let told = refused(&[], &[API])?;
    let inbound = format!("tcp from {} to {host}:7000 (ingress: no_service)", visitor.local_addr()?);
    assert!(told.contains(&inbound) && told.contains("1 connection(s)"), "{told}");
    let told = refused(&[VISITED], &[])?;
    let outgoing = |protocol: &str, local: SocketAddr| {
        format!("{protocol} from {host}:{} to 192.0.2.80:5000 (egress: no_destination)", local.port())
    };
    assert!(told.contains("2 connection(s)"), "{told}");
    assert!(told.contains(&outgoing("tcp", ours.local_addr()?)), "{told}");
    assert!(told.contains(&outgoing("udp", datagrams.local_addr()?)), "{told}");
    // On trial is no way round it.
    assert_eq!(firewall.ask(["reload", "--confirm-within", "60s"])?.code, Some(1));

    // What changes nothing for them passes, and so does an agent that starts again.
    accepted(&firewall, &policy(&[VISITED, WEB], &[API]))?;
    agent.process.kill()?;
    drop(agent);
    let mut agent = firewall.start(&[])?;
    // A start with another policy is a change like any other.
    agent.process.kill()?;
    drop(agent);
    firewall.policy(&policy(&[], &[API]))?;
    let ran = firewall.run(&[])?;
    assert_eq!(ran.code, Some(1), "{}", ran.text());
    assert!(ran.stderr.contains(&inbound), "{}", ran.stderr);
    assert!(echoes(&visitor));
    // Also where it is not known what is in force.
    fs::remove_dir_all(firewall.directory.join("state/generations"))?;
    let ran = firewall.run(&[])?;
    assert!(ran.code == Some(1) && ran.stderr.contains(&inbound), "{}", ran.text());

    let _agent = firewall.start(&["--force"])?;
    visitor.set_read_timeout(Some(NEVER))?;
    assert!(!echoes(&visitor), "cut");
    // What does not pass is not cut: nothing holds up the next change.
    accepted(&firewall, &policy(&[WEB], &[API]))?;
    assert_eq!(firewall.ask(["reload"])?.code, Some(0));
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn a_first_start_that_would_cut_open_connections_is_refused() -> Result<()> {
    let field = Field::new()?;
    let api = field.network.add(place::API)?;
    let _echo = TcpEcho::start(&api.namespace, 5000)?;
    let ours = open(&field.host.namespace, (api.place.v4, 5000))?;
    let firewall = field.firewall()?;
    firewall.policy(&policy(&[WEB], &[]))?;
    let ran = firewall.run(&[])?;
    assert_eq!(ran.code, Some(1), "{}", ran.text());
    assert!(ran.stderr.contains("to 192.0.2.80:5000 (egress: no_destination)"), "{}", ran.stderr);
    assert!(echoes(&ours));
    firewall.policy(&policy(&[WEB], &[]).replace("mode: enforce", "mode: observe"))?;
    drop(firewall.start(&[])?);
    assert!(echoes(&ours), "observing cuts nothing");
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn callers_of_the_last_minutes_are_not_lost_by_accident() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80, 81])?;
    let both = "{ name: web, ports: [80, 81], from: [196.201.214.200, 198.51.100.66] }";
    let (firewall, mut agent) = field.protected(&policy(&[both], &[]))?;
    let call = |from: &Host| Curl::http(field.host.place.v4, 80).from(&from.namespace).is_ok();
    assert!(call(&field.safaricom));
    firewall.policy(&policy(&["{ name: web, ports: [80], from: [198.51.100.66] }"], &[]))?;
    let ran = firewall.ask(["reload"])?;
    assert_eq!(ran.code, Some(1), "{}", ran.text());
    let lost = "196.201.214.200, who called web 1 time(s) (ingress: source_not_allowed)";
    assert!(ran.stderr.contains("1 caller(s)") && ran.stderr.contains(lost), "{}", ran.stderr);
    // After a restart too, for who called is in the kernel.
    agent.process.kill()?;
    drop(agent);
    let ran = firewall.run(&[])?;
    assert!(ran.code == Some(1) && ran.stderr.contains(lost), "{}", ran.text());
    firewall.policy(&policy(&[both], &[]))?;
    let _agent = firewall.start(&[])?;

    // One port of the service is enough, whatever the service is called; who never called is nobody's loss.
    accepted(&firewall, &policy(&["{ name: callbacks, ports: [81], from: [196.201.214.200] }"], &[]))?;
    Ok(())
}
