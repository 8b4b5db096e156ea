//! What bpf(2) does not tell or do: which XDP program an interface has, and filters of the clsact qdisc.
//!
//! Messages are put together by hand (rtnetlink(7), tc in `linux/pkt_cls.h`): four of them don't justify a crate that
//! needs an async runtime.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

use mpesa_fw_common::settings::Direction;

use super::hooks::tc_program;
use crate::sys;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWQDISC: u16 = 36;
const RTM_DELQDISC: u16 = 37;
const RTM_NEWTFILTER: u16 = 44;
const RTM_DELTFILTER: u16 = 45;
const RTM_GETTFILTER: u16 = 46;

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;

const IFLA_XDP: u16 = 43;
const IFLA_XDP_PROG_ID: u16 = 4;
const IFLA_XDP_DRV_PROG_ID: u16 = 5;
const IFLA_XDP_SKB_PROG_ID: u16 = 6;
const IFLA_XDP_HW_PROG_ID: u16 = 7;

const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_FD: u16 = 6;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
const TCA_BPF_ID: u16 = 11;
const TCA_BPF_FLAG_ACT_DIRECT: u32 = 1;

const TC_H_CLSACT: u32 = 0xffff_fff1;
const CLSACT_HANDLE: u32 = 0xffff_0000;
const ETH_P_ALL: u16 = 0x0003;
const NLA_TYPE_MASK: u16 = 0x3fff;
const NLA_F_NESTED: u16 = 0x8000;

/// The XDP programs of an interface, by mode; 0: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct XdpPrograms {
    /// In the driver.
    pub(super) native: u32,
    /// Generic.
    pub(super) generic: u32,
    /// On the card.
    pub(super) offloaded: u32,
}

impl XdpPrograms {
    /// The first that `is_ours` does not know.
    pub(super) fn foreign(self, is_ours: impl Fn(u32) -> bool) -> Option<u32> {
        [self.native, self.generic, self.offloaded].into_iter().find(|id| *id != 0 && !is_ours(*id))
    }
}

/// A BPF filter of the clsact qdisc.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filter {
    pub(super) priority: u16,
    pub(super) handle: u32,
    /// 0: not a BPF filter.
    pub(super) program: u32,
    pub(super) name: String,
}

/// A connection to rtnetlink of the process's own network namespace.
pub(super) struct Netlink {
    socket: OwnedFd,
}

