//! `limit` of a service.

use std::{num::NonZeroU64, time::Duration};

use mpesa_fw_common::limit::{LimitPer, LimitWhat};

use super::{
    document::Node,
    fields::{self, Fields, Scalar},
    model::Limit,
    names::Complaint,
    report::Report,
};

const KEYS: [&str; 4] = ["new_connections", "packets", "burst", "per"];
const EXAMPLE: &str = "limit: { new_connections: 20/s, burst: 40, per: source }";
/// A nanosecond for each: beyond it the limiter can't tell them apart.
const PER_SECOND: u64 = 1_000_000_000;

/// The limit, or `None` if something is wrong, which was reported.
pub(super) fn decode(node: &Node, report: &mut Report) -> Option<Limit> {
    let fields = Fields::open(node, "a limit", &KEYS, report)?;
    let (what, rate) = match (fields.optional("new_connections"), fields.optional("packets")) {
        (Some(node), None) => (LimitWhat::NewConnections, rate(node, report)),
        (None, Some(node)) => (LimitWhat::Packets, rate(node, report)),
        (Some(_), Some(_)) => {
            let at = fields.key("packets").unwrap_or(fields.span);
            report
                .error(at, "a limit counts either `new_connections` or `packets`, not both")
                .hint("keep one of them");
            return None;
        }
        (None, None) if fields.is_misspelt("new_connections") || fields.is_misspelt("packets") => {
            return None;
        }
        (None, None) => {
            report
                .error(fields.span, "a limit needs `new_connections` or `packets`")
                .hint(format!("for example `{EXAMPLE}`"));
            return None;
        }
    };
    let per = match fields.optional("per") {
        None => Some(LimitPer::Source),
        Some(node) => fields::word(
            node,
            "`per`",
            &[("source", LimitPer::Source), ("service", LimitPer::Service)],
            report,
        ),
    };
    let burst = match fields.optional("burst") {
        None => rate.map(|(rate, _)| rate),
        Some(node) => burst(node, report),
    };
    let (rate, period) = rate?;
    Some(Limit { what, per: per?, rate, period, burst: burst? })
}

fn burst(node: &Node, report: &mut Report) -> Option<NonZeroU64> {
    let burst = fields::integer(node, "`burst`", "burst: 40", report)?;
    let nonzero = NonZeroU64::new(burst).filter(|burst| burst.get() <= PER_SECOND);
    if nonzero.is_none() {
        report
            .error(node.span, format!("`burst` can't be {burst}"))
            .hint("it says how many may come at once: at least 1, at most a billion");
    }
    nonzero
}

fn rate(node: &Node, report: &mut Report) -> Option<(NonZeroU64, Duration)> {
    let example = "`20/s`; `/m` and `/h` are known too";
    let text = match fields::scalar(node, "a rate is a number in a time", example, report)? {
        Scalar::Text(text) => text,
        Scalar::Integer(_, written) => written,
    };
    match parse_rate(text) {
        Ok(rate) => Some(rate),
        Err((message, hint)) => {
            report.error(node.span, message).hint(hint);
            None
        }
    }
}

fn parse_rate(text: &str) -> Result<(NonZeroU64, Duration), Complaint> {
    let complaint = |hint: String| (format!("`{text}` is not a rate"), hint);
    let example = "write a number and a time, for example `20/s`, `300/m` or `1000/h`";
    let (number, unit) = text.split_once('/').ok_or_else(|| complaint(example.to_owned()))?;
    let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    let rate = number.parse::<u64>().ok().filter(|_| digits);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        other => {
            let meant = match other.trim().to_lowercase().as_str() {
                "s" | "sec" | "second" | "seconds" => Some("s"),
                "m" | "min" | "minute" | "minutes" => Some("m"),
                "h" | "hour" | "hours" => Some("h"),
                _ => None,
            };
            return Err(complaint(match meant {
                Some(unit) => format!("write `{}/{unit}`", number.trim()),
                None => "the time is `s`, `m` or `h`".to_owned(),
            }));
        }
    };
    let rate = rate.ok_or_else(|| complaint(example.to_owned()))?;
    let Some(rate) = NonZeroU64::new(rate) else {
        return Err((
            "a rate of 0 would let nothing through".to_owned(),
            "remove the service instead: what no service claims gets `ingress.default`".to_owned(),
        ));
    };
    if rate.get() > PER_SECOND * seconds {
        return Err(complaint(
            "at most a billion a second can be counted; leave `limit` out for no limit".to_owned(),
        ));
    }
    Ok((rate, Duration::from_secs(seconds)))
}

#[cfg(test)]
mod tests {
    use super::parse_rate;

    #[test]
    fn rates() {
        assert_eq!(parse_rate("20/s").map(|(n, t)| (n.get(), t.as_secs())), Ok((20, 1)));
        assert_eq!(parse_rate("3/m").map(|(n, t)| (n.get(), t.as_secs())), Ok((3, 60)));
        assert_eq!(parse_rate("3/h").map(|(n, t)| (n.get(), t.as_secs())), Ok((3, 3600)));
        for (text, hint) in [
            ("0/s", "remove"),
            ("20", "20/s"),
            ("20/sec", "`20/s`"),
            ("20/d", "`s`, `m` or `h`"),
            ("-1/s", "20/s"),
            ("+1/s", "20/s"),
            ("/s", "20/s"),
            ("1.5/s", "20/s"),
            ("99999999999/s", "billion"),
        ] {
            assert!(parse_rate(text).expect_err(text).1.contains(hint), "{text}");
        }
    }
}
