//! Interfaces: drivers and their offloads, what stands on what, whose programs are there.

use std::{collections::BTreeSet, fs, net::IpAddr};

use ethtool::{EthtoolAttr, EthtoolFeatureAttr};
use futures_util::TryStreamExt as _;

use super::Finding;
use crate::{
    agent::{self, Choice, Link, Status, View},
    policy::model::Policy,
};

/// Largest MTU at which a driver needs one page a frame, with the headroom of XDP and the end of an skb; above it the
/// driver must know frames of several buffers.
const ONE_PAGE: u32 = 3498;

pub(super) async fn examine(policy: Option<&Policy>, status: Option<&Status>) -> Vec<Finding> {
    let Some(policy) = policy else { return Vec::new() };
    let (view, choice) = match agent::look_around(policy).await {
        Ok(seen) => seen,
        Err(error) => {
            return vec![Finding::wrong(
                "interfaces",
                error.to_string(),
                "it is not known what is to be protected",
                "run this as root",
            )];
        }
    };
    let mut findings = choices(&choice);
    for interface in choice.protect.values() {
        let Some(link) = view.links.get(&interface.index) else { continue };
        findings.push(card(link));
        findings.extend(mtu(link));
        findings.extend(stacked(&view, link));
        findings.extend(offloads(link).await);
        match status.and_then(|status| status.interfaces.iter().find(|i| i.index == interface.index)) {
            Some(attached) => findings.extend(hooks(attached)),
            None => findings.extend(foreign(link)),
        }
    }
    findings.extend(nat(&view));
    findings
}

fn choices(choice: &Choice) -> Vec<Finding> {
    let mut findings = Vec::new();
    for name in &choice.missing {
        findings.push(Finding::wrong(
            "interfaces",
            format!("the policy names {name}, which is not there"),
            "it is protected when it appears; until then `enforcing` is not said",
            "look at the spelling: `ip -brief link`",
        ));
    }
    for refused in &choice.refused {
        findings.push(Finding::wrong(
            "interfaces",
            format!("{} can't be protected: {}", refused.name, refused.reason),
            "a policy that names it is not loaded",
            "name the card below it",
        ));
    }
    if choice.protect.is_empty() {
        findings.push(Finding::wrong(
            "interfaces",
            "no interface is protected by this policy",
            "nothing would be judged",
            "name the interface by which packets from outside come: `interfaces: [default]`",
        ));
    }
    findings
}

fn card(link: &Link) -> Finding {
    let what =
        link.kind.clone().or_else(|| driver(link)).unwrap_or_else(|| "its driver is not known".to_owned());
    Finding::fine("interfaces", format!("{}: {what}", link.name))
}

/// Of a card. Where `/sys` is that of another network namespace, it may have another interface of that name.
fn driver(link: &Link) -> Option<String> {
    let of = |what: &str| format!("/sys/class/net/{}/{what}", link.name);
    let index: u32 = fs::read_to_string(of("ifindex")).ok()?.trim().parse().ok()?;
    let driver = fs::read_link(of("device/driver")).ok()?;
    (index == link.index).then(|| Some(driver.file_name()?.to_string_lossy().into_owned()))?
}

fn mtu(link: &Link) -> Option<Finding> {
    let mtu = link.mtu;
    (mtu > ONE_PAGE).then(|| {
        Finding::note(
            "interfaces",
            format!("{} has an MTU of {mtu}", link.name),
            "XDP runs in the driver only if that knows frames of several buffers; else in the generic way, slower under a flood",
            "`mpesa-fw status` says which it is; an MTU of 1500 is enough for callbacks",
        )
    })
}

fn stacked(view: &View, link: &Link) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(above) = link.master.and_then(|index| view.links.get(&index)) {
        findings.push(Finding::note(
            "interfaces",
            format!("{} is a port of {}", link.name, above.name),
            "packets to every address above it are judged here, those between other ports of a bridge are not",
            "protect every port that leads outside, or the interface above them instead",
        ));
    }
    let is_bond = link.kind.as_deref().is_some_and(|kind| matches!(kind, "bond" | "team"));
    if is_bond {
        findings.push(Finding::note(
            "interfaces",
            format!("{} is a {}", link.name, link.kind.as_deref().unwrap_or_default()),
            "XDP runs in its cards' drivers if all of them can; one that is added later and can't is refused by the kernel",
            "name it here, and not its cards",
        ));
    }
    findings
}

/// Offloads under which XDP does not see packets as they came.
async fn offloads(link: &Link) -> Vec<Finding> {
    let active = match features(&link.name).await {
        Ok(active) => active,
        Err(error) => {
            return vec![Finding::note(
                "interfaces",
                format!("{}: its offloads can't be asked for: {error}", link.name),
                "LRO would hide packets from XDP",
                "compare `ethtool -k` by hand",
            )];
        }
    };
    altered(&link.name, link.kind.as_deref(), &active)
}

