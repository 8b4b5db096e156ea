//! The beginning of a frame, copied into the entry of an event.

use core::{arch::asm, mem::MaybeUninit};

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_skb_load_bytes, bpf_xdp_load_bytes},
};
use mpesa_fw_common::event::{CAPTURE_BYTES, CapturedEvent};

use super::XdpFrame;

/// Where the bytes of a frame are copied from.
pub trait Source {
    /// Copies the beginning of a frame of `length` bytes, and says how many bytes that are.
    fn copy(&self, length: u32, to: &mut [u8; CAPTURE_BYTES]) -> u16;
}

impl Source for XdpFrame {
    #[inline(always)]
    fn copy(&self, length: u32, to: &mut [u8; CAPTURE_BYTES]) -> u16 {
        let Some(length) = fitting(length) else { return 0 };
        // SAFETY: the context is valid, and `to` has room for `length` bytes.
        let failed = unsafe { bpf_xdp_load_bytes(self.context, 0, to.as_mut_ptr().cast(), length as u32) };
        if failed == 0 { length as u16 } else { 0 }
    }
}

/// A frame at TC of which nothing is known.
pub struct Skb(pub *mut __sk_buff);

impl Source for Skb {
    #[inline(always)]
    fn copy(&self, length: u32, to: &mut [u8; CAPTURE_BYTES]) -> u16 {
        let Some(length) = fitting(length) else { return 0 };
        // SAFETY: the context is valid, and `to` has room for `length` bytes.
        let failed = unsafe { bpf_skb_load_bytes(self.0.cast(), 0, to.as_mut_ptr().cast(), length as u32) };
        if failed == 0 { length as u16 } else { 0 }
    }
}

/// As much of a frame as is copied.
#[inline(always)]
fn fitting(length: u32) -> Option<u64> {
    if length == 0 {
        return None;
    }
    let mut rest = u64::from(length) - 1;
    if rest > CAPTURE_MASK {
        rest = CAPTURE_MASK;
    }
    // Verifier: that of 6.1 does not learn from a comparison with 0 that a size is not 0, so one is added to what is masked;
    // and what is masked must be opaque, or the compiler passes the number that it compared.
    // SAFETY: the statement has no effect.
    unsafe { asm!("{0} = {0}", inout(reg) rest) };
    Some((rest & CAPTURE_MASK) + 1)
}

const CAPTURE_MASK: u64 = CAPTURE_BYTES as u64 - 1;
const _: () = assert!(CAPTURE_BYTES.is_power_of_two(), "so that one less is a mask");

/// An entry of the ring buffer, to be filled in place.
#[inline(always)]
pub fn entry(entry: &mut MaybeUninit<CapturedEvent>) -> &mut CapturedEvent {
    // SAFETY: the kernel's memory holds some bytes (zeros, or earlier events), and any are a `CapturedEvent`.
    unsafe { entry.assume_init_mut() }
}
