//! A router with places around it.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::Result;

use crate::{namespace::Namespace, scratch::Scratch};

/// A machine and its addresses. It sits alone in its /24 and /64; the router has the first address of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Also the name of the router's interface towards it: 15 characters at most.
    pub name: &'static str,
    /// IPv4 address.
    pub v4: Ipv4Addr,
    /// IPv6 address.
    pub v6: Ipv6Addr,
}

/// Who there is. The outside addresses are documentation prefixes, but for Safaricom's, which are the real ones.
pub mod place {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::Place;

    const fn v6(subnet: u16, host: u16) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, 0, subnet, 0, 0, 0, host)
    }

    /// The server that receives callbacks and sends requests.
    pub const CALLBACK_HOST: Place =
        Place { name: "callback-host", v4: Ipv4Addr::new(203, 0, 113, 10), v6: v6(0x113, 0x10) };
    /// One of the 12 published senders. (Safaricom publishes no IPv6 address; this one is for tests.)
    pub const SAFARICOM: Place =
        Place { name: "safaricom", v4: Ipv4Addr::new(196, 201, 214, 200), v6: v6(0x214, 0x200) };
    /// Somebody outside.
    pub const ATTACKER: Place =
        Place { name: "attacker", v4: Ipv4Addr::new(198, 51, 100, 66), v6: v6(0x666, 0x66) };
    /// A colleague's machine, and the resolver.
    pub const INTRANET: Place = Place {
        name: "intranet",
        v4: Ipv4Addr::new(10, 20, 0, 5),
        v6: Ipv6Addr::new(0xfd00, 0, 0, 0x20, 0, 0, 0, 5),
    };
    /// What api.safaricom.co.ke resolves to.
    pub const API: Place = Place { name: "api", v4: Ipv4Addr::new(192, 0, 2, 80), v6: v6(0x80, 0x80) };
    /// Where somebody would like to send a copy.
    pub const DROP_BOX: Place =
        Place { name: "drop-box", v4: Ipv4Addr::new(198, 18, 0, 99), v6: v6(0x99, 0x99) };
}

/// The router and the scratch directory of one testbed. Declare it first, so that it is dropped last.
#[derive(Debug)]
pub struct Network {
    /// The namespace in the middle.
    pub router: Namespace,
    /// Directory for rules, logs, certificates, bpffs.
    pub scratch: Scratch,
}

/// One place as a namespace; its interface towards the router is [`Host::INTERFACE`].
#[derive(Debug)]
pub struct Host {
    /// Its namespace.
    pub namespace: Namespace,
    /// Who it is.
    pub place: Place,
}

impl Network {
    /// A router without places.
    ///
    /// # Errors
    /// Namespaces can't be made.
    pub fn new() -> Result<Self> {
        let scratch = Scratch::new()?;
        let router = Namespace::new("router")?;
        router.sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")?;
        Ok(Self { router, scratch })
    }

    /// A place, linked and routed in both families.
    ///
    /// # Errors
    /// The namespace or a link can't be made.
    pub fn add(&self, place: Place) -> Result<Host> {
        let host = Host { namespace: Namespace::new(place.name)?, place };
        self.link(&host)?;
        Ok(host)
    }

    /// Makes the link of a place, once more if it was deleted.
    ///
    /// # Errors
    /// The link can't be made.
    pub fn link(&self, host: &Host) -> Result<()> {
        let (name, interface) = (host.place.name, Host::INTERFACE);
        let (v4, v6) = (host.place.v4, host.place.v6);
        let [a, b, c, _] = v4.octets();
        let [s0, s1, s2, s3, ..] = v6.segments();
        let gateway4 = Ipv4Addr::new(a, b, c, 1);
        let gateway6 = Ipv6Addr::new(s0, s1, s2, s3, 0, 0, 0, 1);
        // Where both ends have the same index, the kernel takes up to a second to notice the carrier
        // (linkwatch_urgent_event), in which packets are lost. The first link inside a place has index 2.
        let index = 1000 + u32::from(s3);
        let (host_mac, router_mac) = (host.mac(), host.router_mac());
        self.router.sh(&format!(
            "ip link add {name} index {index} address {router_mac} type veth peer name {interface} address {host_mac} netns {}
             ip address add {gateway4}/24 dev {name}
             ip link set {name} addrgenmode none
             ip address add fe80::1/64 dev {name} nodad
             ip address add {gateway6}/64 dev {name} nodad
             ip link set {name} up",
            host.namespace.name()
        ))?;
        host.namespace.sh(&format!(
            "ip address add {v4}/24 dev {interface}
             ip link set {interface} addrgenmode none
             ip address add fe80::2/64 dev {interface} nodad
             ip address add {v6}/64 dev {interface} nodad
             ip link set {interface} up
             ip route add default via {gateway4}
             ip -6 route add default via {gateway6}"
        ))?;
        Ok(())
    }
}

impl Host {
    /// Name of the interface inside each place.
    pub const INTERFACE: &'static str = "eth0";

    /// Hardware address of its interface.
    #[must_use]
    pub fn mac(&self) -> String {
        self.hardware_address(0)
    }

    /// Hardware address of the router's interface towards it.
    #[must_use]
    pub fn router_mac(&self) -> String {
        self.hardware_address(1)
    }

    fn hardware_address(&self, side: u8) -> String {
        let [a, b, c, d] = self.place.v4.octets();
        format!("02:{side:02x}:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
    }
}