/// What these features do to packets before XDP sees them. `kind`: of an interface that is made by software.
fn altered(name: &str, kind: Option<&str>, active: &BTreeSet<String>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if active.contains("rx-lro") {
        findings.push(Finding::wrong(
            "interfaces",
            format!("{name} merges packets before XDP sees them (LRO)"),
            "drivers refuse XDP then, or show it frames that nobody sent",
            &format!("ethtool -K {name} lro off"),
        ));
    }
    // A veth says that it does, and hands over frames as they were sent.
    if active.contains("rx-vlan-hw-parse") && kind != Some("veth") {
        findings.push(Finding::note(
            "interfaces",
            format!("{name} takes VLAN tags off before XDP sees them"),
            "packets of all VLANs are judged alike by their addresses; this matters only where VLANs share addresses",
            &format!("ethtool -K {name} rxvlan off, if you have VLANs on it"),
        ));
    }
    findings
}

async fn features(name: &str) -> Result<BTreeSet<String>, String> {
    let (connection, mut handle, _) = ethtool::new_connection().map_err(|error| error.to_string())?;
    let driver = tokio::spawn(connection);
    let mut answers = handle.feature().get(Some(name)).execute().await.map_err(|error| error.to_string())?;
    let mut active = BTreeSet::new();
    while let Some(answer) = answers.try_next().await.map_err(|error| error.to_string())? {
        for attribute in answer.payload.nlas {
            if let EthtoolAttr::Feature(EthtoolFeatureAttr::Active(bits)) = attribute {
                active.extend(bits.into_iter().filter(|bit| bit.value).map(|bit| bit.name));
            }
        }
    }
    driver.abort();
    Ok(active)
}

fn hooks(attached: &agent::status::InterfaceStatus) -> Vec<Finding> {
    attached
        .notes
        .iter()
        .map(|note| {
            let what = format!("{}: {note}", attached.name);
            let gone = attached.ingress.is_none() || attached.egress.is_none();
            let ahead = !attached.ahead_of_ingress.is_empty() || !attached.ahead_of_egress.is_empty();
            if gone || ahead {
                Finding::wrong(
                    "hooks",
                    what,
                    "packets pass unjudged, or may",
                    "see the agent's log for whose it is",
                )
            } else {
                Finding::note(
                    "hooks",
                    what,
                    "it works, and is second best",
                    "see ARCHITECTURE.md and README.md",
                )
            }
        })
        .collect()
}

/// Programs of others, where ours are not attached yet.
fn foreign(link: &Link) -> Option<Finding> {
    (link.xdp_program != 0).then(|| {
        Finding::note(
            "hooks",
            format!("another XDP program (id {}) owns {}", link.xdp_program, link.name),
            "it is left alone: ingress would be judged at TC behind it, slower under a flood",
            &format!("bpftool prog show id {}; bpftool net show", link.xdp_program),
        )
    })
}

/// Behind a provider's load balancer or NAT the source may not be the caller.
fn nat(view: &View) -> Option<Finding> {
    let is_public = |address: &IpAddr| match address {
        IpAddr::V4(v4) => !(v4.is_private() || v4.is_loopback() || v4.is_link_local() || shared(*v4)),
        IpAddr::V6(v6) => !(v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local()),
    };
    let has_public = view.addresses.iter().any(|(_, address)| is_public(address));
    (!has_public).then(|| {
        Finding::note(
            "interfaces",
            "this host has private addresses only",
            "callbacks reach it through something that translates addresses: if that changes the source too, no rule can tell Safaricom from others",
            "make sure that the translator keeps source addresses (DNAT, not a proxy); `mpesa-fw events` shows the sources that arrive",
        )
    })
}

/// 100.64.0.0/10, RFC 6598.
fn shared(address: std::net::Ipv4Addr) -> bool {
    let [a, b, ..] = address.octets();
    a == 100 && b & 0xc0 == 64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    fn told(kind: Option<&str>, active: &[&str]) -> Vec<(Level, String)> {
        let active = active.iter().map(|feature| (*feature).to_owned()).collect();
        altered("eth7", kind, &active)
            .into_iter()
            .map(|finding| (finding.level, format!("{}; {}", finding.what, finding.advice)))
            .collect()
    }

    #[test]
    fn lro_is_wrong_and_the_advice_names_the_interface() {
        let told = told(None, &["rx-checksum", "rx-lro"]);
        let [(Level::Wrong, text)] = told.as_slice() else { panic!("{told:?}") };
        assert!(text.contains("eth7 merges packets") && text.contains("ethtool -K eth7 lro off"), "{text}");
    }

    #[test]
    fn tags_that_a_card_takes_off_are_a_note_and_those_of_a_veth_are_none() {
        let active = ["rx-vlan-hw-parse"];
        let of_a_card = told(None, &active);
        let [(Level::Note, text)] = of_a_card.as_slice() else { panic!("{of_a_card:?}") };
        assert!(text.contains("VLAN tags") && text.contains("ethtool -K eth7 rxvlan off"), "{text}");
        assert_eq!(told(Some("bond"), &active), of_a_card);
        assert_eq!(told(Some("veth"), &active), []);
    }

    #[test]
    fn both_are_told_the_worse_first() {
        let levels: Vec<_> =
            told(None, &["rx-lro", "rx-vlan-hw-parse"]).iter().map(|(level, _)| *level).collect();
        assert_eq!(levels, [Level::Wrong, Level::Note]);
    }

    #[test]
    fn what_leaves_packets_alone_is_no_finding() {
        assert_eq!(
            told(None, &["rx-gro", "rx-gro-hw", "rx-checksum", "tx-vlan-hw-insert", "rx-vlan-filter"]),
            []
        );
        assert_eq!(told(None, &[]), []);
    }
}
