//! A packet of a test run, and what varies in it from run to run: the other side of the bench's `vary`.

use crate::sets::Sources;

/// Elements of `BENCH_PLACES`.
pub(crate) const PLACES: usize = 1 << 14;

/// What the programs are given.
pub(crate) struct Traffic {
    pub(crate) v4: bool,
    pub(crate) packet: Vec<u8>,
    pub(crate) address: Varied,
    pub(crate) number: Option<Number>,
}

/// An address that varies.
pub(crate) struct Varied {
    /// Where it lies in the frame.
    pub(crate) at: u64,
    /// The bits that are not random, high and low half (IPv4: the low 32 bits of the high half).
    pub(crate) places: Vec<[u64; 2]>,
    /// Whether the places are taken in turn; else one of the first 256 at random.
    pub(crate) in_turn: bool,
    /// The bits that are random.
    pub(crate) random: [u64; 2],
}

/// A port or an identification that varies.
pub(crate) struct Number {
    /// Where it lies in the frame.
    pub(crate) at: u64,
    /// The bits that do not vary.
    pub(crate) fixed: u16,
    /// Those that do: the same as in the address, where both are random.
    pub(crate) random: u16,
}

/// Where the source and the target lie in a frame without tags.
pub(crate) const fn source_at(v4: bool) -> u64 {
    if v4 { 14 + 12 } else { 14 + 8 }
}

/// Likewise.
pub(crate) const fn target_at(v4: bool) -> u64 {
    if v4 { 14 + 16 } else { 14 + 24 }
}

impl Traffic {
    /// A packet whose source varies.
    pub(crate) fn from(packet: Vec<u8>, sources: &Sources) -> Self {
        let address = Varied {
            at: source_at(sources.v4),
            places: sources.places.clone(),
            in_turn: false,
            random: sources.random,
        };
        Self { v4: sources.v4, packet, address, number: None }
    }

    /// Element of `BENCH_ORDERS`.
    pub(crate) fn orders(&self) -> [u64; 10] {
        let Self { v4, address, number, .. } = self;
        let [high, low] = address.random;
        let family = if *v4 { 4 } else { 6 };
        let (number_at, fixed, varied) = number
            .as_ref()
            .map_or((0, 0, 0), |number| (number.at, u64::from(number.fixed), u64::from(number.random)));
        [
            0x9e37_79b9_7f4a_7c15,
            0,
            u64::from(address.in_turn),
            address.at,
            family,
            high,
            low,
            number_at,
            fixed,
            varied,
        ]
    }
}
