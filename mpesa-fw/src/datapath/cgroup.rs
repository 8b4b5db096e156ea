//! Programs at the root of the cgroups: what is asked of sockets, not of packets. Where one can't be attached, packets are judged all
//! the same.

use std::{
    fs::{self, File},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use mpesa_fw_common::settings::{Settings, feature};

use super::{DatapathError, ErrorKind, Result, error::Context, pins::Pins};
use crate::{
    fault::{self, Point},
    sys::{self, LinkKind, ObjectKind},
};

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CgroupProgram {
    /// Counts completed connections.
    Connections,
    /// Refuses options of sockets by which frames would pass TC by.
    Bypass,
    /// Notes who makes sockets.
    Makers,
    /// Refuse programs that connect, or send a datagram, to where no packet may go.
    Connect4,
    Connect6,
    Send4,
    Send6,
}

impl CgroupProgram {
    pub(super) const ALL: [Self; 7] = [
        Self::Connections,
        Self::Bypass,
        Self::Makers,
        Self::Connect4,
        Self::Connect6,
        Self::Send4,
        Self::Send6,
    ];

    /// The program in the object, its pin in a generation, and the pin of its link.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Bypass => "bypass",
            Self::Makers => "makers",
            Self::Connect4 => "connect4",
            Self::Connect6 => "connect6",
            Self::Send4 => "sendmsg4",
            Self::Send6 => "sendmsg6",
        }
    }

    /// Whether a generation with these constants has one. A twin is asked about packets.
    pub(super) const fn is_wanted(self, settings: &Settings) -> bool {
        match self {
            _ if settings.twin != 0 => false,
            Self::Connections | Self::Bypass | Self::Makers => true,
            Self::Connect4 | Self::Connect6 | Self::Send4 | Self::Send6 => {
                settings.features & feature::REFUSES_ATTEMPTS != 0
            }
        }
    }

    /// What is not so without it.
    pub(super) const fn absence(self) -> &'static str {
        match self {
            Self::Connections => "completed connections are not counted",
            Self::Bypass => "sockets of programs with CAP_NET_RAW can pass TC by",
            Self::Makers => "packets that are dropped are told of without their process",
            Self::Connect4 => {
                "programs are not told when they connect to an IPv4 address that they may not reach"
            }
            Self::Connect6 => {
                "programs are not told when they connect to an IPv6 address that they may not reach"
            }
            Self::Send4 => "programs are not told when they send to an IPv4 address that they may not reach",
            Self::Send6 => "programs are not told when they send to an IPv6 address that they may not reach",
        }
    }

    const fn attach_type(self) -> u32 {
        match self {
            Self::Connections => sys::BPF_CGROUP_SOCK_OPS,
            Self::Bypass => sys::BPF_CGROUP_SETSOCKOPT,
            Self::Makers => sys::BPF_CGROUP_INET_SOCK_CREATE,
            Self::Connect4 => sys::BPF_CGROUP_INET4_CONNECT,
            Self::Connect6 => sys::BPF_CGROUP_INET6_CONNECT,
            Self::Send4 => sys::BPF_CGROUP_UDP4_SENDMSG,
            Self::Send6 => sys::BPF_CGROUP_UDP6_SENDMSG,
        }
    }

    const fn link_kind(self) -> LinkKind {
        LinkKind::Cgroup(self.attach_type())
    }

    /// Attaches the program of a generation, or gives the link that is there this one.
    ///
    /// # Errors
    /// There is no cgroup v2, or the kernel refuses.
    pub(super) fn attach(self, pins: &Pins, program: BorrowedFd<'_>) -> Result<()> {
        let pin = pins.cgroup_link(self);
        if let Some(link) = self.open_link(pins)? {
            sys::link_update(link.as_fd(), program)
                .context(|| format!("replace the program of the link {}", pin.display()))?;
            fault::passed(Point::CgroupReplaced);
            return self.expect_whole(link.as_fd());
        }
        let root = root()?;
        let what = || format!("attach to the cgroup {}", root.display());
        let cgroup = File::open(&root).context(what)?;
        let link = sys::cgroup_link_create(program, cgroup.as_fd(), self.attach_type()).context(what)?;
        fault::passed(Point::CgroupLinked);
        sys::pin(link.as_fd(), &pin).context(|| format!("pin the link {}", pin.display()))?;
        fault::passed(Point::CgroupPinned);
        self.expect_whole(link.as_fd())
    }

    /// Fails where it matters that programs outside of the cgroup are not asked about: in a container that sees a part of the
    /// hierarchy only. The link stays.
    fn expect_whole(self, link: BorrowedFd<'_>) -> Result<()> {
        /// Id of the root of all.
        const ROOT: u64 = 1;
        let cgroup = sys::link_info(link).context(|| format!("look at the link of {}", self.name()))?.cgroup;
        match self {
            Self::Bypass if cgroup != ROOT => Err(DatapathError::new(
                ErrorKind::Kernel,
                "attach to the root of the cgroups",
                "only a part of them is seen here: programs outside of it are not refused anything",
                "run the agent with the host's cgroup namespace (`--cgroupns=host`)",
            )),
            Self::Bypass
            | Self::Connections
            | Self::Makers
            | Self::Connect4
            | Self::Connect6
            | Self::Send4
            | Self::Send6 => Ok(()),
        }
    }

    /// Ends it, whoever else holds the link, and removes its pin.
    pub(super) fn detach(self, pins: &Pins) -> Result<()> {
        let Some(link) = self.open_link(pins)? else { return Ok(()) };
        let pin = pins.cgroup_link(self);
        sys::link_detach(link.as_fd()).context(|| format!("detach the link {}", pin.display()))?;
        fs::remove_file(&pin).context(|| format!("remove the pin {}", pin.display()))
    }

    /// The program that is attached; none: there is none.
    pub(super) fn attached(self, pins: &Pins) -> Option<u32> {
        let link = self.open_link(pins).ok()??;
        sys::link_info(link.as_fd()).ok().map(|info| info.program)
    }

    /// The link, if it is attached. The pin of one that is not is removed.
    pub(super) fn open_link(self, pins: &Pins) -> Result<Option<OwnedFd>> {
        let pin = &pins.cgroup_link(self);
        let what = || format!("look at the pinned link {}", pin.display());
        let link = match sys::open_pin(pin) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
            other => other.context(what)?,
        };
        let is_link = sys::object_kind(link.as_fd()).context(what)? == ObjectKind::Link;
        let info = if is_link { Some(sys::link_info(link.as_fd()).context(what)?) } else { None };
        match info {
            Some(info) if info.kind == self.link_kind() && info.cgroup != 0 => Ok(Some(link)),
            Some(info) if info.kind == self.link_kind() => {
                fs::remove_file(pin).context(|| format!("remove the pin {}", pin.display()))?;
                Ok(None)
            }
            Some(_) | None => Err(DatapathError::new(
                ErrorKind::Foreign,
                what(),
                "something lies there that is no link of mpesa-fw",
                format!("remove it: `rm -r {}`", pin.display()),
            )),
        }
    }
}

