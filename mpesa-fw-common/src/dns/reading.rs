//! A message that is being read, step by step.

use super::{
    answered::{ANSWERED_AT_ONCE, Answered},
    learnt::{Learnt, LearntName},
    name::{NameSlots, SLOTS_PER_NAME},
};
use crate::{address::Address, tables::NAMES_PER_ADDRESS};

/// Octets of a message that are looked at: more than an Ethernet frame carries. Records behind them are not learnt.
pub const MESSAGE: usize = 2048;
/// Steps that the records of a message take at most: two for each that a message of [`MESSAGE`] octets can hold, and as
/// many again for names that are written out. Records behind them are not learnt.
pub const RECORD_STEPS: u32 = 512;

const HEADER: u32 = 12;
/// Type, class, TTL and length of a record, behind its name.
const RECORD: u32 = 10;
/// Type and class of a question, behind its name.
const QUESTION: u32 = 4;
/// Both bits set: the rest of a name is elsewhere (RFC 1035 4.1.4).
const POINTER: u8 = 0xc0;
const LONGEST_LABEL: u8 = 63;

const CLASS_IN: u16 = 1;
const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Another step.
    Step,
    /// It is read.
    Done,
    /// It is not what it should be: nothing is learnt.
    Stop,
}

/// What a step found among the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// Nothing yet.
    Step,
    /// An address, which is [`Reading::address`], with its TTL in seconds.
    Address(u32),
    /// There are no more, or none that can be read.
    End,
}

/// A message and how far it is read. A scratch of the programs, too large for their stack.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Reading {
    /// The message, as far as it goes.
    pub message: [u8; MESSAGE],
    /// The name that is asked for, as it is noted with its addresses.
    pub answered: Answered,
    /// The policy's names that it is.
    pub slots: NameSlots,
    /// What is noted of an address that nothing was known of.
    pub fresh: Learnt,
    /// The address that was found last. (Here and not in what a step answers: the stack of all calls has 512 bytes.)
    pub address: Address,
    /// Octets in `message`.
    pub length: u32,
    /// How far it is read.
    at: u32,
    /// Octets of the label, or records, that are left.
    left: u32,
    /// Octets of the name.
    text: u32,
    /// Not 0: the name is read to its end.
    is_named: u32,
    /// Addresses that were noted with the name.
    noted: u32,
}

impl Reading {
    /// Nothing read yet.
    pub const EMPTY: Self = Self {
        message: [0; MESSAGE],
        answered: Answered::NONE,
        slots: [0; SLOTS_PER_NAME],
        fresh: [LearntName::NONE; NAMES_PER_ADDRESS],
        address: Address::UNSPECIFIED,
        length: 0,
        at: 0,
        left: 0,
        text: 0,
        is_named: 0,
        noted: 0,
    };

    /// Begins with a message of `length` octets. False: it is no answer to one question, or reports an error.
    #[inline(always)]
    pub fn begin(&mut self, length: u32) -> bool {
        self.length = length;
        self.at = HEADER;
        self.left = 0;
        self.text = 0;
        self.is_named = 0;
        self.noted = 0;
        self.answered.begin();
        if length < HEADER + 1 + QUESTION {
            return false;
        }
        // QR and opcode; RCODE. What is truncated (TC) has records too, and they are no worse.
        let is_answer = self.octet(2) & 0xf8 == 0x80 && self.octet(3) & 0x0f == 0;
        is_answer && self.pair(4) == 1 && self.pair(6) != 0
    }

    /// One octet of the name that is asked for. Names are letters, digits, `-` and `_`; anything else (a dot inside a label,
    /// a name that continues elsewhere) is no name of a policy.
    #[inline(always)]
    pub fn step_name(&mut self) -> Next {
        let at = self.at;
        if at >= self.length {
            return Next::Stop;
        }
        let octet = self.octet(at);
        self.at = at + 1;
        if self.left != 0 {
            self.left -= 1;
            return if is_of_a_name(octet) { self.write(octet | lower_bit(octet)) } else { Next::Stop };
        }
        if octet == 0 {
            self.is_named = u32::from(self.text != 0);
            return Next::Done;
        }
        if octet > LONGEST_LABEL {
            return Next::Stop;
        }
        self.left = u32::from(octet);
        if self.text == 0 { Next::Step } else { self.write(b'.') }
    }

