//! Addresses of both families in one shape.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Address family of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Family {
    /// IPv4, RFC 791.
    V4 = 4,
    /// IPv6, RFC 8200.
    V6 = 6,
}

/// An IPv4 or IPv6 address as four 32-bit words in host byte order, most significant first.
///
/// IPv4 is held in its mapped form, `::ffff:a.b.c.d` (RFC 4291, 2.5.5.2). A packet that carries a
/// mapped address on the wire is dropped as `spoofed`, so the two families can't be mistaken for each other.
///
/// Words, not a `u128`: a variable shift of a `u128` doesn't link for BPF.
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Address {
    /// Most significant word first.
    pub words: [u32; 4],
}

const MAPPED: u32 = 0x0000_ffff;

impl Address {
    /// `::`, also used for "no address".
    pub const UNSPECIFIED: Self = Self { words: [0; 4] };

    /// From the 32 bits of an IPv4 address in host byte order.
    #[inline(always)]
    #[must_use]
    pub const fn v4(bits: u32) -> Self {
        Self { words: [0, 0, MAPPED, bits] }
    }

    /// From the four octets of an IPv4 address as they stand in a packet.
    #[inline(always)]
    #[must_use]
    pub const fn from_v4_octets(octets: [u8; 4]) -> Self {
        Self::v4(u32::from_be_bytes(octets))
    }

    /// From the sixteen octets of an IPv6 address as they stand in a packet.
    #[inline(always)]
    #[must_use]
    pub const fn from_v6_octets(o: [u8; 16]) -> Self {
        Self {
            words: [
                u32::from_be_bytes([o[0], o[1], o[2], o[3]]),
                u32::from_be_bytes([o[4], o[5], o[6], o[7]]),
                u32::from_be_bytes([o[8], o[9], o[10], o[11]]),
                u32::from_be_bytes([o[12], o[13], o[14], o[15]]),
            ],
        }
    }

    /// The 32 bits of an IPv4 address in host byte order; meaningless for IPv6.
    #[inline(always)]
    #[must_use]
    pub const fn v4_bits(&self) -> u32 {
        self.words[3]
    }

    /// Whether it can be a host's: neither unspecified, nor loopback, nor multicast or reserved, nor in the old form ::/96
    /// (RFC 4291 2.5.5.1). A blocking resolver answers 0.0.0.0 or 127.0.0.1.
    #[inline(always)]
    #[must_use]
    pub const fn is_host(&self) -> bool {
        let [first, second, third, bits] = self.words;
        if first | second == 0 && third == MAPPED {
            return !matches!(bits >> 24, 0 | 127 | 224..=255);
        }
        first | second | third != 0 && first >> 24 != 0xff
    }

    /// High and low 64 bits in host byte order.
    #[inline(always)]
    #[must_use]
    pub const fn halves(&self) -> (u64, u64) {
        (
            ((self.words[0] as u64) << 32) | self.words[1] as u64,
            ((self.words[2] as u64) << 32) | self.words[3] as u64,
        )
    }

    /// Whether this is an IPv4 address in mapped form.
    #[inline(always)]
    #[must_use]
    pub const fn is_v4(&self) -> bool {
        self.words[0] == 0 && self.words[1] == 0 && self.words[2] == MAPPED
    }

    /// Sixteen bits that stand for the address in the hint of [`State`](crate::state::State): a cheap
    /// look-up that can say "certainly not one of ours" before the exact one is asked.
    #[inline(always)]
    #[must_use]
    pub const fn hint(&self) -> u16 {
        let w = self.words[0] ^ self.words[1] ^ self.words[2] ^ self.words[3];
        ((w >> 16) ^ w) as u16
    }
}

impl From<core::net::IpAddr> for Address {
    fn from(address: core::net::IpAddr) -> Self {
        match address {
            core::net::IpAddr::V4(v4) => Self::from_v4_octets(v4.octets()),
            core::net::IpAddr::V6(v6) => Self::from_v6_octets(v6.octets()),
        }
    }
}

impl From<Address> for core::net::IpAddr {
    fn from(address: Address) -> Self {
        if address.is_v4() {
            return core::net::Ipv4Addr::from(address.v4_bits()).into();
        }
        let (high, low) = address.halves();
        core::net::Ipv6Addr::from((u128::from(high) << 64) | u128::from(low)).into()
    }
}

impl core::fmt::Debug for Address {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(&core::net::IpAddr::from(*self), f)
    }
}
