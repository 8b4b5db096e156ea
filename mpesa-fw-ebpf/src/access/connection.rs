//! A TCP connection, as the kernel tells a program at a cgroup of it.

use aya_ebpf::{bindings::bpf_sock_ops, helpers::generated::bpf_get_netns_cookie};
use mpesa_fw_common::Address;

/// A TCP connection that the kernel tells a program at a cgroup of.
pub struct Connection {
    context: *mut bpf_sock_ops,
}

impl Connection {
    #[inline(always)]
    pub fn new(context: *mut bpf_sock_ops) -> Self {
        Self { context }
    }

    /// Whether it is one from outside whose handshake has just been finished.
    #[inline(always)]
    pub fn is_accepted(&self) -> bool {
        /// `BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB` (bpf.h).
        const PASSIVE_ESTABLISHED: u32 = 5;
        field!(self, op) == PASSIVE_ESTABLISHED
    }

    /// Cookie of its network namespace (Linux 5.15).
    #[inline(always)]
    pub fn namespace(&self) -> u64 {
        // SAFETY: the context is valid.
        unsafe { bpf_get_netns_cookie(self.context.cast()) }
    }

    /// This host's end and the peer's. A socket of both families holds IPv4 in mapped form, as [`Address`] does.
    #[inline(always)]
    pub fn ends(&self) -> (Address, Address) {
        const AF_INET: u32 = 2;
        if field!(self, family) == AF_INET {
            let local = Address::v4(u32::from_be(field!(self, local_ip4)));
            return (local, Address::v4(u32::from_be(field!(self, remote_ip4))));
        }
        let local = [
            field!(self, local_ip6[0]),
            field!(self, local_ip6[1]),
            field!(self, local_ip6[2]),
            field!(self, local_ip6[3]),
        ];
        let remote = [
            field!(self, remote_ip6[0]),
            field!(self, remote_ip6[1]),
            field!(self, remote_ip6[2]),
            field!(self, remote_ip6[3]),
        ];
        (Address { words: local.map(u32::from_be) }, Address { words: remote.map(u32::from_be) })
    }

    /// This host's port.
    #[inline(always)]
    pub fn local_port(&self) -> u16 {
        field!(self, local_port) as u16
    }
}
