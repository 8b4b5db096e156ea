//! `by` of a rule: the users and units whose sockets it is for.

use super::{
    document::{Node, Value},
    fields::{self, Fields},
    model::Owner,
    names::Complaint,
    report::Report,
};

const KEYS: [&str; 2] = ["unit", "user"];
const EXAMPLE: &str = "by: { unit: payments.service }";
/// Longest name of a unit (`UNIT_NAME_MAX` of systemd, with its NUL).
const UNIT: usize = 255;
/// Kinds of units that have sockets.
const KINDS: [&str; 4] = [".service", ".slice", ".scope", ".socket"];
/// What the kernel says where it knows no user (`overflowuid`).
const NOBODY: u32 = 65534;

/// One owner or a list of them; what is wrong was reported.
pub(super) fn decode(node: &Node, report: &mut Report) -> Vec<Owner> {
    let nodes = match &node.value {
        Value::List(nodes) => nodes.as_slice(),
        Value::Null | Value::Bool(_) | Value::Number { .. } | Value::Text(_) | Value::Map(_) | Value::Bad => {
            std::slice::from_ref(node)
        }
    };
    if nodes.is_empty() {
        report
            .error(node.span, "`by` is an empty list: nobody could use the rule")
            .hint(format!("name a unit or a user, like `{EXAMPLE}`, or remove `by`"));
    }
    let mut owners = Vec::with_capacity(nodes.len());
    for node in nodes {
        if let Some(owner) = one(node, report) {
            if owners.contains(&owner) {
                report.error(node.span, format!("{owner} is in this list twice")).hint("remove one of them");
            } else {
                owners.push(owner);
            }
        }
    }
    owners
}

fn one(node: &Node, report: &mut Report) -> Option<Owner> {
    let fields = Fields::open(node, "an owner", &KEYS, report)?;
    let (owner, node) = match (fields.optional("unit"), fields.optional("user")) {
        (Some(node), None) => (fields::text(node, "`unit`", report).map(unit)?, node),
        (None, Some(node)) => (user(node, report)?, node),
        (Some(_), Some(_)) => {
            report
                .error(fields.span, "an owner is a unit or a user, not both")
                .hint("a list of two allows either: `by: [{ unit: payments.service }, { user: payments }]`");
            return None;
        }
        (None, None) if KEYS.iter().any(|key| fields.is_misspelt(key)) => return None,
        (None, None) => {
            report
                .error(fields.span, "an owner needs `unit` or `user`")
                .hint(format!("for example `{EXAMPLE}`"));
            return None;
        }
    };
    match owner {
        Ok(owner) => Some(owner),
        Err((message, hint)) => {
            report.error(node.span, message).hint(hint);
            None
        }
    }
}

/// A unit by its full name (systemd.unit(5)), or all of a template.
fn unit(text: &str) -> Result<Owner, Complaint> {
    let refuse =
        |why: &str, hint: &str| Err((format!("`{text}` is not the name of a unit: {why}"), hint.to_owned()));
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '-' | '_' | '.' | '\\' | '@');
    if let Some(wrong) = text.chars().find(|c| !allowed(*c)) {
        return refuse(
            &format!("it contains {wrong:?}"),
            "`systemctl list-units` lists them; `payments@.service` stands for all of a template",
        );
    }
    if text.len() > UNIT {
        return refuse(&format!("it has {} characters", text.len()), "a unit has at most 255");
    }
    match KINDS.into_iter().find_map(|kind| text.strip_suffix(kind)) {
        Some("") => {
            refuse("there is nothing before the dot", "write the whole name, like `payments.service`")
        }
        Some(_) => Ok(Owner::Unit(text.to_owned())),
        None => refuse(
            "it does not say of which kind it is",
            "write the whole name, like `payments.service`; sockets belong to services, slices, scopes and socket units",
        ),
    }
}

/// A user by name or number. Who it is on this host is looked up when the policy is loaded.
fn user(node: &Node, report: &mut Report) -> Option<Result<Owner, Complaint>> {
    let text = fields::text_or_number(node, "`user`", report)?;
    let refuse = |why: String, hint: &str| Some(Err((why, hint.to_owned())));
    if text == "nobody" || text == NOBODY.to_string() {
        return refuse(
            format!("`{text}` can't own anything: the kernel says 65534 where it knows no user"),
            "give the program a user of its own",
        );
    }
    if text.bytes().all(|c| c.is_ascii_digit()) {
        return match text.parse::<u32>() {
            Ok(uid) if uid < u32::MAX => Some(Ok(Owner::User(text))),
            Ok(_) | Err(_) => {
                refuse(format!("`{text}` is not the number of a user"), "they end at 4294967294")
            }
        };
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '$' | '@');
    if text.is_empty() || text.len() > 256 || !text.chars().all(allowed) {
        return refuse(format!("`{text}` is not the name of a user"), "`getent passwd` lists them");
    }
    Some(Ok(Owner::User(text)))
}
