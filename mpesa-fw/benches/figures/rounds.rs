//! Programs that take turns, each with the same number of packets.

use anyhow::Result;

use crate::{
    datapath::Arguments,
    kernel::{Kernel, Probe},
    sample::Sample,
};

/// Nanoseconds a packet of each program, round by round. One round before them warms the caches and spends the events.
pub(crate) fn rate<const N: usize>(
    kernel: &mut Kernel,
    probes: [Probe; N],
    arguments: &Arguments,
) -> Result<[Sample; N]> {
    for probe in probes {
        kernel.rate(probe, arguments.packets)?;
    }
    let mut samples = [const { Sample::new() }; N];
    for _ in 0..arguments.rounds {
        for (sample, probe) in samples.iter_mut().zip(probes) {
            sample.push(kernel.rate(probe, arguments.packets)?);
        }
    }
    Ok(samples)
}

/// Nanoseconds a packet of the same program with what two kernels hold, round by round. One round before them warms the caches.
pub(crate) fn pair(
    mut kernels: [&mut Kernel; 2],
    probe: Probe,
    arguments: &Arguments,
) -> Result<[Sample; 2]> {
    let mut samples = [const { Sample::new() }; 2];
    for round in 0..=arguments.rounds {
        for (sample, kernel) in samples.iter_mut().zip(&mut kernels) {
            let figure = kernel.rate(probe, arguments.packets)?;
            if round > 0 {
                sample.push(figure);
            }
        }
    }
    Ok(samples)
}

/// Packets that each of the programs was given.
pub(crate) fn packets(arguments: &Arguments) -> u64 {
    u64::from(arguments.packets) * (arguments.rounds as u64 + 1)
}
