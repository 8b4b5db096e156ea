//! Traffic that a host cannot live without, and that no rule can take away from it.

use super::permission::{Permission, destination, service};
use crate::{
    address::{Address, Family},
    packet::{FragmentKind, PacketMeta, claim, icmpv6, protocol, question},
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
pub(super) fn is_ingress_control<T: Tables, S: State>(tables: &T, state: &S, meta: &PacketMeta) -> bool {
    // Fragmented control traffic does not exist (RFC 6980), and later fragments have no ports to go by.
    if !matches!(meta.fragment, FragmentKind::Whole) {
        return false;
    }
    if meta.is_udp() {
        return match meta.family {
            Family::V4 => meta.source_port == DHCP_SERVER && meta.target_port == DHCP_CLIENT,
            Family::V6 => {
                meta.source_port == DHCPV6_SERVER
                    && meta.target_port == DHCPV6_CLIENT
                    && is_link_local(&meta.source)
            }
        };
    }
    if !meta.is_icmp() {
        return false;
    }
    if matches!(meta.family, Family::V6) {
        match meta.icmp_type {
            icmpv6::ROUTER_ADVERTISEMENT => {
                return meta.hop_limit == ND_HOP_LIMIT && is_link_local(&meta.source);
            }
            icmpv6::NEIGHBOUR_SOLICITATION | icmpv6::NEIGHBOUR_ADVERTISEMENT => {
                return meta.hop_limit == ND_HOP_LIMIT;
            }
            icmpv6::MLD_QUERY | icmpv6::MLD_REPORT | icmpv6::MLD_DONE | icmpv6::MLD2_REPORT => {
                return meta.hop_limit == MLD_HOP_LIMIT
                    && (is_link_local(&meta.source) || meta.source == Address::UNSPECIFIED);
            }
            _ => {}
        }
    }
    quotes_permitted(tables, state, meta, Direction::Ingress)
}

/// E3, from this host; what the kernel says for sockets that are gone is judged in `egress`.
#[inline(always)]
pub(super) fn is_egress_control<T: Tables, S: State>(tables: &T, state: &S, meta: &PacketMeta) -> bool {
    if !matches!(meta.fragment, FragmentKind::Whole) {
        return false;
    }
    if meta.is_udp() {
        return match meta.family {
            Family::V4 => {
                meta.source_port == DHCP_CLIENT
                    && meta.target_port == DHCP_SERVER
                    && is_near_v4(meta.target.v4_bits())
            }
            Family::V6 => {
                meta.source_port == DHCPV6_CLIENT
                    && meta.target_port == DHCPV6_SERVER
                    && (is_link_local(&meta.target) || meta.target == DHCPV6_SERVERS)
            }
        };
    }
    if !meta.is_icmp() {
        return false;
    }
    if matches!(meta.family, Family::V6) {
        match meta.icmp_type {
            icmpv6::ROUTER_SOLICITATION
            | icmpv6::NEIGHBOUR_SOLICITATION
            | icmpv6::NEIGHBOUR_ADVERTISEMENT => {
                return meta.hop_limit == ND_HOP_LIMIT;
            }
            icmpv6::MLD_REPORT | icmpv6::MLD_DONE | icmpv6::MLD2_REPORT => {
                return meta.hop_limit == MLD_HOP_LIMIT;
            }
            _ => {}
        }
    }
    quotes_permitted(tables, state, meta, Direction::Egress)
}

/// All_DHCP_Relay_Agents_and_Servers, RFC 8415 7.1.
const DHCPV6_SERVERS: Address = Address { words: [0xff02_0000, 0, 0, 0x0001_0002] };

/// Where a DHCP server can be asked without a rule: broadcast, private (RFC 1918), link-local and shared (RFC 6598)
/// addresses. To any address, the two ports would be a way out for data. A renewal that is lost to this is asked again
/// by broadcast (RFC 2131 4.4.5).
#[inline(always)]
const fn is_near_v4(bits: u32) -> bool {
    bits == u32::MAX
        || bits >> 24 == 10
        || bits >> 20 == 0xac1
        || bits >> 16 == 0xc0a8
        || bits >> 16 == 0xa9fe
        || bits >> 22 == 0x6440_0000 >> 22
}

/// fe80::/10
#[inline(always)]
pub(super) const fn is_link_local(address: &Address) -> bool {
    address.words[0] & 0xffc0_0000 == 0xfe80_0000
}

/// Whether this is an ICMP error that quotes a packet which went the other way, between this host and a peer that a
/// live flow or a service permits. The error must go to the sender of what it quotes,
/// which [`Quoted`](crate::packet::Quoted) has made sure of.
#[inline(always)]
fn quotes_permitted<T: Tables, S: State>(
    tables: &T,
    state: &S,
    meta: &PacketMeta,
    direction: Direction,
) -> bool {
    let quoted = &meta.quoted;
    if !quoted.is_readable {
        return false;
    }
    let (local, remote, local_port, remote_port) = match direction {
        Direction::Ingress => (&meta.target, &quoted.target, quoted.source_port, quoted.target_port),
        Direction::Egress => (&quoted.target, &meta.target, quoted.target_port, quoted.source_port),
    };
    // As of a packet: ICMP in IPv6 and ICMPv6 in IPv4 are neither.
    let is_icmp = match meta.family {
        Family::V4 => quoted.protocol == protocol::ICMP,
        Family::V6 => quoted.protocol == protocol::ICMPV6,
    };
    let asked = question(meta.family, quoted.icmp_type);
    let (flow_port, flow_peer, served_type) = match direction {
        _ if !is_icmp => (local_port, remote_port, 0),
        // This host sent it: an answer of a service, or the request of a flow.
        Direction::Ingress if asked == quoted.icmp_type => (quoted.icmp_id, u16::from(asked), NO_TYPE),
        Direction::Ingress => (quoted.icmp_id, u16::from(quoted.icmp_type), u16::from(asked)),
        // This host was sent it: a request to a service, or the answer to a flow.
        Direction::Egress if asked == quoted.icmp_type => (quoted.icmp_id, NO_TYPE, u16::from(asked)),
        Direction::Egress => (quoted.icmp_id, u16::from(asked), u16::from(quoted.icmp_type)),
    };
    if state.may_have_flow(flow_port) {
        let key = FlowKey::new(meta.family, quoted.protocol, *local, flow_port, *remote, flow_peer);
        // An error follows a packet that was sent, which this generation has judged.
        if let Some(flow) = state.flow(&key)
            && flow.generation == tables.generation()
            && !flow.is_expired(key.protocol, state.now())
        {
            return true;
        }
    }
    if served_type == NO_TYPE {
        return false;
    }
    let served = claim(meta.family, quoted.protocol, local_port, served_type as u8);
    matches!(service(tables, meta.family, served, local, remote), Permission::Allowed(_))
}

/// No ICMP type: none that a service could claim, none of a flow.
const NO_TYPE: u16 = u16::MAX;

/// E3, what the kernel says for sockets that are gone: whether a service or a destination permits the peer.
#[inline(always)]
pub(super) fn peer_is_permitted<T: Tables, S: State>(tables: &T, state: &S, meta: &PacketMeta) -> bool {
    let served = claim(meta.family, meta.protocol, meta.source_port, 0);
    if matches!(service(tables, meta.family, served, &meta.source, &meta.target), Permission::Allowed(_)) {
        return true;
    }
    matches!(destination(tables, state, meta.family, meta.claim(), &meta.target), Permission::Allowed(_))
}
