//! State maps and tables in a real kernel: shapes, freezing, flows, addresses, names, places of interfaces.
#![cfg(not(mpesa_fw_no_object))]

#[path = "kernel_datapath_lab/mod.rs"]
mod lab;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    os::fd::AsFd,
};

use lab::{Lab, flow_seen_at, friend, interface, policy, reload, run};
use mpesa_fw::{
    datapath::{Datapath, ErrorKind, Fault, IngressHook, Options, XdpChoice, detach},
    sys::{self, KernelMap},
};
use mpesa_fw_common::{
    ABI_VERSION, Address, Family, RuleSet,
    counter::INTERFACES,
    dns::{Learnt, LearntName, tick},
    state::{FlowKey, NameSlot},
    tables::ResolvedNames,
};

#[test]
#[ignore = "needs root and a kernel"]
fn tables_can_not_be_changed_in_place() {
    Lab::run(|lab| {
        let mut datapath = lab.open();
        reload(&mut datapath, &policy(&[&friend()]), &[interface("va")]).unwrap();
        let mut frozen = BTreeSet::new();
        for program in datapath.program_ids().unwrap() {
            let program = sys::program_by_id(program).unwrap();
            for id in sys::program_info(program.as_fd()).unwrap().maps {
                let map = sys::map_by_id(id).unwrap();
                let info = sys::map_info(map.as_fd()).unwrap();
                let name = String::from_utf8_lossy(&info.name).trim_end_matches('\0').to_owned();
                if info.flags & sys::BPF_F_MMAPABLE == 0 || name == "FLOW_PORTS" || name.starts_with('.') {
                    continue;
                }
                assert_eq!(
                    sys::fill(map.as_fd(), &[0]).unwrap_err().raw_os_error(),
                    Some(libc::EPERM),
                    "{name}"
                );
                if info.value_size == 8 {
                    let map = KernelMap::<u32, RuleSet>::new(map).unwrap();
                    assert_eq!(
                        map.put(&0, &RuleSet::ALL).unwrap_err().raw_os_error(),
                        Some(libc::EPERM),
                        "{name}"
                    );
                }
                frozen.insert(name);
            }
        }
        for name in ["INGRESS_CLAIMS", "SOURCE_CLASSES", "RULE_INFO", "GENERATION", "SOURCE4_RANGES"] {
            assert!(frozen.contains(name), "{name} is among {frozen:?}");
        }
    });
}

#[test]
#[ignore = "needs root and a kernel"]
fn state_of_another_shape_is_refused() {
    Lab::run(|lab| {
        let mut datapath = lab.open();
        reload(&mut datapath, &policy(&[&friend()]), &[interface("va")]).unwrap();
        drop(datapath);
        let error = Datapath::open(Options { flows_capacity: 1024, ..lab.options() }).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Shape);
        assert!(error.to_string().contains("--flows-capacity 65536"), "{error}");

        // A map that another build made.
        let pin = lab.options().bpffs.join(format!("abi-{ABI_VERSION}/state/COUNTER_NAMES"));
        std::fs::remove_file(&pin).unwrap();
        let mut other = aya::maps::Array::<aya::maps::MapData, u64>::create(1, 0).unwrap();
        other.set(0, 1, 0).unwrap();
        other.pin(&pin).unwrap();
        let error = lab.try_open().err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Shape);
        assert!(error.to_string().contains("COUNTER_NAMES: it has another shape"), "{error}");
        assert!(!lab.ping(lab::STRANGER), "and what is attached judges on");

        detach(&lab.options().bpffs).unwrap();
        Datapath::open(Options { flows_capacity: 1024, ..lab.options() }).unwrap();
    });
}

#[test]
#[ignore = "needs root and a kernel"]
fn a_pin_removed_behind_the_agents_back_is_noticed() {
    Lab::run(|lab| {
        let mut datapath = lab.open();
        reload(&mut datapath, &policy(&[&friend()]), &[interface("va")]).unwrap();
        std::fs::remove_file(lab.options().bpffs.join(format!("abi-{ABI_VERSION}/state/FRAGMENTS"))).unwrap();
        let error = reload(&mut datapath, &policy(&[&friend()]), &[interface("va")]).unwrap_err();
        assert!(error.to_string().contains("FRAGMENTS") && error.kind() == ErrorKind::Shape, "{error}");
        assert_eq!((datapath.running().unwrap().number, lab.generations().len()), (1, 1));
    });
}

