//! `sets:`, of the rules file and of those that it includes.

use std::collections::BTreeMap;

use ipnet::IpNet;
use mpesa_fw_common::tables::WATCHED_SETS;
use time::{Date, macros::format_description};

use super::{
    document::{Entry, Node, Value},
    fields::{self, Fields, Scalar, listed},
    model::AddressSet,
    names, prefix,
    report::{Report, Span},
    set_file,
    source::{Named, SET_FILE_BYTES, Sources},
    suggest::nearest,
};

const KEYS: [&str; 6] = ["addresses", "file", "source", "checked", "expires", "watch"];

/// Among more sets than this nobody's spelling is guessed at: it takes seconds for each wrong name of a long list.
const COMPARED: usize = 1000;

/// Sets by name.
#[derive(Default)]
pub(super) struct Sets {
    /// In file order, included files first.
    pub(super) sets: Vec<AddressSet>,
    spans: Vec<Span>,
    index: BTreeMap<String, usize>,
    used: Vec<bool>,
}

impl Sets {
    /// Adds those of one file.
    pub(super) fn add(&mut self, node: &Node, sources: &mut Sources<'_>, report: &mut Report) {
        let example = "sets: { admins: [203.0.113.7] }";
        for entry in fields::entries(node, "`sets`", example, report) {
            if let Err((message, hint)) = names::check_label(&entry.key) {
                report.error(entry.key_span, message).hint(hint);
            }
            let set = decode(entry, sources, report);
            if let Some(first) = self.index.get(&entry.key) {
                let place = report.place(self.spans[*first]);
                report
                    .error(
                        entry.key_span,
                        format!("the set `{}` is defined twice, first in {place}", entry.key),
                    )
                    .hint("rename one of them, or remove it");
                continue;
            }
            self.index.insert(entry.key.clone(), self.sets.len());
            self.sets.push(set);
            self.spans.push(entry.key_span);
            self.used.push(false);
        }
    }

    /// Reports what is wrong with them together.
    pub(super) fn check(&self, report: &mut Report) {
        let mut watched = (0..self.sets.len()).filter(|index| !self.sets[*index].watch.is_empty());
        if let Some(index) = watched.nth(WATCHED_SETS) {
            report
                .error(self.spans[index], format!("more than {WATCHED_SETS} sets have `watch`"))
                .hint("remove `watch` from sets whose near misses nobody looks at");
        }
    }

    /// Position of a set, which counts as used from now on.
    pub(super) fn find(&mut self, name: &str) -> Option<usize> {
        let index = *self.index.get(name)?;
        self.used[index] = true;
        Some(index)
    }

    /// What to say of a set that does not exist.
    pub(super) fn suggest(&self, name: &str) -> String {
        let names: Vec<&str> = self.index.keys().map(String::as_str).collect();
        let near =
            if names.len() <= COMPARED { nearest(name, names.iter().copied().chain(["any"])) } else { None };
        match near {
            Some(name) => format!("did you mean `{name}`?"),
            None if names.is_empty() => format!("define it: `sets: {{ {name}: [203.0.113.7] }}`"),
            None if names.len() <= 8 => {
                format!("the sets are {}; an address or prefix will do too", listed(&names))
            }
            None => "define it under `sets`, or write an address or prefix".to_owned(),
        }
    }

    /// Those that nothing used, with their places.
    pub(super) fn unused(&self) -> impl Iterator<Item = (&AddressSet, Span)> {
        let sets = self.sets.iter().zip(&self.spans).zip(&self.used);
        sets.filter(|(_, used)| !**used).map(|((set, span), _)| (set, *span))
    }
}

fn decode(entry: &Entry, sources: &mut Sources<'_>, report: &mut Report) -> AddressSet {
    let mut set = AddressSet {
        name: entry.key.clone(),
        prefixes: Vec::new(),
        source: None,
        checked: None,
        expires: None,
        watch: Vec::new(),
        at: report.location(entry.key_span),
    };
    let what = format!("the set `{}`", entry.key);
    let node = &entry.value;
    if let Value::List(_) = &node.value {
        set.prefixes = prefixes(node, &what, report);
    } else if let Value::Map(_) = &node.value {
        if let Some(fields) = Fields::open(node, &what, &KEYS, report) {
            decode_long(&mut set, &fields, entry.key_span, sources, report);
        }
    } else {
        let hint = format!("for example `{}: [203.0.113.7, 10.0.0.0/8]`", entry.key);
        fields::mismatch(node, &format!("{what} must be a list of addresses or a mapping"), hint, report);
    }
    set
}

