//! A name that is asked for, as the key of a trie: its octets in reverse, so that what wildcards have in common comes first.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Octets of a name in the form `api.example.com`, at most (RFC 1035 3.1: 255 on the wire).
const TEXT: usize = 253;
/// Octets of the data of a key (`LPM_DATA_SIZE_MAX` of the kernel).
const DATA: usize = 256;
/// Octets of the number that is ahead of them: how many bits count.
const LENGTH: usize = 4;
/// Where the octet behind the name is.
const END: usize = LENGTH + DATA;
/// Octets in which a key is written from its end to its beginning, and then read as a whole from wherever it begins.
pub const NAME_ROOM: usize = END + DATA;

/// Names of a policy that one name can be: itself, and wildcards above it.
pub const SLOTS_PER_NAME: usize = 4;
/// Value of the trie `ASKED_NAMES`: name slots plus one, with [`WILDCARD`] where the policy says `*.`; 0 is an empty place.
pub type NameSlots = [u16; SLOTS_PER_NAME];
/// Set in a [`NameSlots`] element.
pub const WILDCARD: u16 = 1 << 15;

/// The key as the trie holds it: the number of bits that count, in the order of the machine, and the octets.
pub type TrieKey = [u8; LENGTH + DATA];

/// A name that is being read from a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct NameKey {
    bytes: [u8; NAME_ROOM],
}

impl NameKey {
    /// Nothing read yet. The octet behind the name stays 0: it ends an exact name.
    pub const EMPTY: Self = Self { bytes: [0; NAME_ROOM] };

    /// Puts the octet number `text` of the name in its place. False: it is too long for a name.
    #[inline(always)]
    pub(super) fn put(&mut self, text: u32, octet: u8) -> bool {
        if text >= TEXT as u32 {
            return false;
        }
        // Verifier: a number that is added to a pointer, never one that is taken from it. Behind the black box the compiler
        // can't make the one the other, and compares it where it is used.
        let place = core::hint::black_box((END - 1).wrapping_sub(text as usize));
        match self.bytes.get_mut(place) {
            Some(slot) => {
                *slot = octet;
                true
            }
            None => false,
        }
    }

    /// Writes the number ahead of a name of `text` octets, and says where the key begins.
    #[inline(always)]
    pub fn finish(&mut self, text: u32) -> Option<usize> {
        if text == 0 || text > TEXT as u32 {
            return None;
        }
        let begin = core::hint::black_box(DATA - text as usize);
        let bits = ((text + 1) * 8).to_ne_bytes();
        for (n, octet) in bits.into_iter().enumerate() {
            *self.bytes.get_mut(begin + n)? = octet;
        }
        Some(begin)
    }

    /// The name, if it has `length` octets: letters, digits, `-`, `_` and dots.
    pub fn text(&self, length: u32) -> impl Iterator<Item = char> + '_ {
        let begin = END.saturating_sub(length as usize);
        self.bytes[begin..END].iter().rev().map(|octet| char::from(*octet))
    }

    /// All octets, for [`Self::finish`]ed keys to begin in.
    #[inline(always)]
    #[must_use]
    pub const fn room(&self) -> &[u8; NAME_ROOM] {
        &self.bytes
    }
}

/// The key of a name of a policy: `api.example.com`, or `*.example.com` for every name below `example.com`. None: it is too
/// long, or empty.
#[must_use]
pub fn trie_key(name: &str) -> Option<TrieKey> {
    let (text, end) = match name.strip_prefix('*') {
        Some(below) => (below, None),
        None => (name, Some(0)),
    };
    if text.is_empty() || text.len() > TEXT {
        return None;
    }
    let mut key = [0; LENGTH + DATA];
    let (length, data) = key.split_at_mut(LENGTH);
    let mut bits = 0u32;
    for (place, octet) in data.iter_mut().zip(text.bytes().rev().chain(end)) {
        *place = octet.to_ascii_lowercase();
        bits += 8;
    }
    length.copy_from_slice(&bits.to_ne_bytes());
    Some(key)
}
