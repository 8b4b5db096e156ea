//! Questions by netlink that are answered with a list, each entry as the kernel sent it: whoever reads one that he can't read says so,
//! where a stream of parsed messages leaves it out.

use std::io;

use netlink_sys::{Socket, SocketAddr};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_REQUEST_DUMP: u16 = 0x301;
const HEADER: usize = 16;
const ATTRIBUTE_HEADER: usize = 4;
/// Flags in the type of an attribute: nested, byte order.
const TYPE_MASK: u16 = 0x3fff;
/// What changes while it is read is asked for again, so often.
const TRIES: usize = 3;

/// Asks for all entries, in the network namespace of this thread. More than `limit` are an error.
///
/// # Errors
/// The kernel does not answer, or its list changed each time that it was read.
pub(crate) fn ask(protocol: isize, kind: u16, question: &[u8], limit: usize) -> io::Result<Vec<Vec<u8>>> {
    for _ in 0..TRIES {
        match ask_once(protocol, kind, question, limit) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            answer => return answer,
        }
    }
    Err(io::Error::other("it changes while it is read"))
}

/// [`Interrupted`](io::ErrorKind::Interrupted): something changed meanwhile, and may be listed twice or not at all.
fn ask_once(protocol: isize, kind: u16, question: &[u8], limit: usize) -> io::Result<Vec<Vec<u8>>> {
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut message = vec![0u8; HEADER];
    message[0..4].copy_from_slice(&((HEADER + question.len()) as u32).to_ne_bytes());
    message[4..6].copy_from_slice(&kind.to_ne_bytes());
    message[6..8].copy_from_slice(&NLM_F_REQUEST_DUMP.to_ne_bytes());
    message.extend_from_slice(question);
    socket.send(&message, 0)?;
    let mut entries = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = socket.recv(&mut &mut buffer[..], 0)?;
        let mut rest = &buffer[..length];
        while let Some(header) = rest.first_chunk::<HEADER>() {
            let size = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
            let kind = u16::from_ne_bytes([header[4], header[5]]);
            let flags = u16::from_ne_bytes([header[6], header[7]]);
            let body = rest.get(HEADER..size).ok_or_else(|| io::Error::other("a message is cut short"))?;
            if flags & NLM_F_DUMP_INTR != 0 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            // The end carries an error too, where the list could not be finished.
            let code = body.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
            match kind {
                NLMSG_DONE | NLMSG_ERROR if code < 0 => return Err(io::Error::from_raw_os_error(-code)),
                NLMSG_DONE | NLMSG_ERROR => return Ok(entries),
                _ if entries.len() == limit => {
                    return Err(io::Error::other(format!("there are more than {limit}")));
                }
                _ => entries.push(body.to_vec()),
            }
            rest = rest.get(size.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

/// The attributes of an entry: type and value. What is cut short ends them.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header = bytes.first_chunk::<ATTRIBUTE_HEADER>()?;
        let size = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & TYPE_MASK;
        let value = bytes.get(ATTRIBUTE_HEADER..size)?;
        bytes = bytes.get(size.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_one_after_another() {
        let bytes = [5, 0, 3, 0, b'x', 0, 0, 0, 4, 0, 4, 0x80, 9, 0, 7, 0, 1];
        let all: Vec<_> = attributes(&bytes).collect();
        assert_eq!(all, [(3, &b"x"[..]), (4, &[][..])], "the last one is cut short");
    }
}
