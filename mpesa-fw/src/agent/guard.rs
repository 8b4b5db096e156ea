//! The lock-out guard: a policy that would cut connections that are open now is refused, the SSH connection of the
//! admin who asks for it before all others.

use std::net::{IpAddr, SocketAddr};

use mpesa_fw_common::{Direction, DropReason, Mode, Reason, owner::Owner};
use serde::{Deserialize, Serialize};

use super::{
    frame::{ACK, Ends, SYN},
    holder::Holder,
    interfaces::Choice,
    judge::Judge,
    sockets::Sockets,
    view::{Layer, View},
    would_cut::Cut,
};

/// Both ends of the caller's SSH connection, as `SSH_CONNECTION` says them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SshConnection {
    /// Where the admin is.
    pub client: IpAddr,
    /// The admin's port.
    pub client_port: u16,
    /// The address of this host that was called.
    pub server: IpAddr,
    /// The port of sshd.
    pub server_port: u16,
}

impl SshConnection {
    /// Reads the value of `SSH_CONNECTION`: `203.0.113.7 52814 10.0.0.5 22`. A zone (`fe80::1%eth0`) is left out.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        let words: Vec<&str> = value.split_whitespace().collect();
        let [client, client_port, server, server_port] = words[..] else { return None };
        let address = |word: &str| -> Option<IpAddr> {
            let (address, _zone) = word.split_once('%').unwrap_or((word, ""));
            address.parse::<IpAddr>().ok().map(|a| a.to_canonical())
        };
        let (client, server) = (address(client)?, address(server)?);
        let (client_port, server_port) = (client_port.parse().ok()?, server_port.parse().ok()?);
        Some(Self { client, client_port, server, server_port })
    }

    pub(super) fn cut(&self, direction: Direction, reason: DropReason) -> Cut {
        Cut {
            protocol: "tcp".to_owned(),
            local: SocketAddr::new(self.server, self.server_port),
            remote: SocketAddr::new(self.client, self.client_port),
            opened: Direction::Ingress,
            direction,
            reason,
        }
    }
}

/// Judges a TCP connection that the other end opened: what it sends and what is answered. `servers`: whose the sockets are that wait
/// for such connections; it is enough that one of them may answer. Where there is none, or it can't be told, whoever accepted it may.
///
/// # Errors
/// Which of them would be dropped, and why.
pub(super) fn inbound(
    judge: &Judge<'_>,
    connection: SshConnection,
    servers: &[Holder],
) -> Result<(), (Direction, DropReason)> {
    called(judge, connection, Owner::UNKNOWN, |call| call.tcp(SYN), |reply| reply.tcp(ACK))?;
    if !judge.has_owners() {
        return Ok(());
    }
    let owners: Option<Vec<Owner>> = servers.iter().map(|holder| judge.owner(holder)).collect();
    let mut answered = Ok(());
    for owner in owners.unwrap_or_default() {
        // Only what accepts a connection is asked for its owner.
        answered = called(judge, connection, owner, |call| call.tcp(SYN), |reply| reply.tcp(SYN | ACK));
        if answered.is_ok() {
            break;
        }
    }
    answered
}

/// Likewise for datagrams, which are answered by a socket of that holder.
///
/// # Errors
/// Which of them would be dropped, and why.
pub(super) fn inbound_udp(
    judge: &Judge<'_>,
    connection: SshConnection,
    holder: &Holder,
) -> Result<(), (Direction, DropReason)> {
    let owner = judge.owner(holder);
    match called(judge, connection, owner.unwrap_or(Owner::UNKNOWN), Ends::udp, Ends::udp) {
        Err((_, DropReason::OwnerNotAllowed)) if owner.is_none() => Ok(()),
        judged => judged,
    }
}

fn called(
    judge: &Judge<'_>,
    connection: SshConnection,
    owner: Owner,
    call: impl FnOnce(Ends) -> Option<Vec<u8>>,
    reply: impl FnOnce(Ends) -> Option<Vec<u8>>,
) -> Result<(), (Direction, DropReason)> {
    let client = SocketAddr::new(connection.client, connection.client_port);
    let server = SocketAddr::new(connection.server, connection.server_port);
    let Some(call) = call(Ends { source: client, target: server }) else { return Ok(()) };
    if let Reason::Drop(reason) = judge.ingress(&call).reason {
        return Err((Direction::Ingress, reason));
    }
    let Some(reply) = reply(Ends { source: server, target: client }) else { return Ok(()) };
    if let Reason::Drop(reason) = judge.egress(&reply, server.port(), owner).reason {
        return Err((Direction::Egress, reason));
    }
    Ok(())
}

