//! Checksums, so that what gets past the firewall gets past the kernel's own checks too.

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// Fills in the checksums of an untagged frame, as far as its headers are simple and right. One that is not 0 stays.
pub(crate) fn fill(frame: &mut [u8]) {
    let _done = match frame.get(12..14) {
        Some([0x08, 0x00]) => ipv4(&mut frame[14..]),
        Some([0x86, 0xdd]) => ipv6(&mut frame[14..]),
        _ => None,
    };
}

fn ipv4(packet: &mut [u8]) -> Option<()> {
    let header = usize::from(*packet.first()? & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
    if packet[0] >> 4 != 4 || header < 20 || total < header || packet.len() < total {
        return None;
    }
    packet[10..12].fill(0);
    let sum = fold(sum(&packet[..header]));
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    let is_fragment = u16::from_be_bytes([packet[6], packet[7]]) & 0x3fff != 0;
    let protocol = packet[9];
    let addresses = sum_of_pseudo_header(&packet[12..20], protocol, total - header);
    if !is_fragment {
        transport(&mut packet[header..total], protocol, addresses)?;
    }
    Some(())
}

fn ipv6(packet: &mut [u8]) -> Option<()> {
    let payload = usize::from(u16::from_be_bytes([*packet.get(4)?, *packet.get(5)?]));
    if packet.len() < 40 + payload || packet[0] >> 4 != 6 {
        return None;
    }
    let protocol = packet[6];
    let addresses = sum_of_pseudo_header(&packet[8..40], protocol, payload);
    transport(&mut packet[40..40 + payload], protocol, addresses)
}

fn transport(segment: &mut [u8], protocol: u8, pseudo_header: u64) -> Option<()> {
    let (place, start) = match protocol {
        TCP => (16, pseudo_header),
        UDP => (6, pseudo_header),
        ICMPV6 => (2, pseudo_header),
        ICMP => (2, 0),
        _ => return None,
    };
    if *segment.get(place..place + 2)? != [0, 0] {
        return None; // as the case wants it
    }
    let value = fold(start + sum(segment));
    // Of UDP, 0 is "no checksum" (RFC 768).
    let value = if protocol == UDP && value == 0 { 0xffff } else { value };
    segment[place..place + 2].copy_from_slice(&value.to_be_bytes());
    Some(())
}

/// Of a whole UDP datagram that will be sent in pieces.
pub(crate) fn udp(addresses: &[u8], datagram: &mut [u8]) {
    let pseudo_header = sum_of_pseudo_header(addresses, UDP, datagram.len());
    let _done = transport(datagram, UDP, pseudo_header);
}

fn sum_of_pseudo_header(addresses: &[u8], protocol: u8, length: usize) -> u64 {
    sum(addresses) + u64::from(protocol) + length as u64
}

fn sum(bytes: &[u8]) -> u64 {
    let pairs = bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0)));
    pairs.sum()
}

/// The one's complement; the field itself has to be 0 in what was summed.
fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_1071() {
        assert_eq!(fold(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7])), !0xddf2);
    }

    #[test]
    fn a_filled_header_sums_to_nothing() {
        let mut frame = crate::frames::udp("192.0.2.1:5", "192.0.2.2:53");
        fill(&mut frame);
        assert_eq!(fold(sum(&frame[14..34])), 0);
        assert_ne!(&frame[40..42], &[0, 0]);
    }
}
