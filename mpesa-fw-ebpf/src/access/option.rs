//! An option of a socket that a program is about to set, as the kernel shows it to a program at a cgroup.

use core::ptr;

use aya_ebpf::{bindings::bpf_sockopt, helpers::generated::bpf_get_netns_cookie};

/// An option of a socket that a program is about to set.
pub struct SocketOption {
    context: *mut bpf_sockopt,
}

impl SocketOption {
    #[inline(always)]
    pub fn new(context: *mut bpf_sockopt) -> Self {
        Self { context }
    }

    /// Its level and number.
    #[inline(always)]
    pub fn name(&self) -> (i32, i32) {
        (field!(self, level), field!(self, optname))
    }

    /// Cookie of the socket's network namespace (for this kind of program since Linux 5.15).
    #[inline(always)]
    pub fn namespace(&self) -> u64 {
        // SAFETY: the context is valid.
        unsafe { bpf_get_netns_cookie(self.context.cast()) }
    }

    /// Makes the kernel take the caller's own value where it has shown this program only a part of it.
    ///
    /// Kernel: a page of a value is shown. A longer one whose length the program leaves alone is refused with EFAULT (6.1; later ones
    /// ignore the program's copy), and legacy iptables sets such values; 0 says that the value is the caller's.
    #[inline(always)]
    pub fn leave_alone(&self) {
        let (begin, end) = (field!(self, __bindgen_anon_2.optval), field!(self, __bindgen_anon_3.optval_end));
        let shown = (end as usize).wrapping_sub(begin as usize);
        let length = field!(self, optlen);
        // -1 is another program's answer.
        if length > 0 && length as usize > shown {
            // SAFETY: the context is valid, and a program may write its length.
            unsafe { ptr::write_volatile(&raw mut (*self.context).optlen, 0) }
        }
    }
}
