//! The listener for which the kernel answers a SYN. When more SYNs wait than it has room for, the kernel answers by cookie: no
//! socket is behind the answer (`tcp_make_synack`, `TCP_SYNACK_COOKIE`), and of a socket that is looked up a program at TC is
//! not told the cgroup. So it is noted with each listener, from its answers that have a request behind them, whose it is.

use aya_ebpf::{
    bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock_tuple},
    helpers::generated::{bpf_get_listener_sock, bpf_sk_release, bpf_skc_lookup_tcp},
};
use mpesa_fw_common::{Family, owner::Owner, packet::PacketMeta};

use super::{SkbFrame, storage::storage};
use crate::maps::LISTENERS;

/// `BPF_F_CURRENT_NETNS`: the namespace of the interface.
const CURRENT_NAMESPACE: u64 = u64::MAX;

impl SkbFrame {
    /// Notes whose the listener is, where there is one behind the packet.
    #[inline(always)]
    pub fn note_listener(&self, owner: &Owner) {
        // SAFETY: the context is valid, and `sk` is null or a socket held by the packet, as is the one it was asked for by.
        unsafe {
            let socket = (*self.context).__bindgen_anon_2.sk;
            if socket.is_null() {
                return;
            }
            let listener = bpf_get_listener_sock(socket);
            if listener.is_null() {
                return;
            }
            if let Some(noted) = storage(&LISTENERS, listener.cast(), BPF_SK_STORAGE_GET_F_CREATE) {
                *noted = *owner;
            }
        }
    }

    /// Reads whose the listener is for which this host answers by cookie: one that was noted, if the packet is such an answer. What is
    /// forwarded came in by an interface, and what a program makes up has a socket.
    #[inline(always)]
    pub fn read_listener(&self, meta: &PacketMeta, owner: &mut Owner) {
        // SAFETY: the context is valid.
        let (has_socket, came_in) =
            unsafe { (!(*self.context).__bindgen_anon_2.sk.is_null(), (*self.context).ingress_ifindex != 0) };
        if has_socket || came_in {
            return;
        }
        let (tuple, length) = tuple(meta);
        // SAFETY: the tuple has the length; what is found is let go of, and not used behind that.
        unsafe {
            let context = self.context.cast();
            let socket =
                bpf_skc_lookup_tcp(context, (&raw const tuple).cast_mut(), length, CURRENT_NAMESPACE, 0);
            if socket.is_null() {
                return;
            }
            if let Some(noted) = storage(&LISTENERS, socket.cast(), 0) {
                *owner = *noted;
            }
            bpf_sk_release(socket.cast());
        }
    }
}

/// As the SYN had them: the peer is the source. And how many bytes of it count.
#[inline(always)]
fn tuple(meta: &PacketMeta) -> (bpf_sock_tuple, u32) {
    // SAFETY: all zeros are a value of this union of integers.
    let mut tuple: bpf_sock_tuple = unsafe { core::mem::zeroed() };
    let (source_port, target_port) = (meta.target_port.to_be(), meta.source_port.to_be());
    match meta.family {
        Family::V4 => {
            tuple.__bindgen_anon_1.ipv4.saddr = meta.target.v4_bits().to_be();
            tuple.__bindgen_anon_1.ipv4.daddr = meta.source.v4_bits().to_be();
            tuple.__bindgen_anon_1.ipv4.sport = source_port;
            tuple.__bindgen_anon_1.ipv4.dport = target_port;
            (tuple, 12)
        }
        Family::V6 => {
            tuple.__bindgen_anon_1.ipv6.saddr = meta.target.words.map(u32::to_be);
            tuple.__bindgen_anon_1.ipv6.daddr = meta.source.words.map(u32::to_be);
            tuple.__bindgen_anon_1.ipv6.sport = source_port;
            tuple.__bindgen_anon_1.ipv6.dport = target_port;
            (tuple, 36)
        }
    }
}
