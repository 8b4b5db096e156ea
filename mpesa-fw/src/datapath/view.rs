//! What is attached, as the kernel says now.

use std::{collections::BTreeSet, io};

use mpesa_fw_common::settings::Direction;

use super::{
    Attachment, EgressHook, IngressHook, Interface, Result,
    error::Context,
    hooks::{Found, Hook, PLACE, Way},
    netlink::Netlink,
};
use crate::sys;

/// The hooks of each interface. A hook that is not what its link says (another network namespace, detached by force) is
/// left out.
pub(super) fn attachments(netlink: &Netlink, found: &Found) -> Result<Vec<Attachment>> {
    let interfaces: BTreeSet<&Interface> = found.hooks.iter().map(|hook| &hook.interface).collect();
    interfaces
        .into_iter()
        .map(|interface| one(netlink, found, interface))
        .collect::<io::Result<_>>()
        .context(|| "ask for what is attached")
}

fn one(netlink: &Netlink, found: &Found, interface: &Interface) -> io::Result<Attachment> {
    let mut attachment = Attachment {
        interface: interface.clone(),
        ingress: None,
        egress: None,
        ahead_of_ingress: Vec::new(),
        ahead_of_egress: Vec::new(),
    };
    if let Some(hook) = found.hook(interface.index, Direction::Ingress).filter(|hook| hook.is_ours) {
        (attachment.ingress, attachment.ahead_of_ingress) = ingress(netlink, hook)?;
    }
    if let Some(hook) = found.hook(interface.index, Direction::Egress).filter(|hook| hook.is_ours)
        && let Some(ahead) = ahead(netlink, hook)?
    {
        attachment.egress = Some(match hook.way {
            Way::Clsact => EgressHook::Clsact,
            Way::Tcx(_) | Way::Xdp(_) => EgressHook::Tcx,
        });
        attachment.ahead_of_egress = ahead;
    }
    Ok(attachment)
}

fn ingress(netlink: &Netlink, hook: &Hook) -> io::Result<(Option<IngressHook>, Vec<u32>)> {
    let programs = netlink.xdp(hook.interface.index).or_else(gone)?;
    match hook.way {
        Way::Xdp(_) if programs.native == hook.program => Ok((Some(IngressHook::XdpNative), Vec::new())),
        Way::Xdp(_) if programs.generic == hook.program => Ok((Some(IngressHook::XdpGeneric), Vec::new())),
        Way::Xdp(_) => Ok((None, Vec::new())),
        Way::Tcx(_) | Way::Clsact => {
            let foreign_xdp_program = programs.foreign(|_| false).unwrap_or(0);
            let ahead = ahead(netlink, hook)?;
            Ok(match ahead {
                Some(ahead) => (Some(IngressHook::TcIngress { foreign_xdp_program }), ahead),
                None => (None, Vec::new()),
            })
        }
    }
}

/// Programs that run before ours at TC; none: ours does not run.
pub(super) fn ahead(netlink: &Netlink, hook: &Hook) -> io::Result<Option<Vec<u32>>> {
    let index = hook.interface.index;
    let attach_type = match hook.direction {
        Direction::Ingress => sys::BPF_TCX_INGRESS,
        Direction::Egress => sys::BPF_TCX_EGRESS,
    };
    // Before Linux 6.6 there is no TCX to ask for.
    let tcx = sys::tcx_programs(index, attach_type).unwrap_or_default();
    match hook.way {
        Way::Tcx(_) => {
            let ours = tcx.iter().position(|id| *id == hook.program);
            Ok(ours.map(|ours| tcx[..ours].to_vec()))
        }
        Way::Clsact => {
            let filters = netlink.filters(index, hook.direction)?;
            let ours = filters.iter().position(|filter| (filter.priority, filter.handle) == PLACE);
            // TCX runs before the qdisc.
            Ok(ours.map(|ours| {
                tcx.into_iter().chain(filters[..ours].iter().map(|filter| filter.program)).collect()
            }))
        }
        Way::Xdp(_) => Ok(None),
    }
}

/// An interface that is gone has no programs.
fn gone<T: Default>(error: io::Error) -> io::Result<T> {
    if error.raw_os_error() == Some(libc::ENODEV) { Ok(T::default()) } else { Err(error) }
}
