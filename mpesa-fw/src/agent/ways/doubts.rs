//! Reasons for which routes do not say by which way packets leave, or packets leave as others than they were sent. Each says what to do.
//!
//! Not looked for: rules of nftables that write another destination into packets without `dnat` (`ip daddr set`), and programs of BPF
//! below the root of the cgroups that write one into sockets.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "netlink's enums grow with the kernel; what they gain is not understood here"
)]

use std::{fs, io, path::Path};

use mpesa_fw_common::attempt::WAYS_CAPACITY;
use netlink_packet_core::Parseable as _;
use netlink_sys::protocols::{NETLINK_ROUTE, NETLINK_XFRM};
use rtnetlink::packet_route::{
    AddressFamily,
    rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage},
};

use super::{nftables, read::is_without_family};
use crate::agent::ask::ask;

/// Entries of a list that is read here.
pub(super) const LIMIT: usize = WAYS_CAPACITY as usize;

/// All there are, in the network namespace of this thread. What can't be read is one.
pub(super) fn doubts() -> Vec<String> {
    let unread = |what: &str, error: io::Error| Some(format!("{what} can't be read: {error}"));
    let is_there = |found: io::Result<bool>, what: &str, doubt: &str| match found {
        Ok(true) => Some(doubt.to_owned()),
        Ok(false) => None,
        Err(error) => unread(what, error),
    };
    let found = [
        is_there(
            has_rules(),
            "the rules of routing",
            "more than the address chooses the route: there are other rules than the standard ones (`ip rule`, `ip -6 rule`); remove \
             them where nothing needs them",
        ),
        is_there(
            has_ipsec(),
            "the policies of IPsec",
            "packets may leave inside of others: there are policies of IPsec (`ip xfrm policy list dir out`)",
        ),
        is_there(
            nftables::translates(),
            "the chains of nftables",
            "nftables may send packets of this host elsewhere: a chain of type nat at hook output has rules for more than the addresses \
             of this host (`nft list chains`); what leaves may have another destination",
        ),
        is_there(
            translates_of_old(),
            "the tables of iptables",
            "iptables may send packets of this host elsewhere: its table nat is there (`iptables-legacy -t nat -S OUTPUT`); unload \
             iptable_nat and ip6table_nat where nothing needs them",
        ),
        is_there(
            balances(),
            "the services of IPVS",
            "IPVS may send packets of this host elsewhere: it has services (`ipvsadm -L`)",
        ),
    ];
    found.into_iter().flatten().collect()
}

