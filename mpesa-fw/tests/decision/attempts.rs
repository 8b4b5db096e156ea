//! What a program is told when it connects or sends, beside what becomes of the packet that it leads to.

use mpesa_fw_common::{
    Direction, DropReason, Reason,
    attempt::{Attempt, AttemptKind},
    decide::{self, Sender},
    packet::{FragmentKind, PacketMeta, Parsed},
};

use crate::{
    case::{Expected, Rules},
    host::{self, Frame, HostState},
};

/// Where what is said of the attempt contradicts what the oracle says of the packet.
pub(crate) fn contradiction(
    rules: &Rules,
    state: &HostState,
    frame: &Frame,
    sender: &Sender,
    said: &Expected,
) -> Option<String> {
    let meta = host::facts(frame);
    let attempt = attempt_of(&meta)?;
    let is_owned = rules.compiled.settings.owned[Direction::Egress as usize] != 0;
    // Whoever attempts is known; such packets come from elsewhere.
    if is_owned && sender.owner.is_known == 0 || sender.is_raw {
        return None;
    }
    let judged = decide::attempt(&rules.compiled, state, &attempt, &sender.owner);
    let told = judged.map(|decision| rules.explain(Direction::Egress, &decision));
    let is_consistent = match &told {
        // TCP is always told, but where a rule names a user: who made the socket may be another.
        None => attempt.kind != AttemptKind::Connect || says_owner(said) || !drops(said),
        Some(told) if drops(told) => told == said,
        Some(_) => !drops(said) || matches!(said.reason, Reason::Drop(DropReason::FlowTableFull)),
    };
    (!is_consistent).then(|| format!("told {told:?} of the attempt, the oracle says {said:?} of the packet"))
}

fn attempt_of(meta: &PacketMeta) -> Option<Attempt> {
    let kind = match () {
        () if meta.parsed != Parsed::Ip || !matches!(meta.fragment, FragmentKind::Whole) => return None,
        () if meta.is_tcp() && meta.opens_connection() => AttemptKind::Connect,
        // No socket has port 0, which here means that it has none yet.
        () if meta.is_udp() && meta.source_port != 0 => AttemptKind::Send,
        () => return None,
    };
    Some(Attempt {
        kind,
        family: meta.family,
        remote: meta.target,
        remote_port: meta.target_port,
        local_port: meta.source_port,
    })
}

fn drops(expected: &Expected) -> bool {
    matches!(expected.reason, Reason::Drop(_))
}

fn says_owner(expected: &Expected) -> bool {
    matches!(expected.reason, Reason::Drop(DropReason::OwnerNotAllowed))
}

/// What is judged, and what is left to egress: `x` refused, `.` goes on because it may pass, `?` because it can't be told.
#[test]
fn what_is_not_sure_goes_on() {
    const POLICY: &str = "
ingress:
          default: drop
          services:
            - { name: syslog, ports: [514], protocol: udp, from: [203.0.113.0/24] }
egress:
          default: drop
          allow:
            - { name: web, to: [203.0.113.5], ports: [443] }
            - { name: dns, to: [203.0.113.53], ports: [53], protocol: udp }
            - { name: api, to: [203.0.113.7], ports: [443], by: { unit: payments.service } }
            - { name: backup, to: [203.0.113.8], ports: [443], by: [{ unit: payments.service }, { user: backup }] }
            - { name: mapped, to: ['2001:db8::5'], ports: [443] }";
    use AttemptKind::{Connect, Send};
    use mpesa_fw_common::{Family, Verdict};
    let cases = [
        (Connect, "203.0.113.5", 443, 0, '.', "permitted"),
        (Connect, "203.0.113.5", 444, 0, 'x', "another port"),
        (Connect, "203.0.113.6", 443, 0, 'x', "another address"),
        (Connect, "203.0.113.5", 443, 514, '.', "whatever port it comes from"),
        (Connect, "203.0.113.6", 443, 514, 'x', "a SYN is no reply"),
        (Connect, "2001:db8::5", 443, 0, '.', "IPv6"),
        (Connect, "2001:db8::6", 443, 0, 'x', "IPv6, another address"),
        (Connect, "203.0.113.7", 443, 0, 'x', "not its unit"),
        (Connect, "203.0.113.8", 443, 0, '?', "its user may have made the socket"),
        (Send, "203.0.113.53", 53, 0, '.', "permitted"),
        (Send, "203.0.113.54", 53, 0, 'x', "another address"),
        (Send, "203.0.113.54", 53, 4000, 'x', "from a port that serves nothing"),
        (Send, "203.0.113.54", 53, 514, '?', "maybe an answer of a service"),
        (Send, "255.255.255.255", 67, 68, '?', "DHCP"),
        (Send, "ff02::1:2", 547, 546, '?', "DHCPv6"),
        (Send, "203.0.113.54", 53, 5000, '?', "maybe along a flow"),
    ];
    let rules = Rules::new(POLICY);
    let owner = mpesa_fw_common::owner::Owner { is_known: 1, ..mpesa_fw_common::owner::Owner::UNKNOWN };
    for (kind, remote, remote_port, local_port, expected, why) in cases {
        let remote: std::net::IpAddr = remote.parse().expect("an address");
        let family = if remote.is_ipv4() { Family::V4 } else { Family::V6 };
        let attempt = Attempt { kind, family, remote: remote.into(), remote_port, local_port };
        let state = HostState::new();
        state.ports.borrow_mut().insert(5000);
        let judged = decide::attempt(&rules.compiled, &state, &attempt, &owner);
        let told = match judged.map(|decision| decision.verdict()) {
            None => '?',
            Some(Verdict::Pass) => '.',
            Some(Verdict::Drop) => 'x',
        };
        assert_eq!(told, expected, "{why}: {attempt:?}: {judged:?}");
    }
}
