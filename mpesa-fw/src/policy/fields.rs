//! Typed access to the document. What has the wrong type is reported, with how to write it.

use super::{
    document::{Entry, Node, Value},
    report::{Report, Span},
    suggest::nearest,
};

/// A mapping of which all keys are known.
pub(super) struct Fields<'n> {
    /// Its beginning.
    pub(super) span: Span,
    what: &'n str,
    entries: &'n [Entry],
    /// Known keys that unknown ones were probably meant to be.
    meant: Vec<String>,
}

impl<'n> Fields<'n> {
    /// `node` as a mapping. `what` it is ("a service"), for messages; other keys than `known` are reported.
    pub(super) fn open(node: &'n Node, what: &'n str, known: &[&str], report: &mut Report) -> Option<Self> {
        let Value::Map(entries) = &node.value else {
            let hint = format!("{what} is a mapping with the keys {}", listed(known));
            mismatch(node, &format!("expected {what} here"), hint, report);
            return None;
        };
        let mut meant = Vec::new();
        for entry in entries.iter().filter(|entry| !known.contains(&entry.key.as_str())) {
            let hint = match nearest(&entry.key, known.iter().copied()) {
                Some(key) => {
                    meant.push(key.to_owned());
                    format!("did you mean `{key}`?")
                }
                None => format!("the keys of {what} are {}", listed(known)),
            };
            report.error(entry.key_span, format!("unknown key `{}` in {what}", entry.key)).hint(hint);
        }
        Some(Self { span: node.span, what, entries, meant })
    }

    /// The value of a key, if it is written.
    pub(super) fn optional(&self, key: &str) -> Option<&'n Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The value of a key; reported if it is missing, with `example`.
    pub(super) fn required(&self, key: &str, example: &str, report: &mut Report) -> Option<&'n Node> {
        let value = self.optional(key);
        if value.is_none() && !self.is_misspelt(key) {
            report
                .error(self.span, format!("{} needs the key `{key}`", self.what))
                .hint(format!("for example `{key}: {example}`"));
        }
        value
    }

    /// Whether an unknown key was probably meant to be this one. It was reported.
    pub(super) fn is_misspelt(&self, key: &str) -> bool {
        self.meant.iter().any(|meant| meant == key)
    }

    /// Where a key stands.
    pub(super) fn key(&self, key: &str) -> Option<Span> {
        self.entry(key).map(|entry| entry.key_span)
    }

    fn entry(&self, key: &str) -> Option<&'n Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }
}

/// The entries of a mapping whose keys the author chooses.
pub(super) fn entries<'n>(node: &'n Node, what: &str, example: &str, report: &mut Report) -> &'n [Entry] {
    let Value::Map(entries) = &node.value else {
        mismatch(node, &format!("{what} must be a mapping"), format!("for example `{example}`"), report);
        return &[];
    };
    entries
}

/// A list of any length.
pub(super) fn list_or_empty<'n>(
    node: &'n Node,
    what: &str,
    example: &str,
    report: &mut Report,
) -> &'n [Node] {
    match &node.value {
        Value::List(nodes) if nodes.is_empty() => &[],
        Value::Null
        | Value::Bool(_)
        | Value::Number { .. }
        | Value::Text(_)
        | Value::List(_)
        | Value::Map(_)
        | Value::Bad => list(node, what, example, report),
    }
}

/// A list with at least one element.
pub(super) fn list<'n>(node: &'n Node, what: &str, example: &str, report: &mut Report) -> &'n [Node] {
    let hint = match &node.value {
        Value::List(nodes) if nodes.is_empty() => {
            report
                .error(node.span, format!("{what} is an empty list"))
                .hint(format!("give it an entry, for example `{example}`"));
            return &[];
        }
        Value::List(nodes) => return nodes,
        Value::Bad => return &[],
        Value::Text(written) | Value::Number { written, .. } if written.len() < 60 => {
            format!("put it in brackets: `[{written}]`")
        }
        Value::Null | Value::Bool(_) | Value::Number { .. } | Value::Text(_) | Value::Map(_) => {
            format!("for example `{example}`")
        }
    };
    report.error(node.span, format!("{what} must be a list, {}", describe(&node.value))).hint(hint);
    &[]
}

/// A list, or one scalar that stands for a list of itself.
pub(super) fn list_or_one<'n>(node: &'n Node, what: &str, example: &str, report: &mut Report) -> &'n [Node] {
    match &node.value {
        Value::Text(_) | Value::Number { .. } | Value::Bool(_) => std::slice::from_ref(node),
        Value::Null | Value::List(_) | Value::Map(_) | Value::Bad => list(node, what, example, report),
    }
}

