//! `mpesa-fw capture`

use std::{
    fs::{File, Permissions},
    io::{self, IsTerminal as _, Write},
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
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
    let file = private(path).map_err(|error| {
        Failure::system(
            format!("cannot write {}: {error}", path.display()),
            "choose another file with -w, in a directory that you may write (`-` is standard output)",
        )
    })?;
    Ok(Box::new(io::BufWriter::new(file)))
}

/// Opens a file that is empty then; one that was there loses what others may do with it. (A pipe or a device is as it is.) A
/// symbolic link is refused: in a directory of somebody else it may lead to any file of root's.
fn private(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let file = options.open(path).map_err(|error| match error.raw_os_error() {
        Some(libc::ELOOP) => io::Error::other("it is a symbolic link, which could lead anywhere"),
        _ => error,
    })?;
    let metadata = file.metadata()?;
    let is_of_somebody = metadata.is_file() || metadata.file_type().is_fifo();
    if is_of_somebody && metadata.uid() != nix::unistd::geteuid().as_raw() {
        return Err(io::Error::other(format!("it belongs to user {}, who could read it", metadata.uid())));
    }
    if metadata.is_file() {
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.set_len(0)?;
    }
    Ok(file)
}

fn bytes(hex: &str) -> Result<Vec<u8>, Failure> {
    let nonsense = || Failure::internal("the agent sent a frame that is none");
    let digits = hex.as_bytes().chunks(2).map(|two| str::from_utf8(two).ok());
    digits.map(|two| two.and_then(|two| u8::from_str_radix(two, 16).ok()).ok_or_else(nonsense)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capture_is_for_nobody_else_whatever_was_there() -> io::Result<()> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("drops.pcapng");
        std::fs::write(&path, "of before")?;
        std::fs::set_permissions(&path, Permissions::from_mode(0o644))?;
        drop(private(&path)?);
        let metadata = std::fs::metadata(&path)?;
        assert_eq!((metadata.mode() & 0o777, metadata.len()), (0o600, 0));
        if nix::unistd::geteuid().is_root() {
            std::fs::write(&path, "of another")?;
            std::os::unix::fs::chown(&path, Some(4711), None)?;
            let refused = private(&path).map(drop).map_err(|error| error.to_string());
            assert_eq!(refused, Err("it belongs to user 4711, who could read it".to_owned()));
            assert_eq!(std::fs::read_to_string(&path)?, "of another");
        }
        let link = directory.path().join("link");
        let target = directory.path().join("rules.yaml");
        std::fs::write(&target, "rules")?;
        std::fs::set_permissions(&target, Permissions::from_mode(0o640))?;
        std::os::unix::fs::symlink(&target, &link)?;
        let refused = private(&link).map(drop).map_err(|error| error.to_string());
        assert_eq!(refused, Err("it is a symbolic link, which could lead anywhere".to_owned()));
        assert_eq!(
            (std::fs::read_to_string(&target)?, std::fs::metadata(&target)?.mode() & 0o777),
            ("rules".into(), 0o640)
        );
        let pipe = directory.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o600))?;
        let _reader = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&pipe)?;
        assert!(private(&pipe).is_ok());
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::chown(&pipe, Some(4711), None)?;
            assert!(private(&pipe).is_err());
        }
        assert!(private(Path::new("/dev/null")).is_ok());
        Ok(())
    }
}
