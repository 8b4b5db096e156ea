//! What is learnt from answers has bounds: a name server with more addresses than a name may have, or the table has room for.

mod support;

use std::{
    net::{IpAddr, Ipv4Addr, TcpStream},
    thread::sleep,
    time::Duration,
};

use anyhow::{Context as _, Result};
use mpesa_fw::sys::KernelMap;
use mpesa_fw_common::{
    Address,
    dns::{LEARNT_CAPACITY, Learnt, LearntName, PERIOD_SHIFT, tick},
};
use support::{Field, SOON, WEB, kinds, pinned, policy, web};
use testbed::{Answer, Curl, Firewall, Host, Process, is_slow, ok, place, serve::Nginx};

const NAMES: &str = "{ name: names, to: [n78.example.net, n79.example.net, '*.w80.example.net', '*.w81.example.net'], ports: [443] }";
const DNS: &str = "{ name: dns, to: [10.20.0.5], protocol: udp, ports: [53] }";

/// Of one name, and of all below one wildcard: as `docs/EGRESS.md` says.
const OF_NAME: u32 = 256;
const BELOW_WILDCARD: u32 = 16_384;
/// Addresses in an answer: as many as go into one frame.
const AT_ONCE: u32 = 80;

/// Never says the same twice: `n78` and what is below it are 10.78.0.1, 10.78.0.2 and so on, 80 in each answer.
const SERVER: &str = "
import socket, struct
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('10.20.0.5', 53))
print('serving', flush=True)
given = {}
while True:
    question, who = s.recvfrom(512)
    network = int(question[14:13 + question[12]])
    end = question.index(0, 12) + 5
    first = given.get(network, 1)
    given[network] = first + 80
    records = [struct.pack('!3HIH4B', 0xc00c, 1, 1, 3600, 4, 10, network, n >> 8, n & 255) for n in range(first, first + 80)]
    s.sendto(question[:2] + struct.pack('!5H', 0x8180, 1, 80, 0, 0) + question[12:end] + b''.join(records), who)
";

/// Asks for a name as often as it is told, and says how many addresses it was told.
const ASKER: &str = "
import socket, struct, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(3)
s.connect(('10.20.0.5', 53))
name = b''.join(bytes([len(l)]) + l.encode() for l in sys.argv[1].split('.')) + b'\\0'
told = 0
for n in range(int(sys.argv[2])):
    s.send(struct.pack('!6H', n, 0x100, 1, 0, 0, 0) + name + struct.pack('!2H', 1, 1))
    told += struct.unpack('!H', s.recv(2048)[6:8])[0]
print(told)
";

/// That name server, and a web server on every address that it gives.
struct Rotating {
    _dns: Process,
    _web: Nginx,
    _places: [Host; 2],
}

impl Rotating {
    fn new(field: &Field) -> Result<Self> {
        let (api, intranet) = (field.network.add(place::API)?, field.network.add(place::INTRANET)?);
        api.namespace.sh("ip route add local 10.64.0.0/10 dev lo")?;
        field.network.router.sh(&format!("ip route add 10.64.0.0/10 via {}", api.place.v4))?;
        let web = web(&field.network, &api, &[443])?;
        let mut python = intranet.namespace.command("/usr/bin/python3");
        python.args(["-c", SERVER]);
        let mut dns = Process::spawn(python, "rotating", field.network.scratch.path())?;
        dns.wait_for_log("serving", SOON)?;
        Ok(Self { _dns: dns, _web: web, _places: [api, intranet] })
    }
}

/// A program of the host asks for a name until it was told at least so many addresses.
fn ask(field: &Field, name: &str, addresses: u32) -> Result<u32> {
    let mut python = field.host.namespace.command("/usr/bin/python3");
    python.args(["-c", ASKER, name, &addresses.div_ceil(AT_ONCE).to_string()]);
    Ok(ok(&mut python)?.trim().parse()?)
}

fn get(field: &Field, network: u8, number: u32) -> Answer {
    let [.., high, low] = number.to_be_bytes();
    Curl::http(Ipv4Addr::new(10, network, high, low), 443).from(&field.host.namespace)
}

fn learnt(firewall: &Firewall<'_>, name: &str) -> Result<u32> {
    Ok(firewall.metrics()?.sum("mpesa_fw_learnt_addresses", &[("name", name)]) as u32)
}

/// How many addresses were taken, and how many were not.
fn outcomes(firewall: &Firewall<'_>) -> Result<(u32, u32)> {
    let metrics = firewall.metrics()?;
    let of = |outcome| metrics.sum("mpesa_fw_dns_answers_total", &[("outcome", outcome)]) as u32;
    Ok((of("address"), of("refused")))
}

/// Budgets are renewed by the clock: the test must not lie across that moment.
fn wait_for_a_period_with(room: Duration) {
    let period = 1 << PERIOD_SHIFT;
    let left = Duration::from_nanos(period - mpesa_fw::agent::clock::monotonic() % period);
    if left < room {
        sleep(left + Duration::from_secs(1));
    }
}

