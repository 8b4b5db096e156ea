//! Prefix sets, and where the sources of the denied packets lie.

use std::collections::BTreeSet;
use std::fmt;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

/// Places that the sources are chosen from at random, as in the programs of the bench.
const PLACES: usize = 256;

/// How the prefixes lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spread {
    /// IPv4: anywhere. IPv6: anywhere in 2c0f::/16.
    Random,
    /// IPv4: in 196.201.0.0/16 and, from 100,000 on, its neighbours. IPv6: in as few /32 of 2c0f::/16.
    Clustered,
}

impl fmt::Display for Spread {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Random => "random",
            Self::Clustered => "clustered",
        })
    }
}

/// Prefixes of one family.
pub(crate) struct PrefixSet {
    pub(crate) v4: bool,
    pub(crate) spread: Spread,
    pub(crate) prefixes: Vec<IpNet>,
}

/// Where packets come from.
pub(crate) struct Sources {
    pub(crate) v4: bool,
    pub(crate) spread: Spread,
    /// The bits of a source that are not random, high and low half (IPv4: the low 32 bits of the high half).
    pub(crate) places: Vec<[u64; 2]>,
    /// The bits that are.
    pub(crate) random: [u64; 2],
}

impl PrefixSet {
    /// `count` different prefixes, the same in each run.
    pub(crate) fn new(v4: bool, spread: Spread, count: usize) -> Self {
        let mut random = StdRng::seed_from_u64(count as u64);
        let clusters = clusters(count);
        let mut prefixes = BTreeSet::new();
        while prefixes.len() < count {
            let prefix = if v4 {
                prefix4(&mut random, spread, &clusters)
            } else {
                prefix6(&mut random, spread, &clusters)
            };
            prefixes.insert(prefix);
        }
        Self { v4, spread, prefixes: prefixes.into_iter().collect() }
    }

    /// The word in the tables.
    pub(crate) const fn family(&self) -> &'static str {
        if self.v4 { "IPv4" } else { "IPv6" }
    }

    /// `count` addresses within the prefixes that an honest packet may come from, in no order and some more than once.
    pub(crate) fn members(&self, count: usize) -> Vec<[u64; 2]> {
        let mut random = StdRng::seed_from_u64(count as u64);
        let mut members = Vec::with_capacity(count);
        while members.len() < count {
            match pick(&mut random, &self.prefixes) {
                IpNet::V4(net) => {
                    let bits = u32::from(net.network()) | random.random::<u32>() & u32::from(net.hostmask());
                    if u64::from(bits >> 24).next_possible() == u64::from(bits >> 24) {
                        members.push([u64::from(bits), 0]);
                    }
                }
                IpNet::V6(net) => {
                    let bits =
                        u128::from(net.network()) | random.random::<u128>() & u128::from(net.hostmask());
                    members.push([(bits >> 64) as u64, bits as u64]);
                }
            }
        }
        members
    }

    /// What may be asked for this set: anywhere, and in its clusters if it has any.
    pub(crate) fn sources(&self) -> Vec<Sources> {
        let spreads = match self.spread {
            Spread::Random => &[Spread::Random][..],
            Spread::Clustered => &[Spread::Random, Spread::Clustered],
        };
        let clusters = clusters(self.prefixes.len());
        spreads.iter().map(|spread| Sources::new(self.v4, *spread, &clusters)).collect()
    }
}

impl Sources {
    fn new(v4: bool, spread: Spread, clusters: &[u16]) -> Self {
        Self {
            v4,
            spread,
            places: places(v4, spread, clusters),
            random: match (v4, spread) {
                (true, Spread::Random) => [0x00ff_ffff, 0],
                (true, Spread::Clustered) => [0xffff, 0],
                (false, Spread::Random) => [0x0000_ffff_ffff_ffff, u64::MAX],
                (false, Spread::Clustered) => [0xffff_ffff, u64::MAX],
            },
        }
    }
}

/// Second halves of 32 bits: the clusters are x.y.0.0/16 and 2c0f:xy::/32. A /16 has room for 65,536 addresses, so a
/// million needs 32 of them to leave gaps.
fn clusters(count: usize) -> Vec<u16> {
    const SAFARICOM: u16 = 196 * 256 + 201;
    let number = match count {
        0..=1_000 => 1,
        1_001..=100_000 => 4,
        _ => 32,
    };
    (0..number).map(|n| SAFARICOM - 8 + (8 + n) % 40).collect()
}

fn prefix4(random: &mut StdRng, spread: Spread, clusters: &[u16]) -> IpNet {
    let (bits, length) = match spread {
        // As public lists have them: single addresses for the most part.
        Spread::Random => (random.random::<u32>(), *pick(random, &[24, 28, 30, 32, 32, 32, 32, 32])),
        Spread::Clustered => {
            let bits = u32::from(*pick(random, clusters)) << 16 | u32::from(random.random::<u16>());
            (bits, *pick(random, &[31, 32, 32, 32, 32, 32, 32, 32]))
        }
    };
    let net = Ipv4Net::new_assert(bits.into(), length).trunc();
    IpNet::V4(net)
}

fn prefix6(random: &mut StdRng, spread: Spread, clusters: &[u16]) -> IpNet {
    const LENGTHS: [u8; 6] = [40, 48, 48, 56, 64, 128];
    let low: u64 = random.random();
    let high: u64 = match spread {
        Spread::Random => 0x2c0f << 48 | random.random::<u64>() >> 16,
        Spread::Clustered => {
            0x2c0f << 48 | u64::from(*pick(random, clusters)) << 32 | u64::from(random.random::<u32>())
        }
    };
    let length = match spread {
        Spread::Random => *pick(random, &LENGTHS),
        // A /32 has 256 of /40 only, which would swallow the rest.
        Spread::Clustered => *pick(random, &LENGTHS[3..]),
    };
    IpNet::V6(Ipv6Net::new_assert((u128::from(high) << 64 | u128::from(low)).into(), length).trunc())
}

fn places(v4: bool, spread: Spread, clusters: &[u16]) -> Vec<[u64; 2]> {
    (0..PLACES as u64)
        .map(|n| match (v4, spread) {
            (true, Spread::Random) => [n.next_possible() << 24, 0],
            (false, Spread::Random) => [0x2c0f << 48, 0],
            (_, Spread::Clustered) => {
                let cluster = u64::from(clusters[n as usize % clusters.len()]);
                if v4 { [cluster << 16, 0] } else { [0x2c0f << 48 | cluster << 32, 0] }
            }
        })
        .collect()
}

/// The first octet of a source.
trait FirstOctet {
    /// Itself, or another where no honest packet comes from there: the search would not be reached.
    fn next_possible(self) -> Self;
}

impl FirstOctet for u64 {
    fn next_possible(self) -> Self {
        match self {
            0 | 127 | 224..=239 | 255 => 41 + self % 64,
            possible => possible,
        }
    }
}

fn pick<'a, T>(random: &mut StdRng, choices: &'a [T]) -> &'a T {
    &choices[random.random_range(0..choices.len())]
}
