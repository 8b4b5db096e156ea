//! Reads the files of a policy, and refuses those that somebody else could have written; or takes the
//! [texts](Texts) that were kept of it.
//!
//! The rules are checked on the file that was opened, not on a name that could mean another file a moment
//! later. `openat2` with `RESOLVE_BENEATH` (Linux 5.6) resolves the name: no symlink leads out of the directory.

use std::{
    fs::{File, Metadata, OpenOptions},
    io::{self, Read},
    os::{
        fd::AsFd,
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2},
    sys::stat::Mode,
};
use sha2::{Digest, Sha256};

use super::{
    names::Complaint,
    texts::{Text, Texts},
};
use crate::{printable::Printable, sys};

/// Whether files must belong to those who may write rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permissions {
    /// Neither group nor others may write a file, and it belongs to root or to this process's user.
    Check,
    /// Owner and mode are not looked at: for a checkout, where they mean nothing. Symlinks are, for they are
    /// part of what was checked out.
    Ignore,
}

/// Largest YAML file.
pub(super) const YAML_BYTES: u64 = 1 << 20;
/// Largest set file: four million lines.
pub(super) const SET_FILE_BYTES: u64 = 64 << 20;

/// Where files are read.
pub(super) enum Origin<'t> {
    /// The file system.
    Files(Permissions),
    /// What was kept of them.
    Kept(&'t Texts),
}

/// Files read so far.
pub(super) struct Sources<'t> {
    origin: Origin<'t>,
    digest: Sha256,
    files: Vec<Source>,
    texts: Texts,
    /// One of them was being changed.
    saw_change: bool,
}

/// What was read, when all of it was.
pub(super) struct Whole {
    /// SHA-256 over (length as u64 little-endian, contents) of each file.
    pub(super) digest: [u8; 32],
    /// The files.
    pub(super) texts: Texts,
}

/// A file as it was when it was read.
struct Source {
    named: Named,
    state: FileState,
}

