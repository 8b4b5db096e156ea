//! How much of its patience the kernel's verifier spends on each program.
#![cfg(not(mpesa_fw_no_object))]

#[path = "kernel_datapath_lab/mod.rs"]
mod lab;

use std::collections::BTreeMap;

use aya::programs::loaded_programs;
use lab::{Lab, OF_SOCKETS, interface, reload};
use mpesa_fw::policy::{self, Permissions};
use mpesa_fw_common::settings::feature;

/// A program at which the verifier has looked for so many instructions, by every way through it, is refused
/// (`BPF_COMPLEXITY_LIMIT_INSNS`, Linux 5.2).
const LIMIT: u32 = 1_000_000;

/// All that a policy can ask for: what it does not is cut out before the verifier looks.
const POLICY: &str = r#"
version: 1
mode: enforce
interfaces: [va]
sets:
  safaricom: { addresses: [198.51.100.2, "2001:db8::2"], watch: [198.51.100.0/24, "2001:db8::/64"] }
ingress:
  default: drop
  services:
    - { name: callbacks, ports: [443], from: [safaricom], by: { unit: nginx.service } }
    - { name: site, ports: [80], from: [any], limit: { new_connections: 10/s, burst: 20, per: source } }
    - { name: api, ports: [8080], to: [198.51.100.1, "2001:db8::1"], from: [10.0.0.0/8, "fd00::/8"] }
    - { name: ping, protocol: [icmp, icmpv6], types: [echo-request], from: [any], limit: { packets: 10/s, per: service } }
egress:
  default: drop
  allow:
    - { name: dns, to: [192.0.2.53, "2001:db8::53"], protocol: [udp, tcp], ports: [53] }
    - { name: daraja, to: [api.example.net, "*.cloud.example.net"], ports: [443], by: [{ user: root }, { unit: payments.service }] }
    - { name: mirror, to: [192.0.2.0/24, "2001:db8:1::/48"], ports: [443] }
"#;

/// What of it is in the settings of the programs.
const FEATURES: u32 = feature::SOURCE4
    | feature::SOURCE6
    | feature::LOCAL4
    | feature::LOCAL6
    | feature::DESTINATION4
    | feature::DESTINATION6
    | feature::LOCAL
    | feature::LIMITS
    | feature::NAMES
    | feature::REFUSES_ATTEMPTS;

/// Half of the limit is left for kernels that cut fewer ways short. `cargo xtask kernels` reads what is printed.
#[test]
#[ignore = "needs root and a kernel"]
fn every_program_is_far_below_the_verifiers_limit() {
    Lab::run(|lab| {
        let file = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        std::fs::write(&file, POLICY).unwrap();
        let policy =
            policy::load(&file, Permissions::Ignore).unwrap_or_else(|errors| panic!("{errors}")).policy;
        let slots = mpesa_fw::compile::Registry::default().assign(&policy).unwrap().slots;
        let features = mpesa_fw::compile::compile(&policy, &slots).unwrap().settings.features;
        assert_eq!(features & FEATURES, FEATURES, "a feature is not asked for: {features:#x}");

        let mut datapath = lab.open();
        reload(&mut datapath, &policy, &[interface("va")]).unwrap();
        let ids = datapath.program_ids().unwrap();
        let mut seen = BTreeMap::new();
        // One that somebody else unloads meanwhile is an error.
        for info in loaded_programs().flatten() {
            let name = info.name_as_str().unwrap_or_default().to_owned();
            if !ids.contains(&info.id()) && !OF_SOCKETS.contains(&name.as_str()) {
                continue;
            }
            let Some(instructions) = info.verified_instruction_count() else {
                testbed::left_out("the verifier's count", "this kernel does not tell (Linux 5.16)");
                return;
            };
            assert!(instructions < LIMIT / 2, "{name}: {instructions}");
            seen.insert(name, instructions);
        }
        for name in ["ingress_xdp", "ingress_tc", "egress_tc"] {
            assert!(seen.contains_key(name), "{name} is among {seen:?}");
        }
        for (name, instructions) in seen {
            println!("verifier: {name} {instructions}");
        }
    });
}
