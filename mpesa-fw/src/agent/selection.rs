//! Which events somebody wants to see.

use std::net::IpAddr;

use ipnet::IpNet;
use mpesa_fw_common::{Direction, DropReason};
use serde::{Deserialize, Serialize};

use super::{
    AgentError, AttemptRecord,
    events::{EventRecord, PacketRecord},
};

/// As it is asked for. What is empty excludes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// Labels of drop reasons.
    pub reasons: Vec<String>,
    /// Names of services and destinations; the empty name: packets that no rule claims.
    pub rules: Vec<String>,
    /// Addresses or prefixes of either end.
    pub addresses: Vec<String>,
    /// `ingress` or `egress`.
    pub direction: Option<String>,
}

/// As it is applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    reasons: Vec<&'static str>,
    rules: Vec<String>,
    prefixes: Vec<IpNet>,
    direction: Option<Direction>,
}

impl Selection {
    /// Of rules, those in `known` can be asked for.
    ///
    /// # Errors
    /// A word that no event can have; the error names those that there are.
    pub(super) fn new(wanted: &Wanted, known: &[String]) -> Result<Self, AgentError> {
        let reasons: Vec<&str> = DropReason::ALL.iter().map(|reason| reason.label()).collect();
        let directions = Direction::ALL.map(Direction::label);
        let rules = wanted.rules.iter().map(|rule| {
            let is_known = rule.is_empty() || known.contains(rule);
            if is_known { Ok(rule.clone()) } else { Err(unknown("rule", rule, known)) }
        });
        let direction = wanted.direction.as_ref().map(|label| {
            let found = Direction::ALL.into_iter().find(|direction| direction.label() == label);
            found.ok_or_else(|| unknown("direction", label, &directions))
        });
        Ok(Self {
            reasons: wanted
                .reasons
                .iter()
                .map(|label| {
                    let found = reasons.iter().find(|reason| *reason == label);
                    found.copied().ok_or_else(|| unknown("drop reason", label, &reasons))
                })
                .collect::<Result<_, _>>()?,
            rules: rules.collect::<Result<_, _>>()?,
            prefixes: wanted.addresses.iter().map(|text| prefix(text)).collect::<Result<_, _>>()?,
            direction: direction.transpose()?,
        })
    }

    /// Whether an event is wanted. One that is no packet has neither reason nor direction.
    #[must_use]
    pub fn takes(&self, event: &EventRecord) -> bool {
        match event {
            EventRecord::Packet(packet) => self.takes_packet(packet),
            EventRecord::Attempt(attempt) => self.takes_attempt(attempt),
            EventRecord::Listener(listener) => {
                let asks_for_packets =
                    !self.reasons.is_empty() || !self.rules.is_empty() || self.direction.is_some();
                !asks_for_packets && self.holds(&[listener.address])
            }
        }
    }

    fn takes_packet(&self, packet: &PacketRecord) -> bool {
        self.is_of(&packet.reason, &packet.rule)
            && self.direction.is_none_or(|direction| direction.label() == packet.direction)
            && self.holds(&[packet.source, packet.target])
    }

    fn takes_attempt(&self, attempt: &AttemptRecord) -> bool {
        self.is_of(&attempt.reason, &attempt.rule)
            && self.direction.is_none_or(|direction| direction == Direction::Egress)
            && self.holds(&[attempt.target])
    }

    fn is_of(&self, reason: &str, rule: &String) -> bool {
        (self.reasons.is_empty() || self.reasons.contains(&reason))
            && (self.rules.is_empty() || self.rules.contains(rule))
    }

    fn holds(&self, ends: &[IpAddr]) -> bool {
        self.prefixes.is_empty()
            || self.prefixes.iter().any(|prefix| ends.iter().any(|end| prefix.contains(end)))
    }
}

fn prefix(text: &str) -> Result<IpNet, AgentError> {
    let address = || text.parse::<IpAddr>().map(|address| IpNet::from(address.to_canonical()));
    text.parse::<IpNet>().or_else(|_| address()).map_err(|_| AgentError::Wanted {
        what: "address",
        word: shortened(text),
        known: "an address (196.201.214.200) or a prefix (196.201.208.0/20, 2c0f:fe38::/32)".to_owned(),
    })
}

/// `word` is no `what`; `known` are those that there are.
pub(super) fn unknown<S: AsRef<str>>(what: &'static str, word: &str, known: &[S]) -> AgentError {
    let known: Vec<&str> = known.iter().map(AsRef::as_ref).collect();
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    AgentError::Wanted { what, word: shortened(word), known }
}

/// It may be a megabyte, and hold what a terminal obeys.
fn shortened(word: &str) -> String {
    word.chars().take(60).map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::OffsetDateTime;

    fn event() -> EventRecord {
        EventRecord::Packet(PacketRecord {
            time: OffsetDateTime::UNIX_EPOCH,
            interface: "eth0".into(),
            direction: "ingress".into(),
            rule: "callbacks".into(),
            reason: "source_not_allowed".into(),
            source: [198, 51, 100, 66].into(),
            source_port: 4000,
            target: [203, 0, 113, 10].into(),
            target_port: 443,
            protocol: "tcp".into(),
            length: 74,
            dropped: true,
            program: None,
            asked_for: None,
            nearest: None,
            repeated: 0,
        })
    }

    fn takes(change: impl FnOnce(&mut Wanted)) -> Result<bool, String> {
        let mut wanted = Wanted::default();
        change(&mut wanted);
        let known = ["callbacks".to_owned(), "ssh".to_owned()];
        Selection::new(&wanted, &known)
            .map(|selection| selection.takes(&event()))
            .map_err(|error| format!("{error}: {}", error.help().unwrap_or_default()))
    }

    #[test]
    fn each_word_narrows() {
        assert_eq!(takes(|_| {}), Ok(true));
        assert_eq!(takes(|w| w.reasons = vec!["no_service".into()]), Ok(false));
        assert_eq!(takes(|w| w.reasons = vec!["no_service".into(), "source_not_allowed".into()]), Ok(true));
        assert_eq!(takes(|w| w.rules = vec!["ssh".into()]), Ok(false));
        assert_eq!(takes(|w| w.rules = vec![String::new()]), Ok(false));
        assert_eq!(takes(|w| w.rules = vec!["callbacks".into()]), Ok(true));
        assert_eq!(takes(|w| w.direction = Some("egress".into())), Ok(false));
        for (address, expected) in [
            ("198.51.100.66", true),
            ("203.0.113.0/24", true),
            ("203.0.114.0/24", false),
            ("::/0", false),
            ("::ffff:198.51.100.66", true),
        ] {
            assert_eq!(takes(|w| w.addresses = vec![address.into()]), Ok(expected), "{address}");
        }
    }

    #[test]
    fn an_unknown_word_is_answered_with_those_that_there_are() {
        let no = |change: fn(&mut Wanted)| takes(change).unwrap_err();
        let said = no(|w| w.reasons = vec!["source".into()]);
        for reason in DropReason::ALL {
            assert!(said.contains(reason.label()), "{said}");
        }
        assert!(no(|w| w.rules = vec!["callback".into()]).contains("callbacks, ssh"));
        assert!(no(|w| w.direction = Some("in".into())).contains("ingress, egress"));
        assert!(no(|w| w.addresses = vec!["eth0".into()]).contains("196.201.208.0/20"));
        assert!(no(|w| w.rules = vec!["x\u{1b}".repeat(1000)]).chars().count() < 300);
    }
}
