//! How much of its patience the kernel's verifier spends on each program.
#![cfg(not(mpesa_fw_no_object))]

#[path = "kernel_datapath_lab/mod.rs"]
mod lab;

use aya::programs::loaded_programs;
use lab::{Lab, friend, interface, policy, reload};
use mpesa_fw::policy::model::Owner;

/// A program at which the verifier has looked for so many instructions, by every way through it, is refused
/// (`BPF_COMPLEXITY_LIMIT_INSNS`, Linux 5.2).
const LIMIT: u32 = 1_000_000;

/// With all that a policy can ask for, since what it doesn't is never looked at. Half of the limit is left for kernels that cut
/// fewer ways short. `cargo xtask kernels` reads what is printed.
#[test]
#[ignore = "needs root and a kernel"]
fn every_program_is_far_below_the_verifiers_limit() {
    Lab::run(|lab| {
        let mut datapath = lab.open();
        let mut policy = policy(&[&friend()]);
        let destination = &mut policy.egress.allow[0];
        destination.by = vec![Owner::User(String::from("0")), Owner::Unit(String::from("payments.service"))];
        reload(&mut datapath, &policy, &[interface("va")]).unwrap();
        let ids = datapath.program_ids().unwrap();
        let mut seen = Vec::new();
        for info in loaded_programs() {
            let info = info.unwrap();
            if !ids.contains(&info.id()) {
                continue;
            }
            let name = info.name_as_str().expect("a name in ASCII").to_owned();
            let Some(instructions) = info.verified_instruction_count() else {
                testbed::left_out("the verifier's count", "this kernel does not tell (Linux 5.16)");
                return;
            };
            println!("verifier: {name} {instructions}");
            assert!(instructions < LIMIT / 2, "{name}: {instructions}");
            seen.push(name);
        }
        assert_eq!(seen.len(), ids.len(), "all of them: {seen:?}");
        for name in ["ingress_xdp", "egress_tc"] {
            assert!(seen.iter().any(|seen| seen == name), "{name} is among {seen:?}");
        }
    });
}
