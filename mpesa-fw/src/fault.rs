//! Places at which a test can make the agent die, fail or wait.
//!
//! Every step that leaves a trace in the kernel or in a file crosses a [`Point`]. A test writes what is to happen into
//! the file that [`VARIABLE`] names, one order a line, `<point> <action> <n>`: at the n-th crossing from now the agent
//! kills itself, the step fails, the agent panics, or it waits until the file is gone. An order that was carried out is taken out
//! of the file, so the test knows that its point was reached.
//!
//! Only programs with debug assertions look at the variable. In the shipped one [`point`] and [`passed`] are empty, and
//! `cargo xtask deb` looks for the variable's name in it.

use std::{fmt, io};

/// Whether this program has fault points.
pub const ARMED: bool = cfg!(debug_assertions);

macro_rules! points {
    ($($(#[$doc:meta])+ $name:ident: $failure:ident,)+) => {
        /// A place that a test can name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Point {
            $($(#[$doc])+ $name,)+
        }

        impl Point {
            /// All of them, in about the order of a start, a reload and a detach.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// Whether the step can be told to fail here.
            #[must_use]
            pub const fn failure(self) -> Failure {
                match self {
                    $(Self::$name => Failure::$failure,)+
                }
            }
        }
    };
}

/// Whether a step answers with a result at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It does: [`point`].
    Possible,
    /// It goes on in any case: [`passed`].
    Impossible,
}

points! {
    /// The control socket is bound, and not yet where clients look.
    SocketBorn: Impossible,
    /// The bpffs is there.
    BpffsReady: Possible,
    /// The directories of pins are there.
    DirectoriesMade: Possible,
    /// The maps were made that say what shape state has.
    StateShaped: Possible,
    /// One state map was pinned.
    StatePinned: Possible,
    /// The limiter has a secret, which is not pinned.
    SecretMade: Possible,
    /// All state maps are open.
    StateOpened: Possible,
    /// A dead link's pin was removed, or that of a renamed interface moved out of the way.
    LinkTidied: Impossible,
    /// A hook that ran another generation was brought to the newest.
    HookHealed: Possible,
    /// Pins of a version whose hooks are all ours now were removed.
    VersionBuried: Impossible,
    /// Addresses of this host and answers of DNS are what both generations need.
    StatePrepared: Possible,
    /// The tables of a generation were made.
    TablesMade: Possible,
    /// One table was filled and frozen.
    TableFilled: Possible,
    /// The programs were verified.
    ProgramsLoaded: Possible,
    /// The directory of a generation is there.
    GenerationMade: Possible,
    /// One program was pinned.
    ProgramPinned: Possible,
    /// The stamp was pinned: the generation is complete.
    StampPinned: Possible,
    /// An interface was given a place in the counters.
    PlaceAssigned: Possible,
    /// Counts of rows that have a new owner were cleared.
    CountsCleared: Possible,
    /// The registry names the rules of the new generation.
    RegistryWritten: Possible,
    /// A hook is about to be swapped.
    HookBegun: Possible,
    /// A link was made; it has no pin.
    LinkMade: Possible,
    /// The new link was pinned.
    LinkPinned: Impossible,
    /// A filter was added to the clsact qdisc.
    FilterAdded: Impossible,
    /// The program of a hook was replaced.
    HookReplaced: Possible,
    /// All egress hooks run the new generation, and open connections are about to be recorded.
    EgressDone: Impossible,
    /// Open connections were recorded.
    FlowsSeeded: Impossible,
    /// One hook was put back as it was.
    HookUndone: Impossible,
    /// The registry was put back as it was.
    RegistryRestored: Impossible,
    /// Every hook runs the new generation.
    HooksSwapped: Impossible,
    /// The link of the program that counts connections was made; it has no pin.
    CountingLinked: Impossible,
    /// It was pinned.
    CountingPinned: Impossible,
    /// It has the new generation's program.
    CountingReplaced: Impossible,
    /// A link was detached; its pin is there.
    LinkDetached: Possible,
    /// The hook of an interface is gone.
    HookRemoved: Possible,
    /// The stamp of an old generation was removed.
    StampRemoved: Possible,
    /// An old generation was removed.
    GenerationRemoved: Possible,
    /// The hooks are about to be listed for the report of a commit.
    CommitReported: Possible,
    /// Flows were judged again.
    FlowsJudged: Impossible,
    /// The sockets of connections that are no longer permitted were ended.
    SocketsEnded: Impossible,
    /// A file of the state directory was written beside the old one.
    StoreWritten: Possible,
    /// It is on file that what comes into force next is taken back.
    TrialPledged: Impossible,
    /// What came into force is on file as a trial, or as the end of one.
    TrialSettled: Impossible,
    /// A trial was confirmed, and the client not yet told.
    TrialConfirmed: Impossible,
    /// A reload is done, and the client not yet told.
    ReloadDone: Impossible,
    /// The hooks to be detached are known.
    DetachBegun: Possible,
    /// No hook is left; the pins are.
    HooksDetached: Possible,
    /// The pins are gone.
    PinsRemoved: Possible,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A step failed because a test asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a test asked for a failure at {0}")]
pub struct Injected(pub Point);

impl From<Injected> for io::Error {
    fn from(injected: Injected) -> Self {
        Self::other(injected)
    }
}

#[cfg(not(debug_assertions))]
mod orders {
    use super::{Injected, Point};

    /// Crosses a point at which the step may fail.
    ///
    /// # Errors
    /// Never: this program has no fault points.
    #[inline(always)]
    pub const fn point(_: Point) -> Result<(), Injected> {
        Ok(())
    }

    /// Crosses a point at which the step can't fail.
    #[inline(always)]
    pub const fn passed(_: Point) {}

    /// Seconds that a test adds to the wall clock: none.
    #[inline(always)]
    pub const fn clock_offset() -> i64 {
        0
    }
}

#[cfg(debug_assertions)]
mod orders;

#[cfg(debug_assertions)]
pub use orders::{CLOCK, REACHED, TRACE, TRACED, VARIABLE};
pub use orders::{clock_offset, passed, point};
