//! The socket behind a packet at TC.

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock},
    helpers::generated::{
        bpf_get_socket_cookie, bpf_get_socket_uid, bpf_sk_fullsock, bpf_skb_ancestor_cgroup_id,
        bpf_skb_cgroup_id,
    },
};
use mpesa_fw_common::{
    owner::Owner,
    program::{Program, SocketKind},
};

use super::{SkbFrame, maker::maker};

impl SkbFrame {
    /// The socket behind the packet, if there is one that a program may hold.
    #[inline(always)]
    pub fn socket(&self) -> Option<Socket> {
        // SAFETY: the context is valid, and `sk` is null or a socket held by the packet.
        unsafe {
            let socket = (*self.context).__bindgen_anon_2.sk;
            if socket.is_null() { None } else { Socket::full(socket) }
        }
    }

    /// Cookie of the socket; 0: there is none.
    #[inline(always)]
    pub fn cookie(&self) -> u64 {
        // SAFETY: the context is valid.
        unsafe { bpf_get_socket_cookie(self.context.cast()) }
    }

    /// Id of the cgroup that the socket is in; 0: there is none. Of a SYN-ACK, that of the one that listens.
    #[inline(always)]
    pub fn cgroup(&self) -> u64 {
        // SAFETY: the context is valid.
        unsafe { bpf_skb_cgroup_id(self.context) }
    }

    /// User that made the socket.
    #[inline(always)]
    pub fn uid(&self) -> u32 {
        // SAFETY: the context is valid.
        unsafe { bpf_get_socket_uid(self.context) }
    }

    /// Whose the socket is; of a SYN-ACK, the one that listens (`sk_to_full_sk`). Into an owner that is not known.
    #[inline(always)]
    pub fn read_owner(&self, owner: &mut Owner) {
        // SAFETY: the context is valid, here and below.
        if unsafe { bpf_skb_cgroup_id(self.context) } == 0 {
            return;
        }
        owner.is_known = 1;
        owner.uid = unsafe { bpf_get_socket_uid(self.context) };
        for (level, id) in (1..).zip(owner.cgroups.iter_mut()) {
            *id = unsafe { bpf_skb_ancestor_cgroup_id(self.context, level) };
            if *id == 0 {
                break;
            }
        }
    }

    /// Whether the socket, that of this packet, is one of the kernel's own raw sockets, by which it sends resets and answers to
    /// pings: in the root of the cgroups, where no program of a systemd machine is, and made by nobody.
    #[inline(always)]
    pub fn is_of_the_kernel(&self, socket: &Socket) -> bool {
        // SAFETY: the context is valid.
        socket.is_the_kernels(unsafe { bpf_skb_cgroup_id(self.context) })
    }
}

/// Whose the frame is, by what is behind it.
#[inline(always)]
pub(super) fn kind(context: *mut __sk_buff) -> SocketKind {
    // SAFETY: the context is valid, and `sk` is null or a socket held by the packet.
    unsafe {
        let socket = (*context).__bindgen_anon_2.sk;
        let cgroup = if socket.is_null() { 0 } else { bpf_skb_cgroup_id(context) };
        // One that waits for its end has no group either.
        if cgroup == 0 {
            return SocketKind::Nobody;
        }
        let Some(socket) = Socket::full(socket) else { return SocketKind::Listener };
        if socket.is_the_kernels(cgroup) { SocketKind::Nobody } else { SocketKind::Own }
    }
}

/// Says who sends a frame, which is of such a socket.
#[inline(always)]
pub(super) fn read_program(context: *mut __sk_buff, kind: SocketKind, program: &mut Program) {
    *program = Program::NONE;
    program.socket = kind as u32;
    if matches!(kind, SocketKind::Nobody) {
        return;
    }
    // SAFETY: as above.
    unsafe {
        program.cookie = bpf_get_socket_cookie(context.cast());
        program.cgroup = bpf_skb_cgroup_id(context);
        program.uid = bpf_get_socket_uid(context);
        let socket = (*context).__bindgen_anon_2.sk;
        if socket.is_null() {
            return;
        }
        if let Some(maker) = maker(socket.cast()) {
            program.maker = maker;
        }
    }
}

/// Id of the root of the cgroups.
const ROOT: u64 = 1;

/// A socket that a program may hold.
pub struct Socket(*mut bpf_sock);

impl Socket {
    /// One that is held, if it is more than a request for one or its remains.
    #[inline(always)]
    unsafe fn full(socket: *mut bpf_sock) -> Option<Self> {
        // SAFETY: the caller's socket is held, and not null.
        let full = unsafe { bpf_sk_fullsock(socket) };
        if full.is_null() { None } else { Some(Self(full)) }
    }

    /// The port that it is bound to; 0: none.
    #[inline(always)]
    pub fn port(&self) -> u16 {
        // SAFETY: the helper returned a socket that is held by the packet; `src_port` is in host byte order (bpf.h).
        unsafe { (*self.0).src_port as u16 }
    }

    /// Whether it is a raw socket of IP; the kernel has some of its own.
    #[inline(always)]
    pub fn is_raw(&self) -> bool {
        const SOCK_RAW: u32 = 3;
        // SAFETY: as above.
        unsafe { (*self.0).type_ == SOCK_RAW }
    }

    /// Whether it is the kernel's own, being in that cgroup.
    #[inline(always)]
    fn is_the_kernels(&self, cgroup: u64) -> bool {
        cgroup == ROOT && self.is_raw() && !self.is_packet() && maker(self.0.cast()).is_none()
    }

    /// Whether it is a packet socket; the kernel has none.
    #[inline(always)]
    pub fn is_packet(&self) -> bool {
        const AF_PACKET: u32 = 17;
        // SAFETY: as above.
        unsafe { (*self.0).family == AF_PACKET }
    }
}
