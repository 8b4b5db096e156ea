//! What `events --follow` and `capture` share: lines that come until somebody ends it.

use std::{thread, time::Duration};

use nix::sys::signal::{SigSet, Signal};

use super::failure::Failure;
use crate::{
    agent::{EventRecord, Why},
    control::{Answer, Client, HangUp, Line, Request, Stream},
};

/// For the agent to say its last line.
const PATIENCE: Duration = Duration::from_secs(2);

/// A stream of lines that Ctrl-C ends.
pub(super) struct Follow {
    stream: Stream,
    /// What was before.
    pub(super) last: Vec<EventRecord>,
}

impl Follow {
    /// Begins. Ctrl-C, SIGTERM and the end of `within` ask the agent for an end, so that what was on its way still comes.
    pub(super) fn begin(
        client: &Client,
        request: Request,
        within: Option<Duration>,
    ) -> Result<Self, Failure> {
        let (answer, stream) = client.follow(request)?;
        let Answer::Following(last) = answer else {
            return Err(Failure::another_answer());
        };
        // Before any other thread is there to take them; and not before the agent has answered, who may hang.
        let ends: SigSet = [Signal::SIGINT, Signal::SIGTERM].into_iter().collect();
        ends.thread_block().map_err(|error| cannot(&error))?;
        let by_signal = stream.hang_up().map_err(|error| cannot(&error))?;
        thread::spawn(move || {
            if ends.wait().is_ok() {
                by_signal.ask(Some(PATIENCE));
            }
        });
        if let Some(within) = within {
            let by_time = stream.hang_up().map_err(|error| cannot(&error))?;
            thread::spawn(move || {
                thread::sleep(within);
                by_time.ask(Some(PATIENCE));
            });
        }
        Ok(Self { stream, last })
    }

    /// Takes every line but the last. What is taken may ask for an end too.
    pub(super) fn each(
        mut self,
        mut take: impl FnMut(Line, &End) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let end = End(self.stream.hang_up().map_err(|error| cannot(&error))?);
        loop {
            let line = self.stream.next_line()?;
            if let Line::Ended(why) = line {
                return ended(why);
            }
            take(line, &end)?;
        }
    }
}

/// Asks the agent for an end.
pub(super) struct End(HangUp);

impl End {
    /// What is on its way still comes, and then the last line.
    pub(super) fn ask(&self) {
        self.0.ask(None);
    }
}

fn cannot(error: &dyn std::fmt::Display) -> Failure {
    Failure::system(format!("cannot follow: {error}"), "are there file descriptors and threads left?")
}

fn ended(why: Why) -> Result<(), Failure> {
    match why {
        Why::Asked => Ok(()),
        Why::AgentEnds => Err(Failure::unreachable(
            "the agent ends: there is nothing more to follow",
            "what it put in the kernel stays in force; ask again when it is back",
        )),
        Why::Detached => Err(Failure::unreachable(
            "the firewall was detached: nothing is judged any more",
            "start it again: `systemctl start mpesa-fw`",
        )),
    }
}
