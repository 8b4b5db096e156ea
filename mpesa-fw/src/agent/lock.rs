//! One agent a runtime directory and one a bpffs directory.
//!
//! The lock is `flock` on the directory itself: it needs no file, works on bpffs, and ends with the process
//! however that ends.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

use crate::printable::Printable;

/// Held until dropped.
#[derive(Debug)]
pub struct Lock {
    _held: Flock<File>,
}

/// Why a directory could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another agent has it.
    #[error("{} is in use by another agent ({holder})", .path.display())]
    Held {
        /// The directory.
        path: PathBuf,
        /// Who has it, as far as the kernel tells.
        holder: String,
        /// Its process.
        pid: Option<i32>,
    },
    /// The directory can't be opened or locked.
    #[error("cannot lock {}", .path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Lock {
    /// Locks a directory that exists.
    ///
    /// # Errors
    /// Another process has it, or it can't be opened.
    pub fn directory(path: &Path) -> Result<Self, LockError> {
        let file = File::open(path).map_err(|source| LockError::Io { path: path.into(), source })?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(held) => Ok(Self { _held: held }),
            Err((_, Errno::EWOULDBLOCK)) => {
                let pid = holder(path);
                Err(LockError::Held { path: path.into(), holder: described(pid), pid })
            }
            Err((_, errno)) => Err(LockError::Io { path: path.into(), source: errno.into() }),
        }
    }
}

/// The process that holds a lock on `path`.
fn holder(path: &Path) -> Option<i32> {
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let metadata = fs::metadata(path).ok()?;
    let place = |device: u64| (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    pid_of(&locks, place(metadata.dev()), metadata.ino())
}

fn described(pid: Option<i32>) -> String {
    let Some(pid) = pid else { return "its process is not visible from here".to_owned() };
    let command = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    format!("process {pid}, {}", Printable(command.trim()))
}

/// A line of `/proc/locks` is `1: FLOCK  ADVISORY  WRITE 707 00:1b:1234 0 EOF`, the device in hexadecimal. Some file systems report
/// another device here than `stat` does: then the inode alone tells, unless several have it, of which one may be anybody's.
fn pid_of(locks: &str, device: (u64, u64), inode: u64) -> Option<i32> {
    let of_inode: Vec<((u64, u64), i32)> = locks
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace().skip_while(|w| *w != "FLOCK").skip(3);
            let pid = words.next()?.parse().ok()?;
            let mut place = words.next()?.split(':');
            let mut number = || u64::from_str_radix(place.next()?, 16).ok();
            let device = (number()?, number()?);
            (place.next()?.parse() == Ok(inode)).then_some((device, pid))
        })
        .collect();
    let exact = of_inode.iter().find(|(there, _)| *there == device);
    match (exact, of_inode.as_slice()) {
        (Some((_, pid)), _) | (None, [(_, pid)]) => Some(*pid),
        (None, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_is_refused_and_names_the_holder() {
        let dir = tempfile::tempdir().unwrap();
        let first = Lock::directory(dir.path()).unwrap();
        let refused = Lock::directory(dir.path()).unwrap_err().to_string();
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        drop(first);
        Lock::directory(dir.path()).unwrap();
    }

    #[test]
    fn a_directory_that_is_missing_is_named() {
        let error = Lock::directory(Path::new("/nowhere/at/all")).unwrap_err();
        assert!(error.to_string().contains("/nowhere/at/all"));
    }

    #[test]
    fn the_holder_is_found_by_inode() {
        let locks =
            "1: POSIX  ADVISORY  READ 11 00:1b:77 0 EOF\n2: FLOCK  ADVISORY  WRITE 4242 00:1b:77 0 EOF\n";
        assert_eq!(pid_of(locks, (0, 0x1b), 77), Some(4242));
        assert_eq!(pid_of(locks, (0, 0x2a), 77), Some(4242), "a file system that says another device here");
        assert_eq!(pid_of(locks, (0, 0x1b), 78), None);
        let another = format!("1: FLOCK  ADVISORY  WRITE 666 00:2b:77 0 EOF\n{locks}");
        assert_eq!(pid_of(&another, (0, 0x1b), 77), Some(4242), "somebody else's file of that number");
        assert_eq!(pid_of(&another, (8, 1), 77), None, "nobody is taken for it who may not be");
    }
}
