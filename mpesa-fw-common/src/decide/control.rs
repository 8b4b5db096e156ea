//! Traffic that a host cannot live without, and that no rule can take away from it.

use super::permission::{Permission, destination, service};
use crate::{
    address::{Address, Family},
    packet::{FragmentKind, PacketBytes, PacketMeta, Quoted, claim, icmp, icmpv6, protocol},
    settings::Direction,
    state::{FlowKey, State},
    tables::Tables,
};

const DHCP_SERVER: u16 = 67;
const DHCP_CLIENT: u16 = 68;
const DHCPV6_CLIENT: u16 = 546;
const DHCPV6_SERVER: u16 = 547;
/// RFC 4861 and RFC 3810: who obeys them can't have been routed here.
const ND_HOP_LIMIT: u8 = 255;
const MLD_HOP_LIMIT: u8 = 1;

/// 4, towards this host.
#[inline(always)]
pub(super) fn is_ingress_control<T: Tables, S: State, B: PacketBytes>(tables: &T, state: &S, bytes: &B, meta: &PacketMeta) -> bool {
    // Fragmented control traffic does not exist (RFC 6980), and later fragments have no ports to go by.
    if !matches!(meta.fragment, FragmentKind::Whole) {
        return false;
    }
    if meta.is_udp() {
        return match meta.family {
            Family::V4 => meta.source_port == DHCP_SERVER && meta.target_port == DHCP_CLIENT,
            Family::V6 => {
                meta.source_port == DHCPV6_SERVER && meta.target_port == DHCPV6_CLIENT && is_link_local(&meta.source)
            }
        };
    }
    if !meta.is_icmp() {
        return false;
    }
    if matches!(meta.family, Family::V6) {
        match meta.icmp_type {
            icmpv6::ROUTER_ADVERTISEMENT => return meta.hop_limit == ND_HOP_LIMIT && is_link_local(&meta.source),
            icmpv6::NEIGHBOUR_SOLICITATION | icmpv6::NEIGHBOUR_ADVERTISEMENT => return meta.hop_limit == ND_HOP_LIMIT,
            icmpv6::MLD_QUERY | icmpv6::MLD_REPORT | icmpv6::MLD_DONE | icmpv6::MLD2_REPORT => {
                return meta.hop_limit == MLD_HOP_LIMIT && (is_link_local(&meta.source) || meta.source == Address::UNSPECIFIED);
            }
            _ => {}
        }
    }
    is_icmp_error(meta) && quotes_permitted(tables, state, bytes, meta, Direction::Ingress)
}

/// E3, from this host; what the kernel says for sockets that are gone is judged in `egress`.
#[inline(always)]
pub(super) fn is_egress_control<T: Tables, S: State, B: PacketBytes>(tables: &T, state: &S, bytes: &B, meta: &PacketMeta) -> bool {
    if !matches!(meta.fragment, FragmentKind::Whole) {
        return false;
    }
    if meta.is_udp() {
        return match meta.family {
            Family::V4 => meta.source_port == DHCP_CLIENT && meta.target_port == DHCP_SERVER,
            Family::V6 => meta.source_port == DHCPV6_CLIENT && meta.target_port == DHCPV6_SERVER,
        };
    }
    if !meta.is_icmp() {
        return false;
    }
    if matches!(meta.family, Family::V6) {
        match meta.icmp_type {
            icmpv6::ROUTER_SOLICITATION | icmpv6::NEIGHBOUR_SOLICITATION | icmpv6::NEIGHBOUR_ADVERTISEMENT => {
                return meta.hop_limit == ND_HOP_LIMIT;
            }
            icmpv6::MLD_REPORT | icmpv6::MLD_DONE | icmpv6::MLD2_REPORT => return meta.hop_limit == MLD_HOP_LIMIT,
            _ => {}
        }
    }
    is_icmp_error(meta) && quotes_permitted(tables, state, bytes, meta, Direction::Egress)
}

/// Whether this ICMP type asks for nothing and answers nothing: it reports on another packet, which it quotes.
#[inline(always)]
pub(super) const fn is_icmp_error(meta: &PacketMeta) -> bool {
    match meta.family {
        Family::V4 => matches!(meta.icmp_type, icmp::UNREACHABLE | icmp::TIME_EXCEEDED | icmp::PARAMETER_PROBLEM),
        Family::V6 => meta.icmp_type >= icmpv6::UNREACHABLE && meta.icmp_type <= icmpv6::PARAMETER_PROBLEM,
    }
}

/// fe80::/10
#[inline(always)]
pub(super) const fn is_link_local(address: &Address) -> bool {
    address.words[0] & 0xffc0_0000 == 0xfe80_0000
}

/// Whether the packet that an ICMP error quotes went the other way between this host and a peer that a live flow, a
/// service or (for what this host sends) a destination permits. The error itself must go to the quoted packet's sender.
#[inline(always)]
fn quotes_permitted<T: Tables, S: State, B: PacketBytes>(
    tables: &T,
    state: &S,
    bytes: &B,
    meta: &PacketMeta,
    direction: Direction,
) -> bool {
    let Some(quoted) = Quoted::read(bytes, meta) else {
        return false;
    };
    if quoted.source != meta.target {
        return false;
    }
    let (local, remote, local_port, remote_port) = match direction {
        Direction::Ingress => (&quoted.source, &quoted.target, quoted.source_port, quoted.target_port),
        Direction::Egress => (&quoted.target, &quoted.source, quoted.target_port, quoted.source_port),
    };
    let is_icmp = match quoted.family {
        Family::V4 => quoted.protocol == protocol::ICMP,
        Family::V6 => quoted.protocol == protocol::ICMPV6,
    };
    let flow_port = if is_icmp { quoted.icmp_id } else { local_port };
    if state.may_have_flow(flow_port) {
        let key = FlowKey::new(quoted.family, quoted.protocol, *local, flow_port, *remote, remote_port);
        let now = state.now();
        if state.with_flow(&key, |flow| !flow.is_expired(key.protocol, now)) == Some(true) {
            return true;
        }
    }
    // What a service of this host answered with, or was asked by: the claim is that of the question.
    let asked = question(quoted.family, quoted.icmp_type);
    let served = claim(quoted.family, quoted.protocol, local_port, asked);
    if matches!(service(tables, quoted.family, served, local, remote), Permission::Allowed(_)) {
        return true;
    }
    false
}

/// The ICMP type that is answered by this one; itself where it is no answer.
#[inline(always)]
pub(super) const fn question(family: Family, icmp_type: u8) -> u8 {
    match (family, icmp_type) {
        (Family::V4, icmp::ECHO_REPLY) => icmp::ECHO_REQUEST,
        (Family::V4, icmp::TIMESTAMP_REPLY) => icmp::TIMESTAMP_REQUEST,
        (Family::V6, icmpv6::ECHO_REPLY) => icmpv6::ECHO_REQUEST,
        (_, other) => other,
    }
}

/// E3, what the kernel says for sockets that are gone: whether a service or a destination permits the peer.
#[inline(always)]
pub(super) fn peer_is_permitted<T: Tables, S: State>(tables: &T, state: &S, meta: &PacketMeta) -> bool {
    let served = claim(meta.family, meta.protocol, meta.source_port, 0);
    if matches!(service(tables, meta.family, served, &meta.source, &meta.target), Permission::Allowed(_)) {
        return true;
    }
    matches!(destination(tables, state, meta.family, meta.claim(), &meta.target), Permission::Allowed(_))
}