    #[inline(always)]
    fn write(&mut self, octet: u8) -> Next {
        let text = self.text;
        self.text = text + 1;
        if self.answered.put(text, octet) { Next::Step } else { Next::Stop }
    }

    /// Ends the question: where the key of its name begins in [`NameKey::room`](super::NameKey::room). None: nothing is learnt from its answer.
    #[inline(always)]
    pub fn end_name(&mut self) -> Option<usize> {
        let at = self.at;
        if self.is_named == 0 || at + QUESTION > self.length || self.pair(at + 2) != CLASS_IN {
            return None;
        }
        self.at = at + QUESTION;
        self.left = u32::from(self.pair(6));
        self.answered.length = self.text;
        self.answered.name.finish(self.text)
    }

    /// Whether an address is to be noted with the name that was asked for; counts it.
    #[inline(always)]
    pub fn may_note(&mut self) -> bool {
        if self.noted >= ANSWERED_AT_ONCE {
            return false;
        }
        self.noted += 1;
        true
    }

    /// One label of the name of a record, or its end with the record. Whose address it is does not matter: the chain from
    /// the name that was asked for (CNAME, DNAME) is the resolver's to follow, and it is trusted with the end of it.
    #[inline(always)]
    pub fn step_record(&mut self) -> Record {
        if self.left == 0 || self.at >= self.length {
            return Record::End;
        }
        let octet = self.octet(self.at);
        if octet != 0 && octet <= LONGEST_LABEL {
            self.at += 1 + u32::from(octet);
            return Record::Step;
        }
        if octet != 0 && octet & POINTER != POINTER {
            return Record::End;
        }
        self.record(self.at + if octet == 0 { 1 } else { 2 })
    }

    /// The record whose type is at `at`.
    #[inline(always)]
    fn record(&mut self, at: u32) -> Record {
        if at + RECORD > self.length {
            return Record::End;
        }
        let (kind, class, size) = (self.pair(at), self.pair(at + 2), self.pair(at + 8));
        let ttl = u32::from(self.pair(at + 4)) << 16 | u32::from(self.pair(at + 6));
        let data = at + RECORD;
        self.left -= 1;
        self.at = data + u32::from(size);
        if self.at > self.length {
            return Record::End;
        }
        match (kind, class, size) {
            (TYPE_A, CLASS_IN, 4) => self.address = Address::v4(self.word(data)),
            (TYPE_AAAA, CLASS_IN, 16) => {
                for (n, at) in (data..).step_by(4).take(4).enumerate() {
                    self.address.words[n] = self.word(at);
                }
            }
            _ => return Record::Step,
        }
        Record::Address(ttl)
    }

    /// Every caller has looked whether it lies in the message; the mask is for those that take nothing on trust.
    #[inline(always)]
    fn octet(&self, at: u32) -> u8 {
        self.message[core::hint::black_box(at) as usize & (MESSAGE - 1)]
    }

    #[inline(always)]
    fn pair(&self, at: u32) -> u16 {
        u16::from_be_bytes([self.octet(at), self.octet(at + 1)])
    }

    #[inline(always)]
    fn word(&self, at: u32) -> u32 {
        u32::from(self.pair(at)) << 16 | u32::from(self.pair(at + 2))
    }
}

#[inline(always)]
const fn is_of_a_name(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_')
}

/// What makes a capital letter small.
#[inline(always)]
const fn lower_bit(octet: u8) -> u8 {
    (octet.is_ascii_uppercase() as u8) << 5
}
