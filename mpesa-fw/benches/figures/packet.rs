//! The packet that is denied: a TCP SYN to the callback port. Its source is varied in the kernel.

use std::net::IpAddr;

use anyhow::Result;
use etherparse::PacketBuilder;

/// The port of the callbacks.
pub(crate) const PORT: u16 = 443;
/// This host.
pub(crate) const LOCAL4: [u8; 4] = [10, 0, 0, 5];
/// This host.
pub(crate) const LOCAL6: [u8; 16] = [0x2c, 0x0f, 0xf0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5];

/// A SYN of 60 bytes and more, as Linux sends it.
pub(crate) fn syn(v4: bool) -> Result<Vec<u8>> {
    let link = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let network = if v4 { link.ipv4([192, 0, 2, 1], LOCAL4, 64) } else { link.ipv6([0x20; 16], LOCAL6, 64) };
    let packet = network.tcp(40000, PORT, 1, 64240).syn().options_raw(&[2, 4, 5, 180, 4, 2, 1, 1])?;
    let mut bytes = Vec::with_capacity(packet.size(0));
    packet.write(&mut bytes, &[])?;
    Ok(bytes)
}

/// This host's address of a family.
pub(crate) fn local(v4: bool) -> IpAddr {
    if v4 { IpAddr::from(LOCAL4) } else { IpAddr::from(LOCAL6) }
}
