//! YAML with its places kept. The only module that knows the YAML libraries.
//!
//! Of YAML it takes what a policy needs: one document of mappings, lists and scalars. Anchors, aliases, merge
//! keys, tags and further documents are refused: each makes a file mean other than what it seems to say.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, StrInput};
use serde_yaml::Number;

use super::{
    report::{Report, Span},
    text,
};

/// Nesting of the deepest valid policy is 6.
const DEPTH: usize = 16;

/// A value and where it stands.
#[derive(Debug)]
pub(super) struct Node {
    /// Of a list or mapping: its beginning.
    pub(super) span: Span,
    pub(super) value: Value,
}

/// Scalars are resolved as the core schema of YAML 1.2 has it: `yes` and `on` are text.
#[derive(Debug)]
pub(super) enum Value {
    /// Nothing, `~` or `null`.
    Null,
    Bool(bool),
    /// `integer` where it is one, not negative and below 2^64.
    Number {
        written: String,
        integer: Option<u64>,
    },
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
    /// An error was reported about it already.
    Bad,
}

/// One line of a mapping. Keys are unique within it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_span: Span,
    pub(super) value: Node,
}

/// The document in `bytes`. What is wrong is reported; `None` if nothing useful is left.
pub(super) fn parse(bytes: &[u8], file: usize, report: &mut Report) -> Option<Node> {
    let text = text::check(bytes, file, report)?;
    let mut builder = Builder { file, stack: Vec::new(), root: None, report };
    let mut parser = Parser::new_from_str(text);
    builder.run(&mut parser)
}

enum Frame {
    List(Span, Vec<Node>),
    /// With the key that waits for its value, and the lines of all keys.
    Map(Span, Vec<Entry>, Option<Key>, HashMap<String, usize>),
}

enum Key {
    Good(String, Span),
    Bad,
}

struct Builder<'r> {
    file: usize,
    stack: Vec<Frame>,
    root: Option<Node>,
    report: &'r mut Report,
}

impl Builder<'_> {
    fn run(&mut self, parser: &mut Parser<'_, StrInput<'_>>) -> Option<Node> {
        let mut documents = 0;
        while let Some(event) = parser.next_event() {
            let (event, place) = match event {
                Ok(event) => event,
                Err(error) => {
                    self.syntax(&error);
                    return None;
                }
            };
            let span = self.span(place);
            match event {
                Event::Nothing | Event::StreamStart | Event::DocumentEnd => {}
                Event::DocumentStart(_) => {
                    documents += 1;
                    if documents > 1 {
                        self.report
                            .error(span, "a second document begins here")
                            .hint("a policy is one document: remove this `---` or make it a file of its own");
                        return None;
                    }
                }
                Event::Alias(_) => {
                    self.report
                        .error(span, "aliases (`*name`) are not supported")
                        .hint("write the value out, or give addresses a name under `sets`");
                    self.push(Node { span, value: Value::Bad });
                }
                Event::Scalar(text, style, anchor, tag) => {
                    let plain = self.is_plain(span, anchor, tag.is_some());
                    let value = if plain { resolve(&text, style) } else { Value::Bad };
                    self.push(Node { span, value });
                }
                Event::SequenceStart(anchor, tag) => {
                    self.is_plain(span, anchor, tag.is_some());
                    self.open(Frame::List(span, Vec::new()), span)?;
                }
                Event::MappingStart(anchor, tag) => {
                    self.is_plain(span, anchor, tag.is_some());
                    self.open(Frame::Map(span, Vec::new(), None, HashMap::new()), span)?;
                }
                Event::SequenceEnd | Event::MappingEnd => {
                    let node = match self.stack.pop()? {
                        Frame::List(span, nodes) => Node { span, value: Value::List(nodes) },
                        Frame::Map(span, entries, ..) => Node { span, value: Value::Map(entries) },
                    };
                    self.push(node);
                }
                Event::StreamEnd => break,
            }
        }
        if self.root.is_none() {
            self.report
                .error(Span::whole(self.file), "the file holds no document")
                .hint("a policy begins with `version: 1`");
        }
        self.root.take()
    }

    fn span(&self, place: saphyr_parser::Span) -> Span {
        let (start, end) = (place.start, place.end);
        let width = if start.line() == end.line() { end.col().saturating_sub(start.col()) } else { 1 };
        Span { file: self.file, line: start.line(), column: start.col() + 1, width }
    }

    fn syntax(&mut self, error: &ScanError) {
        let at = error.marker();
        let span = Span { file: self.file, line: at.line(), column: at.col() + 1, width: 1 };
        // What is missing at the end of the text is missed on the line behind it.
        let span = self.report.within(span);
        let open = self.stack.iter().rev().find_map(|frame| {
            let (Frame::List(span, _) | Frame::Map(span, ..)) = frame;
            let bracket = self.report.first_char(*span).filter(|c| ['[', '{'].contains(c))?;
            Some((bracket, span.line))
        });
        let hint = match open {
            Some((bracket, line)) => {
                format!("is the `{bracket}` on line {line}, or a quote after it, closed?")
            }
            None => {
                "look at the indentation, brackets and quotes of this line and the one before it".to_owned()
            }
        };
        self.report.error(span, format!("this is not valid YAML: {}", error.info())).hint(hint);
    }

    /// Reports an anchor or a tag.
    fn is_plain(&mut self, span: Span, anchor: usize, tagged: bool) -> bool {
        if anchor != 0 {
            self.report
                .error(span, "anchors (`&name`) are not supported")
                .hint("write the value out where it is needed, or give addresses a name under `sets`");
        }
        if tagged {
            self.report
                .error(span, "tags (`!name`) are not supported")
                .hint("remove the tag; put a text that looks like a number in quotes");
        }
        anchor == 0 && !tagged
    }

    /// `None`: too deep to go on.
    fn open(&mut self, frame: Frame, span: Span) -> Option<()> {
        if self.stack.len() == DEPTH {
            self.report
                .error(span, format!("lists and mappings are nested more than {DEPTH} deep here"))
                .hint("no key of a policy nests this deep: look for a bracket or an indentation too many");
            return None;
        }
        self.stack.push(frame);
        Some(())
    }

    /// Puts a finished node where it belongs.
    fn push(&mut self, node: Node) {
        match self.stack.last_mut() {
            None => self.root = Some(node),
            Some(Frame::List(_, nodes)) => nodes.push(node),
            Some(Frame::Map(_, entries, pending, lines)) => match pending.take() {
                None => *pending = Some(key(node, lines, self.report)),
                Some(Key::Bad) => {}
                Some(Key::Good(key, key_span)) => {
                    let mut value = node;
                    if matches!(value.value, Value::Null) && value.span.width == 0 {
                        value.span = key_span; // nothing is written there
                    }
                    entries.push(Entry { key, key_span, value });
                }
            },
        }
    }
}