/// One for each.
#[derive(Debug)]
pub(super) struct ByCgroupProgram<T>([T; CgroupProgram::ALL.len()]);

impl<T> ByCgroupProgram<T> {
    pub(super) fn new(of: impl FnMut(CgroupProgram) -> T) -> Self {
        Self(CgroupProgram::ALL.map(of))
    }

    pub(super) const fn get(&self, program: CgroupProgram) -> &T {
        &self.0[program as usize]
    }

    pub(super) const fn get_mut(&mut self, program: CgroupProgram) -> &mut T {
        &mut self.0[program as usize]
    }
}

/// Where the hierarchy of cgroups v2 is mounted, as a whole where that can be had.
pub(super) fn root() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context(|| "read the mounts")?;
    find_root(&mounts).ok_or_else(|| {
        DatapathError::new(
            ErrorKind::Kernel,
            "find the cgroup hierarchy",
            "no cgroup v2 is mounted",
            "mount one: `mount -t cgroup2 cgroup2 /sys/fs/cgroup`",
        )
    })
}

/// In the form of proc_pid_mountinfo(5): id, parent, device, root, mount point, options, …, `-`, type.
fn find_root(mounts: &str) -> Option<PathBuf> {
    let of_cgroups = mounts.lines().filter_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        (kind.split(' ').next() == Some("cgroup2")).then_some((fields.next()?, fields.next()?))
    });
    let (_, point) = of_cgroups.min_by_key(|(root, _)| root.len())?;
    Some(PathBuf::from(point.replace("\\040", " ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_hierarchy_is_preferred() {
        let mounts = "25 1 0:21 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
             31 25 0:27 /a/b /run/part rw,relatime shared:9 - cgroup2 cgroup2 rw\n\
             30 25 0:27 / /sys/fs/cgroup/uni\\040fied rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(find_root(mounts), Some(PathBuf::from("/sys/fs/cgroup/uni fied")));
        assert_eq!(find_root("25 1 0:21 / /sys/fs/cgroup rw - cgroup cgroup rw,cpu\n"), None);
    }
}
