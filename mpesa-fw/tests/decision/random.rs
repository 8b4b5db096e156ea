//! Policies and packets by chance, chosen so that they meet: few addresses, at the bounds of the policy's prefixes, few
//! ports, at the bounds of its ranges, answers to what was sent, errors that quote it, time that passes, policies that take
//! over from others, and now and then a byte that is wrong.

mod change;
mod dns;
mod packet;
mod policy;
mod pool;
mod tally;

use std::net::IpAddr;

use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use crate::{
    case::{Case, Names, Step},
    host::SECOND,
};
use pool::Pool;
pub(crate) use tally::Tally;

/// Packets of a case, without those that come along with another.
const PACKETS: usize = 110;

pub(crate) struct Chance(StdRng);

impl Chance {
    pub(crate) fn of_case(seed: u64, number: usize) -> Self {
        Self(StdRng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number as u64))
    }

    /// Policies, one after the other, and packets. `injects`: also what a test run in the kernel can't have, sockets and
    /// full tables.
    pub(crate) fn case(&mut self, injects: bool) -> Case {
        let policies: Vec<String> = (0..self.pick(&[1, 1, 2, 3])).map(|_| self.policy(injects)).collect();
        let pool = Pool::of(self, &policies);
        let mut case = Case::new("chance", policies[0].clone(), Vec::new());
        case.own = pool.own(self);
        case.names = self.names(&pool);
        case.full = injects && self.one_in(40);
        let mut history = Vec::new();
        for n in 0..PACKETS {
            if self.one_in(70) {
                let policy = self.pick(&policies.iter().collect::<Vec<_>>()).clone();
                case.steps.push(Step::Reload(policy.into()));
            }
            if self.one_in(25) {
                // A kernel's clock goes on while it judges: no sum of these is just before or at what anything waits for.
                case.steps.push(Step::Wait(16 * SECOND * self.pick(&[1, 2, 2, 3, 4, 7, 8, 11, 12, 225])));
            }
            if self.one_in(60) {
                let names = self.names(&pool);
                case.steps.push(Step::Resolve(names));
            }
            let packet = self.packet(&pool, &history, format!("packet {n}"), injects);
            history.push(packet.clone());
            case.steps.push(Step::Packet(packet));
            // Nothing is made of these later: of what is wrong in an answer this host may learn more than a parser of DNS.
            let more = match self.up_to(79) {
                0..=2 => self.resolution(&pool),
                3..=18 => self.exchange(&pool),
                _ => Vec::new(),
            };
            for (direction, bytes) in more {
                let packet = self.sent(format!("after packet {n}"), bytes, direction, injects);
                case.steps.push(Step::Packet(packet));
            }
        }
        case
    }

    /// What DNS says of some of the peers.
    fn names(&mut self, pool: &Pool) -> Names {
        let peers: Vec<IpAddr> = pool.remote.iter().flatten().copied().collect();
        let mut names = Names::new();
        for peer in peers {
            let of_peer: Vec<String> =
                policy::NAMES.iter().filter(|_| self.one_in(4)).map(|name| (*name).to_owned()).collect();
            if self.one_in(2) {
                names.push((peer, of_peer));
            }
        }
        names
    }

    fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        *list.choose(&mut self.0).expect("not empty")
    }

    /// Once in `n`.
    fn one_in(&mut self, n: u32) -> bool {
        self.0.random_ratio(1, n)
    }

    fn up_to(&mut self, n: usize) -> usize {
        self.0.random_range(0..=n)
    }

    fn some(&mut self, list: &[&str], most: usize) -> Vec<String> {
        let count = 1 + self.up_to(most - 1);
        let mut some: Vec<String> =
            list.choose_multiple(&mut self.0, count).map(|item| format!("\"{item}\"")).collect();
        some.sort();
        some
    }
}
