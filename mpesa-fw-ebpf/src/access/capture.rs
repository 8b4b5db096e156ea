//! Parts of a frame, copied: its beginning into the entry of an event, the message in it into a map.

use core::{arch::asm, mem::MaybeUninit};

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock, xdp_md},
    helpers::generated::{
        bpf_get_socket_cookie, bpf_get_socket_uid, bpf_sk_fullsock, bpf_skb_cgroup_id, bpf_skb_load_bytes,
        bpf_xdp_load_bytes,
    },
};
use mpesa_fw_common::{
    FromBytes,
    dns::MESSAGE,
    event::CAPTURE_BYTES,
    program::{Program, SocketKind},
};

use super::{XdpFrame, maker::maker};

/// Where the bytes of a frame are copied from.
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
        // SAFETY: the context is valid, and `sk` is null or a socket held by the packet.
        unsafe {
            let socket = (*self.0).__bindgen_anon_2.sk;
            // One that waits for its end has no group either.
            if socket.is_null() || bpf_skb_cgroup_id(self.0) == 0 {
                return SocketKind::Nobody;
            }
            let full = bpf_sk_fullsock(socket);
            if full.is_null() {
                return SocketKind::Listener;
            }
            if is_the_kernels(full, bpf_skb_cgroup_id(self.0)) { SocketKind::Nobody } else { SocketKind::Own }
        }
    }

    #[inline(always)]
    fn program(&self, kind: SocketKind, program: &mut Program) {
        *program = Program::NONE;
        program.socket = kind as u32;
        if matches!(kind, SocketKind::Nobody) {
            return;
        }
        // SAFETY: as above.
        unsafe {
            program.cookie = bpf_get_socket_cookie(self.0.cast());
            program.cgroup = bpf_skb_cgroup_id(self.0);
            program.uid = bpf_get_socket_uid(self.0);
            let socket = (*self.0).__bindgen_anon_2.sk;
            if socket.is_null() {
                return;
            }
            if let Some(maker) = maker(socket.cast()) {
                program.maker = maker;
            }
        }
    }
}

/// Whether it is one of the kernel's raw sockets, by which it sends RSTs and answers to pings: of nobody, in the root of the groups.
#[inline(always)]
unsafe fn is_the_kernels(socket: *mut bpf_sock, cgroup: u64) -> bool {
    const ROOT: u64 = 1;
    const SOCK_RAW: u32 = 3;
    const AF_PACKET: u32 = 17;
    // SAFETY: the caller's socket is held.
    let (kind, family) = unsafe { ((*socket).type_, (*socket).family) };
    cgroup == ROOT && kind == SOCK_RAW && family != AF_PACKET && maker(socket.cast()).is_none()
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
