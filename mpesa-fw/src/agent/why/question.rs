//! What is asked of a packet, and what is chosen where nothing was said.

use std::net::IpAddr;

use mpesa_fw_common::{Direction, decide::Sender, owner::Owner, packet::protocol};
use serde::{Deserialize, Serialize};

use super::{owner::OwnerAsked, packet::Packet};
use crate::agent::{AgentError, frame::SYN, view::View};

/// The port of the far end where none was named: an ephemeral one.
const SOME_PORT: u16 = 40_000;
const ECHO_REQUEST: u8 = 8;
const ECHO_REQUEST_6: u8 = 128;

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// Towards this host.
    Ingress,
    /// From this host.
    Egress,
}

impl From<Way> for Direction {
    fn from(way: Way) -> Self {
        match way {
            Way::Ingress => Self::Ingress,
            Way::Egress => Self::Egress,
        }
    }
}

/// The socket that sends a packet of egress. A test run has none: it is injected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Socket {
    /// A program has it; bound to this port, or to the packet's source port.
    Bound(Option<u16>),
    /// None: forwarded, or the kernel's own word for a socket that is gone.
    None,
}

/// A packet as somebody describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// Which way it goes.
    pub way: Way,
    /// Where it comes from.
    pub from: Option<IpAddr>,
    /// Where it goes to.
    pub to: Option<IpAddr>,
    /// IP protocol, IANA number.
    pub protocol: Option<u8>,
    /// Target port.
    pub port: Option<u16>,
    /// Source port.
    pub from_port: Option<u16>,
    /// Type of ICMP or ICMPv6.
    pub icmp_type: Option<u8>,
    /// TCP flags.
    pub flags: Option<u8>,
    /// The interface whose hook is asked.
    pub interface: Option<String>,
    /// What it is sent by.
    pub socket: Socket,
    /// Whose that is.
    pub owner: OwnerAsked,
}

/// A packet with nothing left open.
pub(super) struct Settled {
    pub(super) packet: Packet,
    pub(super) sender: Sender,
    /// What was chosen, a line each.
    pub(super) chosen: Vec<String>,
    /// What a test run does not have and was given, a line each.
    pub(super) injected: Vec<String>,
}

impl Question {
    /// Chooses what was left open, given this host's addresses, the interface of the hook (by index) and who it says it is of.
    pub(super) fn settle(
        &self,
        view: &View,
        interface: Option<u32>,
        owner: Owner,
    ) -> Result<Settled, AgentError> {
        let mut chosen = Vec::new();
        let (source, target) = self.ends(view, interface, &mut chosen)?;
        let protocol = self.protocol(target, &mut chosen)?;
        let has_ports = matches!(protocol, protocol::TCP | protocol::UDP);
        if has_ports && self.port.is_none() {
            return Err(no("a packet of TCP or UDP goes to a port: name it with --port"));
        }
        if !has_ports && (self.port.is_some() || self.from_port.is_some()) {
            return Err(no("only TCP and UDP have ports"));
        }
        let is_icmp = matches!(protocol, protocol::ICMP | protocol::ICMPV6);
        if self.icmp_type.is_some() && !is_icmp {
            return Err(no("only ICMP and ICMPv6 have types"));
        }
        if self.flags.is_some() && protocol != protocol::TCP {
            return Err(no("only TCP has flags"));
        }
        let source_port = self.from_port.unwrap_or(SOME_PORT);
        if has_ports && self.from_port.is_none() {
            chosen.push(format!("source port {SOME_PORT}"));
        }
        let echo = if protocol == protocol::ICMP { ECHO_REQUEST } else { ECHO_REQUEST_6 };
        if is_icmp && self.icmp_type.is_none() {
            chosen.push(format!("type {echo} (echo request)"));
        }
        if protocol == protocol::TCP && self.flags.is_none() {
            chosen.push("flags SYN (it opens a connection)".to_owned());
        }
        let packet = Packet {
            source,
            target,
            protocol,
            source_port: if has_ports { source_port } else { 0 },
            target_port: self.port.unwrap_or(0),
            flags: self.flags.unwrap_or(SYN),
            icmp_type: self.icmp_type.unwrap_or(echo),
        };
        let (sender, injected) = self.sender(&packet, owner);
        Ok(Settled { packet, sender, chosen, injected })
    }

    fn ends(
        &self,
        view: &View,
        interface: Option<u32>,
        chosen: &mut Vec<String>,
    ) -> Result<(IpAddr, IpAddr), AgentError> {
        let (far, near, far_option, near_option) = match self.way {
            Way::Ingress => (self.from, self.to, "--from", "--to"),
            Way::Egress => (self.to, self.from, "--to", "--from"),
        };
        let far = far.ok_or_else(|| no(&format!("name the other end of the packet with {far_option}")))?;
        let near = match near {
            Some(near) => near,
            None => {
                let own = own_address(view, interface, far).ok_or_else(|| {
                    no(&format!(
                        "this host has no address of the family of {far}: name one with {near_option}"
                    ))
                })?;
                chosen.push(match self.way {
                    Way::Ingress => format!("to {own}, an address of this host"),
                    Way::Egress => format!("from {own}, an address of this host"),
                });
                own
            }
        };
        if far.is_ipv4() != near.is_ipv4() {
            return Err(no(&format!("{far} and {near} are of different families")));
        }
        Ok(match self.way {
            Way::Ingress => (far, near),
            Way::Egress => (near, far),
        })
    }