/// What is different after any change of a file: another file under its name, other contents, another owner or mode.
#[derive(Clone, Copy, PartialEq, Eq)]
struct FileState {
    file: (u64, u64),
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileState {
    fn of(metadata: &Metadata) -> Self {
        Self {
            file: (metadata.dev(), metadata.ino()),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl<'t> Sources<'t> {
    /// None yet.
    pub(super) fn new(origin: Origin<'t>) -> Self {
        Self { origin, digest: Sha256::new(), files: Vec::new(), texts: Texts::default(), saw_change: false }
    }

    /// The contents of a file of at most `limit` bytes.
    pub(super) fn read(&mut self, named: &Named, limit: u64) -> Result<Arc<Vec<u8>>, Complaint> {
        let bytes = match self.origin {
            Origin::Files(permissions) => Arc::new(self.read_file(named, limit, permissions)?),
            Origin::Kept(texts) => Arc::clone(texts.get(&named.path()).ok_or_else(|| not_kept(named))?),
        };
        self.digest.update((bytes.len() as u64).to_le_bytes());
        self.digest.update(&*bytes);
        self.texts.0.push(Text { path: named.path(), bytes: Arc::clone(&bytes) });
        Ok(bytes)
    }

    fn read_file(
        &mut self,
        named: &Named,
        limit: u64,
        permissions: Permissions,
    ) -> Result<Vec<u8>, Complaint> {
        let shown = named.shown();
        let file = open(named).map_err(|error| refusal(&shown, error))?;
        let metadata = file.metadata().map_err(|error| refusal(&shown, error.into()))?;
        check(&metadata, permissions, &shown)?;
        let too_large = || {
            let message = format!("`{shown}` is larger than {} MiB", limit >> 20);
            let hint = if limit == YAML_BYTES {
                "put long lists of addresses into a file of their own: `partners: { file: partners.netset }`"
            } else {
                "no set needs this many prefixes: aggregate them"
            };
            (message, hint.to_owned())
        };
        if metadata.len() > limit {
            return Err(too_large());
        }
        let state = FileState::of(&metadata);
        let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0) + 1);
        (&file).take(limit + 1).read_to_end(&mut bytes).map_err(|error| refusal(&shown, error.into()))?;
        let after = file.metadata().map_err(|error| refusal(&shown, error.into()))?;
        let has_changed = FileState::of(&after) != state || bytes.len() as u64 != state.length;
        // A slow writer (a download) leaves no trace between two of its writes, but it has the file open.
        if has_changed || sys::is_open_for_writing(file.as_fd()) {
            self.saw_change = true;
            return Err(being_written(&shown));
        }
        self.files.push(Source { named: named.clone(), state });
        Ok(bytes)
    }

    /// Whether a file could not be read because it was being changed.
    pub(super) const fn saw_change(&self) -> bool {
        self.saw_change
    }

    /// What was read.
    ///
    /// # Errors
    /// One of them is not what was read any more: what was read may be half of the old policy and half of the new one.
    pub(super) fn finish(self) -> Result<Whole, Complaint> {
        for Source { named, state } in &self.files {
            let now = open(named).and_then(|file| Ok(FileState::of(&file.metadata()?)));
            if !now.is_ok_and(|now| now == *state) {
                return Err(being_written(&named.shown()));
            }
        }
        Ok(Whole { digest: self.digest.finalize().into(), texts: self.texts })
    }
}

fn check(metadata: &Metadata, permissions: Permissions, shown: &str) -> Result<(), Complaint> {
    if !metadata.is_file() {
        let kind = if metadata.is_dir() { "a directory" } else { "not a regular file" };
        return Err((format!("`{shown}` is {kind}"), "name a file".to_owned()));
    }
    match permissions {
        Permissions::Ignore => Ok(()),
        Permissions::Check => check_permissions(metadata.uid(), metadata.mode(), shown),
    }
}

fn not_kept(named: &Named) -> Complaint {
    (
        format!("what `{}` said is not kept", named.shown()),
        "go back to another generation: `mpesa-fw rollback --list` shows them".to_owned(),
    )
}

fn being_written(shown: &str) -> Complaint {
    (
        format!("`{shown}` is being changed"),
        "try again when it is complete; writing beside it and renaming (`mv`) changes it at once".to_owned(),
    )
}

fn check_permissions(owner: u32, mode: u32, shown: &str) -> Result<(), Complaint> {
    let own = nix::unistd::geteuid().as_raw();
    if owner != 0 && owner != own {
        let user = if own == 0 { "root".to_owned() } else { format!("root or user {own}") };
        return Err((
            format!("`{shown}` belongs to user {owner}, who could change what the firewall does"),
            format!("it must belong to {user}: `chown root {shown}`"),
        ));
    }
    if mode & 0o022 != 0 {
        let who = match (mode & 0o020 != 0, mode & 0o002 != 0) {
            (true, true) => "its group and everybody else",
            (true, false) => "its group",
            (false, _) => "everybody",
        };
        return Err((
            format!("`{shown}` may be written by {who} (mode {:04o})", mode & 0o7777),
            format!("`chmod 0640 {shown}`; a checkout can be checked with --ignore-permissions"),
        ));
    }
    Ok(())
}

enum Refused {
    /// A symlink leads out of the directory.
    Escapes,
    Io(io::Error),
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn refusal(shown: &str, refused: Refused) -> Complaint {
    match refused {
        Refused::Escapes => (
            format!("`{shown}` is a symlink that leaves its directory"),
            "who may write there could change what the firewall does: copy the file here".to_owned(),
        ),
        Refused::Io(error) => {
            let hint = if error.kind() == io::ErrorKind::NotFound {
                "look at the spelling; names are relative to the file that names them"
            } else if error.kind() == io::ErrorKind::PermissionDenied {
                "run this as root, or as the user that the file belongs to"
            } else {
                "see whether the file can be read at all, for example with `cat`"
            };
            (format!("can't read `{shown}`: {}", reason(&error)), hint.to_owned())
        }
    }
}

fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(code) => Errno::from_raw(code).desc().to_owned(),
        None => error.to_string(),
    }
}

/// A file as the policy names it: what is below `directory` may hold symlinks only to what is below it too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    directory: PathBuf,
    below: PathBuf,
}

impl Named {
    /// A file that the user names: its directory is the one it is in.
    pub(super) fn by_user(path: &Path) -> Self {
        let below = path.file_name().map_or_else(|| PathBuf::from("."), PathBuf::from);
        let directory = match path.file_name() {
            Some(_) => path.parent().unwrap_or(Path::new("")).to_owned(),
            None => path.to_owned(),
        };
        Self { directory, below }
    }

