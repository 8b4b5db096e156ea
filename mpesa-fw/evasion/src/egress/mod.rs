//! What programs on the host send, and what of it comes out of its wire.

mod attacks;

use std::{collections::BTreeSet, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use testbed::{Firewall, Metrics, not_interrupted, ok};

use crate::{
    case::Tally,
    field::{API4, API6, Field, Flows, HOST4, HOST6, Listeners, POLICY, SAFARICOM4},
    frames,
    packet_socket::PacketSocket,
    report::{Report, Row, Status},
};
use attacks::{ATTACKS, Attack, Outcome, Sign};

const PATIENCE: Duration = Duration::from_secs(3);
/// Where no rule lets anything go.
const DROP_BOX4: &str = "198.18.0.99";
const DROP_BOX6: &str = "2001:db8:0:99::99";

/// Tries every attack.
pub(crate) fn run(binary: &Path, report: &mut Report) -> Result<()> {
    let field = Field::new()?;
    let _listeners = Listeners::new(&field.host)?;
    let firewall = Firewall::new(&field.network, &field.host.namespace, binary)?;
    firewall.policy(POLICY)?;
    let _agent = firewall.start(&[])?;
    let _flows = Flows::open(&field)?;
    let tap = PacketSocket::tap(&field.network.router, field.host.place.name)?;
    for (number, attack) in ATTACKS.iter().enumerate() {
        not_interrupted()?;
        let row = row(&field, &firewall, &tap, number, attack).with_context(|| attack.name)?;
        report.add(attack.class, row);
    }
    Ok(())
}

fn row(
    field: &Field,
    firewall: &Firewall<'_>,
    tap: &PacketSocket,
    number: usize,
    attack: &Attack,
) -> Result<Row> {
    let token = format!("evasion-{number:08}");
    let before = firewall.metrics()?;
    let said = strike(field, attack, &token)?;
    let expected = match attack.outcome {
        Outcome::Stopped([]) => String::from("nothing outside; the program is refused"),
        Outcome::Stopped(reasons) => format!("nothing outside; {}", reasons.join(", ")),
        Outcome::Passes => String::from("gets out, nothing dropped"),
        Outcome::Gap(why) => format!("gets out: {why}"),
    };
    let row = |seen: String, frames, status| Row {
        mode: "egress",
        case: attack.name.to_owned(),
        frames,
        expected: expected.clone(),
        seen,
        differences: Vec::new(),
        status,
    };
    if let Some(why) = said.strip_prefix("skipped: ") {
        return Ok(row(why.to_owned(), 0, Status::Skipped));
    }
    let outside = outside(field, tap, attack, &token)?;
    let dropped = dropped(&before, &firewall.metrics()?);
    let gets_out = match attack.sign {
        Sign::DropBox | Sign::Token => outside > 0,
        Sign::Ended => said == "sent",
    };
    let reasons = dropped.iter().map(String::as_str).collect::<Vec<_>>();
    let is_right = match attack.outcome {
        Outcome::Stopped([]) => !gets_out && reasons.is_empty() && said == "EPERM",
        Outcome::Stopped(wanted) => !gets_out && reasons == wanted,
        Outcome::Passes | Outcome::Gap(_) => gets_out && reasons.is_empty(),
    };
    let status = match attack.outcome {
        _ if !is_right => Status::Different,
        Outcome::Gap(_) => Status::KnownGap,
        Outcome::Stopped(_) | Outcome::Passes => Status::Ok,
    };
    let told = if is_right {
        expected.clone()
    } else {
        let where_to =
            if gets_out { format!("{outside} frames outside") } else { "nothing outside".to_owned() };
        format!("{where_to}; dropped: {reasons:?}; the program: {said}")
    };
    Ok(row(told, outside, status))
}

/// Runs the attacker's program on the host; what it says.
fn strike(field: &Field, attack: &Attack, token: &str) -> Result<String> {
    let (mac, router) = (field.host.mac(), field.host.router_mac());
    let constants = format!(
        r#"{{"token":"{token}","mac":"{mac}","router":"{router}","h4":"{HOST4}","h6":"{HOST6}","d4":"{DROP_BOX4}",
        "d6":"{DROP_BOX6}","s4":"{SAFARICOM4}","a4":"{API4}","a6":"{API6}"}}"#
    );
    let mut command = field.host.namespace.command("/usr/bin/python3");
    command.args(["-c", include_str!("attack.py"), attack.key, &constants]);
    let answer = ok(&mut command)?;
    let word =
        |key: &str| answer.split_once(&format!("\"{key}\": \"")).and_then(|(_, rest)| rest.split('"').next());
    match (word("said"), word("skipped")) {
        (Some(said), _) => Ok(said.to_owned()),
        (None, Some(why)) => Ok(format!("skipped: {why}")),
        (None, None) => anyhow::bail!("the attacker's program says {answer:?}"),
    }
}

/// Frames of the attack that came out of the host, until its fence did.
fn outside(field: &Field, tap: &PacketSocket, attack: &Attack, token: &str) -> Result<usize> {
    let fence = format!("fence{token}");
    let router = field.host.router_mac();
    let router: Vec<u8> = router.split(':').filter_map(|part| u8::from_str_radix(part, 16).ok()).collect();
    let (v4, v6) = (frames::ip(DROP_BOX4), frames::ip(DROP_BOX6));
    let targets = [frames::octets(v4), frames::octets(v6)];
    let mut count = 0;
    let came = tap.watch(PATIENCE, |frame| {
        // What the router sends to the host is seen on the same interface.
        if frame.len() < 14 || frame[6..12] == router {
            return false;
        }
        if contains(frame, fence.as_bytes()) {
            return true;
        }
        let is_it = match attack.sign {
            Sign::DropBox => targets.iter().any(|target| contains(frame, target)),
            Sign::Token => contains(frame, token.as_bytes()),
            Sign::Ended => true,
        };
        count += usize::from(is_it);
        false
    })?;
    ensure!(came, "the fence did not come out of the host");
    Ok(count)
}

fn contains(frame: &[u8], needle: &[u8]) -> bool {
    frame.windows(needle.len()).any(|window| window == needle)
}

/// `REASON RULE` of what egress has dropped, in order.
fn dropped(before: &Metrics, after: &Metrics) -> BTreeSet<String> {
    let drops = after.drops_since(before);
    let egress = drops.keys().filter_map(|key| key.strip_prefix("egress "));
    egress
        .filter_map(|key| key.split_once(' '))
        .map(|(rule, reason)| Tally::key(reason, if rule == "-" { "" } else { rule }))
        .collect()
}
