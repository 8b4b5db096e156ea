//! Asks the kernel for its interfaces, addresses and default routes (rtnetlink), and hears of changes.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "netlink's enums grow with the kernel; what they gain means nothing here"
)]

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use futures_util::StreamExt;
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::{
    MulticastGroup, RouteMessageBuilder,
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        address::{AddressAttribute, AddressHeaderFlags, AddressMessage},
        link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkXdp},
        route::{RouteAttribute, RouteHeader, RouteMessage, RouteType},
    },
};
use tokio::{task::JoinHandle, time::sleep};

use super::{
    dump::{DumpError, Dumps},
    view::{Layer, Link, View},
};

/// Routes are only asked for where the policy says `default`; a router's table is large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Routes {
    /// Needed.
    Ask,
    /// Not needed.
    Leave,
}

/// What changes while it is read is read again, so often.
const TRIES: usize = 10;
/// Pause before that.
const PAUSE: Duration = Duration::from_millis(20);

/// Reads everything, in the network namespace of this process.
///
/// # Errors
/// The kernel refuses the socket or a question, or its lists changed each time that they were read.
pub(super) async fn view(routes: Routes) -> Result<View, DumpError> {
    let dumps = Dumps::open()?;
    for _ in 1..TRIES {
        match view_once(&dumps, routes).await {
            Err(DumpError::Interrupted) => sleep(PAUSE).await,
            view => return view,
        }
    }
    view_once(&dumps, routes).await
}

async fn view_once(dumps: &Dumps, routes: Routes) -> Result<View, DumpError> {
    let mut view = View::default();
    let mut up = BTreeSet::new();
    let links = |message| {
        let RouteNetlinkMessage::NewLink(message) = message else { return };
        if message.header.flags.contains(LinkFlags::Up) {
            up.insert(message.header.index);
        }
        if let Some(link) = link(&message) {
            view.links.insert(link.index, link);
        }
    };
    dumps.each(RouteNetlinkMessage::GetLink(LinkMessage::default()), links).await?;
    let addresses = |message| {
        let RouteNetlinkMessage::NewAddress(message) = message else { return };
        view.addresses.extend(address(&message).map(|a| (message.header.index, a)));
        // The subnet of an interface that is down may be behind another one (`fib_add_ifaddr` looks at it too).
        if up.contains(&message.header.index) {
            view.broadcasts.extend(broadcasts(&message));
        }
    };
    dumps.each(RouteNetlinkMessage::GetAddress(AddressMessage::default()), addresses).await?;
    if routes == Routes::Ask {
        let questions = [
            RouteMessageBuilder::<Ipv4Addr>::new().build(),
            RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
        ];
        for question in questions {
            let routes = |message| {
                let RouteNetlinkMessage::NewRoute(message) = message else { return };
                view.default_routes.extend(default_route(&message));
            };
            dumps.each(RouteNetlinkMessage::GetRoute(question), routes).await?;
        }
    }
    Ok(view)
}

/// Hears of changes.
pub(super) struct Changes {
    messages: futures_util::stream::BoxStream<'static, NetlinkMessage<RouteNetlinkMessage>>,
    driver: JoinHandle<()>,
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// What a message of the kernel asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Something that matters may have changed: read everything again.
    Any,
    /// The kernel had more to say than the socket could hold: read everything again.
    Overrun,
    /// The socket is gone: open another one, then read everything again.
    Closed,
}

impl Changes {
    /// Subscribes in the network namespace of this process.
    ///
    /// # Errors
    /// The kernel refuses the socket.
    pub(super) fn subscribe() -> io::Result<Self> {
        let (connection, _, messages) = rtnetlink::new_multicast_connection(&[
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
        ])?;
        let messages = messages.map(|(message, _)| message).boxed();
        Ok(Self { messages, driver: tokio::spawn(connection) })
    }

    /// Waits for the next change that matters.
    pub(super) async fn next(&mut self) -> Change {
        loop {
            match self.messages.next().await {
                None => return Change::Closed,
                Some(message) => match message.payload {
                    NetlinkPayload::Overrun(_) => return Change::Overrun,
                    NetlinkPayload::InnerMessage(message) if matters(&message) => return Change::Any,
                    _ => {}
                },
            }
        }
    }
}

