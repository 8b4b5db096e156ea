//! The datapath in a real kernel: loading, swapping, adopting, mending, detaching.
#![cfg(not(mpesa_fw_no_object))]

#[path = "kernel_datapath_lab/mod.rs"]
mod lab;

use std::time::{Duration, Instant};

use lab::{
    FRIEND, Lab, STRANGER, descriptors, friend, has_tcx, interface, policy, reload, tc_ways, wait_until,
};
use mpesa_fw::datapath::{Datapath, EgressHook, Fault, IngressHook, Options, TcChoice, XdpChoice, detach};
use mpesa_fw_common::{DropReason, settings::Direction};
use testbed::fewer;

#[test]
#[ignore = "needs root and a kernel"]
fn a_policy_judges_packets_and_a_reload_changes_it() {
    Lab::run(|lab| {
        let mut datapath = lab.open();
        assert!(datapath.mounted_bpffs().is_some() && !datapath.adopted() && datapath.running().is_none());
        assert!(lab.ping(FRIEND) && lab.ping(STRANGER));

        let mut seeded = 0;
        let report = {
            let policy = policy(&[&friend()]);
            let assignment =
                mpesa_fw::compile::Registry::from_rows(datapath.registry_rows()).assign(&policy).unwrap();
            let compiled = mpesa_fw::compile::compile(&policy, &assignment.slots).unwrap();
            let staged = datapath.stage(&compiled, Some(7)).unwrap();
            let rows = assignment.registry.to_rows();
            let between = &mut |_: &Datapath| seeded += 1;
            datapath.commit(staged, &rows, &assignment.fresh, &[interface("va")], between).unwrap()
        };
        assert_eq!(seeded, 1);
        assert_eq!((report.stamp.number, report.stamp.serial_plus_one), (1, 8));
        assert_eq!(report.attachments[0].ingress, Some(IngressHook::XdpNative));
        let egress = if has_tcx() { EgressHook::Tcx } else { EgressHook::Clsact };
        assert_eq!(report.attachments[0].egress, Some(egress));
        assert!(lab.ping(FRIEND) && !lab.ping(STRANGER));

        reload(&mut datapath, &policy(&[&friend(), "198.51.100.0/24"]), &[interface("va")]).unwrap();
        assert!(lab.ping(FRIEND) && lab.ping(STRANGER));
        assert_eq!(lab.generations().len(), 1, "the old generation is gone");

        let counts = datapath.counters().unwrap();
        let ping = counts.iter().find(|counts| counts.rule == "ping").unwrap();
        assert_eq!((ping.interface.as_str(), ping.direction), ("va", Direction::Ingress));
        assert_eq!(ping.block.passed.packets, 3);
        assert_eq!(ping.block.dropped[DropReason::SourceNotAllowed as usize].packets, 1);
        assert!(ping.block.last_passed > 0);
    });
}

#[test]
#[ignore = "needs root and a kernel"]
fn tracing_programs_are_verified_too() {
    Lab::run(|lab| {
        let mut datapath = Datapath::open(Options { trace: true, ..lab.options() }).unwrap();
        reload(&mut datapath, &policy(&[&friend()]), &[interface("va")]).unwrap();
        let program = datapath.program_ids().unwrap()[0];
        let mut logger = aya_log::EbpfLogger::init_from_id(program).unwrap();
        assert!(lab.ping(FRIEND) && !lab.ping(STRANGER));
        logger.flush();
    });
}

#[test]
#[ignore = "needs root and a kernel"]
fn reloads_lose_no_packet_and_leave_nothing_behind() {
    for &tc in tc_ways() {
        Lab::run_alone(move |lab| {
            let mut datapath = lab.open_tc(tc);
            let (narrow, wide) = (policy(&[&friend()]), policy(&[&friend(), "203.0.113.0/24"]));
            let interfaces = [interface("va")];
            reload(&mut datapath, &narrow, &interfaces).unwrap();
            let allowed = lab.pings(FRIEND, 1500, "0.01");
            let denied = lab.pings(STRANGER, 1500, "0.01");
            let before = descriptors();
            let mut times = Vec::new();
            let rounds = fewer(16);
            for round in 0..rounds {
                let start = Instant::now();
                reload(&mut datapath, if round % 2 == 0 { &wide } else { &narrow }, &interfaces).unwrap();
                times.push(start.elapsed());
            }
            assert_eq!(descriptors(), before, "no descriptor is leaked");
            times.sort();
            let [.., worst] = times.as_slice() else { unreachable!("there were some") };
            eprintln!("{tc:?}: reload {:?} median, {worst:?} worst", times[times.len() / 2]);
            assert_eq!(allowed.join().unwrap(), 1500);
            assert_eq!(denied.join().unwrap(), 0);
            assert_eq!((lab.generations().len(), datapath.running().unwrap().number), (1, 1 + rounds));
        });
    }
}

