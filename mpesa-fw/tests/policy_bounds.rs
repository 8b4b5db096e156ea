//! Files of the largest size, full of mistakes: the answer comes soon, is short, and says how much it leaves out.

use std::{
    fmt::Write as _,
    fs,
    time::{Duration, Instant},
};

use mpesa_fw::policy::{Finding, Permissions, load};

/// Of a debug build on a busy machine; what was quadratic took hours, or all memory.
const SOON: Duration = Duration::from_secs(30);
const HEAD: &str = "version: 1\ninterfaces: [eth0]\n";
const TAIL: &str = "ingress: { default: drop }\negress: { default: drop }\n";
/// The largest rules file.
const MEGABYTE: usize = 1 << 20;

/// What `load` finds, after it was held against the clock.
fn findings(text: &str, set_file: &[u8]) -> Vec<Finding> {
    assert!(text.len() <= MEGABYTE, "{}", text.len());
    let directory = tempfile::tempdir().expect("a directory");
    let rules = directory.path().join("rules.yaml");
    fs::write(&rules, text).expect("a file");
    fs::write(directory.path().join("feed.netset"), set_file).expect("a file");
    fs::write(directory.path().join("sets.yaml"), "sets: { a: [192.0.2.1] }\n").expect("a file");
    let start = Instant::now();
    let (findings, total, text) = match load(&rules, Permissions::Ignore) {
        Ok(loaded) => (loaded.warnings, loaded.total, String::new()),
        Err(errors) => (errors.findings.clone(), errors.total, errors.to_string()),
    };
    if total > 200 {
        let last = &findings[200];
        let more = format!("and {} more {}", total - 200, last.severity.label());
        assert!(last.message.starts_with(&more) && last.line == 0, "{last}");
        assert!(text.is_empty() || text.ends_with(&format!("{total} errors; nothing was loaded")), "{text}");
    } else {
        assert_eq!(findings.len(), total);
    }
    let shown: usize = findings.iter().map(|finding| finding.to_string().len()).sum();
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    assert!(findings.len() <= 201, "{} findings", findings.len());
    assert!(shown < 300_000, "{shown} bytes are shown");
    let json = serde_json::to_string(&findings).expect("plain data").len();
    assert!(json < 300_000, "{json} bytes of JSON");
    findings
}

fn repeated(before: &str, piece: &str, after: &str) -> String {
    let room = MEGABYTE - before.len() - after.len();
    format!("{before}{}{after}", piece.repeat(room / piece.len()))
}

fn numbered(before: &str, count: usize, mut piece: impl FnMut(usize) -> String, after: &str) -> String {
    let mut text = before.to_owned();
    (0..count).for_each(|n| text.push_str(&piece(n)));
    text + after
}

fn counts(findings: &[Finding], said: &str) {
    assert_eq!(findings.len(), 201);
    assert!(findings[200].message.contains(said), "{}", findings[200]);
}

#[test]
fn half_a_million_errors_on_one_line() {
    let found = findings(&repeated(&format!("{HEAD}{TAIL}sets: {{ a: ["), "x,", "] }\n"), b"");
    counts(&found, "more errors, not shown");
    let text = found[100].text.as_deref().expect("a piece of the line");
    assert!(text.chars().count() < 130, "{text}");
}

#[test]
fn an_error_on_each_line() {
    counts(
        &findings(&repeated(&format!("{HEAD}{TAIL}sets:\n  a:\n"), "  - x\n", ""), b""),
        "more errors, not shown",
    );
    counts(&findings(&repeated(HEAD, "a\u{7}\n", ""), b""), "more errors, not shown");
}

#[test]
fn a_warning_for_each_entry() {
    let rules = "ingress: { default: drop, services: [{ name: a, ports: [1], from: [a] }] }\negress: { default: drop }\n";
    let found =
        findings(&repeated(&format!("{HEAD}{rules}sets: {{ a: [10.0.0.1"), ",10.0.0.1", "] }\n"), b"");
    counts(&found, "more warnings, not shown");
}

#[test]
fn a_mapping_of_many_keys() {
    let found =
        findings(&numbered(&format!("{HEAD}{TAIL}sets:\n"), 80_000, |n| format!(" a{n:x}: 1\n"), ""), b"");
    counts(&found, "and 79800 more errors");
    counts(
        &findings(&repeated(&format!("{HEAD}{TAIL}sets:\n"), " a: 1\n", ""), b""),
        "more errors, not shown",
    );
}

