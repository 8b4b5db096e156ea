//! Programs of this host that have sockets: what the kernel knows of them.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The process that made a socket, connected it, or sent a datagram by it: the last that did. Value of `MAKERS`, which the kernel
/// keeps with the socket itself (a socket storage), so that nobody's sockets push those of others out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Maker {
    /// When that was; monotonic clock, nanoseconds. The number may be another process's later.
    pub noted: u64,
    /// Process (thread group), in the namespace of the kernel's first process; 0: it is not known.
    pub process: u32,
    /// Name of the thread (`comm`), padded with zeros.
    pub name: [u8; 16],
    /// Keeps the size a multiple of 8.
    pub reserved: u32,
}

/// Whose a packet is, by what is behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum SocketKind {
    /// No program's here: it comes from outside, is forwarded, or is the kernel's own.
    Nobody = 0,
    /// A socket that a program has.
    Own = 1,
    /// A listener, on whose behalf the kernel answers (SYN-ACK).
    Listener = 2,
}

/// Who attempted, or sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Program {
    /// Cookie of the socket.
    pub cookie: u64,
    /// Id of the cgroup: of the process that attempts; of the socket behind a packet.
    pub cgroup: u64,
    /// Real user of the process that attempts; whoever made the socket behind a packet.
    pub uid: u32,
    /// A [`SocketKind`]; of nobody's, nothing else is known.
    pub socket: u32,
    /// The process.
    pub maker: Maker,
}

impl Program {
    /// Nobody here.
    pub const NONE: Self = Self {
        cookie: 0,
        cgroup: 0,
        uid: 0,
        socket: SocketKind::Nobody as u32,
        maker: Maker { noted: 0, process: 0, name: [0; 16], reserved: 0 },
    };
}
