//! `mpesa-fw confirm`

use std::path::Path;

use super::{
    arguments::{ConfirmArguments, Format},
    failure::Failure,
    output::{print, print_json},
    trial,
};
use crate::{
    agent::Options,
    control::{Answer, Client, Request},
};

/// What is on trial stays.
pub(super) fn confirm(runtime_dir: &Path, arguments: &ConfirmArguments) -> Result<(), Failure> {
    let request = Request::Confirm { generation: arguments.generation };
    let Answer::Confirmed(done) = Client::new(&Options::control_socket(runtime_dir)).ask(request)? else {
        return Err(Failure::another_answer());
    };
    match arguments.format.format {
        Format::Json => print_json(&done),
        Format::Table => print(&format!(
            "{}generation {} is confirmed: it stays\n",
            trial::evidence(&done.trial.evidence),
            done.generation
        )),
    }
}