#[test]
#[ignore = "needs root and a kernel"]
fn the_next_agent_adopts_what_it_finds() {
    for &tc in tc_ways() {
        Lab::run(move |lab| {
            let mut datapath = lab.open_tc(tc);
            let report = reload(&mut datapath, &policy(&[&friend()]), &[interface("va")]).unwrap();
            assert!(!lab.ping(STRANGER));
            let counts = datapath.counters().unwrap();
            drop(datapath);
            assert!(lab.ping(FRIEND) && !lab.ping(STRANGER), "nobody is there, and it judges on");

            let mut datapath = lab.open_tc(tc);
            assert!(datapath.adopted() && datapath.mended().is_empty(), "{:?}", datapath.mended());
            assert_eq!(datapath.running(), Some(report.stamp));
            assert_eq!(datapath.attachments().unwrap(), report.attachments);
            let now = datapath.counters().unwrap();
            assert!(
                now.iter()
                    .zip(&counts)
                    .all(|(now, then)| now.block.passed.packets >= then.block.passed.packets)
            );
            let next = reload(&mut datapath, &policy(&[&friend()]), &[interface("va")]).unwrap();
            assert_eq!(next.stamp.number, 2);
        });
    }
}

#[test]
#[ignore = "needs root and a kernel"]
fn a_failing_swap_is_undone() {
    for &tc in tc_ways() {
        Lab::run(move |lab| {
            lab.link("vb");
            let mut datapath = lab.open_tc(tc);
            let both = [interface("va"), interface("vb")];
            for step in 0..4 {
                datapath.inject(Some(Fault::Fail(step)));
                reload(&mut datapath, &policy(&[&friend()]), &both).unwrap_err();
                assert!(datapath.attachments().unwrap().is_empty(), "nothing is half attached");
                assert!(lab.ping(STRANGER) && lab.generations().is_empty() && datapath.running().is_none());
            }
            datapath.inject(None);
            let first = reload(&mut datapath, &policy(&[&friend()]), &both).unwrap();
            let programs = programs(&datapath);
            for step in 0..4 {
                datapath.inject(Some(Fault::Fail(step)));
                let error = reload(&mut datapath, &policy(&[]), &both).unwrap_err();
                assert!(error.to_string().contains("nothing has changed"), "{error}");
                assert_eq!(datapath.running(), Some(first.stamp));
                assert_eq!(self::programs(&datapath), programs);
                assert!(lab.ping(FRIEND) && !lab.ping(STRANGER));
                assert_eq!(lab.generations().len(), 1);
            }
        });
    }
}

#[test]
#[ignore = "needs root and a kernel"]
fn a_mix_after_a_crash_is_mended() {
    for &tc in tc_ways() {
        Lab::run(move |lab| {
            lab.link("vb");
            let both = [interface("va"), interface("vb")];
            let mut datapath = lab.open_tc(tc);
            reload(&mut datapath, &policy(&[&friend()]), &both).unwrap();
            for step in 0..4u32 {
                datapath.inject(Some(Fault::Vanish(step as usize)));
                let number = datapath.running().unwrap().number;
                reload(&mut datapath, &policy(&[&friend()]), &both).unwrap_err();
                drop(datapath);
                datapath = lab.open_tc(tc);
                let expected = if step == 0 { number } else { number + 1 };
                assert_eq!(datapath.running().unwrap().number, expected);
                assert_eq!(
                    datapath.mended().len(),
                    if step == 0 { 1 } else { 5 - step as usize },
                    "{:?}",
                    datapath.mended()
                );
                assert_eq!(lab.generations().len(), 1);
                let mut ids = datapath.program_ids().unwrap();
                ids.retain(|id| programs(&datapath).contains(id));
                assert_eq!(ids.len(), 2, "every hook runs the generation that is said to run");
                assert!(lab.ping(FRIEND) && !lab.ping(STRANGER));
            }
        });
    }
}

