//! What is printed of callbacks and floods.

use super::{Flooded, Loaded};
use crate::{
    callbacks::Outcome,
    contender::Contender,
    sample::{Sample, within},
};

pub(super) fn table(all: &[Loaded]) {
    println!(
        "| guarded by | | denied, kpps | forged SYNs, kpps | callbacks | lost | new connection: p50, ms | p99 | max | kept connection: p50, ms | p99 | max |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|");
    for loaded in all {
        let is_ours = loaded.guarded.contender == Contender::Firewall;
        let most = is_ours.then_some(&loaded.quiet);
        row(loaded, "quiet", ["0".into(), "0".into()], &loaded.quiet, None);
        row(loaded, "the same pace for all", loaded.together.kpps(), &loaded.together.outcome, most);
        if loaded.is_asked() {
            row(loaded, "as much as asked, or as it takes", loaded.asked.kpps(), &loaded.asked.outcome, most);
        }
    }
    for loaded in all {
        for Flooded { outcome, .. } in [&loaded.together, &loaded.asked] {
            if let Some(why) = &outcome.why {
                println!("\nThe last callback lost by {}: {why}.", loaded.guarded.contender);
            }
        }
    }
}

/// Says what could not be done here.
pub(super) fn shortfalls(all: &[Loaded], pace: u64, asked: u64) {
    /// Between two calls of the generator nothing is sent for two ticks.
    const HELD: f64 = 0.9;
    let most: Vec<String> = all
        .iter()
        .map(|Loaded { guarded, most, .. }| {
            let most = *most as f64 / 1e3;
            format!("{} {most:.0}", guarded.contender)
        })
        .collect();
    println!(
        "\nThe pace that is the same for all is {} kpps: 7 tenths of what the slowest took when {} kpps were asked (kpps: {}).",
        pace / 1_000,
        asked / 1_000,
        most.join(", ")
    );
    for Loaded { guarded, together, .. } in all {
        if together.rate() < pace as f64 * HELD {
            println!(
                "\n**{} did not hold the common pace**: {:.0} kpps were sent.",
                guarded.contender,
                together.rate() / 1e3
            );
        }
    }
    for Loaded { guarded, asked: flooded, .. } in all.iter().filter(|loaded| loaded.is_asked()) {
        if flooded.rate() < asked as f64 * HELD {
            println!(
                "\n**This machine can't send {} kpps to {}**: {:.0} kpps is what one CPU sends, receives and answers; the other one serves.",
                asked / 1_000,
                guarded.contender,
                flooded.rate() / 1e3
            );
        }
    }
}

/// `quiet`: what this is held against.
fn row(
    loaded: &Loaded,
    when: &str,
    [denied, forged]: [String; 2],
    outcome: &Outcome,
    quiet: Option<&Outcome>,
) {
    let lost = quiet.map_or_else(
        || outcome.lost.to_string(),
        |_| format!("{} (at most {})", outcome.lost, within(outcome.lost as f64, 0.0)),
    );
    let latency = |sample: &Sample, quiet: Option<&Sample>| {
        let p99 = sample.percentile(99.0);
        let most = quiet.map_or_else(String::new, |quiet| {
            let times = p99 / quiet.percentile(99.0);
            format!(", {times:.1} times the quiet one (at most {})", within(times, 2.0))
        });
        format!("{:.1} | {p99:.1}{most} | {:.1}", sample.percentile(50.0), sample.max())
    };
    println!(
        "| {} | {when} | {denied} | {forged} | {} | {lost} | {} | {} |",
        loaded.guarded.contender,
        outcome.sent(),
        latency(&outcome.fresh, quiet.map(|quiet| &quiet.fresh)),
        latency(&outcome.kept, quiet.map(|quiet| &quiet.kept)),
    );
}
