//! What is wrong or doubtful in a policy, and how it is shown.

use std::{
    fmt::{self, Display, Formatter},
    path::PathBuf,
};

use serde::Serialize;

use crate::printable::Printable;

/// How bad a [`Finding`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The policy is not loaded.
    Error,
    /// It is loaded, and somebody should look.
    Warning,
}

impl Severity {
    /// The word in messages and JSON.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One thing that is wrong or doubtful. `Display` renders it as compilers do: message, place, text, hint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Error or warning.
    pub severity: Severity,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// As it was given, included, or named by a set.
    pub file: PathBuf,
    /// From 1; 0 where the file as a whole is meant.
    pub line: usize,
    /// From 1, in characters; 0 where the line or file as a whole is meant.
    pub column: usize,
    /// Characters that the finding is about, from `column` on.
    pub width: usize,
    /// The offending line, without its line end; of a long one the part around the column. Control characters are
    /// replaced, for it goes to a terminal.
    pub text: Option<String>,
    /// What to do.
    pub hint: Option<String>,
    /// Where the column is in `text`.
    #[serde(skip)]
    pub(super) text_column: usize,
}

impl Finding {
    /// About a file as a whole.
    pub(super) const fn whole(severity: Severity, file: PathBuf, message: String, hint: String) -> Self {
        Self {
            severity,
            message,
            file,
            line: 0,
            column: 0,
            width: 0,
            text: None,
            hint: Some(hint),
            text_column: 0,
        }
    }

    /// Says what to do.
    pub(super) fn hint(&mut self, hint: impl Into<String>) {
        self.hint = Some(shortened(hint.into()));
    }

    /// Says what to do, where that is known.
    pub(super) fn hint_if_any(&mut self, hint: Option<String>) {
        self.hint = hint.map(shortened);
    }

    /// Gives the offending line.
    pub(super) fn show(&mut self, line: &str) {
        let (text, column) = piece(line.trim_end_matches('\r'), self.column);
        self.text = Some(Printable(&text).to_string());
        self.text_column = column;
    }
}

/// Longest piece of a line that is shown; of a longer one the piece around the column.
const SHOWN: usize = 120;
/// Longest message or hint.
const SENTENCE: usize = 400;

impl Display for Finding {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.severity.label(), Printable(&self.message))?;
        let margin = " ".repeat(self.line.to_string().len());
        write!(f, "\n{margin}--> {}", Printable(&self.file.to_string_lossy()))?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if self.column > 0 {
            write!(f, ":{}", self.column)?;
        }
        if let Some(text) = &self.text {
            let column = self.text_column;
            write!(f, "\n{margin} |\n{} | {text}\n{margin} |", self.line)?;
            if column > 0 {
                let rest = text.chars().count().saturating_sub(column - 1);
                let carets = "^".repeat(self.width.min(rest).max(1));
                write!(f, " {}{carets}", " ".repeat(column - 1))?;
            }
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n{margin} = hint: {}", Printable(hint))?;
        }
        Ok(())
    }
}

/// A sentence that quotes a text of any length.
pub(super) fn shortened(sentence: String) -> String {
    match sentence.char_indices().nth(SENTENCE) {
        Some((end, _)) => format!("{}…", &sentence[..end]),
        None => sentence,
    }
}

/// The part of a long line to show, and the column within it.
fn piece(text: &str, column: usize) -> (String, usize) {
    if text.char_indices().nth(SHOWN).is_none() {
        return (text.to_owned(), column);
    }
    let skip = column.saturating_sub(SHOWN / 2);
    let mut piece: String = text.chars().skip(skip).take(SHOWN).collect();
    if text.char_indices().nth(skip + SHOWN).is_some() {
        piece.push('…');
    }
    if skip == 0 {
        return (piece, column);
    }
    (format!("…{piece}"), column - skip + 1)
}

/// Why a policy was not loaded: the errors of every file of it, in the order of the files. `Display` renders them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
pub struct PolicyErrors {
    /// At least one; all of them errors. Where there are too many to show, the last one says how many more there are.
    pub findings: Vec<Finding>,
    /// Errors that there are, shown or not.
    pub total: usize,
    /// A file was being changed while it was read: what is wrong may be right in a moment.
    #[serde(skip)]
    pub is_passing: bool,
}

impl Display for PolicyErrors {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            write!(f, "{finding}\n\n")?;
        }
        match self.total {
            1 => write!(f, "1 error; nothing was loaded"),
            n => write!(f, "{n} errors; nothing was loaded"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(text: &str, column: usize, width: usize) -> String {
        let mut finding = Finding {
            severity: Severity::Error,
            message: "m".into(),
            file: "f".into(),
            line: 10,
            column,
            width,
            text: None,
            hint: None,
            text_column: 0,
        };
        finding.show(text);
        finding.to_string()
    }

    #[test]
    fn carets_stand_under_the_text() {
        assert_eq!(finding("a: b", 4, 1), "error: m\n  --> f:10:4\n   |\n10 | a: b\n   |    ^");
    }

    #[test]
    fn long_lines_are_cut_around_the_column() {
        let line = format!("{}WRONG{}", "x".repeat(500), "y".repeat(500));
        let shown = finding(&line, 501, 5);
        let lines: Vec<&str> = shown.lines().collect();
        let at = lines[4].find('^').expect("a caret");
        assert_eq!(lines[3].chars().skip(at).take(5).collect::<String>(), "WRONG");
        assert!(lines[3].chars().count() < 140, "{}", lines[3]);
    }
}
