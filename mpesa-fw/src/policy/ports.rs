//! `ports` of a rule.

use std::ops::RangeInclusive;

use super::{
    document::{Node, Value},
    fields::{self, Scalar},
    model::ALL_PORTS,
    names::Complaint,
    report::Report,
};

/// The ranges; those that are wrong are reported.
pub(super) fn decode(node: &Node, report: &mut Report) -> Vec<RangeInclusive<u16>> {
    if matches!(&node.value, Value::Text(text) if text == "any") {
        return vec![ALL_PORTS];
    }
    let nodes = fields::list_or_one(node, "`ports`", "[443, \"9000-9010\"]", report);
    nodes.iter().filter_map(|node| port(node, report)).collect()
}

fn port(node: &Node, report: &mut Report) -> Option<RangeInclusive<u16>> {
    let example = "`[443, \"9000-9010\"]`";
    let parsed = match fields::scalar(node, "a port is a number or a range", example, report)? {
        Scalar::Text(text) => range(text),
        Scalar::Integer(integer, written) => match u16::try_from(integer) {
            Ok(0) => Err((
                "port 0 can't be used".to_owned(),
                "ports are 1 to 65535; `ports: any` means all".to_owned(),
            )),
            Ok(port) => Ok(port..=port),
            Err(_) => Err((format!("there is no port {written}"), "ports are 1 to 65535".to_owned())),
        },
    };
    match parsed {
        Ok(range) => Some(range),
        Err((message, hint)) => {
            report.error(node.span, message).hint(hint);
            None
        }
    }
}

/// `443` or `9000-9010`, both ends included.
fn range(text: &str) -> Result<RangeInclusive<u16>, Complaint> {
    let port = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u16>().ok().filter(|port| digits && *port > 0)
    };
    if text == "any" {
        return Err(("`any` stands alone, not in a list".to_owned(), "write `ports: any`".to_owned()));
    }
    if let Some(port) = port(text) {
        return Ok(port..=port);
    }
    let complaint = |hint: String| Err((format!("`{text}` is not a port or a range of ports"), hint));
    let Some((first, last)) = text.split_once(['-', ':', '–']) else {
        let service = [("http", 80), ("https", 443), ("ssh", 22), ("dns", 53), ("ntp", 123), ("smtp", 25)];
        return complaint(match service.iter().find(|(name, _)| *name == text.to_lowercase()) {
            Some((_, port)) => format!("write its number: {port}"),
            None if ["all", "*"].contains(&text) => "write `ports: any`".to_owned(),
            None => "for example 443 or \"9000-9010\"; ports are 1 to 65535".to_owned(),
        });
    };
    match (port(first.trim()), port(last.trim())) {
        (Some(first), Some(last)) if first > last => {
            Err((format!("the range `{text}` goes backwards"), format!("write \"{last}-{first}\"")))
        }
        (Some(start), Some(end)) if format!("{start}-{end}") == text => Ok(start..=end),
        (Some(first), Some(last)) => complaint(format!("write \"{first}-{last}\"")),
        (None, _) | (_, None) => complaint("both ends of a range are 1 to 65535".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::range;

    #[test]
    fn ranges() {
        assert_eq!(range("443"), Ok(443..=443));
        assert_eq!(range("9000-9010"), Ok(9000..=9010));
        assert_eq!(range("80-80"), Ok(80..=80));
        for (text, hint) in [
            ("9010-9000", "\"9000-9010\""),
            ("9000:9010", "\"9000-9010\""),
            ("9000 - 9010", "\"9000-9010\""),
            ("0", "1 to 65535"),
            ("0-10", "1 to 65535"),
            ("-1", "1 to 65535"),
            ("1-65536", "1 to 65535"),
            ("https", "443"),
            ("any", "ports: any"),
            ("+1", "1 to 65535"),
        ] {
            assert!(range(text).expect_err(text).1.contains(hint), "{text}");
        }
    }
}
