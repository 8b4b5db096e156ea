//! Sockets that wait for peers, against the services of the policy: what listens and is not declared, what is declared and
//! does not listen.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    sync::Arc,
    time::Duration,
};

use mpesa_fw_common::packet::protocol::{TCP, UDP};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{
    Agent, AgentError,
    events::{EventRecord, ListenerRecord},
    kernel::beside,
    processes::{Process, holders, own_sockets},
    seed::protocol,
    sockets::{Listening, listening},
};
use crate::policy::model::{Claim, Policy, Service};

/// How often the agent looks.
const PERIOD: Duration = Duration::from_secs(10);
/// DHCP's clients. What they wait for passes without a rule.
const CONTROL: [u16; 2] = [68, 546];
/// New ones that are told one by one after a look: any user can open thousands, and the log and the events have other things to say.
const TOLD: usize = 20;
/// Those of an answer, which has to fit into a line of the control socket.
const ANSWERED: usize = 5000;

/// Every socket that can be reached from outside, and every service that nobody answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listeners {
    /// In the order of their ports.
    pub sockets: Vec<Listener>,
    /// In the order of the policy.
    pub unanswered: Vec<Unanswered>,
    /// Undeclared ones for which an answer has no room.
    #[serde(default)]
    pub left_out: usize,
}

/// A socket that waits for peers and is not bound to loopback.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// `tcp` or `udp`.
    pub protocol: String,
    /// What it is bound to; `0.0.0.0` and `::` are all addresses.
    pub address: IpAddr,
    /// Local port.
    pub port: u16,
    /// The first service that claims it; none: it is undeclared.
    pub service: Option<String>,
    /// Who made it, by number.
    pub user: u32,
    /// By which processes that have it are known (`/proc/PID/fd`).
    pub inode: u32,
    /// Who has it, as far as whoever asks may know.
    pub process: Option<Process>,
}

/// Ports of a service on which nobody listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unanswered {
    /// The service.
    pub service: String,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// First port.
    pub first: u16,
    /// Last port; nobody listens on any between.
    pub last: u16,
}

impl Listeners {
    /// Compares. UDP sockets on a port of `ephemeral` that no service claims are left out: programs that ask others have
    /// such, and no packet comes to them but answers.
    fn new(policy: &Policy, sockets: &[Listening], ephemeral: &RangeInclusive<u16>) -> Self {
        let sockets: Vec<&Listening> =
            sockets.iter().filter(|socket| !socket.address.is_loopback()).collect();
        let services = &policy.ingress.services;
        let listener = |socket: &&Listening| {
            let service = services.iter().find(|service| claims(service, socket)).map(|s| s.name.clone());
            let asks = socket.protocol == UDP
                && (ephemeral.contains(&socket.port) || CONTROL.contains(&socket.port));
            (service.is_some() || !asks).then(|| Listener {
                protocol: protocol(socket.protocol),
                address: socket.address,
                port: socket.port,
                service,
                user: socket.user,
                inode: socket.inode,
                process: None,
            })
        };
        let mut found: Vec<Listener> = sockets.iter().filter_map(listener).collect();
        found.sort_by_key(|listener| (listener.port, listener.protocol.clone(), listener.address));
        // Several processes may share a port (SO_REUSEPORT).
        found.dedup_by_key(|listener| (listener.port, listener.protocol.clone(), listener.address));
        let unanswered = services.iter().flat_map(|service| {
            let nobody = |(number, range): &(u8, &RangeInclusive<u16>)| {
                let answers = |socket: &&&Listening| {
                    socket.protocol == *number && range.contains(&socket.port) && receives(service, socket)
                };
                sockets.iter().find(answers).is_none()
            };
            ranges(service).filter(nobody).map(|(number, range)| Unanswered {
                service: service.name.clone(),
                protocol: protocol(number),
                first: *range.start(),
                last: *range.end(),
            })
        });
        Self { unanswered: unanswered.collect(), sockets: found, left_out: 0 }
    }

    /// As much as an answer holds.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        let mut undeclared = 0;
        let before = self.sockets.len();
        self.sockets.retain(|listener| {
            undeclared += usize::from(listener.service.is_none());
            listener.service.is_some() || undeclared <= ANSWERED
        });
        self.left_out += before - self.sockets.len();
        self
    }

    /// Those that no service claims.
    pub fn undeclared(&self) -> impl Iterator<Item = &Listener> {
        self.sockets.iter().filter(|listener| listener.service.is_none())
    }

    /// Says of undeclared ones who has them, as far as this process may look.
    pub fn find_processes(&mut self) {
        let undeclared = self.sockets.iter_mut().filter(|listener| listener.service.is_none());
        let mut undeclared: Vec<&mut Listener> = undeclared.collect();
        if undeclared.is_empty() {
            return;
        }
        let mut found = holders(&undeclared.iter().map(|listener| u64::from(listener.inode)).collect());
        for listener in &mut undeclared {
            listener.process = found.remove(&u64::from(listener.inode));
        }
    }
}

