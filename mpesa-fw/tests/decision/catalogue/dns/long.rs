//! Answers with more in them than most: EDNS, a thousand records, and more octets than are read.

use mpesa_fw_common::{DropReason::NameNotAllowed, dns::MESSAGE};

use super::{Answer, POINTER, POLICY, address, address_record, ask, connect, flow, opened, record};
use crate::{
    case::{Case, drop, to},
    catalogue::NETS,
};

const NAME: &str = "api.safaricom.co.ke";
/// Octets of a header, and of the question for that name.
const BEFORE_RECORDS: usize = 12 + 21 + 4;
/// `OPT` (RFC 6891 6.1.1): what it says of the sender stands where class and TTL stand in others.
const OPT: u16 = 41;
/// For private use (RFC 6895 3.1): nobody knows what is in it.
const PRIVATE: u16 = 65_280;

/// What any resolver of today adds: its buffer of 1,232 octets, and a cookie.
fn opt() -> Vec<u8> {
    let mut bytes = record(&[0], OPT, 0, &[0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8]);
    bytes[3..5].copy_from_slice(&1232u16.to_be_bytes());
    bytes
}

pub(super) fn cases() -> [Case; 2] {
    [edns(), long()]
}

/// It is no matter.
fn edns() -> Case {
    let mut steps = Vec::new();
    for net in &NETS {
        steps.push(ask(net));
        let target = address(net, 1);
        let mut answer = Answer::of(NAME, &target);
        answer.additional = 1;
        answer.body.extend(opt());
        steps.push(connect("before", &target, 443, drop(NameNotAllowed, "daraja")));
        steps.push(to(net.label("with EDNS"), answer.frame(net), flow()));
        steps.push(connect("with EDNS", &target, 443, opened("daraja")));
        // What stands behind the answers is none, whatever it is.
        let glue = address(net, 2);
        let mut answer = Answer::of(NAME, &address(net, 3));
        answer.additional = 2;
        answer.body.extend(opt());
        answer.body.extend(address_record(&POINTER, &glue, 300));
        steps.push(to(net.label("an address behind EDNS"), answer.frame(net), flow()));
        steps.push(connect("behind EDNS", &glue, 443, drop(NameNotAllowed, "daraja")));
    }
    Case::new("answers with EDNS", POLICY, steps)
}

/// As far as 2,048 octets go, and no further; what a message says of its length changes nothing.
fn long() -> Case {
    let mut steps = Vec::new();
    for net in &NETS {
        steps.push(ask(net));
        let one = |number| address_record(&POINTER, &address(net, number), 300);
        let within = ((MESSAGE - BEFORE_RECORDS) / one(1).len()) as u8;
        // More than a test run of the kernel can have are not needed.
        let mut answer = Answer::new(NAME, &(1..=within + 20).map(one).collect::<Vec<_>>());
        answer.count = 1_000;
        assert!(answer.bytes().len() > MESSAGE, "{} octets", answer.bytes().len());
        steps.push(to(net.label("a thousand records, it says"), answer.frame(net), flow()));
        steps.push(connect("the first", &address(net, 1), 443, opened("daraja")));
        steps.push(connect("the last that is read", &address(net, within), 443, opened("daraja")));
        // Half of it is within.
        for number in [within + 1, within + 20] {
            steps.push(connect("beyond", &address(net, number), 443, drop(NameNotAllowed, "daraja")));
        }
        // As many as fit, each as small as can be; behind them an address.
        let small = record(&[0], PRIVATE, 0, &[]);
        let mut records = vec![small.clone(); (MESSAGE - BEFORE_RECORDS - 28) / small.len()];
        records.push(one(200));
        steps.push(to(net.label("many small records"), Answer::new(NAME, &records).frame(net), flow()));
        steps.push(connect("behind small ones", &address(net, 200), 443, opened("daraja")));
    }
    Case::new("long answers", POLICY, steps)
}
