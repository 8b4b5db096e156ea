//! Inputs of a target in one text file: one input a line, its bytes as Rust escapes them. Small, and a change of one
//! input is a change of one line.
//!
//! `corpora/<target>.txt` is what `cargo xtask fuzz` begins with, and what it keeps of a run. `crashes/<target>.txt`
//! holds each input that once broke something, a comment before it saying what; nothing minimises those away.

use std::{fmt::Write as _, fs, path::Path};

/// Directories below the fuzz crate with a file for each target.
pub const KEPT: [&str; 2] = ["corpora", "crashes"];

/// All that was kept of a target; `fuzz` is the directory of the fuzz crate.
///
/// # Panics
/// Where a file is no list of inputs, or nothing was kept at all.
#[must_use]
pub fn kept(fuzz: &Path, target: &str) -> Vec<Vec<u8>> {
    let mut inputs = Vec::new();
    for directory in KEPT {
        let path = fuzz.join(directory).join(format!("{target}.txt"));
        let text = fs::read_to_string(&path).unwrap_or_default();
        let parsed = parse(&text).unwrap_or_else(|line| panic!("{}:{line}: no input", path.display()));
        inputs.extend(parsed);
    }
    assert!(!inputs.is_empty(), "nothing is kept of {target}");
    inputs
}

/// The inputs in `text`. Lines that begin with `#` are comments.
///
/// # Errors
/// The number of a line that is none.
pub fn parse(text: &str) -> Result<Vec<Vec<u8>>, usize> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.starts_with('#'));
    lines.map(|(index, line)| unescaped(line).ok_or(index + 1)).collect()
}

/// One line for an input.
#[must_use]
pub fn line(input: &[u8]) -> String {
    let mut line = String::new();
    for byte in input {
        match byte {
            b'#' if line.is_empty() => line.push_str("\\x23"), // else it would be a comment
            _ => write!(line, "{}", byte.escape_ascii()).unwrap_or_else(|_| unreachable!("a string grows")),
        }
    }
    line
}

fn unescaped(line: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(line.len());
    let mut rest = line.bytes();
    while let Some(byte) = rest.next() {
        let meant = match (byte, if byte == b'\\' { rest.next()? } else { 0 }) {
            (b'\\', b'n') => b'\n',
            (b'\\', b'r') => b'\r',
            (b'\\', b't') => b'\t',
            (b'\\', quoted @ (b'\\' | b'\'' | b'"')) => quoted,
            (b'\\', b'x') => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            (b'\\', _) => return None,
            (plain, _) => plain,
        };
        bytes.push(meant);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_comes_back() {
        let all: Vec<u8> = (0..=255).collect();
        for input in [&all[..], b"", b"# no comment", b"\\x41\n", "é".as_bytes()] {
            assert_eq!(parse(&(line(input) + "\n")), Ok(vec![input.to_vec()]));
        }
    }

    #[test]
    fn comments_are_none_and_what_is_no_line_is_told() {
        assert_eq!(parse("# why\nab\n\n"), Ok(vec![b"ab".to_vec(), Vec::new()]));
        assert_eq!(parse("ab\n\\q\n"), Err(2));
        assert_eq!(parse("\\x4"), Err(1));
    }
}