/// TCP and UDP ports of a service.
fn ranges(service: &Service) -> impl Iterator<Item = (u8, &RangeInclusive<u16>)> {
    service.claims.iter().flat_map(|claim| {
        let (number, ranges): (u8, &[RangeInclusive<u16>]) = match claim {
            Claim::Tcp(ranges) => (TCP, ranges),
            Claim::Udp(ranges) => (UDP, ranges),
            Claim::Icmp(_) | Claim::Icmpv6(_) | Claim::Other(_) => (0, &[]),
        };
        ranges.iter().map(move |range| (number, range))
    })
}

fn claims(service: &Service, socket: &Listening) -> bool {
    receives(service, socket)
        && ranges(service).any(|(number, range)| number == socket.protocol && range.contains(&socket.port))
}

/// Whether a packet for the service can come to the address of the socket.
fn receives(service: &Service, socket: &Listening) -> bool {
    service.to.is_empty()
        || socket.address.is_unspecified()
        || service.to.iter().any(|prefix| prefix.contains(&socket.address))
}

/// What an undeclared listener is told apart by.
pub(super) type Key = (String, IpAddr, u16);

impl Agent {
    /// Looks now.
    ///
    /// # Errors
    /// The kernel does not list its sockets.
    pub async fn listeners(&self) -> Result<Listeners, AgentError> {
        let running = Arc::clone(&self.state().current.running);
        let found = beside(move || {
            // The agent itself asks name servers, from ports that are hard to guess.
            let (mut sockets, own) = (listening()?, own_sockets());
            sockets.retain(|socket| socket.protocol != UDP || !own.contains(&u64::from(socket.inode)));
            Ok::<_, std::io::Error>(Listeners::new(&running.policy, &sockets, &ephemeral_ports()))
        });
        found.await.map_err(AgentError::netlink("list the sockets of this host"))
    }

    /// Looks again and again, and says it when there is a new one that no service claims.
    pub(super) async fn watch_listeners(self: Arc<Self>) {
        loop {
            match self.listeners().await {
                Ok(found) => self.note_listeners(found).await,
                Err(error) => tracing::error!("undeclared listeners are not looked for: {error}"),
            }
            tokio::time::sleep(PERIOD).await;
        }
    }

    async fn note_listeners(&self, mut found: Listeners) {
        let key = |listener: &Listener| (listener.protocol.clone(), listener.address, listener.port);
        let now: BTreeSet<Key> = found.undeclared().map(key).collect();
        let before = std::mem::replace(&mut self.state().undeclared, now.clone());
        if now.is_subset(&before) {
            return;
        }
        // The one time that processes are looked at.
        let found = beside(move || {
            found.find_processes();
            found
        })
        .await;
        let mut new = found.undeclared().filter(|listener| !before.contains(&key(listener)));
        for listener in new.by_ref().take(TOLD) {
            let Listener { protocol, address, port, user, process, .. } = listener;
            let process = process.as_ref();
            tracing::warn!(
                %protocol, socket = %SocketAddr::new(*address, *port), user,
                process = process.map(ToString::to_string), unit = process.and_then(|p| p.unit.clone()),
                "a listener that no service declares (`mpesa-fw listeners` says more)"
            );
            let record = EventRecord::Listener(ListenerRecord {
                time: OffsetDateTime::now_utc(),
                protocol: protocol.clone(),
                address: *address,
                port: *port,
                user: *user,
                process: process.map(ToString::to_string),
                unit: process.and_then(|process| process.unit.clone()),
            });
            self.event_log().record(record);
        }
        let mut more: BTreeMap<u32, usize> = BTreeMap::new();
        new.for_each(|listener| *more.entry(listener.user).or_default() += 1);
        if !more.is_empty() {
            let (count, users) = (more.values().sum::<usize>(), more.len());
            let most = more.into_iter().max_by_key(|(_, count)| *count);
            let (user, of_user) = most.unwrap_or_default();
            tracing::warn!(
                count,
                users,
                user,
                of_user,
                "more listeners that no service declares, not told one by one (`mpesa-fw listeners` shows them)"
            );
        }
    }
}

