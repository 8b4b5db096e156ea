//! The agent killed, and its steps failing, at every fault point of start, reload and detach; then started again.
//!
//! Each scenario is first run with the points traced: those are the points that are then visited, and together they must
//! be all that there are. By default each point is visited once with each action; with `MPESA_FW_FAULTS=all` in every
//! scenario that crosses it, at every crossing.

#[path = "../support/mod.rs"]
mod support;

mod plan;
mod rig;
mod traces;

use anyhow::Result;
use plan::{Action, plan};
use rig::Rig;
use support::Field;

#[test]
#[ignore = "needs root and a kernel"]
fn killed_at_every_step_the_agent_comes_back_as_if_nothing_had_been() -> Result<()> {
    run(Action::Kill, &[])
}

#[test]
#[ignore = "needs root and a kernel"]
fn a_step_that_fails_changes_nothing() -> Result<()> {
    run(Action::Fail, &["--tc", "clsact"])
}

fn run(action: Action, arguments: &[&str]) -> Result<()> {
    let field = Field::new()?;
    support::traffic::Traffic::during(&field, |traffic| {
        let mut rig = Rig::new(&field, traffic, arguments)?;
        let cases = plan(&mut rig, action)?;
        let mut failures = Vec::new();
        for case in &cases {
            if let Err(error) = rig.visit(case) {
                failures.push(format!("{case}: {error:#}"));
                eprintln!("{}", failures[failures.len() - 1]);
                // Whatever is left of this one must not be charged to the next.
                rig.begin_anew()?;
            }
        }
        println!("{} cases", cases.len());
        anyhow::ensure!(
            failures.is_empty(),
            "{} of {}:\n{}",
            failures.len(),
            cases.len(),
            failures.join("\n")
        );
        Ok(())
    })
}
