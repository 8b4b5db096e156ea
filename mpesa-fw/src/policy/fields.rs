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
}

impl<'n> Fields<'n> {
    /// `node` as a mapping. `what` it is ("a service"), for messages; other keys than `known` are reported.
    pub(super) fn open(
        node: &'n Node,
        what: &'n str,
        known: &[&str],
        report: &mut Report,
    ) -> Option<Self> {
        let entries = match &node.value {
            Value::Map(entries) => entries,
            Value::Bad => return None,
            other => {
                report
                    .error(
                        node.span,
                        format!("expected {what} here, not {}", describe(other)),
                    )
                    .hint(format!(
                        "{what} is a mapping with the keys {}",
                        listed(known)
                    ));
                return None;
            }
        };
        for entry in entries
            .iter()
            .filter(|entry| !known.contains(&entry.key.as_str()))
        {
            let hint = match nearest(&entry.key, known.iter().copied()) {
                Some(key) => format!("did you mean `{key}`?"),
                None => format!("the keys of {what} are {}", listed(known)),
            };
            report
                .error(
                    entry.key_span,
                    format!("unknown key `{}` in {what}", entry.key),
                )
                .hint(hint);
        }
        Some(Self {
            span: node.span,
            what,
            entries,
        })
    }

    /// The value of a key, if it is written.
    pub(super) fn optional(&self, key: &str) -> Option<&'n Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The value of a key; reported if it is missing, with `example`.
    pub(super) fn required(
        &self,
        key: &str,
        example: &str,
        report: &mut Report,
    ) -> Option<&'n Node> {
        let value = self.optional(key);
        if value.is_none() {
            report
                .error(self.span, format!("{} needs the key `{key}`", self.what))
                .hint(format!("for example `{key}: {example}`"));
        }
        value
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
pub(super) fn entries<'n>(
    node: &'n Node,
    what: &str,
    example: &str,
    report: &mut Report,
) -> &'n [Entry] {
    match &node.value {
        Value::Map(entries) => entries,
        Value::Bad => &[],
        other => {
            report
                .error(
                    node.span,
                    format!("{what} must be a mapping, not {}", describe(other)),
                )
                .hint(format!("for example `{example}`"));
            &[]
        }
    }
}

/// A list with at least one element.
pub(super) fn list<'n>(
    node: &'n Node,
    what: &str,
    example: &str,
    report: &mut Report,
) -> &'n [Node] {
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
    report
        .error(
            node.span,
            format!("{what} must be a list, not {}", describe(&node.value)),
        )
        .hint(hint);
    &[]
}

/// A list, or one scalar that stands for a list of itself.
pub(super) fn list_or_one<'n>(
    node: &'n Node,
    what: &str,
    example: &str,
    report: &mut Report,
) -> &'n [Node] {
    match &node.value {
        Value::Text(_) | Value::Number { .. } => std::slice::from_ref(node),
        Value::Null | Value::Bool(_) | Value::List(_) | Value::Map(_) | Value::Bad => {
            list(node, what, example, report)
        }
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
        Value::Number { written, .. } => {
            Some(format!("if it is meant, put it in quotes: \"{written}\""))
        }
        Value::Map(entries) => entries
            .first()
            .map(|entry| match entry.key.split_once(':') {
                Some(_) => format!(
                    "put an IPv6 address that ends in `:` in quotes: \"{}:\"",
                    entry.key
                ),
                None => format!("look for a `:` too many after `{}`", entry.key),
            }),
        Value::Null | Value::Bool(_) | Value::List(_) => None,
    };
    let finding = report.error(
        node.span,
        format!("{what} must be text, not {}", describe(&node.value)),
    );
    finding.hint = hint;
    None
}

fn looks_like_address(written: &str) -> bool {
    written.contains('.') && written.bytes().all(|b| b == b'.' || b.is_ascii_digit())
}

/// A whole number that is not negative.
pub(super) fn integer(node: &Node, what: &str, example: &str, report: &mut Report) -> Option<u64> {
    match &node.value {
        Value::Number {
            integer: Some(integer),
            ..
        } => return Some(*integer),
        Value::Bad => return None,
        Value::Null
        | Value::Bool(_)
        | Value::Number { .. }
        | Value::Text(_)
        | Value::List(_)
        | Value::Map(_) => {}
    }
    report
        .error(
            node.span,
            format!(
                "{what} must be a whole number, not {}",
                describe(&node.value)
            ),
        )
        .hint(format!("for example `{example}`"));
    None
}

/// One of a few words.
pub(super) fn word<T: Copy>(
    node: &Node,
    what: &str,
    words: &[(&str, T)],
    report: &mut Report,
) -> Option<T> {
    let text = text(node, what, report)?;
    let found = words
        .iter()
        .find(|(word, _)| *word == text)
        .map(|(_, value)| *value);
    if found.is_none() {
        let known = || words.iter().map(|(word, _)| *word);
        let mut hint = format!(
            "write {}",
            known()
                .map(|word| format!("`{word}`"))
                .collect::<Vec<_>>()
                .join(" or ")
        );
        if let Some(word) = nearest(text, known()) {
            hint = format!("did you mean `{word}`?");
        }
        report
            .error(node.span, format!("{what} can't be `{text}`"))
            .hint(hint);
    }
    found
}

/// A value in words.
pub(super) fn describe(value: &Value) -> String {
    match value {
        Value::Null => "empty".to_owned(),
        Value::Bool(value) => format!("the truth value `{value}`"),
        Value::Number { written, .. } => format!("the number `{written}`"),
        Value::Text(_) => "a text".to_owned(),
        Value::List(_) => "a list".to_owned(),
        Value::Map(_) => "a mapping".to_owned(),
        Value::Bad => "something else".to_owned(),
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
