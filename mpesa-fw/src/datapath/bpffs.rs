//! Finds the bpffs, or mounts one.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nix::{
    mount::{MsFlags, mount},
    sys::{
        statfs::{BPF_FS_MAGIC, statfs},
        statvfs::{FsFlags, statvfs},
    },
};

use super::{DatapathError, ErrorKind, Result, error::Context};

/// Where systems mount it, and where the default path of this program lies.
const USUAL: &str = "/sys/fs/bpf";

/// Makes sure that `path` is a directory on a bpffs. Says where one was mounted: at `/sys/fs/bpf` for a path below it,
/// else at `path` itself.
pub(super) fn prepare(path: &Path) -> Result<Option<PathBuf>> {
    if path.components().any(|part| part.as_os_str().to_string_lossy().contains('.')) {
        return Err(DatapathError::new(
            ErrorKind::Kernel,
            format!("use {} for pins", path.display()),
            "a bpffs takes no names with a dot",
            "give --bpffs an absolute path without dots",
        ));
    }
    if is_bpffs(nearest(path))? {
        expect_writable(path, "use the pins")?;
        make(path)?;
        return Ok(None);
    }
    let usual = Path::new(USUAL);
    let target = if path.starts_with(usual) { usual } else { path };
    if target != usual {
        make(target)?;
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RELATIME;
    mount(Some("bpf"), target, Some("bpf"), flags, Some("mode=0700"))
        .map_err(std::io::Error::from)
        .context(|| format!("mount a bpffs at {}", target.display()))?;
    make(path)?;
    Ok(Some(target.to_owned()))
}

/// Whether `path`, or what it would be made in, is on a bpffs that can be written.
pub(super) fn is_ready(path: &Path) -> Result<bool> {
    if !is_bpffs(nearest(path))? {
        return Ok(false);
    }
    expect_writable(path, "use the pins").map(|()| true)
}

/// Whether a directory is on a bpffs.
pub(super) fn is_bpffs(path: &Path) -> Result<bool> {
    let answer = statfs(path)
        .map_err(std::io::Error::from)
        .context(|| format!("ask for the file system of {}", path.display()))?;
    Ok(answer.filesystem_type() == BPF_FS_MAGIC)
}

/// Fails where nothing can be pinned. Not even a pinned link or map can be opened there.
pub(super) fn expect_writable(path: &Path, doing: &str) -> Result<()> {
    let answer = statvfs(nearest(path))
        .map_err(std::io::Error::from)
        .context(|| format!("ask for the mount of {}", path.display()))?;
    if !answer.flags().contains(FsFlags::ST_RDONLY) {
        return Ok(());
    }
    Err(DatapathError::new(
        ErrorKind::Kernel,
        doing,
        format!("the bpffs of {} is mounted read-only; nothing has changed", path.display()),
        "make it writable: `mount -o remount,rw` on its mount point",
    ))
}

/// The path or its nearest ancestor that is there.
fn nearest(path: &Path) -> &Path {
    path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"))
}

fn make(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .context(|| format!("make the directory {}", path.display()))
}
