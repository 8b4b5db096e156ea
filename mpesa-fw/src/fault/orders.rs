//! What a test orders, and its execution.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
    sync::{Mutex, OnceLock, PoisonError},
    thread::sleep,
    time::Duration,
};

use nix::sys::signal::{Signal, raise};

use super::{Failure, Injected, Point};

/// Names the file of orders.
pub const VARIABLE: &str = "MPESA_FW_FAULT_ORDERS";
/// As the first line: every crossing is noted in the file with [`TRACED`] added to its name.
pub const TRACE: &str = "trace";
/// See [`TRACE`].
pub const TRACED: &str = ".traced";
/// Added to the name: made when the agent begins to wait.
pub const REACHED: &str = ".reached";
/// Added to the name: seconds by which the wall clock is to be wrong.
pub const CLOCK: &str = ".clock";

/// Crossings of each point since its order was first seen.
static CROSSED: Mutex<Vec<(String, usize)>> = Mutex::new(Vec::new());

#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    Kill,
    Fail,
    Pause,
    Panic,
}

/// Crosses a point at which the step may fail.
///
/// # Errors
/// A test asked for it.
pub fn point(point: Point) -> Result<(), Injected> {
    debug_assert!(point.failure() == Failure::Possible, "{point} is declared not to fail");
    match cross(point) {
        Some(Action::Fail) => Err(Injected(point)),
        Some(Action::Kill | Action::Pause | Action::Panic) | None => Ok(()),
    }
}

/// Crosses a point at which the step can't fail.
pub fn passed(point: Point) {
    debug_assert!(point.failure() == Failure::Impossible, "{point} is declared to be able to fail");
    cross(point);
}

/// Seconds that a test adds to the wall clock.
pub fn clock_offset() -> i64 {
    let offset = file().and_then(|file| fs::read_to_string(beside(file, CLOCK)).ok());
    offset.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

fn file() -> Option<&'static Path> {
    static FILE: OnceLock<Option<PathBuf>> = OnceLock::new();
    FILE.get_or_init(|| std::env::var_os(VARIABLE).map(PathBuf::from)).as_deref()
}

fn beside(file: &Path, what: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(what);
    name.into()
}

fn cross(point: Point) -> Option<Action> {
    let file = file()?;
    let text = fs::read_to_string(file).ok()?;
    if text.starts_with(TRACE) {
        let mut traced = OpenOptions::new().append(true).create(true).open(beside(file, TRACED)).ok()?;
        let _ = writeln!(traced, "{point}");
    }
    let mut crossed = CROSSED.lock().unwrap_or_else(PoisonError::into_inner);
    let order = text.lines().find(|line| line.split(' ').next() == Some(&point.to_string()))?;
    let (action, at) = read(order)?;
    let before = crossed.iter().position(|(known, _)| known == order);
    let count = before.map_or(0, |index| crossed.swap_remove(index).1) + 1;
    if count < at {
        crossed.push((order.to_owned(), count));
        return None;
    }
    drop(crossed);
    carry_out(file, &text, order, action);
    Some(action)
}

fn read(order: &str) -> Option<(Action, usize)> {
    let mut words = order.split(' ').skip(1);
    let action = match words.next()? {
        "kill" => Action::Kill,
        "fail" => Action::Fail,
        "pause" => Action::Pause,
        "panic" => Action::Panic,
        _ => return None,
    };
    Some((action, words.next()?.parse().ok()?))
}

fn carry_out(file: &Path, text: &str, order: &str, action: Action) {
    if action == Action::Pause {
        let _ = fs::write(beside(file, REACHED), order);
        while file.exists() {
            sleep(Duration::from_millis(2));
        }
        let _ = fs::remove_file(beside(file, REACHED));
        return;
    }
    let rest: String = text.lines().filter(|line| *line != order).map(|line| format!("{line}\n")).collect();
    let _ = if rest.is_empty() { fs::remove_file(file) } else { fs::write(file, rest) };
    if action == Action::Kill {
        let _ = raise(Signal::SIGKILL);
    }
    assert!(action != Action::Panic, "a test asked for a defect: {order}");
}
