//! Parts of a frame, copied: its beginning into the entry of an event, the message in it into a map.

use core::{arch::asm, mem::MaybeUninit};

use aya_ebpf::{
    bindings::{__sk_buff, xdp_md},
    helpers::generated::{bpf_skb_load_bytes, bpf_xdp_load_bytes},
};
use mpesa_fw_common::{
    FromBytes,
    dns::MESSAGE,
    event::CAPTURE_BYTES,
    program::{Program, SocketKind},
};

use super::{XdpFrame, socket};

/// Where the bytes of a frame are copied from, and whose it is.
pub trait Source {
    /// Copies the beginning of a frame of `length` bytes, and says how many bytes that are.
    fn copy(&self, length: u32, to: &mut [u8; CAPTURE_BYTES]) -> u16;
    /// Whose the frame is.
    fn socket_kind(&self) -> SocketKind;
    /// Says who sends the frame, which is of such a socket.
    fn program(&self, kind: SocketKind, program: &mut Program);
}

impl Source for XdpFrame {
    #[inline(always)]
    fn copy(&self, length: u32, to: &mut [u8; CAPTURE_BYTES]) -> u16 {
        let Some(length) = fitting::<CAPTURE_BYTES>(length) else { return 0 };
        // SAFETY: the context is valid, and `to` has room for `length` bytes.
        let failed = unsafe { bpf_xdp_load_bytes(self.context, 0, to.as_mut_ptr().cast(), length as u32) };
        if failed == 0 { length as u16 } else { 0 }
    }

    #[inline(always)]
    fn socket_kind(&self) -> SocketKind {
        SocketKind::Nobody
    }

    #[inline(always)]
    fn program(&self, _: SocketKind, program: &mut Program) {
        *program = Program::NONE;
    }
}

/// A frame at TC of which nothing is known.
pub struct Skb(pub *mut __sk_buff);

impl Source for Skb {
    #[inline(always)]
    fn copy(&self, length: u32, to: &mut [u8; CAPTURE_BYTES]) -> u16 {
        let Some(length) = fitting::<CAPTURE_BYTES>(length) else { return 0 };
        // SAFETY: the context is valid, and `to` has room for `length` bytes.
        let failed = unsafe { bpf_skb_load_bytes(self.0.cast(), 0, to.as_mut_ptr().cast(), length as u32) };
        if failed == 0 { length as u16 } else { 0 }
    }

    #[inline(always)]
    fn socket_kind(&self) -> SocketKind {
        socket::kind(self.0)
    }

    #[inline(always)]
    fn program(&self, kind: SocketKind, program: &mut Program) {
        socket::read_program(self.0, kind, program);
    }
}

/// A frame of which a message is read.
pub enum Message {
    /// At XDP.
    OfXdp(*mut xdp_md),
    /// At TC.
    OfTc(*mut __sk_buff),
}

impl Message {
    /// Copies `length` octets of the frame from `offset` on, or the first of them that there is room for; says how many
    /// that are, 0 where they can't be had.
    #[inline(always)]
    pub fn copy(&self, offset: u32, length: u32, to: &mut [u8; MESSAGE]) -> u32 {
        let Some(length) = fitting::<MESSAGE>(length) else { return 0 };
        let to = to.as_mut_ptr().cast();
        // SAFETY: the kernel passed a valid context to the program, and `to` has room for `length` octets.
        let failed = unsafe {
            match self {
                Self::OfXdp(context) => bpf_xdp_load_bytes(*context, offset, to, length as u32),
                Self::OfTc(context) => bpf_skb_load_bytes(context.cast(), offset, to, length as u32),
            }
        };
        if failed == 0 { length as u32 } else { 0 }
    }
}

/// As much of something as there is room for.
#[inline(always)]
fn fitting<const ROOM: usize>(length: u32) -> Option<u64> {
    const { assert!(ROOM.is_power_of_two(), "so that one less is a mask") }
    let mask = ROOM as u64 - 1;
    if length == 0 {
        return None;
    }
    let mut rest = u64::from(length) - 1;
    if rest > mask {
        rest = mask;
    }
    // Verifier: that of 6.1 does not learn from a comparison with 0 that a size is not 0, so one is added to what is masked;
    // and what is masked must be opaque, or the compiler passes the number that it compared.
    // SAFETY: the statement has no effect.
    unsafe { asm!("{0} = {0}", inout(reg) rest) };
    Some((rest & mask) + 1)
}

/// An entry of the ring buffer, to be filled in place.
#[inline(always)]
pub fn entry<T: FromBytes>(entry: &mut MaybeUninit<T>) -> &mut T {
    // SAFETY: the kernel's memory holds some bytes (zeros, or earlier events), and any are such an event.
    unsafe { entry.assume_init_mut() }
}
