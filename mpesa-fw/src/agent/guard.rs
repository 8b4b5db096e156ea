//! The lock-out guard: a policy that would cut the SSH connection of the admin who asks for it is refused.

use std::net::IpAddr;

use mpesa_fw_common::{DropReason, Mode, Reason};
use serde::{Deserialize, Serialize};

use super::{
    interfaces::{Choice, View},
    judge::Judge,
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

/// What would become of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "refused: this policy would cut your own SSH connection from {} to {} port {} ({}: {})",
    .connection.client, .connection.server, .connection.server_port, .direction, .reason.label()
)]
pub struct WouldCut {
    /// The connection.
    pub connection: SshConnection,
    /// Whether its packets or the replies would be dropped.
    pub direction: &'static str,
    /// Why.
    pub reason: DropReason,
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
}

/// Judges the connection by the generation that would run.
///
/// # Errors
/// It would be dropped, in a mode that drops, at an interface that will be protected.
pub fn check(judge: &Judge<'_>, mode: Mode, connection: SshConnection, view: &View, choice: &Choice) -> Result<(), WouldCut> {
    let drops = match mode {
        Mode::Enforce => true,
        Mode::Observe => false,
    };
    if !drops || !passes_a_hook(connection, view, choice) {
        return Ok(());
    }
    let SshConnection { client, client_port, server, server_port } = connection;
    let cut = |direction, reason| WouldCut { connection, direction, reason };
    let Some(call) = tcp_frame((client, client_port), (server, server_port), SYN) else { return Ok(()) };
    if let Reason::Drop(reason) = judge.ingress(&call).reason {
        return Err(cut("ingress", reason));
    }
    let Some(reply) = tcp_frame((server, server_port), (client, client_port), ACK) else { return Ok(()) };
    if let Reason::Drop(reason) = judge.egress(&reply, server_port).reason {
        return Err(cut("egress", reason));
    }
    Ok(())
}

/// Whether the connection comes in at a protected interface, as far as its address tells. An address that no
/// interface has (it may be translated on the way) counts as protected.
fn passes_a_hook(connection: SshConnection, view: &View, choice: &Choice) -> bool {
    if connection.client.is_loopback() || view.addresses.iter().any(|(_, a)| *a == connection.client) {
        return false;
    }
    let mut on = view.addresses.iter().filter(|(_, a)| *a == connection.server).map(|(index, _)| index).peekable();
    on.peek().is_none() || on.any(|index| choice.protect.contains_key(index))
}

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// An Ethernet frame with a TCP segment without payload. Checksums are left 0: no hook looks at them. None where the
/// two ends are of different families.
fn tcp_frame(source: (IpAddr, u16), target: (IpAddr, u16), flags: u8) -> Option<Vec<u8>> {
    const TCP: u8 = 6;
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    match (source.0, target.0) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            frame.extend([0x08, 0x00, 0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, TCP, 0, 0]);
            frame.extend(from.octets());
            frame.extend(to.octets());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, TCP, 64]);
            frame.extend(from.octets());
            frame.extend(to.octets());
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
    }
    frame.extend(source.1.to_be_bytes());
    frame.extend(target.1.to_be_bytes());
    frame.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    Some(frame)
}
