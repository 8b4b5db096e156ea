//! Who made a socket, kept with it; and a socket that is being made, as the kernel shows it to a program at a cgroup.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock},
    helpers::generated::{bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_netns_cookie},
};
use mpesa_fw_common::program::Maker;

use super::{exactly_now, storage::storage};
use crate::maps::MAKERS;

/// A socket that is being made.
pub struct NewSocket {
    context: *mut bpf_sock,
}

impl NewSocket {
    #[inline(always)]
    pub fn new(context: *mut bpf_sock) -> Self {
        Self { context }
    }

    /// Cookie of its network namespace (for this kind of program since Linux 5.7).
    #[inline(always)]
    pub fn namespace(&self) -> u64 {
        // SAFETY: the context is valid.
        unsafe { bpf_get_netns_cookie(self.context.cast()) }
    }

    /// Notes who makes it.
    #[inline(always)]
    pub fn note_maker(&self) {
        note_maker(self.context);
    }
}

/// Notes with a socket that is held that whoever runs now uses it.
#[inline(always)]
pub(super) fn note_maker(socket: *mut bpf_sock) {
    // SAFETY: takes no arguments.
    let process = (unsafe { bpf_get_current_pid_tgid() } >> 32) as u32;
    let Some(maker) = storage(&MAKERS, socket.cast(), BPF_SK_STORAGE_GET_F_CREATE) else { return };
    // A packet that is told of at this very moment may have the number of one and the name of another.
    maker.noted = exactly_now();
    maker.process = process;
    // SAFETY: the name has its room.
    unsafe { bpf_get_current_comm(maker.name.as_mut_ptr().cast(), maker.name.len() as u32) };
}

/// What is noted of a socket that is held: one of those that are no full sockets has none.
#[inline(always)]
pub(super) fn maker(socket: *mut c_void) -> Option<Maker> {
    storage(&MAKERS, socket, 0).copied()
}