#[test]
#[ignore = "needs root and a kernel"]
fn flows_come_and_go() {
    Lab::run(|lab| {
        let datapath = lab.open();
        let key = |port| FlowKey::new(Family::V4, 6, Address::v4(1), port, Address::v4(2), 443);
        let flow = |seen| flow_seen_at(seen);
        for port in 1..=10_000 {
            datapath.add_flow(&key(port), &flow(u64::from(port))).unwrap();
        }
        assert_eq!((datapath.flow_count().unwrap(), datapath.flows_capacity()), (10_000, 65536));
        let flows: BTreeMap<u16, u64> = datapath
            .flows()
            .unwrap()
            .into_iter()
            .map(|(key, flow)| (key.local_port, flow.last_seen))
            .collect();
        assert!(flows.len() == 10_000 && flows.iter().all(|(port, seen)| u64::from(*port) == *seen));
        assert!(datapath.remove_flow(&key(7)).unwrap() && !datapath.remove_flow(&key(7)).unwrap());
        assert!(
            !datapath.update_flow(&key(7), &flow(1)).unwrap()
                && datapath.update_flow(&key(8), &flow(1)).unwrap()
        );
        assert_eq!(datapath.flow_count().unwrap(), 9_999);
        let ports = state::<u32, u64>(lab, "FLOW_PORTS");
        assert_eq!(ports.get(&0).unwrap(), Some(!1));
        assert_eq!(ports.get(&(10_000 / 64)).unwrap(), Some((1 << (10_000 % 64 + 1)) - 1));
    });
}

/// At each look of the agent: what a flow uses is learnt for longer, as long as it does.
#[test]
#[ignore = "needs root and a kernel"]
fn what_was_learnt_stays_as_long_as_a_flow_uses_it() {
    Lab::run(|lab| {
        let mut datapath = lab.open();
        let learnt = state::<Address, Learnt>(lab, "LEARNT");
        let now = || tick(mpesa_fw::agent::clock::monotonic());
        let until = |address: Address| learnt.get(&address).unwrap().map(|names| names[0].until());
        let put = |address: Address, until: u32| {
            let mut names = Learnt::default();
            names[0] = LearntName::new(3, until);
            learnt.put(&address, &names).unwrap();
        };
        let [used, unused, fresh] =
            [Address::v4(0x0a00_0001), Address::v4(0x0a00_0002), Address::v4(0x0a00_0003)];
        let key = FlowKey::new(Family::V4, 6, Address::v4(1), 4000, used, 443);
        let state = flow_seen_at(mpesa_fw::agent::clock::monotonic());
        datapath.add_flow(&key, &state).unwrap();
        // Less than is left at two looks in a row.
        let (soon, late) = (now() + 20, now() + 5000);
        for (address, until) in [(used, soon), (unused, soon), (fresh, late)] {
            put(address, until);
        }
        datapath.keep_learnt(&remotes(&datapath)).unwrap();
        assert!(until(used).unwrap() > soon + 100, "{:?} after {soon}", until(used));
        assert_eq!((until(unused), until(fresh)), (Some(soon), Some(late)), "nobody uses them");
        let names = datapath.learnt().unwrap();
        assert_eq!(names.get(&used.into()), Some(&vec![3]), "it is the same name's as before");

        // Time goes by, as far as they know. What is over goes, but for what is in use.
        let over = now().saturating_sub(2);
        for address in [used, unused] {
            put(address, over);
        }
        datapath.keep_learnt(&remotes(&datapath)).unwrap();
        assert!(until(used).unwrap() > now() && until(unused).is_none(), "{:?}", until(unused));
        assert_eq!(until(fresh), Some(late));
        // What is over for long was not in use at the last look, whatever is now. Only where nobody has looked before, as after an
        // agent's absence, it comes back.
        let long_over = now().saturating_sub(1000);
        put(used, long_over);
        datapath.keep_learnt(&remotes(&datapath)).unwrap();
        assert!(until(used).unwrap() > now());
        let rules = policy(&[&friend()]);
        reload(&mut datapath, &rules, &[interface("va")]).unwrap();
        put(used, long_over);
        datapath.keep_learnt(&remotes(&datapath)).unwrap();
        assert_eq!(until(used), Some(long_over), "another name's by now, it may be");
        put(used, over);
        datapath.keep_learnt(&remotes(&datapath)).unwrap();
        assert!(until(used).unwrap() > now());
        // The flow ends, and with it the reason.
        assert!(datapath.remove_flow(&key).unwrap());
        put(used, over);
        datapath.keep_learnt(&remotes(&datapath)).unwrap();
        assert_eq!((until(used), until(fresh)), (None, Some(late)));
    });
}