/// Routes other than default ones come and go by the thousand on a router, and mean nothing here.
fn matters(message: &RouteNetlinkMessage) -> bool {
    match message {
        RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) => {
            route.header.destination_prefix_length == 0
        }
        RouteNetlinkMessage::NewLink(_)
        | RouteNetlinkMessage::DelLink(_)
        | RouteNetlinkMessage::NewAddress(_)
        | RouteNetlinkMessage::DelAddress(_) => true,
        _ => false,
    }
}

fn link(message: &LinkMessage) -> Option<Link> {
    let mut name = None;
    let mut kind = None;
    let mut master = None;
    let mut parent = None;
    let mut elsewhere = false;
    let mut mtu = 0;
    for attribute in &message.attributes {
        if let LinkAttribute::IfName(n) = attribute {
            name = Some(n.clone());
        }
        if let LinkAttribute::LinkInfo(infos) = attribute {
            kind = infos.iter().find_map(kind_of);
        }
        match attribute {
            LinkAttribute::Controller(index) => master = Some(*index),
            LinkAttribute::Link(index) => parent = Some(*index),
            LinkAttribute::LinkNetNsId(_) => elsewhere = true,
            LinkAttribute::Mtu(bytes) => mtu = *bytes,
            _ => {}
        }
    }
    // The "link" of a veth is its other end; that of an interface in another namespace has an index of there.
    if elsewhere || kind.as_deref() == Some("veth") {
        parent = None;
    }
    let layer = if message.header.link_layer_type == LinkLayerType::Ether {
        Layer::Ethernet
    } else if message.header.link_layer_type == LinkLayerType::Loopback {
        Layer::Loopback
    } else {
        Layer::Other(
            kind.clone().unwrap_or_else(|| format!("{:?}", message.header.link_layer_type).to_lowercase()),
        )
    };
    let xdp_program = message.attributes.iter().find_map(xdp_program).unwrap_or(0);
    Some(Link { index: message.header.index, name: name?, kind, layer, master, parent, xdp_program, mtu })
}

fn xdp_program(attribute: &LinkAttribute) -> Option<u32> {
    let LinkAttribute::Xdp(attributes) = attribute else { return None };
    attributes.iter().find_map(|xdp| match xdp {
        LinkXdp::ProgId(id) => Some(*id),
        _ => None,
    })
}

fn kind_of(info: &LinkInfo) -> Option<String> {
    if let LinkInfo::Kind(kind) = info { Some(InfoKind::to_string(kind)) } else { None }
}

