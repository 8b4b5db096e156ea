//! Whether bytes are text that YAML can be made of. What the YAML library would put in its own words, or
//! take in silence, is said here in ours.

use super::report::{Report, Span};

/// The text in `bytes`, kept in the report. What is wrong is reported.
pub(super) fn check<'b>(bytes: &'b [u8], file: usize, report: &mut Report) -> Option<&'b str> {
    if let Some(encoding) = foreign_encoding(bytes) {
        report
            .error(Span::whole(file), format!("the file begins with a byte order mark ({encoding})"))
            .hint("save it as UTF-8 without a byte order mark");
        return None;
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let good = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
            report.keep(file, &String::from_utf8_lossy(bytes));
            let line = good.matches('\n').count() + 1;
            let column = good.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
            report
                .error(
                    Span { file, line, column, width: 1 },
                    format!("the byte {:#04x} is not UTF-8", bytes[error.valid_up_to()]),
                )
                .hint("save the file as UTF-8");
            return None;
        }
    };
    report.keep(file, text);
    let mut clean = true;
    for (index, line) in text.lines().enumerate() {
        clean &= check_line(line, Span { file, line: index + 1, column: 1, width: 1 }, report);
    }
    if clean && text.lines().all(|line| line.trim_start().is_empty() || line.trim_start().starts_with('#')) {
        report
            .error(Span::whole(file), "the file is empty")
            .hint("a policy begins with `version: 1`; rules/ holds complete ones to start from");
        return None;
    }
    clean.then_some(text)
}

fn foreign_encoding(bytes: &[u8]) -> Option<&'static str> {
    if bytes.starts_with(&[0xef, 0xbb, 0xbf]) {
        Some("UTF-8")
    } else if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        Some("UTF-16")
    } else {
        None
    }
}

fn check_line(line: &str, start: Span, report: &mut Report) -> bool {
    let indentation = line.len() - line.trim_start_matches([' ', '\t']).len();
    if let Some(tab) = line[..indentation].find('\t').filter(|_| indentation < line.len()) {
        report
            .error(Span { column: tab + 1, ..start }, "a tab in the indentation")
            .hint("YAML is indented with spaces only: replace the tab by spaces");
        return false;
    }
    let forbidden = |c: char| c.is_control() && c != '\t';
    if let Some((column, c)) = line.chars().enumerate().find(|(_, c)| forbidden(*c)) {
        let name = if c == '\0' { "NUL" } else { "control" };
        report
            .error(
                Span { column: column + 1, ..start },
                format!("a {name} character (U+{:04X}) is not allowed", u32::from(c)),
            )
            .hint("remove it; it may not show in an editor");
        return false;
    }
    true
}
