//! The few things that outlive a restart of the agent: answers of DNS, and how reloads went.

use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};

use crate::fault::{self, Point};

/// A file of JSON in the state directory. What can't be read is as good as not there: nothing in it is needed to enforce.
#[derive(Clone, Debug)]
pub(super) struct Store {
    path: PathBuf,
}

impl Store {
    /// The file `name` in `state_dir`.
    #[must_use]
    pub(super) fn new(state_dir: &Path, name: &str) -> Self {
        Self { path: state_dir.join(name) }
    }

    /// Reads it.
    #[must_use]
    pub(super) fn read<T: DeserializeOwned>(&self) -> Option<T> {
        let text = fs::read(&self.path).ok()?;
        match serde_json::from_slice(&text) {
            Ok(value) => Some(value),
            Err(error) => {
                tracing::warn!(file = %self.path.display(), %error, "a file of an earlier agent can't be read and is ignored");
                None
            }
        }
    }

    /// Writes it beside and renames it, so that a crash leaves the old or the new one.
    ///
    /// # Errors
    /// The directory can't be written.
    pub(super) fn write<T: Serialize>(&self, value: &T) -> io::Result<()> {
        replace(&self.path, &serde_json::to_vec(value)?)
    }

    /// As [`write`](Self::write), and it is on the disk before this returns: a machine that loses power comes back with it.
    /// Takes tens of milliseconds.
    ///
    /// # Errors
    /// The directory can't be written.
    pub(super) fn write_durably<T: Serialize>(&self, value: &T) -> io::Result<()> {
        replace_durably(&self.path, &serde_json::to_vec(value)?)
    }

    /// Removes it. One that is not there is removed already.
    ///
    /// # Errors
    /// The directory can't be written.
    pub(super) fn remove(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    /// As [`remove`](Self::remove), and a machine that loses power comes back without it.
    ///
    /// # Errors
    /// The directory can't be written.
    pub(super) fn remove_durably(&self) -> io::Result<()> {
        self.remove()?;
        sync_directory_of(&self.path)
    }
}

/// Writes a file beside and renames it, so that a crash leaves the old or the new one, whole.
///
/// # Errors
/// The directory can't be written.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    put(path, bytes, |_| Ok(()))
}

/// As [`replace`], and it is on the disk before this returns: the words before the name, for a rename may be on the disk alone.
///
/// # Errors
/// The directory can't be written.
pub(super) fn replace_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    put(path, bytes, fs::File::sync_all)?;
    sync_directory_of(path)
}

fn put(path: &Path, bytes: &[u8], written: impl FnOnce(&fs::File) -> io::Result<()>) -> io::Result<()> {
    let beside = path.with_extension("new");
    let written =
        write_new(&beside, bytes).and_then(|file| written(&file)).and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        // Half a file on a full disk helps nobody.
        let _ = fs::remove_file(&beside);
    }
    written
}

fn sync_directory_of(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |directory| fs::File::open(directory)?.sync_all())
}

fn write_new(path: &Path, text: &[u8]) -> io::Result<fs::File> {
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text)?;
    fault::point(Point::StoreWritten)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_garbage_is_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path(), "names.json");
        assert_eq!(store.read::<Vec<u32>>(), None);
        store.write(&vec![1, 2]).unwrap();
        assert_eq!(store.read::<Vec<u32>>(), Some(vec![1, 2]));
        fs::write(dir.path().join("names.json"), "{").unwrap();
        assert_eq!(store.read::<Vec<u32>>(), None);
    }
}