/// Ports that the kernel gives to sockets which ask for none.
fn ephemeral_ports() -> RangeInclusive<u16> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut ports = text.split_whitespace().filter_map(|port| port.parse().ok());
    match (ports.next(), ports.next()) {
        (Some(first), Some(last)) => first..=last,
        (_, _) => 32768..=60999, // net/ipv4/af_inet.c
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{compile::testing, policy::model::Addresses};

    fn socket(protocol: u8, address: &str, port: u16) -> Listening {
        Listening { protocol, address: address.parse().unwrap(), port, user: 33, inode: 7 }
    }

    fn compared(sockets: &[Listening]) -> (Vec<String>, Vec<String>) {
        let any = || Addresses { any: true, prefixes: Vec::new(), sets: Vec::new() };
        let service = |name, claims| Service { claims, ..testing::service(name, any()) };
        let mut policy = testing::policy();
        policy.ingress.services = vec![
            service("web", vec![Claim::Tcp(vec![80..=80, 8000..=8010])]),
            Service { to: vec!["10.0.0.5/32".parse().unwrap()], ..testing::service("hooks", any()) },
            service("dns", vec![Claim::Udp(vec![53..=53]), Claim::Tcp(vec![53..=53])]),
            service("calls", vec![Claim::Udp(vec![40000..=40000])]),
            service("ping", vec![Claim::Icmp(vec![8])]),
        ];
        let found = Listeners::new(&policy, sockets, &(32768..=60999));
        let undeclared =
            found.undeclared().map(|l| format!("{} {}", l.protocol, SocketAddr::new(l.address, l.port)));
        let unanswered =
            found.unanswered.iter().map(|u| format!("{} {} {}-{}", u.service, u.protocol, u.first, u.last));
        (undeclared.collect(), unanswered.collect())
    }

    #[test]
    fn an_answer_has_room_for_what_is_declared_and_says_how_many_are_left_out() {
        let mut policy = testing::policy();
        let any = Addresses { any: true, prefixes: Vec::new(), sets: Vec::new() };
        let last = Service { claims: vec![Claim::Tcp(vec![65535..=65535])], ..testing::service("last", any) };
        policy.ingress.services = vec![last];
        let sockets: Vec<Listening> = (1..=65535).map(|port| socket(TCP, "0.0.0.0", port)).collect();
        let found = Listeners::new(&policy, &sockets, &(32768..=60999)).bounded();
        assert_eq!((found.undeclared().count(), found.left_out), (ANSWERED, 65534 - ANSWERED));
        assert!(found.sockets.iter().any(|listener| listener.service.is_some()));
        assert!(serde_json::to_vec(&found).unwrap().len() < 2 << 20);
    }

    #[test]
    fn what_no_service_claims_is_undeclared() {
        let (undeclared, _) = compared(&[
            socket(TCP, "0.0.0.0", 80),
            socket(TCP, "::", 8005),
            socket(TCP, "::", 8011),
            socket(UDP, "0.0.0.0", 80),
            socket(TCP, "10.0.0.5", 443),
            socket(TCP, "10.0.0.6", 443),
            socket(TCP, "127.0.0.1", 9000),
            socket(TCP, "::1", 9000),
            socket(TCP, "0.0.0.0", 50000),
            socket(TCP, "0.0.0.0", 50000),
        ]);
        let expected = ["udp 0.0.0.0:80", "tcp 10.0.0.6:443", "tcp [::]:8011", "tcp 0.0.0.0:50000"];
        assert_eq!(undeclared, expected);
    }

    #[test]
    fn clients_of_udp_are_left_out() {
        let (undeclared, unanswered) = compared(&[
            socket(UDP, "0.0.0.0", 50000),
            socket(UDP, "0.0.0.0", 68),
            socket(UDP, "0.0.0.0", 40000),
            socket(UDP, "0.0.0.0", 5353),
        ]);
        assert_eq!(undeclared, ["udp 0.0.0.0:5353"]);
        assert!(!unanswered.iter().any(|service| service.starts_with("calls")), "{unanswered:?}");
    }

    #[test]
    fn services_without_a_listener_are_found() {
        let all =
            ["web tcp 80-80", "web tcp 8000-8010", "hooks tcp 443-443", "dns udp 53-53", "dns tcp 53-53"];
        assert_eq!(compared(&[]).1, [&all[..], &["calls udp 40000-40000"]].concat());
        let sockets = [
            socket(TCP, "127.0.0.1", 80),
            socket(TCP, "::", 8010),
            socket(TCP, "10.0.0.6", 443),
            socket(UDP, "::", 53),
        ];
        let expected = ["web tcp 80-80", "hooks tcp 443-443", "dns tcp 53-53", "calls udp 40000-40000"];
        assert_eq!(compared(&sockets).1, expected);
    }
}
