//! A case: frames, and what should become of each.

use std::{collections::BTreeMap, fmt};

use mpesa_fw_common::DropReason;

use crate::mode::Mode;

/// What should become of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// It reaches the network stack, charged to this rule (`""`: none).
    Pass(&'static str),
    /// It does not, for this reason, charged to this rule (`""`: none).
    Drop(DropReason, &'static str),
    /// The kernel itself drops it before the hook sees it.
    Kernel,
}

pub(crate) use Expected::{Drop, Pass};

/// A drop that no rule is charged for.
pub(crate) const fn drop_for(reason: DropReason) -> Expected {
    Drop(reason, "")
}

/// One frame; its hardware addresses are filled in when it is sent.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) bytes: Vec<u8>,
    expected: Expected,
    /// Where ingress is judged at TC and something else happens there.
    at_tc: Option<Expected>,
}

impl Frame {
    pub(crate) fn expected(&self, mode: Mode) -> Expected {
        match (mode, self.at_tc) {
            (Mode::Tc, Some(expected)) => expected,
            (Mode::Bare, _) => Pass(""),
            (Mode::Native | Mode::Generic | Mode::Tc, _) => self.expected,
        }
    }
}

/// Frames that are sent one after another and make one row of the table.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) frames: Vec<Frame>,
    /// Datagrams that the service's own socket should hear, where that is the point of the case.
    pub(crate) heard: Option<usize>,
}

impl Case {
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), frames: Vec::new(), heard: None }
    }

    pub(crate) fn frame(mut self, bytes: Vec<u8>, expected: Expected) -> Self {
        self.frames.push(Frame { bytes, expected, at_tc: None });
        self
    }

    pub(crate) fn frames(mut self, frames: impl IntoIterator<Item = (Vec<u8>, Expected)>) -> Self {
        let frames = frames.into_iter().map(|(bytes, expected)| Frame { bytes, expected, at_tc: None });
        self.frames.extend(frames);
        self
    }

    /// Each frame, all of which should come to the same.
    pub(crate) fn all(self, expected: Expected, frames: impl IntoIterator<Item = Vec<u8>>) -> Self {
        self.frames(frames.into_iter().map(|bytes| (bytes, expected)))
    }

    /// What the last frame comes to where ingress is judged at TC.
    pub(crate) fn at_tc(mut self, expected: Expected) -> Self {
        if let Some(frame) = self.frames.last_mut() {
            frame.at_tc = Some(expected);
        }
        self
    }

    /// The service's socket should hear so many datagrams.
    pub(crate) fn heard(mut self, datagrams: usize) -> Self {
        self.heard = Some(datagrams);
        self
    }

    /// The tally that this case should come to.
    pub(crate) fn tally(&self, mode: Mode) -> Tally {
        let mut tally = Tally::default();
        for frame in &self.frames {
            tally.add(frame.expected(mode));
        }
        tally
    }
}

/// Frames by what became of them: `pass RULE` or `REASON RULE`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally(pub(crate) BTreeMap<String, u64>);

impl Tally {
    fn add(&mut self, expected: Expected) {
        let what = match expected {
            Pass(rule) => Self::key("pass", rule),
            Drop(reason, rule) => Self::key(reason.label(), rule),
            Expected::Kernel => return,
        };
        self.count(what, 1);
    }

    /// `pass`, `pass callbacks`, `malformed`, `source_not_allowed callbacks`.
    pub(crate) fn key(what: &str, rule: &str) -> String {
        format!("{what} {rule}").trim_end().to_owned()
    }

    pub(crate) fn count(&mut self, what: String, count: u64) {
        if count > 0 {
            *self.0.entry(what).or_default() += count;
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("nothing");
        }
        for (n, (what, count)) in self.0.iter().enumerate() {
            let comma = if n == 0 { "" } else { ", " };
            write!(f, "{comma}{count} {what}")?;
        }
        Ok(())
    }
}