impl Netlink {
    pub(super) fn open() -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        Ok(Self { socket })
    }

    /// The number of the network namespace that this is about.
    pub(super) fn netns_cookie(&self) -> io::Result<u64> {
        sys::netns_cookie(self.socket.as_fd())
    }

    /// The XDP programs of an interface.
    pub(super) fn xdp(&self, interface: u32) -> io::Result<XdpPrograms> {
        let mut request = Request::new(RTM_GETLINK, 0);
        request.link_header(interface);
        let mut found = XdpPrograms::default();
        self.talk(request, |kind, body| {
            if kind != RTM_NEWLINK {
                return;
            }
            let Some(xdp) = attributes(body, 16).find(|(kind, _)| *kind == IFLA_XDP) else {
                return;
            };
            let mut single = 0;
            let mut mode = 0u8;
            for (kind, value) in attributes(xdp.1, 0) {
                match kind {
                    2 => mode = value.first().copied().unwrap_or(0), // IFLA_XDP_ATTACHED
                    IFLA_XDP_PROG_ID => single = u32_of(value),
                    IFLA_XDP_DRV_PROG_ID => found.native = u32_of(value),
                    IFLA_XDP_SKB_PROG_ID => found.generic = u32_of(value),
                    IFLA_XDP_HW_PROG_ID => found.offloaded = u32_of(value),
                    _ => {}
                }
            }
            match mode {
                1 if found.native == 0 => found.native = single,
                2 if found.generic == 0 => found.generic = single,
                3 if found.offloaded == 0 => found.offloaded = single,
                _ => {}
            }
        })?;
        Ok(found)
    }

    /// Gives an interface a clsact qdisc. False: it has one.
    pub(super) fn add_clsact(&self, interface: u32) -> io::Result<bool> {
        let mut request = Request::new(RTM_NEWQDISC, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL);
        request.tc_header(interface, CLSACT_HANDLE, TC_H_CLSACT, 0);
        request.attribute(TCA_KIND, b"clsact\0");
        match self.talk(request, |_, _| {}) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
            other => other.map(|()| true),
        }
    }

    /// Removes the clsact qdisc of an interface unless a filter is in it; it may be gone.
    pub(super) fn remove_empty_clsact(&self, interface: u32) -> io::Result<()> {
        for direction in Direction::ALL {
            let mut is_empty = true;
            // Filters of every kind, and whatever the kernel lists beside them.
            self.list_filters(interface, direction, |_| is_empty = false)?;
            if !is_empty {
                return Ok(());
            }
        }
        let mut request = Request::new(RTM_DELQDISC, NLM_F_ACK);
        request.tc_header(interface, CLSACT_HANDLE, TC_H_CLSACT, 0);
        // Without the kind, an `ingress` qdisc of somebody else, which has the same handle, would go too.
        request.attribute(TCA_KIND, b"clsact\0");
        match self.talk(request, |_, _| {}) {
            Err(error)
                if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENODEV | libc::ENOENT)) =>
            {
                Ok(())
            }
            other => other,
        }
    }

    /// Filters of one side of the clsact qdisc, in the order in which they run.
    pub(super) fn filters(&self, interface: u32, direction: Direction) -> io::Result<Vec<Filter>> {
        let mut filters = Vec::new();
        self.list_filters(interface, direction, |body| filters.extend(filter(body)))?;
        Ok(filters)
    }

    fn list_filters(
        &self,
        interface: u32,
        direction: Direction,
        mut each: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        let mut request = Request::new(RTM_GETTFILTER, NLM_F_DUMP);
        request.tc_header(interface, 0, parent(direction), 0);
        let answer = self.talk(request, |kind, body| {
            if kind == RTM_NEWTFILTER {
                each(body);
            }
        });
        match answer {
            // No clsact qdisc, or no such interface.
            Err(error)
                if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENODEV | libc::ENOENT)) =>
            {
                Ok(())
            }
            other => other,
        }
    }

    /// Adds a filter, or with `replace` gives the one that is there another program: packets see the old or the new one.
    pub(super) fn set_filter(
        &self,
        interface: u32,
        direction: Direction,
        place: (u16, u32),
        program: BorrowedFd<'_>,
        replace: bool,
    ) -> io::Result<()> {
        let create = if replace { 0 } else { NLM_F_CREATE | NLM_F_EXCL };
        let mut request = Request::new(RTM_NEWTFILTER, NLM_F_ACK | create);
        request.tc_header(interface, place.1, parent(direction), tcm_info(place.0));
        request.attribute(TCA_KIND, b"bpf\0");
        let mut name = tc_program(direction).as_bytes().to_vec();
        name.push(0);
        request.nested(TCA_OPTIONS, |request| {
            request.attribute(TCA_BPF_FD, &program.as_raw_fd().to_ne_bytes());
            request.attribute(TCA_BPF_NAME, &name);
            request.attribute(TCA_BPF_FLAGS, &TCA_BPF_FLAG_ACT_DIRECT.to_ne_bytes());
        });
        self.talk(request, |_, _| {})
    }

    /// Removes a filter; it may be gone.
    pub(super) fn remove_filter(
        &self,
        interface: u32,
        direction: Direction,
        place: (u16, u32),
    ) -> io::Result<()> {
        let mut request = Request::new(RTM_DELTFILTER, NLM_F_ACK);
        request.tc_header(interface, place.1, parent(direction), tcm_info(place.0));
        match self.talk(request, |_, _| {}) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => Ok(()),
            other => other,
        }
    }

    /// Sends a request and reads the answer to its end.
    fn talk(&self, request: Request, mut each: impl FnMut(u16, &[u8])) -> io::Result<()> {
        /// The kernel answers in datagrams of at most this many bytes.
        const DATAGRAM: usize = 64 * 1024;
        let dump = request.flags & NLM_F_DUMP == NLM_F_DUMP;
        let acknowledged = request.flags & NLM_F_ACK != 0;
        let fd = self.socket.as_raw_fd();
        send(fd, &request.finish(), MsgFlags::empty())?;
        let mut buffer = vec![0u8; DATAGRAM];
        loop {
            let length = recv(fd, &mut buffer, MsgFlags::empty())?;
            let mut rest = &buffer[..length];
            while let Some((size, kind)) = message_header(rest) {
                let body = &rest[16..size];
                match kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => {
                        let code = body.get(..4).map_or(0, |code| u32_of(code) as i32);
                        return if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) };
                    }
                    kind => each(kind, body),
                }
                rest = rest.get(size.next_multiple_of(4)..).unwrap_or_default();
            }
            if !dump && !acknowledged {
                return Ok(());
            }
        }
    }
}