/// Text.
pub(super) fn text<'n>(node: &'n Node, what: &str, report: &mut Report) -> Option<&'n str> {
    let hint = match &node.value {
        Value::Text(text) => return Some(text),
        Value::Bad => return None,
        Value::Number { written, .. } if looks_like_address(written) => {
            Some("an IPv4 address has four parts; a part is missing".to_owned())
        }
        Value::Number { written, .. } => Some(format!("if it is meant, put it in quotes: \"{written}\"")),
        Value::Map(entries) => entries.first().map(|entry| match entry.key.split_once(':') {
            Some(_) => format!("put an IPv6 address that ends in `:` in quotes: \"{}:\"", entry.key),
            None => format!("look for a `:` too many after `{}`", entry.key),
        }),
        Value::Null | Value::Bool(_) | Value::List(_) => None,
    };
    report.error(node.span, format!("{what} must be text, {}", describe(&node.value))).hint_if_any(hint);
    None
}

/// Text, or a whole number as it is written.
pub(super) fn text_or_number(node: &Node, what: &str, report: &mut Report) -> Option<String> {
    match &node.value {
        Value::Number { written, integer: Some(_) } => Some(written.clone()),
        Value::Null
        | Value::Bool(_)
        | Value::Number { .. }
        | Value::Text(_)
        | Value::List(_)
        | Value::Map(_)
        | Value::Bad => text(node, what, report).map(str::to_owned),
    }
}

fn looks_like_address(written: &str) -> bool {
    written.contains('.') && written.bytes().all(|b| b == b'.' || b.is_ascii_digit())
}

/// A whole number that is not negative.
pub(super) fn integer(node: &Node, what: &str, example: &str, report: &mut Report) -> Option<u64> {
    if let Value::Number { integer: Some(integer), .. } = &node.value {
        return Some(*integer);
    }
    mismatch(node, &format!("{what} must be a whole number"), format!("for example `{example}`"), report);
    None
}

/// What is written as a whole number or as text.
pub(super) enum Scalar<'n> {
    /// The number, and as it is written.
    Integer(u64, &'n str),
    Text(&'n str),
}

/// A whole number or text. `expectation`: "a port is a number or a range".
pub(super) fn scalar<'n>(
    node: &'n Node,
    expectation: &str,
    example: &str,
    report: &mut Report,
) -> Option<Scalar<'n>> {
    if let Value::Number { integer: Some(integer), written } = &node.value {
        return Some(Scalar::Integer(*integer, written));
    }
    if let Value::Text(text) = &node.value {
        return Some(Scalar::Text(text));
    }
    mismatch(node, expectation, format!("for example {example}"), report);
    None
}

/// Reports a wrong type, unless the value was reported already.
pub(super) fn mismatch(node: &Node, expectation: &str, hint: String, report: &mut Report) {
    if !matches!(node.value, Value::Bad) {
        report.error(node.span, format!("{expectation}, {}", describe(&node.value))).hint(hint);
    }
}

/// One of a few words.
pub(super) fn word<T: Copy>(node: &Node, what: &str, words: &[(&str, T)], report: &mut Report) -> Option<T> {
    let text = text(node, what, report)?;
    let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
    if found.is_none() {
        let known = || words.iter().map(|(word, _)| *word);
        let mut hint =
            format!("write {}", known().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(" or "));
        if let Some(word) = nearest(text, known()) {
            hint = format!("did you mean `{word}`?");
        }
        report.error(node.span, format!("{what} can't be `{text}`")).hint(hint);
    }
    found
}

/// Why a value of another type was expected, as the end of a sentence.
fn describe(value: &Value) -> String {
    match value {
        Value::Null => "but nothing is written here".to_owned(),
        Value::Bool(value) => format!("not the truth value `{value}`"),
        Value::Number { written, .. } => format!("not the number `{written}`"),
        Value::Text(_) => "not a text".to_owned(),
        Value::List(_) => "not a list".to_owned(),
        Value::Map(_) => "not a mapping".to_owned(),
        Value::Bad => "not something else".to_owned(),
    }
}

/// `a`, `b` and `c`.
pub(super) fn listed(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [word] => format!("`{word}`"),
        [first @ .., last] => {
            let first: Vec<String> = first.iter().map(|word| format!("`{word}`")).collect();
            format!("{} and `{last}`", first.join(", "))
        }
    }
}
