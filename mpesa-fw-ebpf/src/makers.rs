//! Notes with each socket of this namespace who made it. Raw sockets are told of nowhere else.

use crate::{access::NewSocket, kernel::namespace};

/// What a program at a cgroup answers so that the socket is made.
const GO_ON: i32 = 1;

/// A socket is being made.
#[inline(always)]
pub fn note(socket: &NewSocket) -> i32 {
    // Other namespaces have agents of their own, or none.
    if socket.namespace() == namespace() {
        socket.note_maker();
    }
    GO_ON
}
