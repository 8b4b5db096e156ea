//! Which points are visited in which scenario.

use std::{collections::BTreeMap, fmt};

use anyhow::{Result, ensure};
use mpesa_fw::fault::{Failure, Point};

use super::rig::Rig;

/// What happens at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Kill,
    Fail,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kill => "kill",
            Self::Fail => "fail",
        })
    }
}

/// What the agent is doing when it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scenario {
    /// Another policy: one interface is let go, or one more protected.
    Reload,
    /// A reload on trial, and its confirmation.
    Trial,
    /// A reload of which the last hook fails: what was done is undone.
    Undo,
    /// A start after the agent was killed between two hooks of a reload.
    Mixed,
    /// A start after the agent was killed while it did nothing.
    Restart,
    /// A start after pins of another version were left.
    Upgrade,
    /// The first start.
    Start,
    /// `detach`, asked of the agent.
    Detach,
    /// `detach` without an agent.
    DetachFromPins,
}

impl Scenario {
    pub(crate) const ALL: [Self; 9] = [
        Self::Reload,
        Self::Trial,
        Self::Undo,
        Self::Mixed,
        Self::Restart,
        Self::Upgrade,
        Self::Start,
        Self::Detach,
        Self::DetachFromPins,
    ];
}

/// One visit of one point.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) scenario: Scenario,
    pub(crate) point: Point,
    pub(crate) action: Action,
    /// Which crossing, from 1.
    pub(crate) crossing: usize,
}

impl Case {
    pub(crate) fn order(&self) -> String {
        format!("{} {} {}\n", self.point, self.action, self.crossing)
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {} at {}, crossing {}", self.scenario, self.action, self.point, self.crossing)
    }
}

/// Points at which half of the hooks are done: every crossing of these is visited in a reload.
const BETWEEN_HOOKS: [Point; 2] = [Point::HookReplaced, Point::HookUndone];

/// Traces every scenario, and makes cases of what it crosses.
pub(crate) fn plan(rig: &mut Rig<'_>, action: Action) -> Result<Vec<Case>> {
    let all = std::env::var_os("MPESA_FW_FAULTS").is_some_and(|value| value == "all");
    let mut crossings: BTreeMap<String, Vec<(Scenario, usize)>> = BTreeMap::new();
    for scenario in Scenario::ALL {
        let traced = rig.trace(scenario)?;
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for point in traced.lines() {
            *counts.entry(point).or_default() += 1;
        }
        for (point, count) in counts {
            crossings.entry(point.to_owned()).or_default().push((scenario, count));
        }
    }
    let mut cases = Vec::new();
    let mut never = Vec::new();
    for point in Point::ALL.iter().copied() {
        let Some(places) = crossings.get(&point.to_string()) else {
            never.push(point);
            continue;
        };
        if action == Action::Fail && point.failure() == Failure::Impossible {
            continue;
        }
        let everywhere = places.iter().flat_map(|(scenario, count)| {
            (1..=*count).map(|crossing| Case { scenario: *scenario, point, action, crossing })
        });
        let first = places[0].0;
        let chosen = everywhere.filter(|case| {
            let first_one = case.scenario == first && case.crossing == 1;
            let between =
                BETWEEN_HOOKS.contains(&point) && matches!(case.scenario, Scenario::Reload | Scenario::Undo);
            // The order that makes it an undo is for the same point.
            let in_its_own_way = case.scenario == Scenario::Undo && point == Point::HookReplaced;
            (all || first_one || between) && !in_its_own_way
        });
        cases.extend(chosen);
    }
    // The clsact hook is reached where it is asked for, a link's pin where it is not.
    let other_way = if rig.clsact() { [].as_slice() } else { &[Point::FilterAdded] };
    never.retain(|point| !other_way.contains(point));
    ensure!(never.is_empty(), "never crossed: {never:?}");
    // Alike things together, and as few starts as can be.
    cases.sort_by_key(|case| Scenario::ALL.iter().position(|scenario| *scenario == case.scenario));
    Ok(cases)
}
