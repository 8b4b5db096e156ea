//! Collects findings, with the text that each is about.

use std::path::{Path, PathBuf};

use super::{
    finding::{Finding, PolicyErrors, Severity, shortened},
    model::Location,
};
use crate::printable::Printable;

/// A piece of one line of a file that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// Number that [`Report::add`] gave the file.
    pub(super) file: usize,
    /// From 1; 0: the whole file.
    pub(super) line: usize,
    /// From 1, in characters; 0: the whole line.
    pub(super) column: usize,
    /// In characters.
    pub(super) width: usize,
}

impl Span {
    /// A file as a whole.
    pub(super) const fn whole(file: usize) -> Self {
        Self { file, line: 0, column: 0, width: 0 }
    }
}

struct Text {
    path: PathBuf,
    lines: Vec<String>,
}

/// Findings of each severity that are shown to people; the others are counted. Nobody reads more, and a file of a megabyte
/// can have half a million.
const SHOWN: usize = 200;
/// Longest line that is quoted by the others, bytes: half a million of them may be about one line.
const QUOTED: usize = 1000;

/// How many findings are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Findings {
    /// As many as people read; of the others the number.
    #[default]
    Shown,
    /// All, for programs.
    All,
}

/// Findings so far.
#[derive(Default)]
pub(super) struct Report {
    kept: Findings,
    texts: Vec<Text>,
    findings: Vec<(usize, Finding)>,
    /// By severity.
    counts: [usize; 2],
    /// One that is not shown.
    spare: Option<Finding>,
}

impl Report {
    /// An empty one.
    pub(super) fn keeping(kept: Findings) -> Self {
        Self { kept, ..Self::default() }
    }

    /// Announces a file; its number. The order is that of the findings at the end.
    pub(super) fn add(&mut self, path: &Path) -> usize {
        self.texts.push(Text { path: path.to_owned(), lines: Vec::new() });
        self.texts.len() - 1
    }

    /// Keeps the text of a file, to show lines of it.
    pub(super) fn keep(&mut self, file: usize, text: &str) {
        self.texts[file].lines = text.lines().map(|line| Printable(line).to_string()).collect();
    }

    /// The policy can't be loaded.
    pub(super) fn error(&mut self, at: Span, message: impl Into<String>) -> &mut Finding {
        self.push(Severity::Error, at, message.into())
    }

    /// It can, and somebody should look.
    pub(super) fn warning(&mut self, at: Span, message: impl Into<String>) -> &mut Finding {
        self.push(Severity::Warning, at, message.into())
    }

    fn push(&mut self, severity: Severity, at: Span, message: String) -> &mut Finding {
        let text = &self.texts[at.file];
        let mut finding = Finding {
            severity,
            message: shortened(message),
            file: text.path.clone(),
            line: at.line,
            column: at.column,
            width: at.width,
            text: None,
            hint: None,
            text_column: 0,
        };
        let is_shown = self.has_room(severity);
        self.counts[severity as usize] += 1;
        if !is_shown && self.kept == Findings::Shown {
            return self.spare.insert(finding);
        }
        let line = at.line.checked_sub(1).and_then(|index| text.lines.get(index));
        if let Some(line) = line.filter(|line| is_shown || line.len() <= QUOTED) {
            finding.show(line);
        }
        self.findings.push((at.file, finding));
        &mut self.findings.last_mut().expect("it was pushed a line above").1
    }

    /// Whether another finding would be shown: a hint that takes long to find is not looked for in vain.
    pub(super) fn has_room(&self, severity: Severity) -> bool {
        self.counts[severity as usize] < SHOWN
    }

    /// Where a rule or set of the model stands.
    pub(super) fn location(&self, at: Span) -> Location {
        Location { file: self.texts[at.file].path.clone(), line: at.line, column: at.column }
    }

    /// Path of a file.
    pub(super) fn path(&self, at: Span) -> &Path {
        &self.texts[at.file].path
    }

    /// The other way round, where `text` stands.
    pub(super) fn span(&self, at: &Location, text: &str) -> Span {
        let file = self.texts.iter().position(|known| known.path == at.file).unwrap_or(0);
        Span { file, line: at.line, column: at.column, width: text.chars().count() }
    }

    /// A span, or where its line is behind the last one the end of that.
    pub(super) fn within(&self, at: Span) -> Span {
        let lines = &self.texts[at.file].lines;
        match lines.last() {
            Some(last) if at.line > lines.len() => {
                Span { line: lines.len(), column: last.chars().count() + 1, ..at }
            }
            Some(_) | None => at,
        }
    }

    /// What stands at the beginning of a span.
    pub(super) fn first_char(&self, at: Span) -> Option<char> {
        let line = self.texts[at.file].lines.get(at.line.checked_sub(1)?)?;
        line.chars().nth(at.column.checked_sub(1)?)
    }

    /// `file:line`, to point at a second place in a message.
    pub(super) fn place(&self, at: Span) -> String {
        format!("{}:{}", Printable(&self.texts[at.file].path.to_string_lossy()), at.line)
    }

    /// The warnings, and how many there are, shown or not.
    ///
    /// # Errors
    /// All errors, if there is one; then the warnings are left out, for mending may change them.
    pub(super) fn finish(mut self) -> Result<(Vec<Finding>, usize), PolicyErrors> {
        self.findings.sort_by_key(|(file, finding)| (*file, finding.line, finding.column));
        let (errors, warnings) = (self.take(Severity::Error), self.take(Severity::Warning));
        let total = |severity| self.counts[severity as usize];
        match total(Severity::Error) {
            0 => Ok((warnings, total(Severity::Warning))),
            total => Err(PolicyErrors { findings: errors, total, is_passing: false }),
        }
    }

    /// The findings of one severity; where there are more of them than are shown the last one says how many.
    fn take(&mut self, severity: Severity) -> Vec<Finding> {
        let of = |(_, finding): &mut (usize, Finding)| finding.severity == severity;
        let mut findings: Vec<Finding> =
            self.findings.extract_if(.., of).map(|(_, finding)| finding).collect();
        let more = self.counts[severity as usize] - findings.len();
        if let (Some(last), 1..) = (findings.last(), more) {
            let plural = if more == 1 { "" } else { "s" };
            let message = format!("and {more} more {}{plural}, not shown", severity.label());
            let hint = format!(
                "the first {SHOWN} that were found are shown: mend them and look again (`check --format json` has all)"
            );
            findings.push(Finding::whole(severity, last.file.clone(), message, hint));
        }
        findings
    }

    /// Whether there is an error yet.
    pub(super) fn has_errors(&self) -> bool {
        self.counts[Severity::Error as usize] > 0
    }
}