#[test]
#[ignore = "needs root and a kernel"]
fn own_addresses_and_answers_follow() {
    Lab::run(|lab| {
        let datapath = lab.open();
        let addresses = |list: &[&str]| list.iter().map(|a| a.parse().unwrap()).collect::<BTreeSet<IpAddr>>();
        let hint = |address: &str| {
            let hint = Address::from(address.parse::<IpAddr>().unwrap()).hint();
            state::<u32, u64>(lab, "OWN_HINTS").get(&u32::from(hint / 64)).unwrap().unwrap() >> (hint % 64)
                & 1
        };
        let known = |address: &str| {
            state::<Address, u8>(lab, "OWN_ADDRESSES")
                .get(&address.parse::<IpAddr>().unwrap().into())
                .unwrap()
                .is_some()
        };
        datapath.set_own_addresses(&addresses(&["10.0.0.1", "2c0f::1"])).unwrap();
        assert!(known("10.0.0.1") && known("2c0f::1") && hint("10.0.0.1") == 1 && hint("2c0f::1") == 1);
        datapath.set_own_addresses(&addresses(&["10.0.0.1", "10.0.0.2"])).unwrap();
        assert!(known("10.0.0.2") && !known("2c0f::1") && hint("10.0.0.2") == 1 && hint("2c0f::1") == 0);
        let many: BTreeSet<IpAddr> = (0..5000u32).map(|n| std::net::Ipv4Addr::from(n).into()).collect();
        assert_eq!(datapath.set_own_addresses(&many).unwrap_err().kind(), ErrorKind::Full);
        let full: BTreeSet<IpAddr> =
            (9000..9000 + 4096u32).map(|n| std::net::Ipv4Addr::from(n).into()).collect();
        datapath.set_own_addresses(&full).unwrap();
        assert!(!known("10.0.0.1") && known("0.0.35.40"));

        let resolved = |address: &str| -> Option<ResolvedNames> {
            state::<Address, ResolvedNames>(lab, "RESOLVED")
                .get(&address.parse::<IpAddr>().unwrap().into())
                .unwrap()
        };
        let answers = |list: &[(&str, &[u16])]| -> BTreeMap<IpAddr, Vec<u16>> {
            list.iter().map(|(address, slots)| (address.parse().unwrap(), slots.to_vec())).collect()
        };
        assert_eq!(
            datapath.set_resolved(&answers(&[("192.0.2.1", &[0, 4]), ("192.0.2.2", &[4])])).unwrap(),
            0
        );
        assert_eq!(resolved("192.0.2.1"), Some([1, 5, 0, 0, 0, 0, 0, 0]));
        assert_eq!(
            datapath.set_resolved(&answers(&[("192.0.2.2", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10])])).unwrap(),
            2
        );
        assert_eq!((resolved("192.0.2.1"), resolved("192.0.2.2")), (None, Some([2, 3, 4, 5, 6, 7, 8, 9])));
        let many: BTreeMap<IpAddr, Vec<u16>> =
            (0..16_400u32).map(|n| (std::net::Ipv4Addr::from(n).into(), vec![3])).collect();
        assert_eq!(datapath.set_resolved(&many).unwrap(), 16);
    });
}

#[test]
#[ignore = "needs root and a kernel"]
fn a_new_owner_of_a_name_slot_gets_no_old_answers() {
    Lab::run(|lab| {
        let mut datapath = lab.open();
        reload(&mut datapath, &policy(&[]), &[interface("va")]).unwrap();
        let slot =
            datapath.registry_rows().names.iter().position(|row: &NameSlot| row.status == 1).unwrap() as u16;
        let address: IpAddr = "192.0.2.9".parse().unwrap();
        datapath.set_resolved(&BTreeMap::from([(address, vec![slot, slot + 1])])).unwrap();
        let staged = {
            let policy = policy(&[]);
            let slots = mpesa_fw::compile::Registry::new().assign(&policy).unwrap().slots;
            datapath.stage(&mpesa_fw::compile::compile(&policy, &slots).unwrap(), None).unwrap()
        };
        let fresh = mpesa_fw::compile::Fresh { name_slots: vec![slot], ..Default::default() };
        let rows = datapath.registry_rows().clone();
        datapath.commit(staged, &rows, &fresh, &[interface("va")], &mut |_| {}).unwrap();
        let left = state::<Address, ResolvedNames>(lab, "RESOLVED").get(&address.into()).unwrap();
        assert_eq!(left, Some([0, slot + 2, 0, 0, 0, 0, 0, 0]));
    });
}