    /// A file that a file of the policy names, relative to that file. Steps up (`../`) are taken first, as
    /// written; the directory is where they lead.
    pub(super) fn by_file(by: &Path, name: &str) -> Self {
        let name = Path::new(name);
        if name.is_absolute() {
            return Self::by_user(name);
        }
        let mut directory = by.parent().unwrap_or(Path::new("")).to_owned();
        let mut rest = name.components().filter(|part| *part != Component::CurDir).peekable();
        while rest.next_if_eq(&Component::ParentDir).is_some() {
            directory.push("..");
        }
        Self { directory, below: rest.collect() }
    }

    /// As messages show it.
    fn shown(&self) -> String {
        Printable(&self.path().to_string_lossy()).to_string()
    }

    /// Its path.
    pub(super) fn path(&self) -> PathBuf {
        self.directory.join(&self.below)
    }
}

fn open(named: &Named) -> Result<File, Refused> {
    let directory = match named.directory.as_os_str().is_empty() {
        true => Path::new("."),
        false => &named.directory,
    };
    let handle = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(directory)?;
    match open_beneath(&handle, &named.below) {
        // Absolute symlinks are refused even where they lead back below the directory.
        Err(Errno::EXDEV) => {
            let target = directory.join(&named.below).canonicalize()?;
            let below = target.strip_prefix(directory.canonicalize()?).map_err(|_| Refused::Escapes)?;
            open_beneath(&handle, below)
        }
        other => other,
    }
    .map_err(|error| if error == Errno::EXDEV { Refused::Escapes } else { Refused::Io(error.into()) })
}

fn open_beneath(directory: &File, below: &Path) -> Result<File, Errno> {
    // O_NONBLOCK: a FIFO must not hang the reader; it is refused as soon as it is open.
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    match openat2(directory, below, OpenHow::new().flags(flags).resolve(resolve)) {
        // Before Linux 5.6, or kept from us by a container's seccomp rules.
        Err(Errno::ENOSYS | Errno::EPERM) => open_without_symlinks(directory, below, flags),
        opened => opened.map(File::from),
    }
}

/// Step by step, no symlink followed.
fn open_without_symlinks(directory: &File, below: &Path, flags: OFlag) -> Result<File, Errno> {
    let steps: Vec<_> = below.components().collect();
    let Some((last, before)) = steps.split_last() else {
        return Err(Errno::EISDIR);
    };
    let mut at = directory.try_clone().map_err(|_| Errno::EMFILE)?;
    for step in before {
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        at = openat(&at, step.as_os_str(), flags, Mode::empty()).map(File::from)?;
    }
    openat(&at, last.as_os_str(), flags | OFlag::O_NOFOLLOW, Mode::empty()).map(File::from)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// What happens where `openat2` is missing or forbidden.
    #[test]
    fn without_openat2_no_symlink_is_followed() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(directory.path().join("sub")).expect("a directory");
        std::fs::write(directory.path().join("sub/file"), "x").expect("a file");
        symlink("sub/file", directory.path().join("file-link")).expect("a symlink");
        symlink("sub", directory.path().join("sub-link")).expect("a symlink");
        let handle = File::open(directory.path()).expect("the directory");
        let open = |below: &str| open_without_symlinks(&handle, Path::new(below), OFlag::O_RDONLY).map(drop);
        assert_eq!(open("sub/file"), Ok(()));
        assert_eq!(open("file-link"), Err(Errno::ELOOP));
        assert_eq!(open("sub-link/file"), Err(Errno::ENOTDIR));
        assert_eq!(open("missing"), Err(Errno::ENOENT));
    }

    #[test]
    fn names_are_taken_apart() {
        let by = |name| Named::by_file(Path::new("rules/environments/production.yaml"), name);
        let named = |directory: &str, below: &str| Named { directory: directory.into(), below: below.into() };
        assert_eq!(by("sets.yaml"), named("rules/environments", "sets.yaml"));
        assert_eq!(by("./sub/sets.yaml"), named("rules/environments", "sub/sets.yaml"));
        assert_eq!(by("../sets.yaml"), named("rules/environments/..", "sets.yaml"));
        assert_eq!(by("sub/../../sets.yaml"), named("rules/environments", "sub/../../sets.yaml"));
        assert_eq!(by("/var/lib/feed"), named("/var/lib", "feed"));
        assert_eq!(Named::by_user(Path::new("rules.yaml")), named("", "rules.yaml"));
    }
}
