//! The rules file as a whole, and the files that it includes.

use std::collections::HashSet;

use mpesa_fw_common::settings::{Mode, Verdict};

use super::{
    document::{self, Node},
    fields::{self, Fields},
    model::{Egress, Ingress, InterfacePattern, Policy},
    names,
    report::{Report, Span},
    rules,
    sets::Sets,
    source::{Named, Sources, YAML_BYTES},
};

const KEYS: [&str; 8] = ["version", "serial", "mode", "interfaces", "include", "sets", "ingress", "egress"];
/// Whether programs are refused.
const AT_CONNECT: [(&str, bool); 2] = [("refuse", true), ("pass", false)];
const VERDICTS: [(&str, Verdict); 2] = [("drop", Verdict::Drop), ("pass", Verdict::Pass)];
const MODES: [(&str, Mode); 2] = [("enforce", Mode::Enforce), ("observe", Mode::Observe)];

/// Reads a rules file and everything that it names. What is wrong is reported; `None` if nothing could be read.
pub(super) fn policy(
    rules: &Named,
    sources: &mut Sources<'_>,
    report: &mut Report,
) -> Option<(Policy, Sets)> {
    let node = read(rules, None, sources, report)?;
    let root = Fields::open(&node, "a policy", &KEYS, report)?;
    if let Some(node) = root.required("version", "1", report) {
        version(node, report);
    }
    let serial =
        root.optional("serial").and_then(|node| fields::integer(node, "`serial`", "serial: 7", report));
    let mode = match root.optional("mode") {
        None => Mode::Enforce,
        Some(node) => fields::word(node, "`mode`", &MODES, report).unwrap_or(Mode::Enforce),
    };
    let interfaces = root
        .required("interfaces", "[eth0]", report)
        .map(|node| interfaces(node, report))
        .unwrap_or_default();
    let mut sets = Sets::default();
    if let Some(node) = root.optional("include") {
        include(node, rules, &mut sets, sources, report);
    }
    if let Some(node) = root.optional("sets") {
        sets.add(node, sources, report);
    }
    sets.check(report);
    let ingress = root.required("ingress", "{ default: drop, services: [...] }", report);
    let ingress = ingress.and_then(|node| ingress_of(node, &mut sets, report));
    let egress = root.required("egress", "{ default: drop, allow: [...] }", report);
    let egress = egress.and_then(|node| egress_of(node, &mut sets, report));
    let policy = Policy {
        serial,
        mode,
        interfaces,
        sets: Vec::new(), // filled by the caller, who owns `Sets`
        ingress: ingress?,
        egress: egress?,
        files: Vec::new(),
        source_digest: [0; 32],
    };
    Some((policy, sets))
}

/// Reads one YAML file. `named_at`: where it was named.
fn read(
    named: &Named,
    named_at: Option<Span>,
    sources: &mut Sources<'_>,
    report: &mut Report,
) -> Option<Node> {
    let bytes = sources.read(named, YAML_BYTES);
    let file = report.add(&named.path());
    match bytes {
        Ok(bytes) => document::parse(&bytes, file, report),
        Err((message, hint)) => {
            report.error(named_at.unwrap_or(Span::whole(file)), message).hint(hint);
            None
        }
    }
}

fn version(node: &Node, report: &mut Report) {
    match fields::integer(node, "`version`", "version: 1", report) {
        None | Some(1) => {}
        Some(other) => {
            report
                .error(
                    node.span,
                    format!("this program does not know version {other} of the policy language"),
                )
                .hint("it knows `version: 1`; a newer mpesa-fw may know more");
        }
    }
}

fn interfaces(node: &Node, report: &mut Report) -> Vec<InterfacePattern> {
    let mut interfaces = Vec::new();
    let mut seen = HashSet::new();
    for node in fields::list(node, "`interfaces`", "interfaces: [eth0]", report) {
        let Some(text) = fields::text(node, "an interface", report) else {
            continue;
        };
        match names::interface(text) {
            Ok(_) if !seen.insert(text) => {
                report.error(node.span, format!("`{text}` is in this list twice")).hint("remove one of them");
            }
            Ok(interface) => interfaces.push(interface),
            Err((message, hint)) => {
                report.error(node.span, message).hint(hint);
            }
        }
    }
    interfaces
}

/// `include`: files that hold sets only.
fn include(node: &Node, rules: &Named, sets: &mut Sets, sources: &mut Sources<'_>, report: &mut Report) {
    let mut seen = HashSet::new();
    for node in fields::list(node, "`include`", "include: [safaricom.yaml]", report) {
        let Some(name) = fields::text(node, "a file to include", report) else {
            continue;
        };
        if name.starts_with('/') {
            report
                .error(node.span, format!("`{name}` is not relative"))
                .hint("an include is named relative to the file that includes it; `../` is allowed");
            continue;
        }
        let named = Named::by_file(&rules.path(), name);
        if named == *rules {
            report.error(node.span, "a file can't include itself").hint("remove this entry");
            continue;
        }
        if !seen.insert(named.path()) {
            report.error(node.span, format!("`{name}` is included already")).hint("remove this entry");
            continue;
        }
        let Some(document) = read(&named, Some(node.span), sources, report) else {
            continue;
        };
        included(&document, sets, sources, report);
    }
}

fn included(document: &Node, sets: &mut Sets, sources: &mut Sources<'_>, report: &mut Report) {
    let known = ["version", "sets"];
    let Some(fields) = Fields::open(document, "an included file", &known, report) else { return };
    if let Some(node) = fields.optional("version") {
        version(node, report);
    }
    if let Some(node) = fields.required("sets", "{ partners: [192.0.2.0/24] }", report) {
        sets.add(node, sources, report);
    }
}

fn ingress_of(node: &Node, sets: &mut Sets, report: &mut Report) -> Option<Ingress> {
    let fields = Fields::open(node, "`ingress`", &["default", "services"], report)?;
    let default = default(&fields, report);
    let services = fields.optional("services");
    let services = services.map(|node| rules::services(node, sets, report)).unwrap_or_default();
    Some(Ingress { default: default?, services })
}

fn egress_of(node: &Node, sets: &mut Sets, report: &mut Report) -> Option<Egress> {
    let fields = Fields::open(node, "`egress`", &["default", "at_connect", "allow"], report)?;
    let default = default(&fields, report);
    let allow = fields.optional("allow");
    let allow = allow.map(|node| rules::destinations(node, sets, report)).unwrap_or_default();
    let at_connect = fields.optional("at_connect");
    let refuses =
        at_connect.map_or(Some(true), |node| fields::word(node, "`at_connect`", &AT_CONNECT, report));
    Some(Egress { default: default?, refuses_attempts: refuses?, allow })
}

fn default(fields: &Fields<'_>, report: &mut Report) -> Option<Verdict> {
    let node = fields.required("default", "drop", report)?;
    fields::word(node, "`default`", &VERDICTS, report)
}
