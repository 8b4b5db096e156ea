//! What a reload changes, in words.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use mpesa_fw_common::{Direction, settings::Verdict};
use serde::{Deserialize, Serialize};

use crate::policy::model::{AddressSet, Addresses, InterfacePattern, Policy};

/// The difference between two policies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Services by name.
    pub services: Names,
    /// Destinations by name.
    pub destinations: Names,
    /// Sets by name; `changed` are those whose prefixes differ.
    pub sets: Names,
    /// Prefixes in sets that are new.
    pub prefixes_added: usize,
    /// Prefixes in sets that are gone.
    pub prefixes_removed: usize,
    /// Everything else, a sentence each.
    pub other: Vec<String>,
}

/// Names that came, went or stand for something else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// New.
    pub added: Vec<String>,
    /// Gone.
    pub removed: Vec<String>,
    /// Something about them is different.
    pub changed: Vec<String>,
}

impl Change {
    /// Compares.
    #[must_use]
    pub fn between(old: &Policy, new: &Policy) -> Self {
        let (before, after) = (prefixes(old), prefixes(new));
        let (mut prefixes_added, mut prefixes_removed) = (0, 0);
        let empty = BTreeSet::new();
        for name in before.keys().chain(after.keys().filter(|n| !before.contains_key(*n))) {
            let (a, b) = (before.get(name).unwrap_or(&empty), after.get(name).unwrap_or(&empty));
            prefixes_added += b.difference(a).count();
            prefixes_removed += a.difference(b).count();
        }
        Self {
            services: Names::between(&services(old), &services(new)),
            destinations: Names::between(&destinations(old), &destinations(new)),
            sets: Names::between(&before, &after),
            prefixes_added,
            prefixes_removed,
            other: other(old, new),
        }
    }

    /// Whether nothing that judges packets differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// For people, a line each.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines = self.other.clone();
        for (what, names) in
            [("service", &self.services), ("destination", &self.destinations), ("set", &self.sets)]
        {
            for (sign, list) in [('+', &names.added), ('-', &names.removed), ('~', &names.changed)] {
                lines.extend(list.iter().map(|name| format!("{sign} {what} {name}")));
            }
        }
        if self.prefixes_added + self.prefixes_removed > 0 {
            lines.push(format!("prefixes: {} added, {} removed", self.prefixes_added, self.prefixes_removed));
        }
        lines
    }
}

impl Names {
    fn between<T: PartialEq>(old: &BTreeMap<&str, T>, new: &BTreeMap<&str, T>) -> Self {
        let owned = |name: &&str| (*name).to_owned();
        Self {
            added: new.keys().filter(|n| !old.contains_key(*n)).map(owned).collect(),
            removed: old.keys().filter(|n| !new.contains_key(*n)).map(owned).collect(),
            changed: new
                .iter()
                .filter(|(n, v)| old.get(*n).is_some_and(|o| o != *v))
                .map(|(n, _)| owned(n))
                .collect(),
        }
    }
}

fn prefixes(policy: &Policy) -> BTreeMap<&str, BTreeSet<&IpNet>> {
    policy.sets.iter().map(|set| (set.name.as_str(), set.prefixes.iter().collect())).collect()
}

/// What a rule says, apart from where it stands in the file. Its sets are compared by name.
fn services(policy: &Policy) -> BTreeMap<&str, String> {
    let text = |s: &crate::policy::model::Service| {
        format!("{:?} {:?} {:?} {:?} {:?}", s.claims, s.to, addresses(policy, &s.from), s.limit, s.by)
    };
    policy.ingress.services.iter().map(|s| (s.name.as_str(), text(s))).collect()
}

fn destinations(policy: &Policy) -> BTreeMap<&str, String> {
    let text = |d: &crate::policy::model::Destination| {
        format!("{:?} {:?} {:?} {:?}", d.claims, addresses(policy, &d.to), d.names, d.by)
    };
    policy.egress.allow.iter().map(|d| (d.name.as_str(), text(d))).collect()
}

fn addresses(policy: &Policy, addresses: &Addresses) -> String {
    let sets: BTreeSet<&str> =
        addresses.sets.iter().filter_map(|i| policy.sets.get(*i)).map(|set| set.name.as_str()).collect();
    let prefixes: BTreeSet<&IpNet> = addresses.prefixes.iter().collect();
    format!("{} {sets:?} {prefixes:?}", addresses.any)
}

fn other(old: &Policy, new: &Policy) -> Vec<String> {
    let mut lines = Vec::new();
    let mut differs = |what: &str, a: String, b: String| {
        if a != b {
            lines.push(format!("{what}: {a} -> {b}"));
        }
    };
    differs("mode", old.mode.label().into(), new.mode.label().into());
    let serial = |p: &Policy| p.serial.map_or_else(|| "none".to_owned(), |s| s.to_string());
    differs("serial", serial(old), serial(new));
    differs("interfaces", patterns(&old.interfaces), patterns(&new.interfaces));
    for direction in Direction::ALL {
        let default = |p: &Policy| match direction {
            Direction::Ingress => word(p.ingress.default),
            Direction::Egress => word(p.egress.default),
        };
        differs(&format!("{}.default", direction.label()), default(old), default(new));
    }
    let at_connect = |p: &Policy| if p.egress.refuses_attempts { "refuse" } else { "pass" }.to_owned();
    differs("egress.at_connect", at_connect(old), at_connect(new));
    for (name, before, after) in kept_sets(old, new) {
        let day = |set: &AddressSet| set.expires.map_or_else(|| "never".to_owned(), |day| day.to_string());
        differs(&format!("set {name} expires"), day(before), day(after));
        differs(&format!("set {name} watches"), listed(&before.watch), listed(&after.watch));
    }
    // Where several rules allow a packet the first is charged: counts move, verdicts don't.
    let services = |p: &Policy| p.ingress.services.iter().map(|s| s.name.clone()).collect();
    let destinations = |p: &Policy| p.egress.allow.iter().map(|d| d.name.clone()).collect();
    if reordered(services(old), services(new)) {
        lines.push("order of services".to_owned());
    }
    if reordered(destinations(old), destinations(new)) {
        lines.push("order of destinations".to_owned());
    }
    lines
}

