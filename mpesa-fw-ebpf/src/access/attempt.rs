//! An address that a program connects a socket or sends a datagram to, as the kernel shows it to a program at a cgroup.

use core::ptr;

use aya_ebpf::{
    bindings::bpf_sock_addr,
    helpers::generated::{
        bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id, bpf_get_current_comm,
        bpf_get_current_pid_tgid, bpf_get_current_uid_gid, bpf_get_netns_cookie, bpf_get_socket_cookie,
    },
};
use mpesa_fw_common::{
    Address, Family,
    owner::Owner,
    program::{Program, SocketKind},
};

use super::{exactly_now, maker::note_maker};

/// An address that a program connects or sends to.
pub struct SocketAddress {
    context: *mut bpf_sock_addr,
}

impl SocketAddress {
    #[inline(always)]
    pub fn new(context: *mut bpf_sock_addr) -> Self {
        Self { context }
    }

    /// Cookie of the socket's network namespace (for this kind of program since Linux 5.7).
    #[inline(always)]
    pub fn namespace(&self) -> u64 {
        // SAFETY: the context is valid.
        unsafe { bpf_get_netns_cookie(self.context.cast()) }
    }

    /// Whether the socket is one of TCP.
    #[inline(always)]
    pub fn is_tcp(&self) -> bool {
        const SOCK_STREAM: u32 = 1;
        field!(self, type_) == SOCK_STREAM && field!(self, protocol) == 6
    }

    /// Whether the socket is one of UDP (not of ping, nor UDP-Lite).
    #[inline(always)]
    pub fn is_udp(&self) -> bool {
        const SOCK_DGRAM: u32 = 2;
        field!(self, type_) == SOCK_DGRAM && field!(self, protocol) == 17
    }

    /// The address, where the program is for `family`. A mapped one is of IPv4.
    #[inline(always)]
    pub fn remote(&self, family: Family) -> Address {
        if matches!(family, Family::V4) {
            return Address::v4(u32::from_be(field!(self, user_ip4)));
        }
        let words = [
            field!(self, user_ip6[0]),
            field!(self, user_ip6[1]),
            field!(self, user_ip6[2]),
            field!(self, user_ip6[3]),
        ];
        Address { words: words.map(u32::from_be) }
    }

    /// Its port.
    #[inline(always)]
    pub fn remote_port(&self) -> u16 {
        u16::from_be(field!(self, user_port) as u16)
    }

    /// The port and the interface that the socket is bound to; 0: none.
    #[inline(always)]
    pub fn bound(&self) -> (u16, u32) {
        let socket = field!(self, __bindgen_anon_1.sk);
        if socket.is_null() {
            return (0, u32::MAX);
        }
        // SAFETY: it is held by whoever connects or sends; `src_port` is in host byte order (bpf.h).
        unsafe {
            let port = ptr::read_volatile(&raw const (*socket).src_port);
            (port as u16, ptr::read_volatile(&raw const (*socket).bound_dev_if))
        }
    }

    /// Who attempts.
    #[inline(always)]
    pub fn program(&self, program: &mut Program) {
        // SAFETY: the context is valid; the others take no pointers.
        unsafe {
            program.cookie = bpf_get_socket_cookie(self.context.cast());
            program.cgroup = bpf_get_current_cgroup_id();
            program.maker.process = (bpf_get_current_pid_tgid() >> 32) as u32;
        }
        program.socket = SocketKind::Own as u32;
        program.maker.noted = exactly_now();
        program.maker.reserved = 0;
        (program.uid, program.maker.name) = current();
    }

    /// Notes with the socket who uses it.
    #[inline(always)]
    pub fn note_maker(&self) {
        let socket = field!(self, __bindgen_anon_1.sk);
        if !socket.is_null() {
            note_maker(socket);
        }
    }

    /// The cgroup that the process is in, and its real user.
    #[inline(always)]
    pub fn sender(&self) -> (u64, u32) {
        // SAFETY: takes no arguments.
        unsafe { (bpf_get_current_cgroup_id(), bpf_get_current_uid_gid() as u32) }
    }

    /// Whose the process is: its real user, its cgroups.
    #[inline(always)]
    pub fn owner(&self) -> Owner {
        let mut owner = Owner::UNKNOWN;
        owner.is_known = 1;
        // SAFETY: takes no arguments.
        owner.uid = unsafe { bpf_get_current_uid_gid() } as u32;
        for (level, id) in (1..).zip(owner.cgroups.iter_mut()) {
            // SAFETY: takes no pointers.
            *id = unsafe { bpf_get_current_ancestor_cgroup_id(level) };
            if *id == 0 {
                break;
            }
        }
        owner
    }
}

/// Real user and name of whoever runs.
#[inline(always)]
pub fn current() -> (u32, [u8; 16]) {
    let mut name = [0; 16];
    // SAFETY: takes no pointers but that of the name, which has its room.
    unsafe {
        let uid = bpf_get_current_uid_gid() as u32;
        bpf_get_current_comm(name.as_mut_ptr().cast(), name.len() as u32);
        (uid, name)
    }
}
