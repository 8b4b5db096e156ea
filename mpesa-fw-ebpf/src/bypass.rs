//! Refuses the options by which a socket sends past the queueing discipline, and so past egress: the frames of such a socket are
//! handed to the driver (`__dev_direct_xmit`). Whoever has CAP_NET_RAW may set them.
//!
//! Kernel: the program runs before the option is looked at, for sockets of every family and for io_uring too.

use mpesa_fw_common::{bypass::Bypass, tables::Tables as _};

use crate::{
    access::{self, SocketOption},
    kernel::{KERNEL, namespace},
    maps,
};

/// What a program at a cgroup answers so that the option is set.
const GO_ON: i32 = 1;
/// And so that it is not: EPERM.
const REFUSE: i32 = 0;

/// Refuses it, if it makes a way round TC in this agent's network namespace.
#[inline(always)]
pub fn judge(option: &SocketOption) -> i32 {
    let (level, name) = option.name();
    let Some(bypass) = Bypass::of(level, name) else {
        option.leave_alone();
        return GO_ON;
    };
    // Other namespaces have agents of their own, or none.
    if option.namespace() != namespace() {
        return GO_ON;
    }
    if let Some(count) = access::value(maps::BYPASSES.get_ptr_mut(bypass as u32)) {
        access::add(count, 1);
    }
    if KERNEL.observes() { GO_ON } else { REFUSE }
}