fn message_header(bytes: &[u8]) -> Option<(usize, u16)> {
    let size = u32_of(bytes.get(..4)?) as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    (size >= 16 && size <= bytes.len()).then_some((size, kind))
}

fn parent(direction: Direction) -> u32 {
    match direction {
        Direction::Ingress => 0xffff_fff2,
        Direction::Egress => 0xffff_fff3,
    }
}

fn tcm_info(priority: u16) -> u32 {
    u32::from(priority) << 16 | u32::from(ETH_P_ALL.to_be())
}

/// An RTM_NEWTFILTER. A dump names each chain once without a handle.
fn filter(body: &[u8]) -> Option<Filter> {
    let handle = u32_of(body.get(8..12)?);
    let info = u32_of(body.get(16..20)?);
    if handle == 0 {
        return None;
    }
    let mut filter = Filter { priority: (info >> 16) as u16, handle, program: 0, name: String::new() };
    let options =
        attributes(body, 20).find(|(kind, _)| *kind == TCA_OPTIONS).map_or(&[][..], |(_, value)| value);
    for (kind, value) in attributes(options, 0) {
        match kind {
            TCA_BPF_ID => filter.program = u32_of(value),
            TCA_BPF_NAME => {
                filter.name = String::from_utf8_lossy(value.strip_suffix(b"\0").unwrap_or(value)).into()
            }
            _ => {}
        }
    }
    Some(filter)
}

fn u32_of(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |chunk| u32::from_ne_bytes(*chunk))
}

/// The attributes behind a fixed header.
fn attributes(body: &[u8], header: usize) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = body.get(header..).unwrap_or_default();
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*rest.first_chunk()?));
        let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?) & NLA_TYPE_MASK;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

struct Request {
    flags: u16,
    bytes: Vec<u8>,
}

impl Request {
    fn new(kind: u16, flags: u16) -> Self {
        let flags = flags | NLM_F_REQUEST;
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([1, 0, 0, 0, 0, 0, 0, 0]); // sequence, port
        Self { flags, bytes }
    }

    /// struct `ifinfomsg`.
    fn link_header(&mut self, interface: u32) {
        self.bytes.extend([0; 4]);
        self.bytes.extend(interface.to_ne_bytes());
        self.bytes.extend([0; 8]);
    }

    /// struct `tcmsg`.
    fn tc_header(&mut self, interface: u32, handle: u32, parent: u32, info: u32) {
        self.bytes.extend([0; 4]);
        for word in [interface, handle, parent, info] {
            self.bytes.extend(word.to_ne_bytes());
        }
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.bytes.extend((4 + value.len() as u16).to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn nested(&mut self, kind: u16, inside: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.attribute(kind | NLA_F_NESTED, &[]);
        inside(self);
        let length = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }

    fn finish(mut self) -> Vec<u8> {
        let length = self.bytes.len() as u32;
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes
    }
}
