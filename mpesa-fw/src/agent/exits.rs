//! By which way packets to an address leave this host: through a hook of ours, or not.
#![expect(clippy::wildcard_enum_match_arm, reason = "netlink's enums are not ours, and grow with the kernel")]

use std::{
    collections::{BTreeSet, HashMap},
    io,
    net::IpAddr,
};

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rtnetlink::packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAttribute, RouteMessage, RouteType},
};

use super::view::{Layer, View};

/// Answers that are kept at most.
const KEPT: usize = 1 << 16;

/// Where an address is, seen from this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// Its packets pass a protected interface.
    Outside,
    /// Its packets pass another one: a bridge of containers, say.
    Inside,
    /// This host itself.
    Here,
    /// Nowhere, or the kernel does not say.
    Unknown,
}

/// Asks the kernel for routes.
pub(super) struct Exits<'a> {
    view: &'a View,
    protected: &'a BTreeSet<u32>,
    socket: Socket,
    asked: u32,
    known: HashMap<IpAddr, Side>,
}

impl<'a> Exits<'a> {
    /// Opens a socket in the network namespace of this thread.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub(super) fn open(view: &'a View, protected: &'a BTreeSet<u32>) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { view, protected, socket, asked: 0, known: HashMap::new() })
    }

    /// Whether any address can be inside.
    pub(super) fn has_inside(&self) -> bool {
        self.view.links.keys().any(|index| self.side_of(*index) == Side::Inside)
    }

    /// Where an address is.
    pub(super) fn side(&mut self, address: IpAddr) -> Side {
        if let Some(side) = self.known.get(&address) {
            return *side;
        }
        let side = self.ask(None, address).unwrap_or(Side::Unknown);
        if self.known.len() < KEPT {
            self.known.insert(address, side);
        }
        side
    }

    /// Where an address is for packets from `local`, by the routes for that source.
    pub(super) fn side_from(&mut self, local: IpAddr, address: IpAddr) -> Side {
        self.ask(Some(local), address).unwrap_or(Side::Unknown)
    }

    /// Where what leaves by an interface is.
    pub(super) fn side_of(&self, index: u32) -> Side {
        match self.view.links.get(&index) {
            // Also an interface only part of whose packets pass a hook: a bridge with a protected card among its ports.
            Some(_) if self.view.touches(index, self.protected) => Side::Outside,
            Some(link) if link.layer != Layer::Loopback => Side::Inside,
            Some(_) | None => Side::Unknown,
        }
    }

    fn ask(&mut self, local: Option<IpAddr>, address: IpAddr) -> io::Result<Side> {
        let mut route = RouteMessage::default();
        let (family, whole) = match address {
            IpAddr::V4(_) => (AddressFamily::Inet, 32),
            IpAddr::V6(_) => (AddressFamily::Inet6, 128),
        };
        (route.header.address_family, route.header.destination_prefix_length) = (family, whole);
        route.attributes.push(RouteAttribute::Destination(address.into()));
        if let Some(local) = local {
            route.header.source_prefix_length = whole;
            route.attributes.push(RouteAttribute::Source(local.into()));
        }
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST;
        self.asked += 1;
        header.sequence_number = self.asked;
        let question = RouteNetlinkMessage::GetRoute(route);
        let mut message = NetlinkMessage::new(header, question.into());
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;

        let mut buffer = vec![0; 4096];
        let answer = loop {
            let length = self.socket.recv(&mut &mut buffer[..], 0)?;
            let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&buffer[..length]);
            let answer = answer.map_err(io::Error::other)?;
            // Not one to an earlier question that was given up.
            if answer.header.sequence_number == self.asked {
                break answer;
            }
        };
        let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) = answer.payload else {
            return Ok(Side::Unknown);
        };
        let interface = route.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => Some(*index),
            _ => None,
        });
        Ok(match (route.header.kind, interface) {
            (RouteType::Local, _) => Side::Here,
            (RouteType::Unicast, Some(index)) => self.side_of(index),
            _ => Side::Unknown,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::view::Link;

    fn link(index: u32, layer: Layer, master: Option<u32>, parent: Option<u32>) -> (u32, Link) {
        (
            index,
            Link {
                index,
                name: format!("if{index}"),
                kind: None,
                layer,
                master,
                parent,
                xdp_program: 0,
                mtu: 1500,
            },
        )
    }

    #[test]
    fn what_stands_on_a_protected_interface_is_outside() {
        let ethernet = || Layer::Ethernet;
        let view = View {
            links: [
                link(1, Layer::Loopback, None, None),
                link(2, ethernet(), Some(3), None), // the card, a port of bridge 3
                link(3, ethernet(), None, None),
                link(4, ethernet(), None, Some(2)), // a VLAN of the card
                link(5, ethernet(), None, None),    // a bridge of containers
            ]
            .into(),
            ..View::default()
        };
        let protected = BTreeSet::from([2]);
        let mut exits = Exits::open(&view, &protected).unwrap();
        let sides = [1, 2, 3, 4, 5, 6].map(|index| exits.side_of(index));
        use Side::{Here, Inside, Outside, Unknown};
        assert_eq!(sides, [Unknown, Outside, Outside, Outside, Inside, Unknown]);
        assert!(exits.has_inside());
        let [v4, v6]: [IpAddr; 2] = ["127.0.0.1", "::1"].map(|address| address.parse().unwrap());
        assert_eq!((exits.side(v4), exits.side(v6)), (Here, Here));
        assert_eq!((exits.side_from(v4, v4), exits.side_from(v6, v6)), (Here, Here));
    }
}
