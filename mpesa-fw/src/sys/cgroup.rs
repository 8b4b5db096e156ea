//! What concerns the sockets of a cgroup, and the network namespace that they are in.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
};

use super::{Command, bpf_fd, programs_at, raw};

/// Attach type of programs that are told of sockets that are made.
pub const BPF_CGROUP_INET_SOCK_CREATE: u32 = 2;
/// Attach type of programs that are told of TCP connections.
pub const BPF_CGROUP_SOCK_OPS: u32 = 3;
/// Attach types of programs that are asked before a socket is connected, or a datagram sent to an address that goes with it.
pub const BPF_CGROUP_INET4_CONNECT: u32 = 10;
/// Likewise.
pub const BPF_CGROUP_INET6_CONNECT: u32 = 11;
/// Likewise.
pub const BPF_CGROUP_UDP4_SENDMSG: u32 = 14;
/// Likewise.
pub const BPF_CGROUP_UDP6_SENDMSG: u32 = 15;
/// Attach type of programs that are asked before an option of a socket is set.
pub const BPF_CGROUP_SETSOCKOPT: u32 = 22;

/// Attaches a program to a cgroup, beside those that are there. The link lives as long as the descriptor or a pin of it.
pub fn cgroup_link_create(
    program: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
    attach_type: u32,
) -> io::Result<OwnedFd> {
    // Links are always of the kind that others may stand beside; flags are refused.
    bpf_fd(Command::LinkCreate, [raw(program), raw(cgroup), attach_type, 0, 0, 0, 0, 0])
}

/// Ids of the programs that are attached to a cgroup itself, in the order in which they run.
pub fn cgroup_programs(cgroup: BorrowedFd<'_>, attach_type: u32) -> io::Result<Vec<u32>> {
    programs_at(raw(cgroup), attach_type)
}

/// The number that the kernel gives the network namespace of a socket, for as long as it runs (Linux 5.14).
pub fn netns_cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    /// Not in the crate libc for every platform.
    const SO_NETNS_COOKIE: libc::c_int = 71;
    let mut cookie = 0u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, which is the size of the number.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(cookie) }
}