/// Whether there are other rules than those that the kernel makes (`fib_default_rules_init`, `fib6_rules_net_init`).
fn has_rules() -> io::Result<bool> {
    const RTM_GETRULE: u16 = 34;
    /// `struct fib_rule_hdr`.
    const QUESTION: usize = 12;
    let standard = [
        (AddressFamily::Inet, &[(0, 255), (32766, 254), (32767, 253)][..]),
        (AddressFamily::Inet6, &[(0, 255), (32766, 254)][..]),
    ];
    for (family, standard) in standard {
        let mut question = [0; QUESTION];
        question[0] = family.into();
        let answers = match ask(NETLINK_ROUTE, RTM_GETRULE, &question, LIMIT) {
            Ok(answers) => answers,
            // Without CONFIG_IP_MULTIPLE_TABLES there are none.
            Err(error) if is_without_family(&error) => continue,
            Err(error) => return Err(error),
        };
        let mut rules = Vec::new();
        for answer in answers {
            let rule = RuleMessage::parse(&answer).map_err(io::Error::other)?;
            if rule.header.family == family {
                rules.push(plain(&rule));
            }
        }
        let are_standard = rules.iter().copied().eq(standard.iter().copied().map(Some));
        if !rules.is_empty() && !are_standard {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Priority and table of a rule for all packets; none: it is for some, or does something else.
fn plain(rule: &RuleMessage) -> Option<(u32, u32)> {
    let header = &rule.header;
    let flags = header.flags - RuleFlags::Permanent;
    let is_for_all = header.src_len == 0 && header.dst_len == 0 && header.tos == 0 && flags.is_empty();
    if !is_for_all || header.action != RuleAction::ToTable {
        return None;
    }
    let (mut priority, mut table) = (0, u32::from(header.table));
    for attribute in &rule.attributes {
        match attribute {
            RuleAttribute::Priority(number) => priority = *number,
            RuleAttribute::Table(number) => table = *number,
            RuleAttribute::Protocol(_) | RuleAttribute::SuppressPrefixLen(u32::MAX) => {}
            _ => return None,
        }
    }
    Some((priority, table))
}

/// Whether there are policies for what leaves. Those of single sockets (an IKE daemon has some) have directions of their own.
fn has_ipsec() -> io::Result<bool> {
    const XFRM_MSG_GETPOLICY: u16 = 0x15;
    /// `struct xfrm_userpolicy_id`.
    const QUESTION: usize = 64;
    /// In `struct xfrm_userpolicy_info`.
    const DIRECTION: usize = 160;
    const OUT: u8 = 1;
    let policies = match ask(NETLINK_XFRM, XFRM_MSG_GETPOLICY, &[0; QUESTION], LIMIT) {
        Ok(policies) => policies,
        Err(error) if error.kind() == io::ErrorKind::Unsupported => return Ok(false),
        Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => return Ok(false),
        Err(error) => return Err(error),
    };
    Ok(policies.iter().any(|policy| policy.get(DIRECTION).is_none_or(|direction| *direction == OUT)))
}

/// Whether the iptables of before nftables may translate. Which rules it has can't be asked by netlink.
fn translates_of_old() -> io::Result<bool> {
    let has_nat = |file: &str| Ok::<_, io::Error>(contents(file)?.lines().any(|table| table == "nat"));
    Ok(has_nat("/proc/self/net/ip_tables_names")? || has_nat("/proc/self/net/ip6_tables_names")?)
}

fn balances() -> io::Result<bool> {
    /// Version, and two lines of heads.
    const HEAD: usize = 3;
    Ok(contents("/proc/self/net/ip_vs")?.lines().nth(HEAD).is_some())
}

/// Empty where there is no such file, since nobody has loaded what makes it.
fn contents(file: &str) -> io::Result<String> {
    match fs::read_to_string(Path::new(file)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(priority: u32, table: u8) -> RuleMessage {
        let mut rule = RuleMessage::default();
        (rule.header.table, rule.header.action) = (table, RuleAction::ToTable);
        rule.header.flags = RuleFlags::Permanent;
        rule.attributes = vec![
            RuleAttribute::Table(table.into()),
            RuleAttribute::SuppressPrefixLen(u32::MAX),
            RuleAttribute::Priority(priority),
        ];
        rule
    }

    #[test]
    fn rules_for_all_packets_and_for_some() {
        assert_eq!(plain(&rule(32766, 254)), Some((32766, 254)));
        let with = |change: &dyn Fn(&mut RuleMessage)| {
            let mut rule = rule(32766, 254);
            change(&mut rule);
            plain(&rule)
        };
        // `ip rule add fwmark 1 …`, `from 10.0.0.0/8`, `not …`, `uidrange …`, `l3mdev`, `suppress_prefixlength 0`, `blackhole`
        assert_eq!(with(&|rule| rule.attributes.push(RuleAttribute::FwMark(1))), None);
        assert_eq!(with(&|rule| rule.header.src_len = 8), None);
        assert_eq!(with(&|rule| rule.header.flags |= RuleFlags::Invert), None);
        assert_eq!(with(&|rule| rule.attributes.push(RuleAttribute::L3MDev(true))), None);
        assert_eq!(with(&|rule| rule.attributes.push(RuleAttribute::SuppressPrefixLen(0))), None);
        assert_eq!(with(&|rule| rule.header.action = RuleAction::Blackhole), None);
    }
}
