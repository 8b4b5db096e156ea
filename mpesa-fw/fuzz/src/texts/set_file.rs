//! Target `set_file`: a list of prefixes as a set names it, in a policy that is otherwise good.

use std::{collections::BTreeSet, fs, net::IpAddr, str::FromStr as _};

use ipnet::IpNet;
use mpesa_fw::policy::{Permissions, load};
use tempfile::TempDir;

use super::findings;

const POLICY: &str = "version: 1\ninterfaces: [eth0]\nsets: { feed: { file: feed.netset } }\n\
    ingress: { default: drop, services: [{ name: web, ports: [80], from: [feed] }] }\negress: { default: drop }\n";

/// Of one file; the rest is counted.
const SHOWN: usize = 20;

thread_local! {
    static DIRECTORY: TempDir = {
        let directory = findings::directory();
        fs::write(directory.path().join("rules.yaml"), POLICY).expect("a file");
        directory
    };
}

pub fn run(data: &[u8]) {
    DIRECTORY.with(|directory| {
        fs::write(directory.path().join("feed.netset"), data).expect("a file");
        let loaded = load(&directory.path().join("rules.yaml"), Permissions::Ignore);
        let expected = naive(data);
        match loaded {
            Ok(loaded) => {
                assert_eq!(expected.as_ref(), Ok(&loaded.policy.sets[0].prefixes));
                assert!(!loaded.policy.sets[0].prefixes.is_empty());
                findings::check(
                    &loaded.warnings,
                    &[("rules.yaml", POLICY.as_bytes()), ("feed.netset", data)],
                );
            }
            Err(errors) => {
                findings::check(
                    &errors.findings,
                    &[("rules.yaml", POLICY.as_bytes()), ("feed.netset", data)],
                );
                assert!(errors.findings.len() <= SHOWN + 1, "{} findings", errors.findings.len());
                let told: BTreeSet<usize> = errors.findings.iter().map(|finding| finding.line).collect();
                match expected {
                    Ok(prefixes) => assert!(prefixes.is_empty() && told == BTreeSet::from([0]), "{errors}"),
                    Err(lines) if lines.len() <= SHOWN => assert_eq!(told, lines, "{errors}"),
                    Err(lines) => {
                        let expected: BTreeSet<usize> =
                            [0].into_iter().chain(lines.into_iter().take(SHOWN)).collect();
                        assert_eq!(told, expected, "{errors}");
                    }
                }
            }
        }
    });
}

/// The prefixes, or the lines that are none: with the parsers of the standard library and of ipnet, line by line.
fn naive(data: &[u8]) -> Result<Vec<IpNet>, BTreeSet<usize>> {
    let (mut prefixes, mut wrong) = (Vec::new(), BTreeSet::new());
    for (index, line) in data.split(|byte| *byte == b'\n').enumerate() {
        let text = line.split(|byte| *byte == b'#').next().unwrap_or_default().trim_ascii();
        if text.is_empty() {
            continue;
        }
        match std::str::from_utf8(text).ok().and_then(prefix) {
            Some(prefix) => prefixes.push(prefix),
            None => _ = wrong.insert(index + 1),
        }
    }
    if wrong.is_empty() { Ok(prefixes) } else { Err(wrong) }
}

fn prefix(text: &str) -> Option<IpNet> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let address = IpAddr::from_str(address).ok()?;
    let prefix = if length.is_some() { IpNet::from_str(text).ok()? } else { IpNet::from(address) };
    // ipnet takes `/08`, and host bits.
    let plain = length.is_none_or(|length| length == prefix.prefix_len().to_string());
    let mapped = match prefix {
        IpNet::V4(_) => false,
        IpNet::V6(v6) => v6.prefix_len() >= 96 && v6.addr().to_ipv4_mapped().is_some(),
    };
    (plain && prefix == prefix.trunc() && !mapped).then_some(prefix)
}
