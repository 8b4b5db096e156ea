//! Whose a socket is, as the kernel's list of sockets says it.

/// Who has a socket. Whose it is to a rule: [`Groups::owner`](super::groups::Groups::owner).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    /// Who made it, or accepted it. None: its program has closed it, and before Linux 6.17 the kernel says root then.
    pub user: Option<u32>,
    /// The id of its cgroup. A socket that was accepted is in that of its listener. None: this kernel does not say.
    pub group: Option<u64>,
}
