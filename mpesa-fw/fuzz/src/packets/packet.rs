//! Target `packet`: one frame, no history. The first byte says how the hook sees it, the rest is the frame.

use mpesa_fw_common::Direction;

use super::{facts, laws, rules};
use crate::{
    case::Rules,
    host::{self, Frame},
};

thread_local! {
    static RULES: [Rules; rules::COUNT] = rules::all();
}

/// Of the first byte.
const SEGMENTED: u8 = 1;
const STRIPPED: u8 = 2;

/// Longer frames hold no more headers.
const LONGEST: usize = 2048;

pub(crate) fn run(data: &[u8]) {
    let Some((shape, bytes)) = data.split_first() else {
        return;
    };
    let frame = Frame {
        bytes: bytes[..bytes.len().min(LONGEST)].to_vec(),
        segmented: shape & SEGMENTED != 0,
        stripped_tags: u32::from(shape & STRIPPED != 0),
    };
    let meta = host::facts(&frame);
    facts::check_bounds(&frame, &meta);
    facts::compare(&frame, &meta);
    laws::of_bytes(&frame, &meta);
    RULES.with(|all| {
        for direction in Direction::ALL {
            laws::of_policies(all, &frame, &meta, direction);
        }
    });
}