#[test]
#[ignore = "needs root and a kernel"]
fn places_in_the_counters_run_out_and_are_used_again() {
    Lab::run(|lab| {
        let mut datapath = Datapath::open(Options { xdp: XdpChoice::Generic, ..lab.options() }).unwrap();
        let mut list = vec![interface("va")];
        for number in 1..INTERFACES {
            list.push(lab.link(&format!("v{number}")));
        }
        let report = reload(&mut datapath, &policy(&[&friend()]), &list).unwrap();
        assert!(report.attachments.iter().all(|a| a.live() && a.ingress == Some(IngressHook::XdpGeneric)));
        let ninth = lab.link("ninth");
        let error = datapath.protect(&ninth, &mut |_| {}).unwrap_err();
        assert!(error.kind() == ErrorKind::Full && error.to_string().contains("8 interfaces"), "{error}");
        assert_eq!(datapath.attachments().unwrap().len(), INTERFACES);

        // Of those that are let go in the same step there is a place; and where the step fails it is theirs again.
        datapath.inject(Some(Fault::Fail(1)));
        reload(&mut datapath, &policy(&[&friend()]), std::slice::from_ref(&ninth)).unwrap_err();
        datapath.inject(None);
        let counted = |datapath: &Datapath| -> BTreeSet<String> {
            datapath.counters().unwrap().into_iter().map(|counts| counts.interface).collect()
        };
        assert!(!counted(&datapath).contains("ninth"));
        let report = reload(&mut datapath, &policy(&[&friend()]), std::slice::from_ref(&ninth)).unwrap();
        assert_eq!((report.attachments.len(), report.detached.len()), (1, INTERFACES));
        assert!(report.attachments[0].live() && counted(&datapath).contains("ninth"));
        reload(&mut datapath, &policy(&[&friend()]), &list).unwrap();
        assert_eq!(datapath.attachments().unwrap().len(), INTERFACES);

        let gone = list.remove(3);
        run(&format!("ip link delete {}", gone.name));
        assert_eq!(datapath.release_gone(|index| index != gone.index), [gone.name.as_str()]);
        assert!(datapath.protect(&ninth, &mut |_| {}).unwrap().live());
        let names: BTreeSet<String> =
            datapath.counters().unwrap().into_iter().map(|counts| counts.interface).collect();
        assert!(names.contains("ninth") && !names.contains(&gone.name) && names.len() == INTERFACES);
    });
}

#[test]
#[ignore = "needs root and a kernel"]
fn a_bad_start_says_what_to_do() {
    Lab::run(|lab| {
        let dotted = Options { bpffs: "/tmp/a.b/c".into(), ..lab.options() };
        let refused = Datapath::open(dotted).err().unwrap();
        assert!(refused.to_string().contains("dot"));
        assert_eq!(refused.kind(), ErrorKind::Kernel, "not a defect of this program");
        let mut datapath = lab.open();
        let error = datapath.protect(&interface("va"), &mut |_| {}).unwrap_err();
        assert!(error.to_string().contains("no generation is loaded"), "{error}");
        let nowhere = mpesa_fw::datapath::Interface { name: String::from("nowhere"), index: 4242 };
        let report = reload(&mut datapath, &policy(&[]), &[nowhere]).unwrap();
        assert!(report.notes[0].contains("went away"), "{:?}", report.notes);
        assert!(report.attachments.is_empty());
    });
}

fn remotes(datapath: &Datapath) -> BTreeSet<IpAddr> {
    datapath.flows().unwrap().iter().map(|(key, _)| key.remote.into()).collect()
}

fn state<K: sys::Plain, V: sys::Plain>(lab: &Lab, name: &str) -> KernelMap<K, V> {
    KernelMap::new(
        sys::open_pin(&lab.options().bpffs.join(format!("abi-{ABI_VERSION}/state")).join(name)).unwrap(),
    )
    .unwrap()
}
