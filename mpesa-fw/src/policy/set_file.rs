//! Set files: one prefix or address a line, `#` comments. Public lists come like this, of any size, so the
//! lines are read where they lie.

use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};

use super::{
    prefix::{self, InvalidPrefix},
    report::{Report, Span},
};

/// Errors shown of one file; the others are counted.
const SHOWN_ERRORS: usize = 20;

/// The prefixes in `bytes`, in the order of the file. What is wrong is reported.
pub(super) fn parse(bytes: &[u8], file: usize, report: &mut Report) -> Vec<IpNet> {
    let mut prefixes = Vec::with_capacity(bytes.iter().filter(|b| **b == b'\n').count() + 1);
    let mut errors = 0usize;
    for (index, line) in bytes.split(|b| *b == b'\n').enumerate() {
        let entry = match line.iter().position(|b| *b == b'#') {
            Some(comment) => &line[..comment],
            None => line,
        }
        .trim_ascii();
        if entry.is_empty() {
            continue;
        }
        match ipv4(entry).map_or_else(|| other(entry), Ok) {
            Ok(prefix) => prefixes.push(prefix),
            Err(invalid) => {
                errors += 1;
                if errors <= SHOWN_ERRORS {
                    describe(line, entry, index + 1, invalid, file, report);
                }
            }
        }
    }
    if errors > SHOWN_ERRORS {
        report
            .error(
                Span::whole(file),
                format!("{errors} lines of this file are wrong, of which the first {SHOWN_ERRORS} are shown"),
            )
            .hint("a set file holds one prefix or address a line, and comments that begin with `#`");
    } else if errors == 0 && prefixes.is_empty() {
        report.error(Span::whole(file), "the file holds no address").hint(
            "was it downloaded completely? A rule needs at least one address; remove the set if it has none",
        );
    }
    prefixes
}

/// The usual case: four octets, perhaps a length, host bits clear. `None`: look closer.
fn ipv4(entry: &[u8]) -> Option<IpNet> {
    let mut rest = entry;
    let mut bits = 0u32;
    for part in 0..4 {
        let octet = number(&mut rest).filter(|octet| *octet <= 255)?;
        bits = bits << 8 | octet;
        if part < 3 {
            rest = rest.strip_prefix(b".")?;
        }
    }
    let mut length = 32;
    if let Some(after) = rest.strip_prefix(b"/") {
        rest = after;
        length = number(&mut rest).filter(|length| *length <= 32)?;
    }
    let host_bits = u32::MAX.checked_shr(length).unwrap_or(0);
    if !rest.is_empty() || bits & host_bits != 0 {
        return None;
    }
    let length = u8::try_from(length).ok()?;
    Ipv4Net::new(Ipv4Addr::from_bits(bits), length).ok().map(IpNet::V4)
}

/// One to three digits without a leading zero.
fn number(rest: &mut &[u8]) -> Option<u32> {
    let digits = rest.iter().take(4).take_while(|b| b.is_ascii_digit()).count();
    let (number, after) = rest.split_at(digits);
    if digits == 0 || digits > 3 || (digits > 1 && number[0] == b'0') {
        return None;
    }
    *rest = after;
    Some(number.iter().fold(0, |value, digit| value * 10 + u32::from(digit - b'0')))
}

fn other(entry: &[u8]) -> Result<IpNet, InvalidPrefix> {
    let invalid = |message: &str, hint: &str| InvalidPrefix {
        message: message.to_owned(),
        hint: Some(hint.to_owned()),
    };
    if entry.starts_with(&[0xef, 0xbb, 0xbf]) {
        return Err(invalid("the file begins with a byte order mark", "save it as UTF-8 without one"));
    }
    let Ok(text) = std::str::from_utf8(entry) else {
        return Err(invalid("this line is not text", "was the list unpacked? A set file is plain text"));
    };
    if text.contains([';', ',']) {
        return Err(invalid(
            "a line holds one prefix or address and nothing else",
            "comments begin with `#`; of a table with other columns keep the prefixes",
        ));
    }
    prefix::parse(text)
}

#[cold]
fn describe(
    line: &[u8],
    entry: &[u8],
    number: usize,
    invalid: InvalidPrefix,
    file: usize,
    report: &mut Report,
) {
    let before = line.len() - line.trim_ascii_start().len();
    let width = String::from_utf8_lossy(entry).chars().count();
    let finding = report.error(Span { file, line: number, column: before + 1, width }, invalid.message);
    finding.show(&String::from_utf8_lossy(line));
    finding.hint_if_any(invalid.hint);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(bytes: &[u8]) -> (Vec<String>, Vec<(usize, String)>) {
        let mut report = Report::default();
        let file = report.add("feed".as_ref());
        let prefixes = parse(bytes, file, &mut report).iter().map(ToString::to_string).collect();
        let findings = report.finish().err().map(|errors| errors.findings).unwrap_or_default();
        (prefixes, findings.into_iter().map(|finding| (finding.line, finding.message)).collect())
    }

    #[test]
    fn reads_what_public_lists_hold() {
        let list =
            b"# a list\r\n10.0.0.0/8\r\n\r\n 192.0.2.1 # a host\n2c0f::/16\n0.0.0.0/0\n255.255.255.255";
        let (prefixes, errors) = parsed(list);
        assert_eq!(prefixes, ["10.0.0.0/8", "192.0.2.1/32", "2c0f::/16", "0.0.0.0/0", "255.255.255.255/32"]);
        assert_eq!(errors, []);
    }

    #[test]
    fn says_which_line_is_wrong() {
        let (_, errors) =
            parsed(b"10.0.0.0/8\n10.0.0.1/8\n10.0.0.0/33\n1.2.3\n01.2.3.4\n\xff\nx ; y\n1.2.3.4/\n");
        assert_eq!(errors.iter().map(|error| error.0).collect::<Vec<_>>(), [2, 3, 4, 5, 6, 7, 8]);
        assert!(errors[0].1.contains("host bits"), "{}", errors[0].1);
    }

    #[test]
    fn counts_errors_beyond_the_first_twenty() {
        let (_, errors) = parsed("x\n".repeat(50).as_bytes());
        assert_eq!(errors.len(), 21);
        assert!(errors[0].1.contains("50 lines"), "{}", errors[0].1);
    }

    #[test]
    fn an_empty_file_is_no_set() {
        assert_eq!(parsed(b"# nothing\n").1.len(), 1);
    }
}
