//! The kernel's table of tracked connections (ctnetlink), as the packets of each look on the wire towards its peer.
#![expect(clippy::wildcard_enum_match_arm, reason = "netlink's enums are not ours, and grow with the kernel")]

use std::{
    fs, io,
    net::IpAddr,
    time::{Duration, Instant},
};

use mpesa_fw_common::{
    Family,
    packet::{
        protocol::{ICMP, ICMPV6, TCP, UDP},
        question,
    },
    state::{FlowKey, FlowPhase},
};
use netlink_packet_core::{
    DefaultNla, NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    Nla as _,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
    conntrack::{
        ConntrackAttribute, ConntrackMessage, IPTuple, ProtoInfo, ProtoInfoTCP, ProtoTuple, Status, Tuple,
    },
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

/// Entries of this network namespace. Not there: the kernel has no conntrack, or has not loaded it.
const COUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_count";
/// How long the table is read: packets towards this host are not judged yet meanwhile.
const PATIENCE: Duration = Duration::from_secs(2);

/// A tracked connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tracked {
    /// Who opened it, before its address was translated.
    pub opener: IpAddr,
    /// Both ends towards the peer of the opener: behind both translations, that of the source and that of the target.
    /// Where the peer of `opener` is on the wire, these are the addresses of the packets there.
    pub key: FlowKey,
    /// How far it has come.
    pub phase: FlowPhase,
}

/// Reads the table of this thread's network namespace. What is not used there is not asked for: the question would load
/// `nf_conntrack_netlink`, and with it conntrack. (No question makes packets tracked; rules of nftables or iptables do.)
/// Answers how many entries were not read in time.
///
/// # Errors
/// The table is in use, and the kernel does not show it.
pub(super) fn read(found: impl FnMut(Tracked)) -> io::Result<usize> {
    let entries = entries()?;
    if entries == 0 {
        tracing::debug!(
            "no connection is tracked here: no guest has a connection that is older than the firewall"
        );
        return Ok(0);
    }
    let dumped = dump(Instant::now() + PATIENCE, found)?;
    Ok(match dumped {
        Dumped::Whole => 0,
        // Those that came meanwhile were not counted: at least one.
        Dumped::Part(read) => entries.saturating_sub(read).max(1),
    })
}

