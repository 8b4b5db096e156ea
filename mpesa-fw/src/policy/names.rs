//! Names of rules and sets, of interfaces, and of hosts.

use super::model::InterfacePattern;

/// Longest name of a rule or set. It is a label on every count.
const LABEL: usize = 63;
/// Longest name of an interface (`IFNAMSIZ` less its NUL).
const INTERFACE: usize = 15;

/// A message and a hint.
pub(super) type Complaint = (String, String);

/// Checks the name of a rule or a set.
pub(super) fn check_label(name: &str) -> Result<(), Complaint> {
    if ["any", "default"].contains(&name) {
        return Err((
            format!("`{name}` can't be a name"),
            format!("`{name}` has a meaning of its own in policies"),
        ));
    }
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if let Some(wrong) = name.chars().find(|c| !allowed(*c)) {
        let shown = if wrong == ' ' { "a space".to_owned() } else { format!("`{wrong}`") };
        let mended: String = name
            .to_lowercase()
            .chars()
            .map(|c| if allowed(c) { c } else { '-' })
            .collect::<String>()
            .trim_matches('-')
            .to_owned();
        let hint = "a name consists of the letters a-z, digits and `-`";
        return Err((
            format!("the name `{name}` contains {shown}"),
            if mended.is_empty() { hint.to_owned() } else { format!("{hint}: `{mended}`") },
        ));
    }
    if name.is_empty() {
        return Err((
            "the name is empty".to_owned(),
            "it is the label on every count: say what it is for".to_owned(),
        ));
    }
    if name.len() > LABEL {
        return Err((
            format!("the name is {} characters long", name.len()),
            format!("a name has at most {LABEL} characters"),
        ));
    }
    Ok(())
}

/// One entry of `interfaces:`.
pub(super) fn interface(text: &str) -> Result<InterfacePattern, Complaint> {
    let refuse = |why: &str, hint: &str| Err((format!("`{text}` {why}"), hint.to_owned()));
    if text == "default" {
        return Ok(InterfacePattern::Default);
    }
    if text == "lo" {
        return refuse("is the loopback interface, which is never touched", "remove it");
    }
    if text.is_empty() || text == "." || text == ".." {
        return refuse("is not the name of an interface", "`ip -brief link` lists them");
    }
    if let Some(wrong) = text.chars().find(|c| !c.is_ascii_graphic() || ['/', ':'].contains(c)) {
        let why = format!("is not the name of an interface: it contains {wrong:?}");
        return refuse(&why, "`ip -brief link` lists them");
    }
    if text.contains(['[', ']', '{', '}', '!']) {
        return refuse(
            "is not a pattern",
            "of patterns, `*` (any characters) and `?` (one character) are known",
        );
    }
    if text.chars().filter(|c| *c != '*').count() > INTERFACE {
        return refuse("is too long", "the kernel knows no interface name of more than 15 characters");
    }
    if text.contains(['*', '?']) {
        return Ok(InterfacePattern::Glob(text.to_owned()));
    }
    Ok(InterfacePattern::Name(text.to_owned()))
}

/// A DNS name (RFC 1123, 2.1), or `*.` and one for all names below it, in lower case and without a trailing dot.
pub(super) fn host(text: &str) -> Result<String, Complaint> {
    let Some(below) = text.strip_prefix("*.") else { return exact_host(text) };
    let name = exact_host(below)?;
    let hint =
        "name the domain too, like `*.example.com`; whoever registers a name below it would be allowed";
    if !name.contains('.') {
        return Err((format!("`{text}` is every name below the top-level domain `{name}`"), hint.to_owned()));
    }
    if is_public_suffix(&name) == Some(psl::Type::Icann) {
        let why = format!("`{text}` is every name below `{name}`, where anybody can register one");
        return Err((why, hint.to_owned()));
    }
    Ok(format!("*.{name}"))
}