#[test]
fn many_names_that_are_none_among_many_that_are() {
    let sets = numbered("sets:\n", 20_000, |n| format!(" s{n:x}: [10.0.0.1]\n"), "");
    let before = format!(
        "{HEAD}{sets}egress: {{ default: drop }}\ningress: {{ default: drop, services: [{{ name: a, ports: [1], from: ["
    );
    counts(
        &findings(&numbered(&before, 60_000, |n| format!("t{n:x},"), "] }] }\n"), b""),
        "and 59800 more errors",
    );
}

#[test]
fn many_different_entries_of_a_rule() {
    let before = format!(
        "{HEAD}ingress: {{ default: drop }}\negress: {{ default: drop, allow: [{{ name: a, ports: [1], to: ["
    );
    let found = findings(&numbered(&before, 60_000, |n| format!("h{n:x}.example,"), "] }] }\n"), b"");
    assert!(found[0].message.contains("DNS names"), "{}", found[0]);
    let prefix = |n: usize| format!("10.{}.{}.{},", n >> 16, n >> 8 & 255, n & 255);
    let after = "] }] }\negress: { default: drop }\n";
    let before = format!("{HEAD}ingress: {{ default: drop, services: [{{ name: a, ports: [1], from: [");
    assert_eq!(findings(&numbered(&before, 70_000, prefix, after), b""), []);
}

#[test]
fn many_rules_and_many_files() {
    let before = format!("{HEAD}egress: {{ default: drop }}\ningress:\n  default: drop\n  services:\n");
    let found = findings(
        &numbered(&before, 20_000, |n| format!("  - {{ name: r{n}, ports: [1], from: [a] }}\n"), ""),
        b"",
    );
    assert!(found.iter().any(|error| error.message.contains("20000 services")), "{}", found[0]);
    let before = format!("{HEAD}{TAIL}include: [sets.yaml");
    counts(&findings(&repeated(&before, ",./sets.yaml", "]\n"), b""), "more errors, not shown");
}

#[test]
fn a_set_file_of_one_line_and_one_of_a_million_errors() {
    let rules = format!(
        "{HEAD}sets: {{ a: {{ file: feed.netset }} }}\negress: {{ default: drop }}\n\
         ingress: {{ default: drop, services: [{{ name: a, ports: [1], from: [a] }}] }}\n"
    );
    let found = findings(&rules, &vec![b'1'; 8 << 20]);
    assert_eq!(found.len(), 1);
    let mut lines = String::new();
    (0..1_000_000).for_each(|n| _ = writeln!(lines, "x{n}"));
    let found = findings(&rules, lines.as_bytes());
    assert!(found.iter().any(|error| error.message.contains("1000000 lines")), "{}", found[0]);
}

#[test]
fn large_sets_as_local_addresses() {
    let before = format!(
        "{HEAD}sets: {{ a: {{ file: feed.netset }} }}\negress: {{ default: drop }}\ningress:\n  default: drop\n  services:\n"
    );
    let service = |n: usize| format!("  - {{ name: r{n}, ports: [1], from: [any], to: [a, 192.0.2.1] }}\n");
    let feed = |count: u32| -> String {
        (0..count).map(|n| format!("{}\n", std::net::Ipv4Addr::from_bits((10 << 24) + n))).collect()
    };
    assert_eq!(findings(&numbered(&before, 1, service, ""), feed(4095).as_bytes()), []);
    let found = findings(&numbered(&before, 64, service, ""), feed(4096).as_bytes());
    let said =
        |finding: &&Finding| finding.message == "`to` of a service has 4097 prefixes; 4096 are possible";
    assert_eq!((found.len(), found.iter().filter(said).count()), (64, 64), "{}", found[0]);
}

/// The YAML parser puts the end of a text on the line behind it.
#[test]
fn what_is_missing_at_the_end_is_missed_where_the_text_ends() {
    let found = findings(&format!("{HEAD}sets: {{ a: [10.0.0.1"), b"");
    assert_eq!((found[0].line, found[0].column), (3, 21), "{}", found[0]);
    assert!(found[0].text.is_some());
}