/// How many connections are tracked; none where the kernel has no conntrack.
fn entries() -> io::Result<usize> {
    match fs::read_to_string(COUNT) {
        Ok(count) => count.trim().parse().map_err(|error| io::Error::other(format!("{COUNT}: {error}"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dumped {
    Whole,
    Part(usize),
}

fn dump(until: Instant, mut found: impl FnMut(Tracked)) -> io::Result<Dumped> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let both_families = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, 0);
    let question = NetfilterMessage::new(both_families, ConntrackMessage::Get(Vec::new()));
    let mut message = NetlinkMessage::new(header, question.into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;

    let mut buffer = vec![0; 64 * 1024];
    let mut read = 0;
    loop {
        let length = socket.recv(&mut &mut buffer[..], 0)?;
        let (entries, end) = answer(&buffer[..length], &mut found)?;
        read += entries;
        if end {
            return Ok(Dumped::Whole);
        }
        // The kernel makes the rest only when it is asked for it, and forgets it with the socket.
        if Instant::now() > until {
            return Ok(Dumped::Part(read));
        }
    }
}

/// One datagram of the answer: how many entries were in it, and whether it was the last.
fn answer(mut rest: &[u8], found: &mut impl FnMut(Tracked)) -> io::Result<(usize, bool)> {
    let mut entries = 0;
    while !rest.is_empty() {
        let length = NetlinkBuffer::new_checked(rest).map_err(io::Error::other)?.length() as usize;
        // An entry of a kind that the parser does not know is left out, as one that can't be a flow is.
        if let Ok(message) = NetlinkMessage::<NetfilterMessage>::deserialize(rest) {
            match message.payload {
                NetlinkPayload::InnerMessage(NetfilterMessage {
                    inner: NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)),
                    ..
                }) => {
                    entries += 1;
                    if let Some(tracked) = tracked(&attributes) {
                        found(tracked);
                    }
                }
                NetlinkPayload::Done(_) => return Ok((entries, true)),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                _ => {}
            }
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok((entries, false))
}

/// None for what has no flow: other protocols, and what is over.
fn tracked(attributes: &[ConntrackAttribute]) -> Option<Tracked> {
    let (mut original, mut reply) = (End::default(), End::default());
    let (mut status, mut tcp) = (Status::empty(), None);
    for attribute in attributes {
        match attribute {
            ConntrackAttribute::CtaTupleOrig(tuple) => original = End::of(tuple),
            ConntrackAttribute::CtaTupleReply(tuple) => reply = End::of(tuple),
            ConntrackAttribute::CtaStatus(bits) => status = *bits,
            ConntrackAttribute::CtaProtoInfo(info) => tcp = info.iter().find_map(tcp_state),
            _ => {}
        }
    }
    let phase = phase(reply.protocol?, status, tcp)?;
    let (local, remote) = (reply.target?.to_canonical(), reply.source?.to_canonical());
    let family = match remote {
        IpAddr::V4(_) => Family::V4,
        IpAddr::V6(_) => Family::V6,
    };
    let (local_port, remote_port) = reply.ports(family)?;
    let key = FlowKey::new(family, reply.protocol?, local.into(), local_port, remote.into(), remote_port);
    Some(Tracked { opener: original.source?.to_canonical(), key, phase })
}

fn phase(protocol: u8, status: Status, tcp: Option<u8>) -> Option<FlowPhase> {
    // enum tcp_conntrack in include/uapi/linux/netfilter/nf_conntrack_tcp.h
    const SYN_SENT: u8 = 1;
    const SYN_RECV: u8 = 2;
    const ESTABLISHED: u8 = 3;
    const FIN_WAIT: u8 = 4;
    const CLOSE_WAIT: u8 = 5;
    const LAST_ACK: u8 = 6;
    const SYN_SENT2: u8 = 9;

    if status.contains(Status::Dying) {
        return None;
    }
    let answered = if status.contains(Status::SeenReply) { FlowPhase::Answered } else { FlowPhase::Opened };
    if protocol != TCP {
        return Some(answered);
    }
    match tcp? {
        SYN_SENT | SYN_SENT2 => Some(FlowPhase::Opened),
        SYN_RECV | ESTABLISHED => Some(answered),
        // Whoever said goodbye: no longer than here (120 s of idleness at most) does conntrack remember it.
        FIN_WAIT | CLOSE_WAIT | LAST_ACK => Some(FlowPhase::Closing),
        // TIME_WAIT and CLOSE: both have said goodbye, or one has reset it.
        _ => None,
    }
}

fn tcp_state(info: &ProtoInfo) -> Option<u8> {
    let ProtoInfo::TCP(attributes) = info else { return None };
    attributes.iter().find_map(|attribute| match attribute {
        ProtoInfoTCP::State(state) => Some(*state),
        _ => None,
    })
}

/// One direction of an entry.
#[derive(Default)]
struct End {
    source: Option<IpAddr>,
    target: Option<IpAddr>,
    protocol: Option<u8>,
    source_port: Option<u16>,
    target_port: Option<u16>,
    icmp_id: Option<u16>,
    icmp_type: Option<u8>,
}

impl End {
    fn of(tuple: &[Tuple]) -> Self {
        let mut end = Self::default();
        for part in tuple {
            match part {
                Tuple::Ip(addresses) => addresses.iter().for_each(|address| match address {
                    IPTuple::SourceAddress(address) => end.source = Some(*address),
                    IPTuple::DestinationAddress(address) => end.target = Some(*address),
                    _ => {}
                }),
                Tuple::Proto(attributes) => attributes.iter().for_each(|attribute| match attribute {
                    ProtoTuple::Protocol(protocol) => end.protocol = Some((*protocol).into()),
                    ProtoTuple::SourcePort(port) => end.source_port = Some(*port),
                    ProtoTuple::DestinationPort(port) => end.target_port = Some(*port),
                    ProtoTuple::Other(other) => end.icmp(other),
                    _ => {}
                }),
                _ => {}
            }
        }
        end
    }

    /// The parser does not know these (enum ctattr_l4proto in include/uapi/linux/netfilter/nfnetlink_conntrack.h).
    fn icmp(&mut self, attribute: &DefaultNla) {
        const CTA_PROTO_ICMP_ID: u16 = 4;
        const CTA_PROTO_ICMP_TYPE: u16 = 5;
        const CTA_PROTO_ICMPV6_ID: u16 = 7;
        const CTA_PROTO_ICMPV6_TYPE: u16 = 8;

        let mut value = vec![0; attribute.value_len()];
        attribute.emit_value(&mut value);
        match attribute.kind() {
            CTA_PROTO_ICMP_ID | CTA_PROTO_ICMPV6_ID => {
                self.icmp_id = value.first_chunk().map(|id| u16::from_be_bytes(*id));
            }
            CTA_PROTO_ICMP_TYPE | CTA_PROTO_ICMPV6_TYPE => self.icmp_type = value.first().copied(),
            _ => {}
        }
    }

    /// Of the direction of replies: the ports of a [`FlowKey`], that of the opener first.
    fn ports(&self, family: Family) -> Option<(u16, u16)> {
        match self.protocol? {
            TCP | UDP => Some((self.target_port?, self.source_port?)),
            ICMP | ICMPV6 => {
                let reply = self.icmp_type?;
                let request = question(family, reply);
                (request != reply).then_some((self.icmp_id?, u16::from(request)))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Linux 6.18 answered (x86-64): a guest, 172.17.0.2 and fd17::2, behind masquerading, which gives TCP over IPv4
    /// the ports from 61000; UDP to 192.0.2.1 port 53 is redirected to 203.0.113.80 port 5353; somebody outside has
    /// opened a connection to port 8080 of the host, which goes to the guest's port 80.
    const KEPT: &[u8] = include_bytes!("conntrack.bin");

    fn parsed(bytes: &[u8]) -> Vec<String> {
        let mut all = Vec::new();
        let (entries, end) = answer(bytes, &mut |tracked: Tracked| all.push(tracked)).unwrap();
        assert!(!end && entries >= all.len());
        let shown = |Tracked { opener, key, phase }: &Tracked| {
            let (local, remote) = (IpAddr::from(key.local), IpAddr::from(key.remote));
            let protocol = super::super::seed::protocol(key.protocol);
            format!(
                "{opener}: {protocol} {local} {} -> {remote} {} {phase:?}",
                key.local_port, key.remote_port
            )
        };
        let mut all: Vec<String> = all.iter().map(shown).collect();
        all.sort();
        all
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn a_kept_answer_is_understood() {
        assert_eq!(
            parsed(KEPT),
            [
                "172.17.0.2: icmp 203.0.113.10 4711 -> 203.0.113.80 8 Answered",
                "172.17.0.2: tcp 203.0.113.10 61804 -> 203.0.113.80 443 Closing",
                "172.17.0.2: tcp 203.0.113.10 61892 -> 203.0.113.80 443 Answered",
                "172.17.0.2: udp 203.0.113.10 50053 -> 203.0.113.80 5353 Answered",
                "172.17.0.2: udp 203.0.113.10 50054 -> 203.0.113.80 9 Opened",
                "203.0.113.80: tcp 203.0.113.80 40080 -> 172.17.0.2 80 Answered",
                "fd17::2: icmpv6 2001:db8:113::10 4712 -> 2001:db8:113::80 128 Answered",
                "fd17::2: tcp 2001:db8:113::10 50006 -> 2001:db8:113::80 443 Answered",
            ]
        );
    }

    #[test]
    fn what_is_cut_or_changed_is_left_out_or_an_error_and_no_panic() {
        for length in 0..KEPT.len() {
            let _ = answer(&KEPT[..length], &mut |_: Tracked| ());
        }
        for place in 0..KEPT.len() {
            for change in [1, 0x7f, 0xff] {
                let mut bytes = KEPT.to_vec();
                bytes[place] ^= change;
                let _ = answer(&bytes, &mut |_: Tracked| ());
            }
        }
    }

    #[test]
    fn how_far_a_connection_has_come() {
        let (seen, unseen) = (Status::SeenReply, Status::empty());
        let tcp = |state, status| phase(TCP, status, Some(state));
        assert_eq!(tcp(1, unseen), Some(FlowPhase::Opened));
        assert_eq!(tcp(3, seen), Some(FlowPhase::Answered));
        assert_eq!(tcp(3, unseen), Some(FlowPhase::Opened), "picked up in the middle, and no answer since");
        assert_eq!(tcp(4, seen), Some(FlowPhase::Closing));
        assert_eq!([tcp(0, seen), tcp(7, seen), tcp(8, seen)], [None; 3], "over");
        assert_eq!(phase(UDP, seen, None), Some(FlowPhase::Answered));
        assert_eq!(phase(UDP, unseen, None), Some(FlowPhase::Opened));
        assert_eq!(phase(UDP, seen | Status::Dying, None), None);
    }
}
