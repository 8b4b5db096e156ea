//! The machine that the figures are from.

use std::fs;

use anyhow::{Context as _, Result};

use super::said;

/// A list for people.
///
/// # Errors
/// When the machine hides what it is.
pub(super) fn describe() -> Result<String> {
    let cpuinfo = read("/proc/cpuinfo")?;
    let field = |name: &str| {
        let line = cpuinfo.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':')).map_or("unknown", |(_, value)| value.trim())
    };
    let cpus = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    let flags = field("flags");
    let place = if flags.split(' ').any(|flag| flag == "hypervisor") {
        "a virtual machine"
    } else {
        "no virtual machine"
    };
    Ok(format!(
        "- Date: {}\n- Revision: {}\n- Processor: {} (family {}, model {}), {cpus} of them; {place}\n- Caches: {}\n- Kernel: {}\n- Guarded returns: {}\n",
        said("date", &["--utc", "+%Y-%m-%d %H:%M UTC"]),
        said("git", &["describe", "--always", "--dirty"]),
        field("model name"),
        field("cpu family"),
        field("model\t"),
        caches(),
        said("uname", &["-sr"]),
        read("/sys/devices/system/cpu/vulnerabilities/spec_rstack_overflow")
            .unwrap_or_else(|_| String::from("unknown"))
            .trim(),
    ))
}

/// Of the first processor.
fn caches() -> String {
    let all = (0..4).filter_map(|index| {
        let of = |name: &str| read(&format!("/sys/devices/system/cpu/cpu0/cache/index{index}/{name}")).ok();
        let (level, kind, size) = (of("level")?, of("type")?, of("size")?);
        (kind.trim() != "Instruction").then(|| format!("L{} {}", level.trim(), size.trim()))
    });
    all.collect::<Vec<_>>().join(", ")
}

/// Processes that wanted to run, over the last minute.
pub(super) fn load() -> String {
    read("/proc/loadavg").ok().and_then(|line| line.split(' ').next().map(str::to_owned)).unwrap_or_default()
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {path}"))
}