fn decode_long(
    set: &mut AddressSet,
    fields: &Fields<'_>,
    at: Span,
    sources: &mut Sources<'_>,
    report: &mut Report,
) {
    match (fields.optional("addresses"), fields.optional("file")) {
        (Some(node), None) => set.prefixes = prefixes(node, "`addresses`", report),
        (None, Some(node)) => set.prefixes = read(node, sources, report),
        (Some(_), Some(node)) => {
            report
                .error(node.span, format!("the set `{}` has both `addresses` and `file`", set.name))
                .hint("make two sets of it; a rule can name both");
        }
        (None, None) if fields.is_misspelt("addresses") || fields.is_misspelt("file") => {}
        (None, None) => {
            report
                .error(at, format!("the set `{}` has no addresses", set.name))
                .hint("give it `addresses: [...]`, or `file:` with the name of a list");
        }
    }
    set.source =
        fields.optional("source").and_then(|node| fields::text(node, "`source`", report)).map(str::to_owned);
    set.checked = fields.optional("checked").and_then(|node| date(node, "`checked`", report));
    set.expires = fields.optional("expires").and_then(|node| date(node, "`expires`", report));
    set.watch = fields.optional("watch").map(|node| prefixes(node, "`watch`", report)).unwrap_or_default();
}

/// A list of prefixes.
pub(super) fn prefixes(node: &Node, what: &str, report: &mut Report) -> Vec<IpNet> {
    let entries = fields::list(node, what, "[203.0.113.7, 10.0.0.0/8]", report);
    let mut seen = BTreeMap::new();
    let mut prefixes = Vec::with_capacity(entries.len());
    for entry in entries {
        let Some(prefix) = prefix(entry, report) else {
            continue;
        };
        if let Some(first) = seen.insert(prefix, entry.span) {
            report
                .warning(
                    entry.span,
                    format!("`{prefix}` is in this list twice, first on line {}", first.line),
                )
                .hint("is one of them a typo for another address?");
        }
        prefixes.push(prefix);
    }
    prefixes
}

fn prefix(node: &Node, report: &mut Report) -> Option<IpNet> {
    let text = fields::text(node, "an address", report)?;
    match prefix::parse(text) {
        Ok(prefix) => Some(prefix),
        Err(invalid) => {
            report.error(node.span, invalid.message).hint_if_any(invalid.hint);
            None
        }
    }
}

fn read(node: &Node, sources: &mut Sources<'_>, report: &mut Report) -> Vec<IpNet> {
    let Some(name) = fields::text(node, "`file`", report) else {
        return Vec::new();
    };
    let named = Named::by_file(report.path(node.span), name);
    match sources.read(&named, SET_FILE_BYTES) {
        Ok(bytes) => {
            let file = report.add(&named.path());
            set_file::parse(&bytes, file, report)
        }
        Err((message, hint)) => {
            report.error(node.span, message).hint(hint);
            Vec::new()
        }
    }
}

fn date(node: &Node, what: &str, report: &mut Report) -> Option<Date> {
    let example = "`2027-02-08`";
    let text = match fields::scalar(node, &format!("{what} must be a date"), example, report)? {
        Scalar::Text(text) => text,
        Scalar::Integer(_, written) => written,
    };
    let date = Date::parse(text, format_description!("[year]-[month]-[day]"));
    if let Err(error) = &date {
        let no_such_day = matches!(error, time::error::Parse::TryFromParsed(_));
        report.error(node.span, format!("{what} must be a date, not `{text}`")).hint(if no_such_day {
            "there is no such day"
        } else {
            "write year-month-day, for example `2027-02-08`"
        });
    }
    date.ok()
}