/// Whether names below this one belong to different people: by the rules of a registry (`co.ke`), or of a company that gives
/// them to its customers (`github.io`). From the public suffix list.
pub(super) fn is_public_suffix(name: &str) -> Option<psl::Type> {
    let suffix = psl::suffix(name.as_bytes())?;
    if suffix.as_bytes() == name.as_bytes() { suffix.typ() } else { None }
}

fn exact_host(text: &str) -> Result<String, Complaint> {
    let refuse =
        |why: String, hint: &str| Err((format!("`{text}` is not a DNS name: {why}"), hint.to_owned()));
    if text.contains('*') {
        return refuse(
            "`*` stands for whole parts of a name, at its beginning".to_owned(),
            "write `*.example.com` for all names below `example.com`",
        );
    }
    if !text.is_ascii() {
        return refuse(
            "it is not ASCII".to_owned(),
            "write the form that goes over the wire, which begins with `xn--`",
        );
    }
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    // With `*.` before it.
    if name.len() > 251 {
        return refuse(format!("it has {} characters", name.len()), "a DNS name has at most 251 here");
    }
    for label in name.split('.') {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if label.is_empty() {
            return refuse("two dots follow each other, or it begins with one".to_owned(), "remove the dot");
        }
        if let Some(wrong) = label.chars().find(|c| !allowed(*c)) {
            let hint = "a DNS name consists of letters, digits, `-` and dots, without a scheme, port or path";
            return refuse(format!("it contains {wrong:?}"), hint);
        }
        if label.starts_with('-') || label.ends_with('-') {
            return refuse(format!("`{label}` begins or ends with `-`"), "remove the `-`");
        }
        if label.len() > 63 {
            return refuse(
                format!("a part of it has {} characters", label.len()),
                "a part between dots has at most 63 characters",
            );
        }
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels() {
        assert!(check_label("callbacks-2").is_ok());
        for (name, hint) in [
            ("", "say what"),
            ("any", "meaning"),
            ("default", "meaning"),
            ("Call Backs", "`call-backs`"),
            ("api_v1", "`api-v1`"),
            ("ß", "a-z"),
            (&"a".repeat(64), "at most 63"),
        ] {
            assert!(check_label(name).expect_err(name).1.contains(hint), "{name}");
        }
    }

    #[test]
    fn interfaces() {
        assert_eq!(interface("eth0"), Ok(InterfacePattern::Name("eth0".into())));
        assert_eq!(interface("eth0.100"), Ok(InterfacePattern::Name("eth0.100".into())));
        assert_eq!(interface("ens*"), Ok(InterfacePattern::Glob("ens*".into())));
        assert_eq!(interface("default"), Ok(InterfacePattern::Default));
        for name in ["lo", "", ".", "..", "a/b", "eth0 ", "eth0:1", "abcdefghijklmnop", "eth[01]", "é"] {
            assert!(interface(name).is_err(), "{name}");
        }
    }

    #[test]
    fn hosts() {
        assert_eq!(host("API.Safaricom.co.ke."), Ok("api.safaricom.co.ke".into()));
        let long = format!("{}.net", "a".repeat(64));
        assert_eq!(host("*.Example.net."), Ok("*.example.net".into()));
        for name in ["*", "*.", "*.net", "a.*.net", "*a.example.net", "**.example.net", "*.*.example.net"] {
            assert!(host(name).is_err(), "{name}");
        }
        for name in ["*.co.ke", "*.OR.ke.", "*.co.tz", "*.co.uk"] {
            assert!(host(name).is_err_and(|(why, _)| why.contains("anybody can register")), "{name}");
        }
        assert!(host("*.safaricom.co.ke").is_ok() && host("co.ke").is_ok());
        for name in ["a..b", ".a", "-a.net", "a-.net", "a_b.net", "é.net", "a b.net", &long] {
            assert!(host(name).is_err(), "{name}");
        }
    }
}