/// Sets that are in both, by name.
fn kept_sets<'p>(
    old: &'p Policy,
    new: &'p Policy,
) -> impl Iterator<Item = (&'p str, &'p AddressSet, &'p AddressSet)> {
    old.sets.iter().filter_map(|before| {
        let after = new.sets.iter().find(|after| after.name == before.name)?;
        Some((before.name.as_str(), before, after))
    })
}

/// Whether names that are in both lists stand in another order.
fn reordered(mut old: Vec<String>, mut new: Vec<String>) -> bool {
    let before = old.clone();
    old.retain(|name| new.contains(name));
    new.retain(|name| before.contains(name));
    old != new
}

fn listed(prefixes: &[IpNet]) -> String {
    let sorted: BTreeSet<&IpNet> = prefixes.iter().collect();
    let words: Vec<String> = sorted.iter().map(ToString::to_string).collect();
    format!("[{}]", words.join(", "))
}

fn patterns(patterns: &[InterfacePattern]) -> String {
    let words: Vec<&str> = patterns
        .iter()
        .map(|pattern| match pattern {
            InterfacePattern::Default => "default",
            InterfacePattern::Name(name) | InterfacePattern::Glob(name) => name,
        })
        .collect();
    format!("[{}]", words.join(", "))
}

fn word(verdict: Verdict) -> String {
    match verdict {
        Verdict::Pass => "pass".to_owned(),
        Verdict::Drop => "drop".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Permissions, load};

    fn policy(mode: &str, sets: &str, services: &str, destinations: &str) -> Policy {
        // Closed: a file that is open for writing is not read.
        let file = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        let text = format!(
            "version: 1\nmode: {mode}\ninterfaces: [eth0]\nsets: {sets}\ningress: {{ default: drop, services: [{services}] }}\n\
             egress: {{ default: drop, allow: [{destinations}] }}\n"
        );
        std::fs::write(&file, text).unwrap();
        load(&file, Permissions::Check).unwrap().policy
    }

    const SSH: &str = "{ name: ssh, ports: [22], from: [admins] }";
    const WEB: &str = "{ name: web, ports: [80], from: [any] }";
    const DNS: &str = "{ name: dns, to: [10.0.0.2], protocol: udp, ports: [53] }";

    #[test]
    fn the_same_policy_is_no_change() {
        let a = policy("enforce", "{ admins: [10.0.0.1] }", SSH, DNS);
        assert!(Change::between(&a, &a.clone()).is_empty());
    }

    #[test]
    fn what_is_different_is_said_in_a_line_each() {
        let old = policy("observe", "{ admins: [10.0.0.1, 10.0.0.2] }", &format!("{SSH}, {WEB}"), DNS);
        let changed = "{ name: dns, to: [10.0.0.3], protocol: udp, ports: [53] }, { name: ntp, to: [any], protocol: udp, ports: [123] }";
        let new = policy("enforce", "{ admins: [10.0.0.2, 10.0.0.9, 10.0.0.10] }", SSH, changed);
        let change = Change::between(&old, &new);
        assert_eq!(
            change.lines(),
            [
                "mode: observe -> enforce",
                "- service web",
                "+ destination ntp",
                "~ destination dns",
                "~ set admins",
                "prefixes: 2 added, 1 removed",
            ]
        );
    }

    #[test]
    fn what_is_watched_and_when_a_set_expires_are_changes() {
        let sets = |more: &str| format!("{{ admins: {{ addresses: [10.0.0.1], {more} }} }}");
        let old = policy("enforce", &sets("watch: [10.0.0.0/8], expires: 2027-02-08"), SSH, DNS);
        let new = policy("enforce", &sets("watch: [10.0.0.0/16, 10.1.0.0/16]"), SSH, DNS);
        assert_eq!(
            Change::between(&old, &new).lines(),
            [
                "set admins expires: 2027-02-08 -> never",
                "set admins watches: [10.0.0.0/8] -> [10.0.0.0/16, 10.1.0.0/16]",
            ]
        );
    }

    #[test]
    fn who_may_and_what_programs_are_told_are_changes() {
        let old = policy("enforce", "{ admins: [10.0.0.1] }", SSH, DNS);
        let services = SSH.replace(" }", ", by: { unit: ssh.service } }");
        let destinations = DNS.replace(" }", ", by: { user: unbound } }");
        let mut new = policy("enforce", "{ admins: [10.0.0.1] }", &services, &destinations);
        new.egress.refuses_attempts = false;
        assert_eq!(
            Change::between(&old, &new).lines(),
            ["egress.at_connect: refuse -> pass", "~ service ssh", "~ destination dns"]
        );
    }

    #[test]
    fn another_order_is_a_change_and_nothing_else() {
        let old = policy("enforce", "{ admins: [10.0.0.1] }", &format!("{SSH}, {WEB}"), DNS);
        let new = policy("enforce", "{ admins: [10.0.0.1] }", &format!("{WEB}, {SSH}"), DNS);
        assert_eq!(Change::between(&old, &new).lines(), ["order of services"]);
    }
}
