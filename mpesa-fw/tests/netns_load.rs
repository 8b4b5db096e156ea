//! Callbacks while a flood arrives: none is lost, and every packet of the flood is counted. Counts, not speed; what it costs
//! is rated by `cargo xtask bench`.

mod support;

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use support::{Field, kinds, policy, settled};
use testbed::{
    Flood, Process, holds,
    serve::{Certificate, Nginx, Site},
};

/// Callbacks of each kind, at 25 a second.
const CALLBACKS: usize = 75;
/// SYNs a second.
const RATE: u32 = 30_000;
const NAME: &str = "callbacks.example.co.ke";
const BODY: &str = r#"{"Body":{"stkCallback":{"MerchantRequestID":"29115-34620561-1","CheckoutRequestID":"ws_CO_191220191020363925","ResultCode":0,"ResultDesc":"The service request is processed successfully."}}}"#;

#[test]
#[ignore = "needs root and a kernel"]
fn no_callback_is_lost_in_a_flood() -> Result<()> {
    let field = Field::new()?;
    // Answers to forged sources end at the router, so that it does not ask for their hardware addresses.
    field.network.router.sh("ip route add blackhole 196.201.214.224/27\nip route add blackhole default")?;
    let forged: Vec<Ipv4Addr> = (225..=240).map(|host| Ipv4Addr::new(196, 201, 214, host)).collect();
    let scratch = field.network.scratch.path();
    let certificate = Certificate::new(scratch, &[NAME])?;
    let site = Site { port: 443, certificate: Some(&certificate), body: "accepted" };
    let nginx = Nginx::start(&field.host.namespace, scratch, "nginx", &[site])?;
    let service = "{ name: callbacks, ports: [443], from: [196.201.214.0/24] }";
    let (firewall, _agent) = field.protected(&policy(&[service], &[]))?;
    let before = firewall.metrics()?;

    let flood = Flood::start(&field.host, &field.network.router, 443, &forged, RATE)?;
    let caller = |name: &str, connection: &str| {
        let mut curl = field.safaricom.namespace.command("curl");
        curl.args(["--silent", "--show-error", "--noproxy", "*", "--rate", "25/s", "--max-time", "10"]);
        curl.args(["--output", "/dev/null", "--write-out", "%{http_code}\\n", "--data", BODY]);
        curl.args(["--header", "Content-Type: application/json", "--header", connection]);
        curl.arg("--cacert").arg(&certificate.certificate);
        curl.arg("--connect-to").arg(format!("::{}:", field.host.place.v4));
        curl.arg(format!("https://{NAME}/[1-{CALLBACKS}]"));
        Process::spawn(curl, name, scratch)
    };
    let mut callers = [caller("fresh", "Connection: close")?, caller("kept", "Connection: keep-alive")?];
    holds("the callbacks", std::time::Duration::from_secs(60), || {
        callers.iter_mut().all(|caller| !caller.running())
    })?;
    let sent = flood.stop()?;

    for caller in &callers {
        let answers = caller.log();
        assert_eq!(answers.lines().filter(|line| *line == "200").count(), CALLBACKS, "{answers}");
    }
    assert_eq!(nginx.requests().len(), 2 * CALLBACKS);
    assert!(sent.denied > 5 * u64::from(RATE) / 6, "hardly a flood: {sent:?}");
    let now = settled(&firewall)?;
    let drops = now.drops_since(&before);
    assert_eq!(kinds(&drops), ["ingress callbacks source_not_allowed"]);
    assert_eq!(drops.values().sum::<u64>(), sent.denied, "each is counted once");
    let passed = now.passed("ingress", "callbacks") - before.passed("ingress", "callbacks");
    assert!(passed >= sent.forged as f64, "{passed} passed, {sent:?}");
    // A flood makes no state, and tells the agent of a few packets only.
    assert_eq!(now.sum("mpesa_fw_flows", &[]), 0.0);
    let events = sent.denied as f64 - now.sum("mpesa_fw_events_suppressed_total", &[]);
    assert!(events < 5_000.0, "{events} events of {sent:?}");
    let listed = firewall.ask(["events"])?;
    assert_eq!(listed.code, Some(0), "{}", listed.text());
    assert!(listed.stdout.lines().count() > 1, "{}", listed.stdout);
    let first = listed.stdout.lines().nth(1).context("an event")?;
    assert!(first.contains("source_not_allowed"), "{first}");
    Ok(())
}