/// `IFA_LOCAL` is this host's end of a point-to-point address, `IFA_ADDRESS` the other end; IPv6 often has only the latter.
///
/// None for an address that is not this host's yet: while duplicates are looked for (RFC 4862 5.4), whoever has it
/// already says so from that address, and must be heard.
fn address(message: &AddressMessage) -> Option<IpAddr> {
    if message.header.flags.contains(AddressHeaderFlags::Tentative) {
        return None;
    }
    let local = message.attributes.iter().find_map(|a| match a {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    local.or_else(|| {
        message.attributes.iter().find_map(|a| match a {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })
}

/// The directed broadcast addresses of an address's subnet: the one that it was given, and the last of the subnet, which the
/// kernel takes for one in any case (`fib_add_ifaddr`). A /31 has none (RFC 3021), nor has an address of a
/// point-to-point link.
fn broadcasts(message: &AddressMessage) -> Vec<IpAddr> {
    let mut local = None;
    let mut subnet = None;
    let mut given = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(IpAddr::V4(address)) => local = Some(*address),
            AddressAttribute::Address(IpAddr::V4(address)) => subnet = Some(*address),
            AddressAttribute::Broadcast(address) => given = Some(*address),
            _ => {}
        }
    }
    let (Some(subnet), 0..=30) = (subnet, message.header.prefix_len) else { return Vec::new() };
    if subnet.is_loopback() || local.is_some_and(|local| local != subnet) {
        return Vec::new();
    }
    let last = Ipv4Addr::from_bits(subnet.to_bits() | (u32::MAX >> message.header.prefix_len));
    given.into_iter().chain([last]).map(IpAddr::V4).collect()
}

/// The interfaces of a default route in the main table that leads somewhere.
fn default_route(message: &RouteMessage) -> Vec<u32> {
    let header = &message.header;
    let ip = matches!(header.address_family, AddressFamily::Inet | AddressFamily::Inet6);
    let leads = ip && header.destination_prefix_length == 0 && header.kind == RouteType::Unicast;
    if !leads || header.table != RouteHeader::RT_TABLE_MAIN {
        return Vec::new();
    }
    message
        .attributes
        .iter()
        .flat_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => vec![*index],
            RouteAttribute::MultiPath(hops) => hops.iter().map(|hop| hop.interface_index).collect(),
            _ => Vec::new(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(attributes: &[AddressAttribute], prefix_len: u8) -> Vec<String> {
        let mut message = AddressMessage::default();
        message.header.prefix_len = prefix_len;
        message.attributes = attributes.to_vec();
        broadcasts(&message).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_subnet_has_a_broadcast_address_and_a_link_between_two_has_none() {
        let local = |address: &str| AddressAttribute::Local(address.parse().unwrap());
        let end = |address: &str| AddressAttribute::Address(address.parse().unwrap());
        let given = |address: &str| AddressAttribute::Broadcast(address.parse().unwrap());
        let plain = [local("10.0.0.5"), end("10.0.0.5")];
        assert_eq!(of(&plain, 24), ["10.0.0.255"]);
        assert_eq!(of(&plain, 30), ["10.0.0.7"]);
        assert_eq!(of(&plain, 8), ["10.255.255.255"]);
        assert_eq!(
            of(&[local("10.0.0.5"), end("10.0.0.5"), given("10.0.0.9")], 24),
            ["10.0.0.9", "10.0.0.255"]
        );
        assert_eq!(of(&plain, 31), [] as [&str; 0]);
        assert_eq!(of(&plain, 32), [] as [&str; 0]);
        assert_eq!(of(&[local("10.0.0.5"), end("10.9.0.1")], 24), [] as [&str; 0], "point to point");
        assert_eq!(of(&[local("127.0.0.1"), end("127.0.0.1")], 8), [] as [&str; 0]);
        assert_eq!(of(&[end("2001:db8::5")], 64), [] as [&str; 0]);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn this_machine_has_a_loopback() {
        let view = view(Routes::Ask).await.unwrap();
        let lo = view.links.values().find(|link| link.name == "lo").unwrap();
        assert_eq!(lo.layer, Layer::Loopback);
    }

    /// Interfaces come and go without a pause, so that most lists change while they are read.
    #[test]
    #[ignore = "needs root and a kernel"]
    fn a_list_that_changed_while_it_was_read_is_not_taken_for_whole() {
        let namespace = testbed::Namespace::new("churn").unwrap();
        let pairs = |n: u32| format!("link add a{n} type veth peer name b{n}\n");
        let batch = |lines: String| {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            std::io::Write::write_all(&mut file, lines.as_bytes()).unwrap();
            file
        };
        let stay = batch((0..100).map(pairs).collect());
        namespace.sh(&format!("ip -batch {}", stay.path().display())).unwrap();
        let come_and_go = batch("link add x type veth peer name y\nlink del x\n".repeat(20_000));
        let mut churn = namespace.command("ip");
        let mut churn = churn.arg("-batch").arg(come_and_go.path()).spawn().unwrap();
        let looks = || async {
            let dumps = Dumps::open().unwrap();
            let mut interrupted = 0;
            for _ in 0..100 {
                match view_once(&dumps, Routes::Leave).await {
                    Ok(view) => assert!(view.links.len() > 200, "{} links", view.links.len()),
                    Err(DumpError::Interrupted) => interrupted += 1,
                    Err(error) => panic!("{error}"),
                }
            }
            interrupted
        };
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let interrupted = namespace.inside(|| runtime().block_on(looks()));
        assert!(churn.try_wait().unwrap().is_none(), "it was over before the last look");
        churn.kill().unwrap();
        churn.wait().unwrap();
        assert!(interrupted > 0, "no list was marked");
        let view = namespace.inside(|| runtime().block_on(view(Routes::Leave))).unwrap();
        assert!(view.links.len() > 200);
    }
}
