//! IPsec towards those who may call: at XDP their packets are ESP, and what is inside is not judged there.
//!
//! Asks XFRM for its policies (`XFRM_MSG_GETPOLICY`, linux/xfrm.h).

use std::{io, net::IpAddr};

use ipnet::IpNet;
use netlink_sys::protocols::NETLINK_XFRM;

use super::{Finding, callers};
use crate::{agent::ask::ask, policy::model::Policy};

const XFRM_MSG_GETPOLICY: u16 = 0x15;
/// `struct xfrm_userpolicy_id`: its selector (56 bytes), index and direction.
const QUESTION: usize = 64;
/// Policies at most.
const LIMIT: usize = 1 << 20;

pub(super) fn examine(policy: &Policy) -> Vec<Finding> {
    let protected = match selectors() {
        Ok(selectors) => selectors,
        // A kernel without XFRM has no IPsec.
        Err(error) if error.kind() == io::ErrorKind::Unsupported => return Vec::new(),
        Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => return Vec::new(),
        Err(error) => {
            return vec![Finding::note(
                "ipsec",
                format!("the kernel's IPsec policies can't be read: {error}"),
                "packets inside a tunnel are not judged at XDP",
                "run this as root; compare `ip xfrm policy`",
            )];
        }
    };
    let callers = callers(policy);
    let both = |a: &IpNet, b: &IpNet| a.contains(b) || b.contains(a);
    let inside: Vec<&IpNet> =
        protected.iter().filter(|selector| callers.iter().any(|caller| both(selector, caller))).collect();
    match inside.first() {
        None => vec![Finding::fine("ipsec", "no IPsec policy covers the callers of a service")],
        Some(first) => vec![Finding::wrong(
            "ipsec",
            format!("IPsec covers {first}, from which a service is called"),
            "its packets arrive as ESP: the service's rule does not see them, and no rule judges what is inside",
            "allow protocol 50 (and udp 500, 4500) from the gateway, and judge what is inside by nftables behind it",
        )],
    }
}

/// The remote prefixes of all policies that name one.
fn selectors() -> io::Result<Vec<IpNet>> {
    let policies = ask(NETLINK_XFRM, XFRM_MSG_GETPOLICY, &[0; QUESTION], LIMIT)?;
    Ok(policies.iter().filter_map(|policy| source(policy)).collect())
}

/// The source of the selector of a policy for what comes in (`struct xfrm_userpolicy_info`, a `struct xfrm_selector` at its begin): of
/// one for what goes out that would be our own side.
fn source(policy: &[u8]) -> Option<IpNet> {
    const DIRECTION: usize = 160;
    /// `XFRM_POLICY_IN`
    const IN: u8 = 0;
    const FAMILY: usize = 40;
    const SOURCE: usize = 16;
    const PREFIX_LENGTH: usize = 43;
    if *policy.get(DIRECTION)? != IN {
        return None;
    }
    let family = u16::from_ne_bytes(*policy.get(FAMILY..)?.first_chunk()?);
    let length = *policy.get(PREFIX_LENGTH)?;
    let octets: [u8; 16] = *policy.get(SOURCE..)?.first_chunk()?;
    let address: IpAddr = match i32::from(family) {
        libc::AF_INET => IpAddr::from(*octets.first_chunk::<4>()?),
        libc::AF_INET6 => octets.into(),
        _ => return None,
    };
    IpNet::new(address, length).ok().filter(|net| net.prefix_len() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_is_read() {
        let mut policy = vec![0; 168];
        policy[16..20].copy_from_slice(&[196, 201, 214, 0]);
        policy[40..42].copy_from_slice(&2u16.to_ne_bytes());
        policy[43] = 24;
        assert_eq!(source(&policy), Some("196.201.214.0/24".parse().unwrap()));
        policy[160] = 1;
        assert_eq!(source(&policy), None, "our side of what goes out");
        policy[160] = 0;
        policy[43] = 0;
        assert_eq!(source(&policy), None, "one that covers everything names nobody");
        assert_eq!(source(&policy[..20]), None);
    }
}
