//! Frames for the generator. Source, checksums and what is varied are zero; the generator fills them in.

use anyhow::{Context as _, Result};
use etherparse::{IpFragOffset, IpNumber, Ipv4Header, PacketBuilder};
use testbed::Host;

// Bits of `vary`, as in the program.
const VARY_PORT: u64 = 1;
const VARY_IDENTIFICATION: u64 = 2;
const SUM_TCP: u64 = 4;

/// What the generator sends.
pub(crate) struct Frame {
    pub(crate) bytes: Vec<u8>,
    pub(crate) vary: u64,
    /// Not folded.
    pub(crate) header_sum: u64,
    /// Likewise, the pseudo header included.
    pub(crate) segment_sum: u64,
}

impl Frame {
    /// A SYN as Linux sends it, of a random port.
    pub(crate) fn syn(host: &Host, port: u16) -> Result<Self> {
        let link = PacketBuilder::ethernet2(hardware(&host.router_mac())?, hardware(&host.mac())?);
        let packet = link
            .ipv4([0; 4], host.place.v4.octets(), 64)
            .tcp(0, port, 1, 64240)
            .syn()
            .options_raw(&[2, 4, 5, 180, 4, 2, 1, 1])?;
        let mut bytes = Vec::with_capacity(packet.size(0));
        packet.write(&mut bytes, &[])?;
        bytes[24..26].fill(0);
        bytes[50..52].fill(0);
        let length = (bytes.len() - 34) as u64;
        Ok(Self {
            vary: VARY_PORT | SUM_TCP,
            header_sum: sum(&bytes[14..34]),
            segment_sum: sum(&bytes[34..]) + sum(&host.place.v4.octets()) + 6 + length,
            bytes,
        })
    }

    /// The bytes with that source; the checksums are not made.
    pub(crate) fn with_source(&self, source: [u8; 4]) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        bytes[26..30].copy_from_slice(&source);
        bytes
    }

    /// The first fragment of a UDP packet to a port, of a random port and identification; the rest never comes.
    pub(crate) fn first_fragment(host: &Host, port: u16) -> Result<Self> {
        const PAYLOAD: usize = 64;
        let udp = [[0, 0], port.to_be_bytes(), (1000_u16).to_be_bytes(), [0, 0]].concat();
        let mut ip =
            Ipv4Header::new((8 + PAYLOAD) as u16, 64, IpNumber::UDP, [0; 4], host.place.v4.octets())?;
        ip.dont_fragment = false;
        ip.more_fragments = true;
        ip.fragment_offset = IpFragOffset::ZERO;
        let mut bytes = [hardware(&host.mac())?, hardware(&host.router_mac())?].concat();
        bytes.extend([8, 0]);
        ip.write_raw(&mut bytes)?;
        bytes.extend(udp);
        bytes.resize(bytes.len() + PAYLOAD, 0);
        bytes[24..26].fill(0);
        Ok(Self {
            vary: VARY_PORT | VARY_IDENTIFICATION,
            header_sum: sum(&bytes[14..34]),
            segment_sum: 0,
            bytes,
        })
    }
}

/// The sum of RFC 1071, not folded.
fn sum(bytes: &[u8]) -> u64 {
    bytes.chunks(2).map(|word| u64::from(word[0]) << 8 | u64::from(word.get(1).copied().unwrap_or(0))).sum()
}

fn hardware(address: &str) -> Result<[u8; 6]> {
    let mut octets = [0; 6];
    let mut parts = address.split(':');
    for octet in &mut octets {
        *octet = u8::from_str_radix(parts.next().context("six octets")?, 16).context("hexadecimal")?;
    }
    Ok(octets)
}
