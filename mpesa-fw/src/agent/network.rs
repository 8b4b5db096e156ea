//! The interfaces of this host and what becomes of each.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::IpAddr,
};

use mpesa_fw_common::Mode;
use serde::{Deserialize, Serialize};

use super::{
    interfaces::{Choice, Unprotected, unprotected},
    view::View,
};
use crate::datapath::{Attachment, EgressHook, IngressHook};

/// What is known since the last look.
#[derive(Clone, Debug, Default)]
pub struct Network {
    /// What the kernel says.
    pub view: View,
    /// What the policy wants.
    pub choice: Choice,
    /// What is attached.
    pub attachments: Vec<Attachment>,
    /// Interfaces that could not be protected, and why.
    pub failed: BTreeMap<String, String>,
}

/// Whether the policy is in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protection {
    /// Every interface that the policy names drops what it denies.
    Enforcing,
    /// Every interface that the policy names is judged and counted; nothing is dropped.
    Observing,
    /// Some interface that the policy names is not protected (yet).
    #[default]
    Incomplete,
}

impl Protection {
    /// The word in logs and `status`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Enforcing => "enforcing",
            Self::Observing => "observing",
            Self::Incomplete => "incomplete",
        }
    }
}

impl Network {
    /// Whether the policy is in force.
    #[must_use]
    pub fn protection(&self, mode: Mode) -> Protection {
        let choice = &self.choice;
        let live = |index: &u32| self.attachments.iter().any(|a| a.interface.index == *index && a.live());
        let complete = choice.missing.is_empty()
            && choice.refused.is_empty()
            && !choice.protect.is_empty()
            && choice.protect.keys().all(live);
        match (complete, mode) {
            (false, _) => Protection::Incomplete,
            (true, Mode::Enforce) => Protection::Enforcing,
            (true, Mode::Observe) => Protection::Observing,
        }
    }

    /// Interfaces with an address and without protection.
    #[must_use]
    pub fn unprotected(&self) -> Vec<Unprotected> {
        let protected: BTreeSet<u32> =
            self.attachments.iter().filter(|a| a.live()).map(|a| a.interface.index).collect();
        unprotected(&self.view, &protected)
    }

    /// What to say of protected interfaces that stand on each other.
    #[must_use]
    pub fn judged_twice(&self) -> Vec<String> {
        let protected: BTreeSet<u32> =
            self.attachments.iter().filter(|a| a.live()).map(|a| a.interface.index).collect();
        let one = |index: &u32| {
            let (above, below) = (self.name(*index), &self.view.first_below(*index, &protected)?.name);
            Some(format!(
                "each packet of {above} is judged, counted and charged to limits twice, for it passes {below} too: \
                 name only one of them in `interfaces`"
            ))
        };
        protected.iter().filter_map(one).collect()
    }

    /// Every address of this host. Those of loopback are among them: some hosts keep service addresses there.
    #[must_use]
    pub fn own_addresses(&self) -> HashSet<IpAddr> {
        self.view.addresses.iter().map(|(_, address)| *address).collect()
    }

    /// The name of an interface.
    #[must_use]
    pub fn name(&self, index: u32) -> String {
        self.view.links.get(&index).map_or_else(|| format!("#{index}"), |link| link.name.clone())
    }

    /// One word an interface, for the log.
    #[must_use]
    pub fn summary(&self) -> String {
        let one = |a: &Attachment| {
            let hook = |label: Option<&'static str>| label.unwrap_or("none");
            let (ingress, egress) = (a.ingress.map(ingress_label), a.egress.map(egress_label));
            format!("{} ({}, {})", a.interface.name, hook(ingress), hook(egress))
        };
        self.attachments.iter().map(one).collect::<Vec<_>>().join(", ")
    }
}

/// The word in `status`, JSON and metrics.
#[must_use]
pub const fn ingress_label(hook: IngressHook) -> &'static str {
    match hook {
        IngressHook::XdpNative => "xdp_native",
        IngressHook::XdpGeneric => "xdp_generic",
        IngressHook::TcIngress { .. } => "tc_ingress",
    }
}

/// The word in `status`, JSON and metrics.
#[must_use]
pub const fn egress_label(hook: EgressHook) -> &'static str {
    match hook {
        EgressHook::Tcx => "tcx",
        EgressHook::Clsact => "clsact",
    }
}
