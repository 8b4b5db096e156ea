//! The datapath and its interfaces: hooks that somebody else has, interfaces that go, come back, or have odd names.
#![cfg(not(mpesa_fw_no_object))]

#[path = "kernel_datapath_lab/mod.rs"]
mod lab;

use lab::{FRIEND, Lab, STRANGER, friend, has_tcx, interface, policy, reload, run, tc_ways};
use mpesa_fw::datapath::{Datapath, ErrorKind, IngressHook, Options, XdpChoice, detach};

#[test]
#[ignore = "needs root and a kernel"]
fn a_foreign_xdp_program_stays() {
    Lab::run(|lab| {
        // Another agent with other pins is as foreign as anything.
        let elsewhere = lab.options().bpffs.join("elsewhere");
        let mut foreign = Datapath::open(lab.options()).unwrap();
        reload(&mut foreign, &policy(&["0.0.0.0/0"]), &[interface("va")]).unwrap();
        let theirs = foreign.program_ids().unwrap()[0];

        for xdp in [XdpChoice::Native, XdpChoice::Required] {
            let options = Options { bpffs: elsewhere.clone(), xdp, ..lab.options() };
            let mut ours = Datapath::open(options).unwrap();
            let error = reload(&mut ours, &policy(&[&friend()]), &[interface("va")]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Foreign);
            // The place of a clsact filter is a number, and the other agent's filter has it: that is found first.
            let theirs = if has_tcx() { "`ingress_xdp`" } else { "priority 1 and handle 0x6d70" };
            assert!(error.to_string().contains(theirs), "{error}");
            assert!(ours.attachments().unwrap().is_empty() && ours.running().is_none());
        }
        let mut ours = Datapath::open(Options { bpffs: elsewhere.clone(), ..lab.options() }).unwrap();
        let report = reload(&mut ours, &policy(&[&friend()]), &[interface("va")]);
        if !has_tcx() {
            assert_eq!(report.unwrap_err().kind(), ErrorKind::Foreign);
            assert!(ours.attachments().unwrap().is_empty() && lab.ping(STRANGER));
            return;
        }
        let report = report.unwrap();
        assert_eq!(
            report.attachments[0].ingress,
            Some(IngressHook::TcIngress { foreign_xdp_program: theirs })
        );
        let told = report.notes.iter().any(|note| note.contains("somebody else's"));
        assert!(told, "{:?}", report.notes);
        assert!(lab.ping(FRIEND) && !lab.ping(STRANGER));
        assert_eq!(foreign.attachments().unwrap()[0].ingress, Some(IngressHook::XdpNative));
        assert_eq!(
            foreign.attachments().unwrap()[0].ahead_of_egress.len(),
            1,
            "ours stands before theirs now"
        );

        drop(foreign);
        detach(&elsewhere).unwrap();
        assert!(lab.ping(STRANGER), "theirs is still there and allows it");
    });
}

#[test]
#[ignore = "needs root and a kernel"]
fn an_interface_goes_and_comes_back() {
    for &tc in tc_ways() {
        Lab::run(move |lab| {
            let mut datapath = lab.open_tc(tc);
            let old = interface("va");
            reload(&mut datapath, &policy(&[&friend()]), std::slice::from_ref(&old)).unwrap();
            assert!(!lab.ping(STRANGER));
            run("ip link delete va");
            assert!(datapath.attachments().unwrap().is_empty());
            assert_eq!(datapath.release_gone(|index| index != old.index), ["va"]);
            assert!(lab.pins("links").is_empty());
            assert_eq!(datapath.counters().unwrap()[0].interface, "va", "its counts are kept");

            let new = lab.link("va");
            assert_ne!(new.index, old.index);
            assert!(lab.ping(STRANGER));
            let mut seeded = 0;
            let attachment = datapath.protect(&new, &mut |_| seeded += 1).unwrap();
            assert!(attachment.live() && seeded == 1);
            assert!(lab.ping(FRIEND) && !lab.ping(STRANGER));

            // Gone and back without the agent noticing: the reload finds a dead pin in its way.
            run("ip link delete va");
            let new = lab.link("va");
            let report = reload(&mut datapath, &policy(&[&friend()]), &[new]).unwrap();
            assert!(report.attachments[0].live());
            assert!(lab.ping(FRIEND) && !lab.ping(STRANGER));

            // And one that is gone for good is let go.
            run("ip link delete va");
            reload(&mut datapath, &policy(&[&friend()]), &[]).unwrap();
            assert!(lab.pins("links").is_empty());
        });
    }
}

#[test]
#[ignore = "needs root and a kernel"]
fn interfaces_with_odd_names_modes_and_new_names() {
    Lab::run(|lab| {
        // A bridge has no driver that could run XDP.
        run("ip link add dm0 type bridge");
        run("ip link set dm0 up");
        run("ip link add va.10 type bridge");
        run("ip link set va.10 up");
        let mut datapath = lab.open();
        let list = [interface("dm0"), interface("va.10")];
        let report = reload(&mut datapath, &policy(&[&friend()]), &list).unwrap();
        assert!(report.attachments.iter().all(|a| a.live() && a.ingress == Some(IngressHook::XdpGeneric)));
        assert!(
            report.notes.iter().any(|note| note.contains("native XDP was refused")),
            "{:?}",
            report.notes
        );

        run("ip link set dm0 down");
        run("ip link set dm0 name lan0");
        let list = [interface("lan0"), interface("va.10")];
        let report = reload(&mut datapath, &policy(&[&friend()]), &list).unwrap();
        assert_eq!(report.attachments.len(), 2);
        let links = lab.pins("links");
        if has_tcx() {
            assert_eq!(links, ["lan0-egress", "lan0-ingress", "va%2e10-egress", "va%2e10-ingress"]);
        } else {
            assert_eq!(links, ["lan0-ingress", "va%2e10-ingress"], "a clsact filter is no link");
        }

        let report = reload(&mut datapath, &policy(&[&friend()]), &[interface("lan0")]).unwrap();
        assert_eq!(report.detached, ["va.10"]);
        assert_eq!(lab.pins("links").len(), links.len() / 2);

        let mut required = Datapath::open(Options { xdp: XdpChoice::Native, ..lab.options() }).unwrap();
        run("ip link add dm1 type bridge");
        let error = required.protect(&interface("dm1"), &mut |_| {}).unwrap_err();
        assert!(error.to_string().contains("native XDP was refused"), "{error}");
        assert_eq!(lab.pins("links").len(), links.len() / 2, "egress of dm1 was undone");
    });
}
