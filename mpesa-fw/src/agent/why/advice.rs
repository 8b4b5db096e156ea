//! What would change the answer: the rule, prefix or port that comes nearest.

use std::{collections::BTreeMap, net::IpAddr};

use mpesa_fw_common::{
    Direction, DropReason, Mode, PassReason, Reason,
    packet::{FragmentKind, PacketMeta, Parsed, question},
};

use super::{
    answer::family,
    nearest::{self, Topic},
    owner::OwnerAsked,
};
use crate::{
    agent::seed::protocol,
    datapath::Judgement,
    policy::model::{Location, Owner, Policy, Service},
};

/// What the agent knows of a packet and of the policy that judged it.
pub(super) struct Matter<'m> {
    pub(super) policy: &'m Policy,
    pub(super) direction: Direction,
    pub(super) meta: &'m PacketMeta,
    pub(super) judgement: &'m Judgement,
    pub(super) is_own: bool,
    /// What DNS names stand for.
    pub(super) names: &'m BTreeMap<String, Vec<IpAddr>>,
    /// Whose the sending socket is, if the question says so.
    pub(super) owner: Option<&'m OwnerAsked>,
}

impl Matter<'_> {
    /// Sentences, what matters most first.
    pub(super) fn advice(&self) -> Vec<String> {
        let mut advice = match self.judgement.decision.reason {
            Reason::Pass(reason) => self.passed(reason),
            Reason::Drop(reason) => self.dropped(reason),
        };
        let drops = matches!(self.judgement.decision.reason, Reason::Drop(_));
        match self.policy.mode {
            Mode::Observe if drops => {
                advice.push("the policy only observes: `mode: enforce` would drop the packet".to_owned());
            }
            Mode::Observe | Mode::Enforce => {}
        }
        advice
    }

    fn source(&self) -> IpAddr {
        self.meta.source.into()
    }

    fn target(&self) -> IpAddr {
        self.meta.target.into()
    }

    fn topic(&self) -> Topic {
        Topic::of(self.meta)
    }

    fn dropped(&self, reason: DropReason) -> Vec<String> {
        match reason {
            DropReason::UnknownEthertype => {
                vec!["only IP and what the link layer needs (ARP, LLDP, LACP, EAPOL, spanning tree) pass; no rule can allow others".to_owned()]
            }
            DropReason::Malformed => {
                vec!["no rule can allow it: its headers are cut short, contradict each other, or can't be walked to an upper layer".to_owned()]
            }
            DropReason::Spoofed => vec![self.impossible_source()],
            DropReason::Fragment => vec![self.fragment()],
            DropReason::SourceNotAllowed => self.source_not_allowed(),
            DropReason::RateLimited => self.rate_limited(),
            DropReason::NoService => self.no_service(),
            DropReason::DestinationNotAllowed => self.destination_not_allowed(),
            DropReason::NameNotAllowed => self.name_not_allowed(),
            DropReason::OwnerNotAllowed => self.owner_not_allowed(),
            DropReason::NoDestination => self.no_destination(),
            DropReason::FlowTableFull => vec![
                "the flow table is full: a larger --flows-capacity, or fewer open connections".to_owned(),
            ],
            DropReason::Internal => vec![crate::agent::DEFECT.to_owned()],
        }
    }

    fn impossible_source(&self) -> String {
        let source = self.source();
        let what = if self.is_own {
            "an address of this host"
        } else if source.is_loopback() {
            "the loopback address"
        } else if source.is_multicast() {
            "a multicast address"
        } else if source.is_unspecified() {
            "the unspecified address"
        } else {
            "an address that nobody has"
        };
        format!(
            "no rule can allow it: {source} is {what}, which no packet from elsewhere has; what this host sends itself is asked with --egress"
        )
    }

    fn fragment(&self) -> String {
        match self.meta.fragment {
            FragmentKind::Whole | FragmentKind::First => {
                "TCP to a service has no need to fragment: it would pass as one packet".to_owned()
            }
            FragmentKind::Later => {
                "it would pass if the first fragment of the same packet had passed within the last 30 s"
                    .to_owned()
            }
            FragmentKind::Unjudgeable => {
                "no rule can allow it: it cuts the transport header, or overlaps that of its first fragment"
                    .to_owned()
            }
        }
    }

    fn source_not_allowed(&self) -> Vec<String> {
        let (source, target) = (self.source(), self.target());
        let mut advice = Vec::new();
        let claiming = self.policy.ingress.services.iter().filter(|s| self.topic().is_in(&s.claims));
        for service in claiming {
            let admits = nearest::admits(self.policy, &service.from, source);
            let here = service.to.is_empty() || service.to.iter().any(|prefix| prefix.contains(&target));
            if admits && !here {
                let at: Vec<String> = service.to.iter().map(ToString::to_string).collect();
                advice.push(format!(
                    "service {} ({}) would take it at {}, not at {target}",
                    service.name,
                    nearest::place(&service.at),
                    at.join(", ")
                ));
                continue;
            }
            let mut line = match nearest::prefix(self.policy, &service.from, source) {
                Some(near) => format!(
                    "service {} ({}) allows other sources; the nearest: {near}",
                    service.name,
                    nearest::place(&service.at)
                ),
                None => format!(
                    "service {} ({}) allows no {} source",
                    service.name,
                    nearest::place(&service.at),
                    family(self.meta.family)
                ),
            };
            if !here {
                line.push_str(&format!("; and it does not take packets at {target}"));
            }
            advice.push(line);
        }
        let watching: Vec<&str> = self
            .policy
            .sets
            .iter()
            .filter(|set| set.watch.iter().any(|prefix| prefix.contains(&source)))
            .map(|set| set.name.as_str())
            .collect();
        if !watching.is_empty() {
            advice.push(format!("set {} watches that range: has the provider moved?", watching.join(", ")));
        }
        advice.extend(self.no_flow());
        advice
    }

    fn rate_limited(&self) -> Vec<String> {
        let index = self.judgement.decision.rule.index();
        let service = index.and_then(|index| self.policy.ingress.services.get(index));
        service.and_then(limit).into_iter().collect()
    }

    fn no_service(&self) -> Vec<String> {
        let source = self.source();
        let mut advice = Vec::new();
        let services = &self.policy.ingress.services;
        let near =
            nearest::ports(self.topic(), services.iter().map(|s| (s.name.as_str(), s.claims.as_slice())));
        if near.is_empty() {
            advice.push(format!("no service takes {} at all", protocol(self.meta.protocol)));
        } else {
            advice.push(format!("it is closed; services that come nearest: {}", near.join(", ")));
        }
        if let Some(other) = services.iter().find(|s| self.topic().is_in_by_another_protocol(&s.claims)) {
            advice.push(format!(
                "service {} ({}) takes that port, by another protocol",
                other.name,
                nearest::place(&other.at)
            ));
        }
        let open: Vec<&str> = services
            .iter()
            .filter(|service| nearest::is_named(self.policy, &service.from, source))
            .map(|service| service.name.as_str())
            .collect();
        if !open.is_empty() {
            advice.push(format!("{source} is a source of: {}", open.join(", ")));
        }
        advice.extend(self.no_flow());
        advice
    }

    /// Of a packet that could be a reply.
    fn no_flow(&self) -> Option<String> {
        let can_be_reply = (self.meta.is_tcp() && !self.meta.opens_connection()) || self.meta.is_udp();
        can_be_reply.then(|| {
            "as a reply it would pass if this host had opened a flow to there: it has none that lives"
                .to_owned()
        })
    }

    fn destination_not_allowed(&self) -> Vec<String> {
        let target = self.target();
        let mut advice = Vec::new();
        for allow in self.policy.egress.allow.iter().filter(|d| self.topic().is_in(&d.claims)) {
            let at = nearest::place(&allow.at);
            let mut near = Vec::new();
            near.extend(nearest::prefix(self.policy, &allow.to, target).map(|near| near.to_string()));
            near.extend(allow.names.iter().map(|name| self.name(name)));
            if near.is_empty() {
                near.push(format!("no {} address", family(self.meta.family)));
            }
            advice.push(format!(
                "destination {} ({at}) goes elsewhere; the nearest: {}",
                allow.name,
                near.join("; ")
            ));
        }
        advice.push(self.missing_destination());
        advice
    }

    fn owner_not_allowed(&self) -> Vec<String> {
        let is_for = |kind: &str, name: &str, at: &Location, by: &[Owner]| {
            let owners: Vec<String> = by.iter().map(ToString::to_string).collect();
            format!("{kind} {name} ({}) is for: {}", nearest::place(at), owners.join(", "))
        };
        let destinations = self.policy.egress.allow.iter().filter(|allow| self.topic().is_in(&allow.claims));
        let owned = destinations.filter(|allow| !allow.by.is_empty());
        let mut advice: Vec<String> =
            owned.map(|allow| is_for("destination", &allow.name, &allow.at, &allow.by)).collect();
        let answering = self.answering().filter(|service| !service.by.is_empty());
        advice.extend(answering.map(|service| is_for("service", &service.name, &service.at, &service.by)));
        advice.push(match self.owner {
            Some(owner) => format!("the sending socket's owner is none of them: {owner}"),
            None => "the question names no owner (`--unit`, `--user`), so that no rule with `by` allows anything in this answer"
                .to_owned(),
        });
        advice
    }

    fn name_not_allowed(&self) -> Vec<String> {
        let mut advice = Vec::new();
        for allow in self.policy.egress.allow.iter().filter(|d| self.topic().is_in(&d.claims)) {
            let names: Vec<String> = allow.names.iter().map(|name| self.name(name)).collect();
            advice.push(format!(
                "destination {} ({}) is known by name, and none stands for {} now: {}",
                allow.name,
                nearest::place(&allow.at),
                self.target(),
                names.join("; ")
            ));
        }
        advice
    }

    fn name(&self, name: &str) -> String {
        match self.names.get(name).map_or(&[][..], Vec::as_slice) {
            [] if name.starts_with('*') => {
                format!("{name} (learnt when a program asks for what is below it)")
            }
            [] => format!("{name} (stands for no address yet)"),
            addresses => {
                let words: Vec<String> = addresses.iter().take(4).map(ToString::to_string).collect();
                let more = if addresses.len() > 4 { ", …" } else { "" };
                format!("{name} ({}{more})", words.join(", "))
            }
        }
    }

    fn no_destination(&self) -> Vec<String> {
        let target = self.target();
        let allow = &self.policy.egress.allow;
        let near = nearest::ports(self.topic(), allow.iter().map(|d| (d.name.as_str(), d.claims.as_slice())));
        let mut advice = vec![self.missing_destination()];
        if !near.is_empty() {
            advice.push(format!("destinations that come nearest: {}", near.join(", ")));
        }
        let there: Vec<&str> = allow
            .iter()
            .filter(|destination| nearest::is_named(self.policy, &destination.to, target))
            .map(|destination| destination.name.as_str())
            .collect();
        if !there.is_empty() {
            advice.push(format!("{target} is allowed by: {}", there.join(", ")));
        }
        advice.extend(self.not_a_reply());
        advice
    }

    /// Of a packet from the port of a service.
    fn not_a_reply(&self) -> Option<String> {
        let service = self.answering()?;
        let why = if nearest::admits(self.policy, &service.from, self.target()) {
            "only from a socket that is bound to its port"
        } else {
            "only to its own sources"
        };
        Some(format!(
            "as a reply of service {} ({}) it would pass {why}",
            service.name,
            nearest::place(&service.at)
        ))
    }

    /// The first service that such a packet of egress would be a reply of, were it to one of its sources.
    fn answering(&self) -> Option<&Service> {
        let asked = question(self.meta.family, self.meta.icmp_type);
        let topic = Topic::answered(self.meta, asked);
        self.policy.ingress.services.iter().find(|s| topic.is_in(&s.claims))
    }

    fn missing_destination(&self) -> String {
        format!(
            "a destination would allow it: `- {{ name: …, to: [{}], {} }}`",
            nearest::quoted(self.target()),
            self.topic().yaml()
        )
    }

    fn passed(&self, reason: PassReason) -> Vec<String> {
        match reason {
            PassReason::LinkLayer | PassReason::Control => {
                vec!["no rule takes it away: the host can't live without it".to_owned()]
            }
            PassReason::Fragment => vec!["its first fragment has passed".to_owned()],
            PassReason::Service => self.service(),
            PassReason::Flow => vec!["it belongs to a flow that this host opened; the policy permits it as long as a destination does".to_owned()],
            PassReason::ServiceReply => {
                let replying = self.answering().filter(|s| nearest::admits(self.policy, &s.from, self.target()));
                let by = replying.map_or_else(String::new, |s| format!(" {} ({})", s.name, nearest::place(&s.at)));
                vec![format!("it is a reply of service{by} to one of its sources")]
            }
            PassReason::Destination => Vec::new(),
            PassReason::Default => vec![match self.direction {
                Direction::Ingress => "no service claims it and `ingress.default` is pass".to_owned(),
                Direction::Egress => "no destination claims it and `egress.default` is pass".to_owned(),
            }],
        }
    }

    fn service(&self) -> Vec<String> {
        let index = self.judgement.decision.rule.index().unwrap_or(usize::MAX);
        let services = &self.policy.ingress.services;
        let mut advice: Vec<String> = services.get(index).and_then(limit).into_iter().collect();
        let admits = |service: &&Service| {
            self.topic().is_in(&service.claims)
                && nearest::admits(self.policy, &service.from, self.source())
                && (service.to.is_empty() || service.to.iter().any(|prefix| prefix.contains(&self.target())))
        };
        let others: Vec<&str> =
            services.iter().skip(index.saturating_add(1)).filter(admits).map(|s| s.name.as_str()).collect();
        if !others.is_empty() {
            advice.push(format!("these would allow it too: {}", others.join(", ")));
        }
        advice
    }
}

/// The limit of a service, in words.
fn limit(service: &Service) -> Option<String> {
    use mpesa_fw_common::limit::{LimitPer, LimitWhat};
    let limit = service.limit?;
    let what = match limit.what {
        LimitWhat::NewConnections => "new connections",
        LimitWhat::Packets => "packets",
    };
    let per = match limit.per {
        LimitPer::Source => "each source",
        LimitPer::Service => "all sources together",
    };
    Some(format!(
        "service {} ({}) takes {} {what} in {} from {per}, {} at once; whoever waits may send again",
        service.name,
        nearest::place(&service.at),
        limit.rate,
        humantime::format_duration(limit.period),
        limit.burst
    ))
}

/// Whether anything can be said of its addresses.
pub(super) const fn is_ip(meta: &PacketMeta) -> bool {
    matches!(meta.parsed, Parsed::Ip)
}