/// Judges the caller's connection by the generation that would run.
///
/// # Errors
/// It would be dropped, in a mode that drops, at an interface that will be protected.
pub(super) fn check(
    judge: &Judge<'_>,
    mode: Mode,
    connection: SshConnection,
    sockets: &Sockets,
    view: &View,
    choice: &Choice,
) -> Result<(), Cut> {
    let drops = match mode {
        Mode::Enforce => true,
        Mode::Observe => false,
    };
    if !drops || !passes_a_hook(connection, view, |index| choice.protect.contains_key(&index)) {
        return Ok(());
    }
    let servers = sockets.servers(connection.server, connection.server_port);
    inbound(judge, connection, &servers).map_err(|(direction, reason)| connection.cut(direction, reason))
}

/// Whether the connection may come in at a protected interface, as far as its address tells. An address that no
/// interface has (it may be translated on the way) counts as protected, and so does one of loopback or of an interface
/// without a wire: packets to it come in elsewhere.
pub(super) fn passes_a_hook(
    connection: SshConnection,
    view: &View,
    is_protected: impl Fn(u32) -> bool,
) -> bool {
    if connection.client.is_loopback() || view.addresses.iter().any(|(_, a)| *a == connection.client) {
        return false;
    }
    let protected = view.links.keys().copied().filter(|index| is_protected(*index)).collect();
    let has_wire = |index: &u32| {
        view.links
            .get(index)
            .is_some_and(|link| link.layer != Layer::Loopback && link.kind.as_deref() != Some("dummy"))
    };
    let mut on =
        view.addresses.iter().filter(|(_, a)| *a == connection.server).map(|(index, _)| index).peekable();
    on.peek().is_none() || on.any(|index| !has_wire(index) || view.touches(*index, &protected))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, io::Write as _, os::unix::fs::PermissionsExt as _};

    use super::*;
    use crate::{
        agent::{
            archive::Archive, interfaces::choose, origin::Origin, prepare::Prepared, view::Link,
            would_cut::WouldCut,
        },
        compile::RegistryRows,
    };

    fn prepared(ingress: &str, egress: &str) -> Prepared {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o600)).unwrap();
        write!(
            file,
            "version: 1\nmode: enforce\ninterfaces: [eth0]\ningress:\n  default: {ingress}\n  services:\n    \
             - {{ name: ssh, ports: [22], from: [203.0.113.7, \"2001:db8::/64\"] }}\negress:\n  default: {egress}\n  allow: []\n",
        )
        .unwrap();
        // Closed: a file that is open for writing is not read.
        let path = file.into_temp_path();
        let wanted = Origin::File(path.to_path_buf());
        let archive = Archive::below(std::path::Path::new("/nowhere"));
        Prepared::read(&wanted, &archive, &RegistryRows::default()).unwrap()
    }

    fn view() -> View {
        let link = |index, name: &str| Link {
            index,
            name: name.into(),
            kind: None,
            layer: Layer::Ethernet,
            master: None,
            parent: None,
            xdp_program: 0,
            mtu: 1500,
        };
        View {
            links: BTreeMap::from([(2, link(2, "eth0")), (3, link(3, "eth1"))]),
            addresses: [(2, "10.0.0.5".parse().unwrap()), (3, "10.1.0.5".parse().unwrap())].into(),
            ..View::default()
        }
    }

    fn outcome(prepared: &Prepared, mode: Mode, connection: &str) -> Result<(), Cut> {
        outcome_in(view(), prepared, mode, connection)
    }

    fn outcome_in(view: View, prepared: &Prepared, mode: Mode, connection: &str) -> Result<(), Cut> {
        let choice = choose(&prepared.policy.interfaces, &view);
        let own: Vec<IpAddr> = view.addresses.iter().map(|(_, a)| *a).collect();
        let judge = Judge::new(&prepared.compiled, own, &BTreeMap::new());
        let nobody = Sockets::default();
        check(&judge, mode, SshConnection::parse(connection).unwrap(), &nobody, &view, &choice)
    }

    #[test]
    fn whoever_is_allowed_passes_and_others_are_told_why_not() {
        let policy = prepared("drop", "drop");
        assert_eq!(outcome(&policy, Mode::Enforce, "203.0.113.7 50000 10.0.0.5 22"), Ok(()));
        assert_eq!(outcome(&policy, Mode::Enforce, "2001:db8::7 50000 2001:db8:1::5 22"), Ok(()));
        let cut = outcome(&policy, Mode::Enforce, "203.0.113.8 50000 10.0.0.5 22").unwrap_err();
        assert_eq!((cut.direction, cut.reason), (Direction::Ingress, DropReason::SourceNotAllowed));
        let cut = outcome(&policy, Mode::Enforce, "203.0.113.7 50000 10.0.0.5 2222").unwrap_err();
        assert_eq!(cut.reason, DropReason::NoService);
        let refusal = WouldCut { own: Some(cut), ..WouldCut::default() }.to_string();
        assert!(refusal.contains("from 203.0.113.7 to 10.0.0.5 port 2222"), "{refusal}");
    }

    #[test]
    fn replies_count_too() {
        let cut = outcome(&prepared("pass", "drop"), Mode::Enforce, "198.51.100.1 50000 10.0.0.5 2222")
            .unwrap_err();
        assert_eq!(cut.direction, Direction::Egress);
        assert_eq!(
            outcome(&prepared("pass", "pass"), Mode::Enforce, "198.51.100.1 50000 10.0.0.5 2222"),
            Ok(())
        );
    }

    #[test]
    fn observe_mode_and_other_interfaces_cut_nothing() {
        let policy = prepared("drop", "drop");
        assert_eq!(outcome(&policy, Mode::Observe, "203.0.113.8 50000 10.0.0.5 22"), Ok(()));
        assert_eq!(
            outcome(&policy, Mode::Enforce, "203.0.113.8 50000 10.1.0.5 22"),
            Ok(()),
            "eth1 is not protected"
        );
        assert_eq!(outcome(&policy, Mode::Enforce, "127.0.0.1 50000 127.0.0.1 22"), Ok(()));
        // An address that no interface has may be translated on the way here: not known not to be protected.
        assert!(outcome(&policy, Mode::Enforce, "203.0.113.8 50000 192.0.2.1 22").is_err());
    }

    #[test]
    fn an_address_above_a_protected_interface_passes_its_hook() {
        let policy = prepared("drop", "drop");
        let cut =
            |view: View| outcome_in(view, &policy, Mode::Enforce, "203.0.113.8 50000 10.0.0.5 22").is_err();
        let moved = |kind: &str, layer: Layer| {
            let mut view = view();
            view.addresses = [(9, "10.0.0.5".parse().unwrap())].into();
            let eth0 = view.links[&2].clone();
            view.links
                .insert(9, Link { index: 9, name: "above".into(), kind: Some(kind.into()), layer, ..eth0 });
            view
        };
        let mut bridge = moved("bridge", Layer::Ethernet);
        assert!(!cut(bridge.clone()), "a bridge of something else");
        bridge.links.get_mut(&2).unwrap().master = Some(9);
        assert!(cut(bridge), "eth0 is a port of the bridge");
        let mut vlan = moved("vlan", Layer::Ethernet);
        vlan.links.get_mut(&9).unwrap().parent = Some(2);
        assert!(cut(vlan), "a VLAN of eth0");
        assert!(cut(moved("dummy", Layer::Ethernet)), "packets to a dummy's address come in elsewhere");
        assert!(cut(moved("loopback", Layer::Loopback)), "so do those to an address of loopback");
    }

    #[test]
    fn the_variable_of_sshd_is_understood() {
        let parse = SshConnection::parse;
        let zone = parse("fe80::1%eth0 50000 fe80::2%eth0 22").unwrap();
        assert_eq!((zone.client.to_string(), zone.server_port), ("fe80::1".to_owned(), 22));
        assert_eq!(
            parse("::ffff:203.0.113.7 1 ::ffff:10.0.0.5 22").unwrap().client.to_string(),
            "203.0.113.7"
        );
        assert_eq!(parse(""), None);
        assert_eq!(parse("a b c d"), None);
        assert_eq!(parse("203.0.113.7 50000 10.0.0.5"), None);
    }
}
