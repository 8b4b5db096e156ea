//! Our hook before a program that was put in front of it. At no moment fewer packets are judged than while it stood behind.

use std::{
    fs, io,
    os::fd::{AsFd as _, BorrowedFd},
};

use mpesa_fw_common::settings::Direction;

use super::{
    baseline::WatchedHook,
    hooks::{AT_HAND, PLACE, Way},
    netlink::Netlink,
    pins::Pins,
};
use crate::sys;

/// Moves a hook at TC to the front.
pub(super) fn move_ahead(
    pins: &Pins,
    netlink: &Netlink,
    watched: &mut WatchedHook,
    program: BorrowedFd<'_>,
) -> io::Result<()> {
    let hook = watched.hook.clone();
    let (index, direction) = (hook.interface.index, hook.direction);
    match &hook.way {
        Way::Xdp(_) => Ok(()),
        Way::Clsact => {
            if !sys::tcx_programs(index, attach_type(direction)).unwrap_or_default().is_empty() {
                return Err(io::Error::other("it is at TCX, which comes before every filter"));
            }
            // Of one priority the latest is asked first. By way of another handle, so that one of the two is always there.
            netlink.remove_filter(index, direction, AT_HAND)?;
            for (comes, goes) in [(AT_HAND, PLACE), (PLACE, AT_HAND)] {
                netlink.set_filter(index, direction, comes, program, false)?;
                netlink.remove_filter(index, direction, goes)?;
            }
            Ok(())
        }
        Way::Tcx(pin) => {
            // The kernel takes a program at one place of the list only, and moves no link. While ours is not in it, a
            // filter of the clsact qdisc, which comes after all of TCX, judges what the others leave.
            if netlink.add_clsact(index)? {
                pins.note_qdisc(index).map_err(io::Error::other)?;
            }
            netlink.set_filter(index, direction, PLACE, program, false)?;
            if let Some(link) = &watched.link {
                sys::link_detach(link.as_fd())?;
            }
            watched.link = None;
            match fs::remove_file(pin) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
            let link = sys::link_create(program, index, attach_type(direction), sys::BPF_F_BEFORE)?;
            sys::pin(link.as_fd(), pin)?;
            watched.link = Some(link);
            netlink.remove_filter(index, direction, PLACE)?;
            if pins.qdiscs().map_err(io::Error::other)?.contains(&index) {
                netlink.remove_empty_clsact(index)?;
                pins.forget_qdisc(index).map_err(io::Error::other)?;
            }
            Ok(())
        }
    }
}

const fn attach_type(direction: Direction) -> u32 {
    match direction {
        Direction::Ingress => sys::BPF_TCX_INGRESS,
        Direction::Egress => sys::BPF_TCX_EGRESS,
    }
}
