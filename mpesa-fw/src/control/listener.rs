//! The agent's end of the socket in the file system.

use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::{
        fs::{DirBuilderExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use crate::fault::{self, Point};

/// A bound socket. Its file goes when this is dropped.
#[derive(Debug)]
pub struct Listener {
    path: PathBuf,
    pub(super) socket: UnixListener,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum ListenerError {
    /// Somebody answers there.
    #[error("an agent answers on {} already", .0.display())]
    Taken(PathBuf),
    /// The file system refuses.
    #[error("cannot {doing} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl Listener {
    /// Binds `path`, mode 0600. The socket is born in a directory that nobody else can enter and moved into place
    /// when its mode is right, so there is no moment at which others could connect. A stale socket is replaced.
    ///
    /// # Errors
    /// An agent answers there, or the directory can't be written.
    pub fn bind(path: &Path) -> Result<Self, ListenerError> {
        if UnixStream::connect(path).is_ok() {
            return Err(ListenerError::Taken(path.into()));
        }
        let failed = |doing, path: &Path| {
            let path = path.to_owned();
            move |source| ListenerError::Io { doing, path, source }
        };
        let nursery = path.with_extension("new");
        remove_left_over(&nursery);
        DirBuilder::new().mode(0o700).create(&nursery).map_err(failed("create", &nursery))?;
        let born = nursery.join("socket");
        let bound = UnixListener::bind(&born).map_err(failed("bind", &born)).and_then(|socket| {
            fs::set_permissions(&born, Permissions::from_mode(0o600))
                .map_err(failed("set the mode of", &born))?;
            socket.set_nonblocking(true).map_err(failed("use", &born))?;
            fault::passed(Point::SocketBorn);
            fs::rename(&born, path).map_err(failed("create", path))?;
            Ok(socket)
        });
        remove_left_over(&nursery);
        Ok(Self { path: path.into(), socket: bound? })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Nothing to do where it is gone: the next agent replaces it anyhow.
        let _ = fs::remove_file(&self.path);
    }
}

/// What a crash between two steps may have left.
fn remove_left_over(nursery: &Path) {
    let _ = fs::remove_file(nursery.join("socket"));
    let _ = fs::remove_dir(nursery);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_private_and_goes_with_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let listener = Listener::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "the nursery is gone");
        assert!(matches!(Listener::bind(&path), Err(ListenerError::Taken(_))));
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn a_stale_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        Listener::bind(&path).unwrap();
    }
}