    fn protocol(&self, target: IpAddr, chosen: &mut Vec<String>) -> Result<u8, AgentError> {
        let own_icmp = if target.is_ipv4() { protocol::ICMP } else { protocol::ICMPV6 };
        match self.protocol {
            // Who says `icmp` means that of the family.
            Some(protocol::ICMP) => Ok(own_icmp),
            Some(protocol) => Ok(protocol),
            None if self.icmp_type.is_some() => Ok(own_icmp),
            None if self.port.is_some() || self.flags.is_some() => {
                chosen.push("protocol tcp".to_owned());
                Ok(protocol::TCP)
            }
            None => Err(no("name a --port, an --icmp-type or a --protocol")),
        }
    }

    fn sender(&self, packet: &Packet, owner: Owner) -> (Sender, Vec<String>) {
        match (self.way, self.socket) {
            (Way::Ingress, _) => (Sender::default(), Vec::new()),
            (Way::Egress, Socket::None) => (
                Sender::default(),
                vec!["no sending socket: forwarded, or sent by the kernel itself".to_owned()],
            ),
            (Way::Egress, Socket::Bound(port)) => {
                let bound_port = port.unwrap_or(packet.source_port);
                let mut injected = vec![match bound_port {
                    0 => "sending socket: a program's".to_owned(),
                    port => format!("sending socket: a program's, bound to port {port}"),
                }];
                if self.owner.is_named() {
                    injected.push(format!("its owner: {}", self.owner));
                }
                (Sender { bound_port, is_full: true, owner, ..Sender::NONE }, injected)
            }
        }
    }
}

/// An address of this host of the family of `like`: of the interface, if it has one; rather one that can be reached from
/// elsewhere.
fn own_address(view: &View, interface: Option<u32>, like: IpAddr) -> Option<IpAddr> {
    let is_near = |address: &IpAddr| match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_loopback(),
        IpAddr::V6(address) => address.is_unicast_link_local() || address.is_loopback(),
    };
    view.addresses
        .iter()
        .filter(|(_, address)| address.is_ipv4() == like.is_ipv4())
        .min_by_key(|(index, address)| (is_near(address), Some(*index) != interface, *address))
        .map(|(_, address)| *address)
}

fn no(why: &str) -> AgentError {
    AgentError::Question(why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(way: Way) -> Question {
        Question {
            way,
            from: None,
            to: None,
            protocol: None,
            port: None,
            from_port: None,
            icmp_type: None,
            flags: None,
            interface: None,
            socket: Socket::Bound(None),
            owner: OwnerAsked::default(),
        }
    }

    fn view() -> View {
        let address = |index, text: &str| (index, text.parse().unwrap());
        let addresses =
            [address(1, "127.0.0.1"), address(2, "10.0.0.5"), address(3, "10.1.0.5"), address(2, "fe80::1")];
        View { addresses: addresses.into(), ..View::default() }
    }

    fn refusal(question: &Question) -> String {
        question.settle(&view(), None, Owner::UNKNOWN).map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn what_is_left_open_is_chosen_and_said() {
        let asked = Question { from: "203.0.113.9".parse().ok(), port: Some(8443), ..question(Way::Ingress) };
        let settled = asked.settle(&view(), Some(3), Owner::UNKNOWN).unwrap();
        assert_eq!(settled.packet.target.to_string(), "10.1.0.5");
        assert_eq!((settled.packet.protocol, settled.packet.flags), (6, SYN));
        assert_eq!(settled.chosen.len(), 4, "{:?}", settled.chosen);
        assert!(settled.injected.is_empty());
        let asked = Question {
            to: "2001:db8::1".parse().ok(),
            port: Some(53),
            protocol: Some(17),
            from_port: Some(5353),
            ..question(Way::Egress)
        };
        let settled = asked.settle(&view(), None, Owner::UNKNOWN).unwrap();
        assert_eq!(settled.packet.source.to_string(), "fe80::1", "there is no better");
        assert_eq!(settled.sender, Sender { bound_port: 5353, is_full: true, ..Sender::NONE });
        assert_eq!(settled.injected, ["sending socket: a program's, bound to port 5353"]);
    }

    #[test]
    fn icmp_is_that_of_the_family() {
        let asked =
            Question { from: "2001:db8::1".parse().ok(), protocol: Some(1), ..question(Way::Ingress) };
        let settled = asked.settle(&view(), None, Owner::UNKNOWN).unwrap();
        assert_eq!((settled.packet.protocol, settled.packet.icmp_type), (58, 128));
    }

    #[test]
    fn what_makes_no_packet_is_refused() {
        let from: Option<IpAddr> = "203.0.113.9".parse().ok();
        assert!(refusal(&question(Way::Ingress)).contains("--from"));
        assert!(refusal(&question(Way::Egress)).contains("--to"));
        let asked = |change: fn(&mut Question)| {
            let mut asked = Question { from, ..question(Way::Ingress) };
            change(&mut asked);
            refusal(&asked)
        };
        assert!(asked(|_| ()).contains("--port"));
        assert!(asked(|q| q.protocol = Some(17)).contains("--port"));
        assert!(asked(|q| (q.protocol, q.port) = (Some(1), Some(1))).contains("ports"));
        assert!(asked(|q| (q.port, q.icmp_type) = (Some(1), Some(8))).contains("only TCP and UDP"));
        assert!(asked(|q| (q.protocol, q.port, q.flags) = (Some(17), Some(1), Some(2))).contains("flags"));
        assert!(asked(|q| (q.port, q.to) = (Some(1), "2001:db8::5".parse().ok())).contains("families"));
    }
}
