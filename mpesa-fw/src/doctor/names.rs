//! Whether the resolvers answer for the names that the policy allows.

use std::time::Duration;

use hickory_resolver::{
    TokioResolver,
    config::{NameServerConfig, ResolverConfig},
    name_server::TokioConnectionProvider,
    proto::rr::Name,
};

use mpesa_fw_common::{Mode, Verdict};

use super::Finding;
use crate::policy::model::{Claim, Destination, Policy};

const PATIENCE: Duration = Duration::from_secs(2);

pub(super) async fn examine(policy: &Policy) -> Vec<Finding> {
    let names = || policy.egress.allow.iter().flat_map(|destination| &destination.names);
    let Some(any) = names().next() else { return Vec::new() };
    // What is below a wildcard is not known; its domain may do for a question.
    let name = names().find(|name| !name.starts_with('*')).unwrap_or(any).trim_start_matches("*.");
    let system = match TokioResolver::builder_tokio() {
        Ok(system) => system.build(),
        Err(error) => {
            return vec![Finding::wrong(
                "names",
                format!("cannot read /etc/resolv.conf: {error}"),
                "destinations by name are closed until their names are resolved",
                "name a resolver there",
            )];
        }
    };
    let mut findings = Vec::new();
    let mut asked = Vec::new();
    for server in system.config().name_servers() {
        if asked.contains(&server.socket_addr) {
            continue;
        }
        asked.push(server.socket_addr);
        if server.socket_addr.ip().is_loopback() {
            findings.push(Finding::note(
                "names",
                format!("{} is a stub resolver of this host", server.socket_addr.ip()),
                "addresses are learnt from what it is answered from outside, in the clear; what it had in its memory before the first start is not known",
                "list the servers that it asks in `egress.allow`, and empty its memory once: `resolvectl flush-caches`, or restart it",
            ));
        }
        findings.push(ask(server, name).await);
    }
    if findings.is_empty() {
        findings.push(Finding::wrong(
            "names",
            "no resolver is configured",
            "destinations by name are closed until their names are resolved",
            "name one in /etc/resolv.conf",
        ));
    }
    findings.push(what_names_can_not_do(policy));
    findings
}

/// The limits of rules by name. One finding, and a fine one: they are the same on every host whose policy has names, and a note that
/// nobody can mend is one that nobody reads any more. Where the policy lets encrypted questions out, somebody has to decide.
fn what_names_can_not_do(policy: &Policy) -> Finding {
    let limits = "names are learnt from answers in the clear: programs that ask by DNS over HTTPS or TLS get addresses that nobody \
         learnt; and an address is not a name: who shares that of an allowed name (behind a CDN) is reached by the same rule";
    match policy.egress.allow.iter().find(|destination| permits_dns_over_tls(destination)) {
        None if denies_the_rest(policy) => {
            Finding::fine("names", format!("{limits}; DNS over TLS has no rule and is denied"))
        }
        None => Finding::fine("names", limits),
        Some(destination) => Finding::note(
            "names",
            format!("the destination `{}` permits DNS over TLS (port 853)", destination.name),
            limits,
            "let what needs names ask in the clear, at the servers that `egress.allow` lists for port 53; take port 853 out of the rule \
             if nothing needs it",
        ),
    }
}

fn denies_the_rest(policy: &Policy) -> bool {
    matches!((policy.egress.default, policy.mode), (Verdict::Drop, Mode::Enforce))
}

/// By TCP (RFC 7858), or by UDP as QUIC (RFC 9250).
fn permits_dns_over_tls(destination: &Destination) -> bool {
    const PORT: u16 = 853;
    destination.claims.iter().any(|claim| match claim {
        Claim::Tcp(ports) | Claim::Udp(ports) => ports.iter().any(|range| range.contains(&PORT)),
        Claim::Icmp(_) | Claim::Icmpv6(_) | Claim::Other(_) => false,
    })
}

async fn ask(server: &NameServerConfig, name: &str) -> Finding {
    let address = server.socket_addr;
    let mut config = ResolverConfig::new();
    config.add_name_server(server.clone());
    let mut builder = TokioResolver::builder_with_config(config, TokioConnectionProvider::default());
    builder.options_mut().timeout = PATIENCE;
    builder.options_mut().attempts = 1;
    builder.options_mut().cache_size = 0;
    let mut fqdn = match Name::from_utf8(name) {
        Ok(fqdn) => fqdn,
        Err(error) => {
            return Finding::note("names", format!("{name}: {error}"), "it can't be asked for", "mend it");
        }
    };
    fqdn.set_fqdn(true);
    match builder.build().lookup_ip(fqdn).await {
        Ok(_) => Finding::fine("names", format!("the resolver {address} answers for {name}")),
        Err(error) if error.is_nx_domain() || error.is_no_records_found() => Finding::wrong(
            "names",
            format!("the resolver {address} knows no address of {name}"),
            "the destination by that name stays closed",
            "look at the spelling, and whether this resolver is one for the outside",
        ),
        Err(error) => Finding::wrong(
            "names",
            format!("the resolver {address} does not answer for {name}: {error}"),
            "destinations by name go stale, and are closed after a restart",
            "is it reachable, and does a destination permit it (udp and tcp, port 53)?",
        ),
    }
}
