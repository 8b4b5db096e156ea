//! What the kernel must have. Asked before anything is made, so that a kernel that is too old is told of in one sentence
//! instead of by the error of whatever happens to fail first, and nothing is left behind.

use aya::{
    programs::ProgramType,
    sys::{BpfHelper, is_helper_supported},
};

use super::{DatapathError, ErrorKind, Result};

/// A helper without which the programs can't do their work, what it is for, and the first Linux that has it. Asked for
/// one by one, and not by version: distributions bring newer features to older kernels.
const HELPERS: [(ProgramType, BpfHelper, &str, &str); 3] = [
    (
        ProgramType::Xdp,
        BpfHelper::BPF_FUNC_xdp_get_buff_len,
        "XDP on frames of several buffers (bpf_xdp_get_buff_len)",
        "5.18",
    ),
    (
        ProgramType::SchedClassifier,
        BpfHelper::BPF_FUNC_ktime_get_coarse_ns,
        "the coarse clock (bpf_ktime_get_coarse_ns)",
        "5.11",
    ),
    (ProgramType::Xdp, BpfHelper::BPF_FUNC_ringbuf_reserve, "ring buffers (bpf_ringbuf_reserve)", "5.8"),
];

/// Looks for what the kernel lacks.
pub(super) fn check() -> Result<()> {
    // Where it can't be asked (no permission), the first real step tells why.
    let lacks = |(kind, helper, ..): &(ProgramType, BpfHelper, &str, &str)| {
        matches!(is_helper_supported(*kind, *helper), Ok(false))
    };
    let lacking: Vec<_> = HELPERS.iter().filter(|requirement| lacks(requirement)).collect();
    // The newest first: one that has it has the others.
    let Some((.., newest)) = lacking.first() else { return Ok(()) };
    let names: Vec<_> = lacking.iter().map(|(_, _, name, since)| format!("{name}, Linux {since}")).collect();
    Err(DatapathError::new(
        ErrorKind::Kernel,
        format!("use the kernel {}", release()),
        format!("it is too old: it lacks {}", names.join("; ")),
        format!("boot Linux {newest} or later (Debian 12 has 6.1); nothing has been changed"),
    ))
}

/// What `uname -r` says.
fn release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| String::from("of this host"), |release| release.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[ignore = "needs root and a kernel"]
    fn a_kernel_that_runs_the_tests_lacks_nothing() {
        check().unwrap();
    }

    #[test]
    fn the_newest_comes_first() {
        let versions: Vec<Vec<u32>> = HELPERS
            .iter()
            .map(|(.., since)| since.split('.').map(|part| part.parse().unwrap()).collect())
            .collect();
        assert!(versions.is_sorted_by(|newer, older| newer >= older), "{versions:?}");
    }
}
