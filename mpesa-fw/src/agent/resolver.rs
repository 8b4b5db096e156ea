//! Asks the host's resolvers for the addresses of DNS names.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant, SystemTime},
};

use futures_util::{StreamExt, stream};
use hickory_resolver::{
    TokioResolver,
    config::{LookupIpStrategy, ResolveHosts},
    proto::rr::Name,
};

/// Files whose change makes a new resolver.
const SYSTEM_FILES: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];
/// Names asked for at the same time.
const AT_ONCE: usize = 8;

/// Answer to one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// The name that was asked for.
    pub name: String,
    /// Addresses and TTL in seconds, or why there are none.
    pub result: Result<(Vec<IpAddr>, u64), String>,
}

/// The system's resolvers.
#[derive(Default)]
pub(super) struct Resolver {
    current: Option<(Stamps, TokioResolver)>,
}

type Stamps = [Option<SystemTime>; SYSTEM_FILES.len()];

/// Asks `resolver` for `names`, some at a time, and hands over each answer as it comes.
pub(super) async fn ask(
    resolver: Result<TokioResolver, String>,
    names: Vec<String>,
    mut answered: impl FnMut(Answer),
) {
    let resolver = match resolver {
        Ok(resolver) => resolver,
        Err(why) => {
            names.into_iter().for_each(|name| answered(Answer { name, result: Err(why.clone()) }));
            return;
        }
    };
    let questions = names.into_iter().map(|name| ask_one(&resolver, name));
    let mut answers = stream::iter(questions).buffer_unordered(AT_ONCE);
    while let Some(answer) = answers.next().await {
        answered(answer);
    }
}

impl Resolver {
    /// The servers that are asked; none where the system's file can't be read.
    pub(super) fn servers(&mut self) -> Vec<SocketAddr> {
        self.current()
            .map(|resolver| {
                resolver.config().name_servers().iter().map(|server| server.socket_addr).collect()
            })
            .unwrap_or_default()
    }

    /// The resolver for what the system's files say now.
    ///
    /// # Errors
    /// They can't be read.
    pub(super) fn current(&mut self) -> Result<TokioResolver, String> {
        let stamps = SYSTEM_FILES.map(|file| fs::metadata(file).and_then(|m| m.modified()).ok());
        if let Some((known, resolver)) = &self.current
            && *known == stamps
        {
            return Ok(resolver.clone());
        }
        let resolver = build()?;
        self.current = Some((stamps, resolver.clone()));
        Ok(resolver)
    }
}

fn build() -> Result<TokioResolver, String> {
    let mut builder =
        TokioResolver::builder_tokio().map_err(|error| format!("cannot read /etc/resolv.conf: {error}"))?;
    let options = builder.options_mut();
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.use_hosts_file = ResolveHosts::Always;
    options.cache_size = 0; // the agent asks by TTL, and keeps the answers itself
    options.timeout = Duration::from_secs(3);
    options.attempts = 2;
    Ok(builder.build())
}

async fn ask_one(resolver: &TokioResolver, name: String) -> Answer {
    let mut fqdn = match Name::from_utf8(&name) {
        Ok(fqdn) => fqdn,
        Err(error) => return Answer { result: Err(error.to_string()), name },
    };
    fqdn.set_fqdn(true); // never through the search list
    let result = match resolver.lookup_ip(fqdn).await {
        Ok(answer) => {
            let ttl = answer.valid_until().saturating_duration_since(Instant::now());
            Ok((answer.iter().collect(), ttl.as_secs()))
        }
        Err(error) if error.is_nx_domain() => Err("the resolver says that there is no such name".to_owned()),
        Err(error) if error.is_no_records_found() => Err("the resolver knows no address of it".to_owned()),
        Err(error) => Err(error.to_string()),
    };
    Answer { name, result }
}
