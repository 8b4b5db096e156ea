//! `mpesa-fw audit`

use std::{fmt::Write as _, path::Path, time::SystemTime};

use super::{
    arguments::{AuditArguments, AuditCommand, EgressAuditArguments, Format},
    failure::Failure,
    output::{print, print_json, table},
    when,
};
use crate::{
    agent::{
        EgressAudit, Options,
        audit::{AuditRow, Sender},
    },
    control::{Answer, Client, Request},
    printable::Printable,
};

/// Shows what was counted.
pub(super) fn audit(runtime_dir: &Path, arguments: AuditArguments) -> Result<(), Failure> {
    match arguments.command {
        AuditCommand::Egress(arguments) => egress(runtime_dir, arguments),
    }
}

fn egress(runtime_dir: &Path, arguments: EgressAuditArguments) -> Result<(), Failure> {
    let EgressAuditArguments { since, rule, format } = arguments;
    let request = Request::Audit { since: since.unix(SystemTime::now()), rule };
    let Answer::Audit(audit) = Client::new(&Options::control_socket(runtime_dir)).ask(request)? else {
        return Err(Failure::another_answer());
    };
    match format.format {
        Format::Json => print_json(&audit),
        Format::Table => print(&text(&audit)),
    }
}

fn text(audit: &EgressAudit) -> String {
    let mut text = format!("connections from {} to {}\n", when::stamp(audit.since), when::stamp(audit.until));
    if audit.rows.is_empty() {
        text.push_str("none was opened, none was denied\n");
    } else {
        let head = ["DESTINATION", "UNIT", "USER", "OPENED", "DENIED", "FIRST", "LAST"];
        text.push_str(&table(&head, audit.rows.iter().map(row)));
    }
    text.push_str(&not_covered(audit));
    text
}

fn row(row: &AuditRow) -> Vec<String> {
    let user = match (row.user, &row.user_name) {
        (Some(user), Some(name)) => format!("{} ({user})", Printable(name)),
        (Some(user), None) => user.to_string(),
        (None, _) => "-".to_owned(),
    };
    vec![
        if row.destination.is_empty() { "-".to_owned() } else { Printable(&row.destination).to_string() },
        row.sender.to_string(),
        user,
        row.opened.to_string(),
        row.denied.to_string(),
        when::stamp(row.first),
        when::stamp(row.last),
    ]
}

/// What an auditor must not take for nothing.
fn not_covered(audit: &EgressAudit) -> String {
    let count = |is: fn(&Sender) -> bool| -> u64 {
        let rows = audit.rows.iter().filter(|row| is(&row.sender));
        rows.map(|row| row.opened.saturating_add(row.denied)).sum()
    };
    let mut lines = Vec::new();
    if audit.unrecorded_hours > 0 {
        let span = |span: &crate::agent::audit::Span| {
            format!("    {} to {}", when::stamp(span.from), when::stamp(span.until))
        };
        let mut line = format!(
            "hours without a record: {}, in which no agent looked. What was counted then stands in the hour in which the next one began, \
             if there was no boot between:",
            audit.unrecorded_hours
        );
        const SHOWN: usize = 10;
        for hours in audit.unrecorded.iter().take(SHOWN) {
            let _ = write!(line, "\n{}", span(hours));
        }
        if audit.unrecorded.len() > SHOWN {
            let _ = write!(line, "\n    and more, see --format json");
        }
        lines.push(line);
    }
    for file in &audit.unreadable {
        lines.push(format!("the file {} can't be read: what it said is missing", Printable(file)));
    }
    let said = [
        (count(|sender| matches!(sender, Sender::Gone(_))), "by groups that had ended before anybody looked"),
        (count(|sender| *sender == Sender::Others), "by others, summed up: too many owners"),
        (count(|sender| *sender == Sender::NoRoom), "not told apart: the kernel's table of owners was full"),
        (
            count(|sender| *sender == Sender::Nobody),
            "by nobody here: forwarded packets (containers, guests) and the kernel's have no owner",
        ),
    ];
    let said = said.into_iter().filter(|(count, _)| *count > 0);
    lines.extend(said.map(|(count, what)| format!("{count} {what}")));
    if lines.is_empty() {
        return String::new();
    }
    format!(
        "\nnot covered:\n{}\n",
        lines.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::audit::Span;
    use time::{Duration, macros::datetime};

    #[test]
    fn the_table_says_what_it_does_not_cover() {
        let since = datetime!(2026-11-01 00:00 UTC);
        let row = |destination: &str, sender, user, opened, denied| AuditRow {
            destination: destination.into(),
            sender,
            user,
            user_name: user.filter(|user| *user == 0).map(|_| "root".into()),
            opened,
            denied,
            first: since,
            last: since + Duration::hours(5),
        };
        let audit = EgressAudit {
            since,
            until: since + Duration::days(7),
            rows: vec![
                row("", Sender::Gone(1234), Some(4711), 0, 3),
                row("daraja", Sender::Unit("payments.service".into()), Some(0), 12, 0),
                row("daraja", Sender::Group("/evil\u{1b}[2J".into()), Some(1000), 0, 2),
                row("daraja", Sender::Nobody, None, 1, 0),
            ],
            unrecorded: vec![Span { from: since, until: since + Duration::hours(2) }],
            unrecorded_hours: 2,
            unreadable: vec!["2026-11-02.7.unreadable".into()],
        };
        insta::assert_snapshot!(text(&audit));
    }
}
