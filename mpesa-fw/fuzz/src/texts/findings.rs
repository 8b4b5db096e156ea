//! What every finding must be, whatever was read.

use std::path::Path;

use mpesa_fw::policy::{Finding, Severity};
use tempfile::TempDir;

/// Longest finding as it is shown, characters: a sentence, a place, a piece of a line, a hint.
const SHOWN: usize = 1800;

/// A directory for the files of a policy; in memory, where there is one.
pub(super) fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.expect("a directory")
}

/// In the order of the files, each at a place that exists, and fit for a terminal.
pub(super) fn check(findings: &[Finding], files: &[(&str, &[u8])]) {
    assert!(findings.iter().all(|finding| finding.severity == findings[0].severity), "errors or warnings");
    for finding in findings {
        place(finding, files);
        let shown = finding.to_string();
        assert!(!finding.message.is_empty(), "{shown}");
        assert!(shown.chars().count() <= SHOWN, "{} characters are shown", shown.chars().count());
        assert!(shown.lines().count() <= 6, "{shown}");
        let odd = |c: char| c.is_control() && c != '\n';
        assert!(!shown.contains(odd), "{shown:?}");
        let _json = serde_json::to_string(finding).expect("it is plain data");
        assert!(matches!(finding.severity, Severity::Error | Severity::Warning));
    }
}

fn place(finding: &Finding, files: &[(&str, &[u8])]) {
    let name = finding.file.file_name().expect("a file").to_string_lossy();
    let Some((_, bytes)) = files.iter().find(|(known, _)| *known == name) else {
        assert_eq!((finding.line, finding.column), (0, 0), "of a file that is not there: {finding}");
        return;
    };
    if finding.line == 0 {
        assert_eq!((finding.column, &finding.text), (0, &None), "{finding}");
        return;
    }
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.split('\n').collect();
    assert!(finding.line <= lines.len(), "line {} of {}: {finding}", finding.line, lines.len());
    // A line that holds nothing can be the place of what is missing.
    let width = lines[finding.line - 1].chars().count();
    assert!(finding.column <= width + 1, "column {} of {width}: {finding}", finding.column);
}
