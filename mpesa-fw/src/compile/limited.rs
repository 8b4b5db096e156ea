//! How many services with a limit may claim the same.

use mpesa_fw_common::{
    RuleSet,
    limit::LIMITED_PER_CLAIM,
    tables::{CLAIMS_LEN, ClaimIndex},
};

use super::{CompileError, rules_where};
use crate::policy::model::Policy;

/// The kernel tries [`LIMITED_PER_CLAIM`] of them and one without a limit; with more of them, one without a limit that
/// stands behind would never be asked. `claims` is the table of ingress.
pub(super) fn check(policy: &Policy, claims: &[RuleSet]) -> Result<(), CompileError> {
    let services = &policy.ingress.services;
    let limited = rules_where(services, |service| service.limit.is_some());
    let too_many = |rules: &RuleSet| rules.and(limited).0.count_ones() as usize > LIMITED_PER_CLAIM;
    let Some(first) = claims.iter().position(too_many) else {
        return Ok(());
    };
    let these = claims[first].and(limited).0;
    let names = services.iter().enumerate().filter(|(n, _)| these >> n & 1 == 1);
    Err(CompileError::TooManyLimits {
        claim: describe(first),
        services: names.map(|(_, service)| format!("`{}`", service.name)).collect(),
    })
}

/// What an element of the table stands for.
fn describe(element: usize) -> String {
    const TABLES: [(ClaimIndex, &str); 5] = [
        (ClaimIndex::icmpv6(0), "ICMPv6 type"),
        (ClaimIndex::icmp(0), "ICMP type"),
        (ClaimIndex::protocol(0), "protocol"),
        (ClaimIndex::udp(0), "UDP port"),
        (ClaimIndex::tcp(0), "TCP port"),
    ];
    debug_assert!(element < CLAIMS_LEN);
    let (word, number) = TABLES
        .iter()
        .find_map(|(start, word)| Some((word, element.checked_sub(start.0 as usize)?)))
        .unwrap_or((&"element", element));
    format!("{word} {number}")
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU64, time::Duration};

    use mpesa_fw_common::limit::{LimitPer, LimitWhat};

    use super::*;
    use crate::{
        compile::{
            compile,
            testing::{any, policy, service, slots},
        },
        policy::model::{Claim, Limit, Policy, Service},
    };

    fn limited(name: &str, claim: Claim) -> Service {
        let limit = Limit {
            what: LimitWhat::Packets,
            per: LimitPer::Source,
            rate: NonZeroU64::MIN,
            period: Duration::from_secs(1),
            burst: NonZeroU64::MIN,
        };
        Service { claims: vec![claim], limit: Some(limit), ..service(name, any()) }
    }

    fn of(services: Vec<Service>) -> Policy {
        let mut policy = policy();
        policy.ingress.services = services;
        policy
    }

    fn compiled(policy: &Policy) -> Result<(), CompileError> {
        compile(policy, &slots(policy)).map(drop)
    }

    #[test]
    fn as_many_as_the_kernel_tries_and_any_without_a_limit() {
        let port = |n: u16| Claim::Tcp(vec![443..=443 + n]);
        let mut services: Vec<Service> = (0..4).map(|n| limited(&format!("limited-{n}"), port(n))).collect();
        services.extend((0..20).map(|n| service(&format!("free-{n}"), any())));
        services.push(limited("elsewhere", Claim::Tcp(vec![444 + 3..=500])));
        services.push(limited("by-udp", Claim::Udp(vec![443..=443])));
        assert_eq!(compiled(&of(services)), Ok(()));
    }

    #[test]
    fn one_more_is_refused_by_the_first_port_that_they_share() {
        let mut services: Vec<Service> =
            (0..4).map(|n| limited(&format!("limited-{n}"), Claim::Tcp(vec![400..=500]))).collect();
        services.insert(2, service("free", any()));
        services.push(limited("one-more", Claim::Tcp(vec![444..=444])));
        let error = compiled(&of(services)).expect_err("five of them");
        assert_eq!(
            error.to_string(),
            "5 services with a limit claim TCP port 444 (`limited-0`, `limited-1`, `limited-2`, `limited-3`, \
             `one-more`), 4 may: merge them, or take the limit off some"
        );
    }

    #[test]
    fn each_kind_of_claim_is_named() {
        for (claim, named) in [
            (Claim::Udp(vec![53..=53]), "UDP port 53"),
            (Claim::Icmp(vec![8]), "ICMP type 8"),
            (Claim::Icmpv6(vec![128]), "ICMPv6 type 128"),
            (Claim::Other(132), "protocol 132"),
            (Claim::Tcp(vec![65535..=65535]), "TCP port 65535"),
        ] {
            let services = (0..5).map(|n| limited(&format!("limited-{n}"), claim.clone())).collect();
            let error = compiled(&of(services)).expect_err("five of them");
            assert!(error.to_string().contains(named), "{error}");
        }
    }
}