#[test]
#[ignore = "needs root and a kernel"]
fn detach_leaves_nothing() {
    for &tc in tc_ways() {
        Lab::run(move |lab| {
            let mut datapath = lab.open_tc(tc);
            reload(&mut datapath, &policy(&[&friend()]), &[interface("va")]).unwrap();
            let programs = datapath.program_ids().unwrap();
            let maps: Vec<u32> = programs.iter().flat_map(|id| mpesa_fw_maps(*id)).collect();
            assert!(maps.len() > 20);
            drop(datapath);
            let detached = detach(&lab.options().bpffs).unwrap();
            assert_eq!(detached.len(), 2, "{detached:?}");
            assert!(lab.ping(STRANGER) && lab.pins("").is_empty());
            let gone = |id: &u32| mpesa_fw::sys::program_by_id(*id).is_err();
            wait_until("the programs to go", || programs.iter().all(gone));
            wait_until("the maps to go", || maps.iter().all(|id| mpesa_fw::sys::map_by_id(*id).is_err()));
            assert!(detach(&lab.options().bpffs).unwrap().is_empty());
        });
    }
}

#[test]
#[ignore = "needs root and a kernel"]
fn killed_at_any_moment_it_is_whole_again() {
    const CHILD: &str = "MPESA_FW_TEST_RELOADS_AT";
    const CLSACT: &str = "MPESA_FW_TEST_CLSACT";
    if let Some(bpffs) = std::env::var_os(CHILD) {
        let options = Options {
            bpffs: bpffs.into(),
            xdp: XdpChoice::Auto,
            tc: if std::env::var_os(CLSACT).is_some() { TcChoice::Clsact } else { TcChoice::Auto },
            flows_capacity: 65536,
            trace: false,
        };
        let mut datapath = Datapath::open(options).unwrap();
        loop {
            reload(&mut datapath, &policy(&[&friend()]), &[interface("va"), interface("vb")]).unwrap();
        }
    }
    for &tc in tc_ways() {
        Lab::run(move |lab| {
            lab.link("vb");
            let mut mended = 0;
            let rounds = fewer(10);
            for round in 0..rounds {
                let mut child = std::process::Command::new(std::env::current_exe().unwrap())
                    .args(["--ignored", "--exact", "killed_at_any_moment_it_is_whole_again"])
                    .env(CHILD, lab.options().bpffs)
                    .envs((tc == TcChoice::Clsact).then_some((CLSACT, "1")))
                    .stdout(std::process::Stdio::null())
                    .spawn()
                    .unwrap();
                if round == 0 {
                    wait_until("the first generation", || {
                        lab.pins("links").len() == if tc == TcChoice::Clsact { 2 } else { 4 }
                    });
                }
                std::thread::sleep(Duration::from_millis(500 + u64::from(round) * 37 % 300));
                child.kill().unwrap();
                child.wait().unwrap();
                if round > 0 {
                    assert!(!lab.ping(STRANGER), "it judges on");
                }
                let datapath = lab.open_tc(tc);
                mended += datapath.mended().len();
                assert!(datapath.adopted());
                let running = datapath.program_ids().unwrap();
                let hooks = programs(&datapath);
                assert!(
                    hooks.len() == 2 && hooks.iter().all(|id| running.contains(id)),
                    "{hooks:?} {running:?}"
                );
                assert_eq!(lab.generations().len(), 1);
                assert!(lab.ping(FRIEND) && !lab.ping(STRANGER));
            }
            eprintln!("{tc:?}: {mended} things mended after {rounds} kills");
        });
    }
}

fn mpesa_fw_maps(program: u32) -> Vec<u32> {
    use std::os::fd::AsFd;
    let program = mpesa_fw::sys::program_by_id(program).unwrap();
    mpesa_fw::sys::program_info(program.as_fd()).unwrap().maps
}

/// Ids of the programs that the pinned links and filters run, each once.
fn programs(datapath: &Datapath) -> Vec<u32> {
    let mut ids = datapath.hooked_programs().unwrap();
    ids.sort_unstable();
    ids.dedup();
    ids
}
