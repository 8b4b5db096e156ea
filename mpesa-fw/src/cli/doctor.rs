//! `mpesa-fw doctor`

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use tokio::runtime::Builder;

use super::{
    arguments::{DoctorArguments, Format},
    failure::Failure,
    output::{print, print_json},
};
use crate::{
    agent::Options,
    control::{Answer, Client, Request},
    doctor::{Finding, Level, Subject, examine},
    printable::Printable,
};

/// The rules of the package.
const RULES: &str = "/etc/mpesa-fw/rules.yaml";

/// Says what is wrong; exit 1 if anything is.
pub(super) fn doctor(runtime_dir: &Path, arguments: DoctorArguments) -> Result<(), Failure> {
    let client = Client::new(&Options::control_socket(runtime_dir));
    let listeners = match client.ask(Request::Listeners) {
        Ok(Answer::Listeners(listeners)) => Ok(listeners),
        Ok(_) => return Err(Failure::another_answer()),
        Err(error) => Err(error.to_string()),
    };
    let status = match client.ask(Request::Status) {
        Ok(Answer::Status(status)) => Ok(status),
        Ok(_) => return Err(Failure::another_answer()),
        Err(error) => Err(error.to_string()),
    };
    let in_force = status.as_ref().ok().map(|status| status.generation.rules.clone());
    let rules = arguments.rules.or(in_force).unwrap_or_else(|| PathBuf::from(RULES));
    let subject = Subject { rules, bpffs: arguments.bpffs, status, listeners };
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| {
        Failure::system(format!("cannot start: {error}"), "are there file descriptors left?")
    })?;
    let findings = runtime.block_on(examine(&subject));
    match arguments.format.format {
        Format::Json => print_json(&findings)?,
        Format::Table => print(&text(&findings))?,
    }
    if findings.iter().any(|finding| finding.level == Level::Wrong) {
        return Err(Failure::said());
    }
    Ok(())
}

fn text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for Finding { about, level, what, why, advice } in findings {
        let _ = writeln!(text, "{:<5}  {about}: {}", level.label(), Printable(what));
        if !why.is_empty() {
            let _ = writeln!(text, "         why it matters: {}", Printable(why));
        }
        if !advice.is_empty() {
            let _ = writeln!(text, "         what to do: {}", Printable(advice));
        }
    }
    let count = |wanted| findings.iter().filter(|finding| finding.level == wanted).count();
    let (wrong, notes, fine) = (count(Level::Wrong), count(Level::Note), count(Level::Fine));
    let _ = writeln!(text, "{wrong} wrong, {notes} to look at, {fine} fine");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_downloaded_list_says_moves_no_cursor() {
        let said = "`\u{1b}[2J\u{1b}[H0 wrong` is no address".to_owned();
        let (what, why, advice) = (said.clone(), said.clone(), said);
        let text = text(&[Finding { about: "rules", level: Level::Wrong, what, why, advice }]);
        assert!(!text.contains('\u{1b}') && text.matches("[2J").count() == 3, "{text:?}");
    }
}
