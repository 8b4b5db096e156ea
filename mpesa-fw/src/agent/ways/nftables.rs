//! Whether nftables, which iptables writes into too, sends what leaves this host elsewhere (`linux/netfilter/nf_tables.h`).
//!
//! Docker translates what goes to its published ports at addresses of this host. Packets to those never leave, so that a rule which is
//! for no others is no doubt: by `fib daddr type local`, or by `-m addrtype --dst-type LOCAL`.

use std::io;

use netlink_sys::protocols::NETLINK_NETFILTER;

use super::{doubts::LIMIT, read::is_without_family};
use crate::agent::ask::{ask, attributes};

const NFT_MSG_GETCHAIN: u16 = 10 << 8 | 4;
const NFT_MSG_GETRULE: u16 = 10 << 8 | 7;
/// `struct nlattr`: length, type.
const ATTRIBUTE_HEADER: u16 = 4;
/// `struct nfgenmsg`: family, version, resource.
const HEADER: usize = 4;

/// Whether a rule may translate what leaves. An empty chain does not.
pub(super) fn translates() -> io::Result<bool> {
    let chains = match ask(NETLINK_NETFILTER, NFT_MSG_GETCHAIN, &[0; HEADER], LIMIT) {
        Ok(chains) => chains,
        // A kernel without nf_tables, or without netfilter.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EPROTONOSUPPORT)) => {
            return Ok(false);
        }
        Err(error) if is_without_family(&error) => return Ok(false),
        Err(error) => return Err(error),
    };
    for chain in chains.iter().filter(|chain| chain_translates(chain)) {
        let rules = ask(NETLINK_NETFILTER, NFT_MSG_GETRULE, &question_for_rules(chain), LIMIT)?;
        // None: they went meanwhile, and others may have come.
        if rules.is_empty() || !rules.iter().all(|rule| is_for_own_addresses(rule)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a chain is there to translate what this host sends, and has rules.
fn chain_translates(chain: &[u8]) -> bool {
    const NFPROTO_INET: u8 = 1;
    const NFPROTO_IPV4: u8 = 2;
    const NFPROTO_IPV6: u8 = 10;
    const NFTA_CHAIN_HOOK: u16 = 4;
    const NFTA_CHAIN_USE: u16 = 6;
    const NFTA_CHAIN_TYPE: u16 = 7;
    const NFTA_HOOK_HOOKNUM: u16 = 1;
    const NF_INET_LOCAL_OUT: u32 = 3;
    let [NFPROTO_INET | NFPROTO_IPV4 | NFPROTO_IPV6, ..] = chain else { return false };
    let (mut is_nat, mut is_at_output, mut is_empty) = (false, false, false);
    for (kind, value) in attributes(chain.get(HEADER..).unwrap_or_default()) {
        match kind {
            NFTA_CHAIN_TYPE => is_nat = value == b"nat\0",
            NFTA_CHAIN_HOOK => {
                is_at_output = attributes(value).any(|(kind, value)| {
                    kind == NFTA_HOOK_HOOKNUM && number(value) == Some(NF_INET_LOCAL_OUT)
                });
            }
            // Of a chain at a hook, to which nothing jumps: its rules.
            NFTA_CHAIN_USE => is_empty = number(value) == Some(0),
            _ => {}
        }
    }
    is_nat && is_at_output && !is_empty
}

/// The rules of a chain: of its family, with the names of its table and of itself.
fn question_for_rules(chain: &[u8]) -> Vec<u8> {
    const NFTA_CHAIN_TABLE: u16 = 1;
    const NFTA_CHAIN_NAME: u16 = 3;
    const NFTA_RULE_TABLE: u16 = 1;
    const NFTA_RULE_CHAIN: u16 = 2;
    let mut question = vec![chain.first().copied().unwrap_or_default(), 0, 0, 0];
    for (theirs, kind) in [(NFTA_CHAIN_TABLE, NFTA_RULE_TABLE), (NFTA_CHAIN_NAME, NFTA_RULE_CHAIN)] {
        let name = attribute(chain.get(HEADER..).unwrap_or_default(), theirs).unwrap_or_default();
        question.extend((ATTRIBUTE_HEADER + name.len() as u16).to_ne_bytes());
        question.extend(kind.to_ne_bytes());
        question.extend(name);
        question.resize(question.len().next_multiple_of(4), 0);
    }
    question
}

/// Whether a rule asks first of all, or after what only compares too, that the destination is an address of this host. Expressions
/// are run one after the other, until one does not hold.
fn is_for_own_addresses(rule: &[u8]) -> bool {
    const NFTA_RULE_EXPRESSIONS: u16 = 4;
    const NFTA_EXPR_NAME: u16 = 1;
    const NFTA_EXPR_DATA: u16 = 2;
    /// What ends nothing but the rule itself, and changes nothing where it does not write.
    const COMPARES: [&[u8]; 7] =
        [b"meta\0", b"payload\0", b"bitwise\0", b"cmp\0", b"counter\0", b"match\0", b"fib\0"];
    let Some(expressions) = attribute(rule.get(HEADER..).unwrap_or_default(), NFTA_RULE_EXPRESSIONS) else {
        return false;
    };
    // Where the kind of the destination was just written.
    let mut register = None;
    for (_, expression) in attributes(expressions) {
        let Some(name) = attribute(expression, NFTA_EXPR_NAME) else { return false };
        let data = attribute(expression, NFTA_EXPR_DATA).unwrap_or_default();
        let holds_here_only = match name {
            b"cmp\0" => register.is_some_and(|register| is_local(data, register)),
            b"match\0" => is_local_of_iptables(data),
            _ => false,
        };
        if holds_here_only {
            return true;
        }
        if !COMPARES.contains(&name) || writes(name, data) {
            return false;
        }
        register = if name == b"fib\0" { kind_of_destination(data) } else { None };
    }
    false
}

/// Whether an expression writes into the packet or its marks: from a register.
fn writes(name: &[u8], data: &[u8]) -> bool {
    const NFTA_META_SREG: u16 = 3;
    const NFTA_PAYLOAD_SREG: u16 = 5;
    match name {
        b"meta\0" => attribute(data, NFTA_META_SREG).is_some(),
        b"payload\0" => attribute(data, NFTA_PAYLOAD_SREG).is_some(),
        _ => false,
    }
}

/// The register that `fib daddr type` writes.
fn kind_of_destination(fib: &[u8]) -> Option<u32> {
    const NFTA_FIB_DREG: u16 = 1;
    const NFTA_FIB_RESULT: u16 = 2;
    const NFTA_FIB_FLAGS: u16 = 3;
    const NFT_FIB_RESULT_ADDRTYPE: u32 = 3;
    const NFTA_FIB_F_DADDR: u32 = 2;
    let of = |kind| attribute(fib, kind).and_then(number);
    let is_it =
        of(NFTA_FIB_RESULT) == Some(NFT_FIB_RESULT_ADDRTYPE) && of(NFTA_FIB_FLAGS) == Some(NFTA_FIB_F_DADDR);
    if is_it { of(NFTA_FIB_DREG) } else { None }
}

/// Whether a comparison holds for `local` in that register and for nothing else.
fn is_local(cmp: &[u8], register: u32) -> bool {
    const NFTA_CMP_SREG: u16 = 1;
    const NFTA_CMP_OP: u16 = 2;
    const NFTA_CMP_DATA: u16 = 3;
    const NFTA_DATA_VALUE: u16 = 1;
    const NFT_CMP_EQ: u32 = 0;
    let of = |kind| attribute(cmp, kind).and_then(number);
    let value = attribute(cmp, NFTA_CMP_DATA).and_then(|data| attribute(data, NFTA_DATA_VALUE));
    of(NFTA_CMP_SREG) == Some(register)
        && of(NFTA_CMP_OP) == Some(NFT_CMP_EQ)
        && value == Some(&u32::from(libc::RTN_LOCAL).to_ne_bytes())
}

/// Whether a match of iptables is `addrtype --dst-type LOCAL` and no more (`struct xt_addrtype_info_v1`: kinds of source and destination
/// as bits, flags, of which one turns it round).
fn is_local_of_iptables(of: &[u8]) -> bool {
    const NFTA_MATCH_NAME: u16 = 1;
    const NFTA_MATCH_REV: u16 = 2;
    const NFTA_MATCH_INFO: u16 = 3;
    let is_addrtype = attribute(of, NFTA_MATCH_NAME) == Some(b"addrtype\0")
        && attribute(of, NFTA_MATCH_REV).and_then(number) == Some(1);
    let info = attribute(of, NFTA_MATCH_INFO).and_then(<[u8]>::first_chunk::<8>);
    let Some([_, _, destination @ .., f0, f1, f2, f3]) = info else { return false };
    let flags = u32::from_ne_bytes([*f0, *f1, *f2, *f3]);
    is_addrtype && u16::from_ne_bytes(*destination) == 1 << libc::RTN_LOCAL && flags == 0
}

fn attribute(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(kind, value)| (kind == wanted).then_some(value))
}

fn number(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|number| u32::from_be_bytes(*number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::from((4 + value.len() as u16).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn chain(family: u8, hook: u8, kind: &[u8], rules: u8) -> Vec<u8> {
        let mut chain = vec![family, 0, 0, 0];
        chain.extend(one(4, &[8, 0, 1, 0, 0, 0, 0, hook]));
        chain.extend(one(6, &[0, 0, 0, rules]));
        chain.extend(one(7, kind));
        chain
    }

    #[test]
    fn chains_that_translate_what_this_host_sends() {
        for family in [1, 2, 10] {
            assert!(chain_translates(&chain(family, 3, b"nat\0", 1)), "{family}");
        }
        for (what, chain) in [
            ("no rules", chain(2, 3, b"nat\0", 0)),
            ("postrouting: the source only", chain(2, 4, b"nat\0", 1)),
            ("a filter", chain(2, 3, b"filter\0", 1)),
            ("a bridge's", chain(7, 3, b"nat\0", 1)),
            ("nothing", Vec::new()),
        ] {
            assert!(!chain_translates(&chain), "{what}");
        }
    }

    fn expression(name: &[u8], data: &[Vec<u8>]) -> Vec<u8> {
        one(1, &[one(1, name), one(2, &data.concat())].concat())
    }

    fn rule(expressions: &[Vec<u8>]) -> Vec<u8> {
        let mut rule = vec![2, 0, 0, 0];
        rule.extend(one(4, &expressions.concat()));
        rule
    }

    fn word(kind: u16, value: u32) -> Vec<u8> {
        one(kind, &value.to_be_bytes())
    }

    #[test]
    fn rules_for_addresses_of_this_host() {
        let fib = |flags| expression(b"fib\0", &[word(1, 8), word(2, 3), word(3, flags)]);
        let cmp = |register, op, kind: u32| {
            expression(b"cmp\0", &[word(1, register), word(2, op), one(3, &one(1, &kind.to_ne_bytes()))])
        };
        let addrtype = |revision, destination: u16, flags: u32| {
            let info = [&[0, 0][..], &destination.to_ne_bytes(), &flags.to_ne_bytes()].concat();
            expression(b"match\0", &[one(1, b"addrtype\0"), word(2, revision), one(3, &info)])
        };
        let (counter, jump) = (expression(b"counter\0", &[]), expression(b"immediate\0", &[]));
        for rule in [
            rule(&[fib(2), cmp(8, 0, 2), counter.clone(), jump.clone()]),
            rule(&[cmp(1, 1, 127), addrtype(1, 4, 0), counter.clone(), jump.clone()]),
        ] {
            assert!(is_for_own_addresses(&rule));
        }
        for (what, rule) in [
            ("all packets", rule(&[counter.clone(), jump.clone()])),
            ("by the source", rule(&[fib(1), cmp(8, 0, 2), jump.clone()])),
            ("by another register", rule(&[fib(2), cmp(9, 0, 2), jump.clone()])),
            ("overwritten", rule(&[fib(2), expression(b"payload\0", &[word(1, 8)]), cmp(8, 0, 2)])),
            ("after a write", rule(&[expression(b"payload\0", &[word(5, 8)]), fib(2), cmp(8, 0, 2)])),
            ("what is not local", rule(&[fib(2), cmp(8, 1, 2), jump.clone()])),
            ("unicast", rule(&[fib(2), cmp(8, 0, 1), jump.clone()])),
            ("after the jump", rule(&[jump.clone(), fib(2), cmp(8, 0, 2)])),
            ("turned round", rule(&[addrtype(1, 4, 2), jump.clone()])),
            ("unicast and local", rule(&[addrtype(1, 6, 0), jump.clone()])),
            ("of another shape", rule(&[addrtype(0, 4, 0), jump.clone()])),
            ("nothing", Vec::new()),
        ] {
            assert!(!is_for_own_addresses(&rule), "{what}");
        }
    }

    #[test]
    fn a_question_names_the_chain() {
        let chain = [&[2, 0, 0, 0][..], &one(1, b"ip nat\0"), &one(3, b"OUT\0")].concat();
        assert_eq!(
            question_for_rules(&chain),
            [&[2, 0, 0, 0][..], &one(1, b"ip nat\0"), &one(2, b"OUT\0")].concat()
        );
    }
}
