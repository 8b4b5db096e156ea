//! `mpesa-fw capture`

use std::{
    fs::File,
    io::{self, IsTerminal as _, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::Duration,
};

use super::{arguments::CaptureArguments, failure::Failure, follow::Follow, pcapng::Capture};
use crate::{
    agent::{Depth, Options},
    control::{Client, Line, Request},
};

/// Writes packets as they are dropped.
pub(super) fn capture(runtime_dir: &Path, arguments: CaptureArguments) -> Result<(), Failure> {
    let CaptureArguments { write, payload, snaplen, count, seconds, wanted } = arguments;
    if write == Path::new("-") && io::stdout().is_terminal() {
        return Err(Failure::usage("a capture is no text: `-w -` is for a pipe, as to `wireshark -k -i -`"));
    }
    let client = Client::new(&Options::control_socket(runtime_dir));
    let frames = Some(Depth { payload, snaplen });
    let request = Request::Follow { last: 0, wanted: Some(wanted.into()), frames };
    // The agent first: where it says no, the file stays as it is.
    let follow = Follow::begin(&client, request, seconds.map(Duration::from_secs))?;
    let mut capture = Capture::begin(open(&write)?, snaplen)?;
    let ended = follow.each(|line, end| {
        match line {
            Line::Packet { event, frame } if count.is_none_or(|count| capture.packets() < count) => {
                capture.packet(&event, &bytes(&frame)?)?;
                if count.is_some_and(|count| capture.packets() == count) {
                    end.ask();
                }
            }
            Line::Missed(packets) | Line::Suppressed(packets) => capture.left_out(packets),
            Line::Packet { .. } | Line::Event(_) | Line::Ended(_) => {}
        }
        Ok(())
    });
    // Also where the agent ended meanwhile: what was written is whole.
    let said = capture.end();
    ended?;
    eprintln!("{}", said?);
    Ok(())
}

/// Nobody else may read it: it shows who talks to this host.
fn open(path: &Path) -> Result<Box<dyn Write>, Failure> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdout().lock()));
    }
    let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path);
    let file = file.map_err(|error| {
        Failure::system(
            format!("cannot write {}: {error}", path.display()),
            "choose another file with -w, in a directory that you may write",
        )
    })?;
    Ok(Box::new(io::BufWriter::new(file)))
}

fn bytes(hex: &str) -> Result<Vec<u8>, Failure> {
    let nonsense = || Failure::internal("the agent sent a frame that is none");
    let digits = hex.as_bytes().chunks(2).map(|two| str::from_utf8(two).ok());
    digits.map(|two| two.and_then(|two| u8::from_str_radix(two, 16).ok()).ok_or_else(nonsense)).collect()
}