fn key(node: Node, lines: &mut HashMap<String, usize>, report: &mut Report) -> Key {
    let key = match node.value {
        Value::Text(text) => text,
        Value::Number { written, .. } => written,
        Value::Bool(value) => value.to_string(),
        Value::Bad => return Key::Bad,
        Value::Null => {
            report.error(node.span, "a key is missing before this `:`");
            return Key::Bad;
        }
        Value::List(_) | Value::Map(_) => {
            report
                .error(node.span, "a key must be a word, not a list or a mapping")
                .hint("if this was meant as a value, look for a `:` or `?` too many");
            return Key::Bad;
        }
    };
    if key == "<<" {
        report.error(node.span, "merge keys (`<<`) are not supported").hint("write the keys out");
        return Key::Bad;
    }
    if let Some(line) = lines.get(&key) {
        report
            .error(node.span, format!("`{key}` is written twice here, first on line {line}"))
            .hint("keep one of them; many programs would silently take the last");
        return Key::Bad;
    }
    lines.insert(key.clone(), node.span.line);
    Key::Good(key, node.span)
}

fn resolve(text: &str, style: ScalarStyle) -> Value {
    if style != ScalarStyle::Plain {
        return Value::Text(text.to_owned());
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => match text.parse::<Number>() {
            Ok(number) => Value::Number { written: text.to_owned(), integer: number.as_u64() },
            Err(_) => Value::Text(text.to_owned()),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_yaml::Value as Other;

    use super::*;

    fn other(node: Node) -> Other {
        match node.value {
            Value::Null => Other::Null,
            Value::Bool(value) => Other::Bool(value),
            Value::Number { written, .. } => Other::Number(written.parse().expect("a number")),
            Value::Text(text) => Other::String(text),
            Value::List(nodes) => Other::Sequence(nodes.into_iter().map(other).collect()),
            Value::Map(entries) => entries
                .into_iter()
                .map(|entry| (Other::String(entry.key), other(entry.value)))
                .collect::<serde_yaml::Mapping>()
                .into(),
            Value::Bad => panic!("nothing here is bad"),
        }
    }

    fn agree(text: &str) {
        let mut report = Report::default();
        let file = report.add("rules.yaml".as_ref());
        let node = parse(text.as_bytes(), file, &mut report).expect("a document");
        assert!(!report.has_errors());
        assert_eq!(other(node), serde_yaml::from_str::<Other>(text).expect("a document"));
    }

    /// Two parsers that share no line of code read the shipped policies alike.
    #[test]
    fn as_serde_yaml_reads_it() {
        let rules = Path::new("../rules");
        for directory in [rules.to_owned(), rules.join("environments")] {
            for entry in directory.read_dir().expect("it is part of the repository") {
                let path = entry.expect("an entry").path();
                if path.extension().is_some_and(|extension| extension == "yaml") {
                    agree(&std::fs::read_to_string(&path).expect("a file"));
                }
            }
        }
        agree(
            "a: [1, -1, 1.5, .5, 0x10, 0o17, 017, 1_000, 1e3, yes, on, ~, Null, True, '1', \"a\\tb\", 2026-08-08]",
        );
        agree("a: |\n  text\n   more\nb: >-\n  folded\n  text\nc:\nd: plain\n  text\n");
        agree("a: [fd00::/8, 10.0.0.0/8, 1:2, 12:30:45, a#b]\nb: {c: d, e: }\n");
    }
}
