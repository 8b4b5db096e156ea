//! Where the time of a start and a reload goes. Prints, asserts little: a timed test on a busy machine proves nothing.
#![cfg(not(mpesa_fw_no_object))]

#[path = "kernel_datapath_lab/mod.rs"]
mod lab;

use std::time::{Duration, Instant};

use lab::{Lab, flow_seen_at, interface, policy};
use mpesa_fw::{
    compile::{Registry, compile},
    policy::model::Policy,
};
use mpesa_fw_common::{Address, Family, state::FlowKey};
use nix::time::{ClockId, clock_gettime};

#[test]
#[ignore = "needs root and a kernel"]
fn where_the_time_of_a_reload_goes() {
    Lab::run(|lab| {
        let (mut datapath, open) = timed(|| lab.open());
        let twelve: Vec<String> = (1..=12).map(|n| format!("196.201.214.{n}/32")).collect();
        report("open", &mut [open]);
        memory("open");
        reloads(
            &mut datapath,
            &policy(&twelve.iter().map(String::as_str).collect::<Vec<_>>()),
            "12 prefixes",
            20,
        );

        memory("after 20 reloads");
        let many: Vec<String> = (0..100_000u32)
            .map(|n| format!("{}/32", std::net::Ipv4Addr::from(0x0b00_0000 + n * 977)))
            .collect();
        reloads(
            &mut datapath,
            &policy(&many.iter().map(String::as_str).collect::<Vec<_>>()),
            "100,000 prefixes",
            3,
        );

        let (_, scrape) = timed(|| datapath.counters().unwrap());
        report("counters", &mut [scrape]);
        for port in 1..=60_000u16 {
            let key = FlowKey::new(Family::V4, 6, Address::v4(1), port, Address::v4(2), 443);
            let flow = flow_seen_at(1);
            datapath.add_flow(&key, &flow).unwrap();
        }
        let (count, flows) = timed(|| datapath.flow_count().unwrap());
        report(&format!("flow_count of {count}"), &mut [flows]);
        drop(datapath);
        let (_, adopt) = timed(|| lab.open());
        report("open and adopt", &mut [adopt]);
    });
}

fn reloads(datapath: &mut mpesa_fw::datapath::Datapath, policy: &Policy, what: &str, times: usize) {
    let (mut compiles, mut stages, mut commits) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..times {
        let assignment = Registry::from_rows(datapath.registry_rows()).assign(policy).unwrap();
        let (compiled, time) = timed(|| compile(policy, &assignment.slots).unwrap());
        compiles.push(time);
        let (staged, time) = timed(|| datapath.stage(&compiled, None).unwrap());
        stages.push(time);
        let rows = assignment.registry.to_rows();
        let (_, time) = timed(|| {
            datapath.commit(staged, &rows, &assignment.fresh, &[interface("va")], &mut |_| {}).unwrap()
        });
        commits.push(time);
    }
    report(&format!("{what}: compile"), &mut compiles);
    report(&format!("{what}: stage"), &mut stages);
    report(&format!("{what}: commit"), &mut commits);
}

fn memory(when: &str) {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc");
    let lines: Vec<_> =
        status.lines().filter(|line| line.starts_with("Rss") || line.starts_with("VmHWM")).collect();
    eprintln!("{when}: {}", lines.join(", "));
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, [Duration; 2]) {
    let cpu = || Duration::from(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).expect("a clock"));
    let (wall, before) = (Instant::now(), cpu());
    let answer = work();
    (answer, [wall.elapsed(), cpu() - before])
}

fn report(what: &str, times: &mut [[Duration; 2]]) {
    times.sort();
    let [[least, _], [median, _]] = [times[0], times[times.len() / 2]];
    let cpu = times.iter().map(|[_, cpu]| *cpu).min().unwrap_or_default();
    eprintln!("{what:32} wall {least:?} least, {median:?} median; CPU {cpu:?} least");
}
