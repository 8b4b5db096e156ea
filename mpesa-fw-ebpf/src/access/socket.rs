//! The socket behind a packet at TC.

use aya_ebpf::{
    bindings::bpf_sock,
    helpers::generated::{
        bpf_get_socket_cookie, bpf_get_socket_uid, bpf_sk_fullsock, bpf_skb_ancestor_cgroup_id,
        bpf_skb_cgroup_id,
    },
};
use mpesa_fw_common::owner::Owner;

use super::SkbFrame;

impl SkbFrame {
    /// The socket behind the packet, if there is one that a program may hold.
    #[inline(always)]
    pub fn socket(&self) -> Option<Socket> {
        // SAFETY: the context is valid, and `sk` is null or a socket held by the packet.
        unsafe {
            let socket = (*self.context).__bindgen_anon_2.sk;
            if socket.is_null() {
                return None;
            }
            let full = bpf_sk_fullsock(socket);
            if full.is_null() { None } else { Some(Socket(full)) }
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

    /// Whether the socket is in the root of the cgroups, where the kernel's own are and no program of a systemd machine is.
    #[inline(always)]
    pub fn is_in_root(&self) -> bool {
        const ROOT: u64 = 1;
        // SAFETY: the context is valid.
        unsafe { bpf_skb_cgroup_id(self.context) == ROOT }
    }
}

/// A socket that a program may hold.
pub struct Socket(*mut bpf_sock);

impl Socket {
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

    /// Whether it is a packet socket; the kernel has none.
    #[inline(always)]
    pub fn is_packet(&self) -> bool {
        const AF_PACKET: u32 = 17;
        // SAFETY: as above.
        unsafe { (*self.0).family == AF_PACKET }
    }
}
