//! Connections that guests (containers, virtual machines, routed networks) have opened through this host.

use std::{
    collections::{BTreeSet, HashSet},
    io,
    net::IpAddr,
};

use mpesa_fw_common::state::FlowKey;

use super::{
    conntrack::{self, Tracked},
    exits::{Exits, Side},
    view::View,
};

/// Where guests can be.
#[derive(Clone, Copy)]
pub(super) struct Whereabouts<'a> {
    /// What the kernel says of the network.
    pub view: &'a View,
    /// Interfaces that have hooks, or are about to have them, by index.
    pub protected: &'a BTreeSet<u32>,
    /// Addresses of this host.
    pub own: &'a HashSet<IpAddr>,
}

/// Reads the connections that guests have opened to peers on the wire. Where there is no place for guests, conntrack is
/// not asked, however many connections a stateful firewall tracks. Answers how many of its entries were not read in time.
///
/// # Errors
/// Connections are tracked here, and the kernel does not show them.
pub(super) fn read(
    whereabouts: Whereabouts<'_>,
    serves: impl Fn(&FlowKey) -> bool,
    mut found: impl FnMut(Tracked),
) -> io::Result<usize> {
    let Whereabouts { view, protected, own } = whereabouts;
    let mut exits = Exits::open(view, protected)?;
    if !exits.has_inside() {
        tracing::debug!("every interface is protected: there is no place for guests");
        return Ok(0);
    }
    conntrack::read(|tracked| {
        if is_of_guest(&tracked, own, &serves, |address| exits.side(address)) {
            found(tracked);
        }
    })
}

/// Whether a guest opened it, and its packets pass a hook.
///
/// Who opened it is known by where the opener is. An address behind a hook is a peer's, whatever was translated (a port
/// that is forwarded to a guest; a node port, which goes out again in the name of this host), and what a peer opens needs
/// a service. The peer must be behind a hook in turn: connections among guests meet none.
///
/// Conntrack takes whom it saw first for the opener. After its table was flushed that may be a guest that serves. Then
/// egress must permit the peer and its port, as for the packets of that guest (`opens_flow` in the decision).
fn is_of_guest(
    tracked: &Tracked,
    own: &HashSet<IpAddr>,
    serves: impl Fn(&FlowKey) -> bool,
    mut side: impl FnMut(IpAddr) -> Side,
) -> bool {
    let key = &tracked.key;
    let (local, remote) = (IpAddr::from(key.local), IpAddr::from(key.remote));
    // What this host has opened or serves has a socket.
    let is_own = own.contains(&tracked.opener) || own.contains(&remote);
    // As for sockets. Masquerading may have chosen a port that also serves.
    let serves = own.contains(&local) && serves(key);
    // The peer first: there are few of them where the openers are many, which is what a flood from outside looks like.
    !is_own && !serves && side(remote) == Side::Outside && side(tracked.opener) == Side::Inside
}

#[cfg(test)]
mod tests {
    use super::*;
    use mpesa_fw_common::{Family, state::FlowPhase};

    const HOST: &str = "203.0.113.10";
    const GUEST: &str = "172.17.0.2";
    const OTHER_GUEST: &str = "172.17.0.3";
    const PEER: &str = "192.0.2.80";
    const OTHER_PEER: &str = "198.51.100.66";

    fn serves(ports: &[(u8, u16)]) -> impl Fn(&FlowKey) -> bool {
        |key| ports.contains(&(key.protocol, key.local_port))
    }

    fn is_seeded(opener: &str, local: &str, remote: &str) -> bool {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let (local, remote) = (address(local).into(), address(remote).into());
        let key = FlowKey::new(Family::V4, 6, local, 50000, remote, 443);
        let tracked = Tracked { opener: address(opener), key, phase: FlowPhase::Answered };
        let own = HashSet::from([address(HOST), address("172.17.0.1")]);
        is_of_guest(&tracked, &own, serves(&[(6, 22), (17, 50000)]), |address| match address {
            IpAddr::V4(v4) if v4.octets()[0] == 172 => Side::Inside,
            IpAddr::V4(v4) if v4.octets()[0] == 10 => Side::Unknown,
            IpAddr::V4(_) | IpAddr::V6(_) => Side::Outside,
        })
    }

    #[test]
    fn what_a_guest_opened_is() {
        assert!(is_seeded(GUEST, HOST, PEER), "masqueraded");
        assert!(is_seeded(GUEST, GUEST, PEER), "routed");
        assert!(is_seeded(GUEST, "203.0.113.99", PEER), "behind an address that is routed here");
    }

    #[test]
    fn what_a_peer_opened_is_not() {
        assert!(!is_seeded(PEER, PEER, HOST), "to this host");
        assert!(!is_seeded(PEER, PEER, GUEST), "to a forwarded port, or to a routed guest");
        assert!(!is_seeded(PEER, HOST, GUEST), "to a forwarded port, in this host's name");
        assert!(!is_seeded(PEER, HOST, OTHER_PEER), "to a node port, and out again in this host's name");
        assert!(!is_seeded(PEER, PEER, OTHER_PEER), "through this host, in and out of one wire");
    }

    #[test]
    fn what_meets_no_hook_or_has_a_socket_is_not() {
        assert!(!is_seeded(GUEST, GUEST, OTHER_GUEST), "among guests");
        assert!(!is_seeded(GUEST, HOST, OTHER_GUEST), "among guests, by way of a forwarded port");
        assert!(!is_seeded(GUEST, GUEST, "172.17.0.1"), "to this host");
        assert!(!is_seeded(HOST, HOST, PEER), "of this host");
        assert!(!is_seeded("10.0.0.1", HOST, PEER), "of nobody known");
        assert!(!is_seeded(GUEST, HOST, "10.0.0.1"), "to nobody known");
    }

    #[test]
    fn a_port_that_serves_is_not() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let key = FlowKey::new(Family::V4, 17, address(HOST).into(), 500, address(PEER).into(), 53);
        let tracked = Tracked { opener: address(GUEST), key, phase: FlowPhase::Answered };
        let side = |ip| if ip == address(GUEST) { Side::Inside } else { Side::Outside };
        let own = HashSet::from([address(HOST)]);
        assert!(is_of_guest(&tracked, &own, serves(&[(6, 500)]), side));
        assert!(!is_of_guest(&tracked, &own, serves(&[(17, 500)]), side));
        assert!(is_of_guest(&tracked, &HashSet::new(), serves(&[(17, 500)]), side), "the guest's own");
    }
}
