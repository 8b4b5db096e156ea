//! Lists that the kernel sends over rtnetlink in several messages (dumps), told apart from what only looks like a whole one.

use std::io;

use futures_util::StreamExt;
use netlink_packet_core::{NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::{Handle, packet_route::RouteNetlinkMessage};
use tokio::task::JoinHandle;

/// Why a list is not known.
#[derive(Debug, thiserror::Error)]
pub(super) enum DumpError {
    /// Something changed while it was read, so that entries may be in it twice or not at all; or its end got lost.
    #[error("it changes while it is read")]
    Interrupted,
    /// The kernel says no.
    #[error(transparent)]
    Refused(#[from] io::Error),
    /// The question could not be asked.
    #[error(transparent)]
    Netlink(#[from] rtnetlink::Error),
}

/// A netlink socket for questions that are answered with a list.
///
/// [`rtnetlink`]'s own requests end with whatever message comes last: a list that the kernel marks as interrupted, or the end
/// of which is lost with the socket, is shorter there and nobody is told.
pub(super) struct Dumps {
    handle: Handle,
    driver: JoinHandle<()>,
}

impl Drop for Dumps {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Dumps {
    /// Opens the socket in the network namespace of this process.
    ///
    /// # Errors
    /// The kernel refuses the socket.
    pub(super) fn open() -> io::Result<Self> {
        let (mut connection, handle, _) = rtnetlink::new_connection()?;
        connection.set_forward_done(true);
        Ok(Self { handle, driver: tokio::spawn(connection) })
    }

    /// Asks, and gives each entry to `take`. What it has taken is worth nothing if this fails.
    ///
    /// # Errors
    /// The list is not whole, or the kernel refuses the question.
    pub(super) async fn each(
        &self,
        question: RouteNetlinkMessage,
        mut take: impl FnMut(RouteNetlinkMessage),
    ) -> Result<(), DumpError> {
        let mut message = NetlinkMessage::from(question);
        message.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        let mut answers = self.handle.clone().request(message)?;
        while let Some(answer) = answers.next().await {
            match read(answer)? {
                Some(entry) => take(entry),
                None => return Ok(()),
            }
        }
        Err(DumpError::Interrupted)
    }
}

/// An entry, or the end.
fn read(message: NetlinkMessage<RouteNetlinkMessage>) -> Result<Option<RouteNetlinkMessage>, DumpError> {
    if message.header.flags & NLM_F_DUMP_INTR != 0 {
        return Err(DumpError::Interrupted);
    }
    match message.payload {
        NetlinkPayload::InnerMessage(entry) => Ok(Some(entry)),
        // The end carries an error where the list could not be finished.
        NetlinkPayload::Done(done) if done.code < 0 => Err(io::Error::from_raw_os_error(-done.code).into()),
        NetlinkPayload::Done(_) => Ok(None),
        NetlinkPayload::Error(error) => Err(error.to_io().into()),
        // And what netlink may gain.
        NetlinkPayload::Noop | NetlinkPayload::Overrun(_) | _ => Err(DumpError::Interrupted),
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{DoneMessage, NLM_F_MULTIPART};
    use rtnetlink::packet_route::link::LinkMessage;

    use super::*;

    fn message(
        flags: u16,
        payload: NetlinkPayload<RouteNetlinkMessage>,
    ) -> NetlinkMessage<RouteNetlinkMessage> {
        let mut message = NetlinkMessage::new(Default::default(), payload);
        message.header.flags = NLM_F_MULTIPART | flags;
        message
    }

    fn done(code: i32) -> NetlinkPayload<RouteNetlinkMessage> {
        let mut done = DoneMessage::default();
        done.code = code;
        NetlinkPayload::Done(done)
    }

    #[test]
    fn only_what_the_kernel_calls_whole_is_whole() {
        let link = || NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(LinkMessage::default()));
        assert!(matches!(read(message(0, link())), Ok(Some(_))));
        assert!(matches!(read(message(0, done(0))), Ok(None)));
        let interrupted = |message| matches!(read(message), Err(DumpError::Interrupted));
        assert!(interrupted(message(NLM_F_DUMP_INTR, link())));
        assert!(
            interrupted(message(NLM_F_DUMP_INTR, done(0))),
            "the last of the changes is told with the end"
        );
        assert!(interrupted(message(0, NetlinkPayload::Overrun(Vec::new()))));
        assert!(matches!(read(message(0, done(-12))), Err(DumpError::Refused(_))), "no memory for the rest");
    }
}