#[test]
#[ignore = "needs root and a kernel"]
fn a_name_gets_no_more_addresses_than_its_budget_and_a_full_table_opens_nothing() -> Result<()> {
    let field = Field::new()?;
    let _rotating = Rotating::new(&field)?;
    let mut firewall = field.firewall()?;
    // The agent's own question would be an answer more.
    firewall.resolv_conf = Some(firewall.write("resolv.conf", "nameserver 127.0.0.1\n")?);
    firewall.policy(&policy(&[], &[NAMES, DNS]))?;
    let mut agent = firewall.start(&[])?;
    wait_for_a_period_with(testbed::here(Duration::from_secs(45)));

    let told = ask(&field, "n78.example.net", OF_NAME + 1)?;
    assert_eq!(learnt(&firewall, "n78.example.net")?, OF_NAME);
    assert_eq!(outcomes(&firewall)?, (OF_NAME, told - OF_NAME), "of {told}");
    assert!(get(&field, 78, 1).is_ok() && get(&field, 78, OF_NAME).is_ok());
    let before = firewall.metrics()?;
    assert_eq!(get(&field, 78, OF_NAME + 1), Answer::Silence);
    assert_eq!(get(&field, 78, told), Answer::Silence);
    assert_eq!(kinds(&firewall.metrics()?.drops_since(&before)), ["egress names name_not_allowed"]);
    // It is the name's alone.
    assert_eq!(ask(&field, "n79.example.net", 1)?, AT_ONCE);
    assert_eq!(learnt(&firewall, "n79.example.net")?, AT_ONCE);
    assert!(get(&field, 79, AT_ONCE).is_ok());
    if is_slow() {
        testbed::left_out("wildcards and a full table", "this takes longer than a budget lasts here");
        return Ok(());
    }

    let before = outcomes(&firewall)?;
    let told = ask(&field, "n80.w80.example.net", BELOW_WILDCARD + 1)?;
    assert_eq!(learnt(&firewall, "*.w80.example.net")?, BELOW_WILDCARD);
    let now = outcomes(&firewall)?;
    assert_eq!((now.0 - before.0, now.1 - before.1), (BELOW_WILDCARD, told - BELOW_WILDCARD), "of {told}");
    assert!(get(&field, 80, BELOW_WILDCARD).is_ok());
    assert_eq!(get(&field, 80, BELOW_WILDCARD + 1), Answer::Silence);

    // With those of another the table is full: who came first goes, and nobody else may be reached by that.
    ask(&field, "n81.w81.example.net", BELOW_WILDCARD)?;
    let metrics = firewall.metrics()?;
    let all = metrics.sum("mpesa_fw_learnt_addresses", &[]) as u32;
    println!("{all} of {LEARNT_CAPACITY}");
    assert!(all <= LEARNT_CAPACITY && all > LEARNT_CAPACITY * 9 / 10, "{all} of {LEARNT_CAPACITY}");
    assert_eq!(metrics.sum("mpesa_fw_learnt_addresses_capacity", &[]), f64::from(LEARNT_CAPACITY));
    assert!(get(&field, 81, BELOW_WILDCARD).is_ok(), "the last is there");
    assert_eq!(get(&field, 81, BELOW_WILDCARD + 1), Answer::Silence);
    assert_eq!(get(&field, 78, OF_NAME + 1), Answer::Silence);
    assert!(agent.process.running(), "{}", agent.process.log());
    Ok(())
}

/// What is in use when the policy changes is not forgotten in the middle of it.
#[test]
#[ignore = "needs root and a kernel"]
fn a_reload_keeps_the_address_of_an_open_connection() -> Result<()> {
    let field = Field::new()?;
    let _rotating = Rotating::new(&field)?;
    let mut firewall = field.firewall()?;
    firewall.resolv_conf = Some(firewall.write("resolv.conf", "nameserver 127.0.0.1\n")?);
    firewall.policy(&policy(&[], &[NAMES, DNS]))?;
    let _agent = firewall.start(&[])?;
    ask(&field, "n78.example.net", 1)?;
    let [used, unused] = [Ipv4Addr::new(10, 78, 0, 1), Ipv4Addr::new(10, 78, 0, 2)];
    let _open = field.host.namespace.inside(|| TcpStream::connect((used, 443)))?;

    let map: KernelMap<Address, Learnt> = pinned(&firewall, "LEARNT")?;
    let until = |address: Ipv4Addr| -> Result<u32> {
        Ok(map.get(&IpAddr::from(address).into())?.context("it was learnt")?[0].until())
    };
    // Their time is nearly up.
    let soon = tick(mpesa_fw::agent::clock::monotonic()) + 60;
    for address in [used, unused] {
        let key = Address::from(IpAddr::from(address));
        let names = map.get(&key)?.context("it was learnt")?;
        let nearly = names.map(|name| name.slot().map_or(name, |slot| LearntName::new(slot, soon)));
        map.put(&key, &nearly)?;
    }
    firewall.reload(&policy(&[WEB], &[NAMES, DNS]))?;
    assert!(until(used)? > soon + 100, "{} after {soon}", until(used)?);
    assert_eq!(until(unused)?, soon);
    Ok(())
}
