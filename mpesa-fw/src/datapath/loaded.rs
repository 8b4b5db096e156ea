//! What is known of a generation that this process has loaded.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use aya::Ebpf;

use super::{
    DatapathError, ErrorKind, Result,
    error::Context,
    generation::program,
    object::CONSTANTS,
    owners::PresentOwners,
    pins::PROGRAMS,
    shape::{data_of, is_shared},
    tables,
};
use crate::sys::{self, ProgramInfo};

/// What the programs of a generation read, and what the kernel says of them. The maps are held for as long as this is.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) maps: Vec<(String, OwnedFd)>,
    pub(super) constants: Vec<u8>,
    pub(super) programs: Vec<(&'static str, ProgramInfo)>,
    /// The owners that the agent wrote last. None: nothing yet, or it is not known.
    pub(super) owners: Option<PresentOwners>,
}

impl Loaded {
    pub(super) fn of(ebpf: &Ebpf) -> Result<Self> {
        let mut loaded = Self::default();
        for (name, map) in ebpf.maps().filter(|(name, _)| is_shared(name)) {
            let Some(data) = data_of(map) else { continue };
            let fd = data.fd().as_fd().try_clone_to_owned();
            loaded.maps.push((name.to_owned(), fd.context(|| format!("keep the map {name}"))?));
        }
        loaded.constants = constants(ebpf)?;
        for name in PROGRAMS {
            let info = sys::program_info(program(ebpf, name)?);
            loaded.programs.push((name, info.context(|| format!("look at the program {name}"))?));
        }
        Ok(loaded)
    }

    /// One of the maps.
    pub(super) fn map(&self, name: &str) -> Option<BorrowedFd<'_>> {
        self.maps.iter().find(|(known, _)| known == name).map(|(_, fd)| fd.as_fd())
    }

    /// Fails where a hook runs a program that this generation does not have.
    pub(super) fn expect_hooked(&self, hooked: &[u32]) -> Result<()> {
        let is_ours = |id: &u32| self.programs.iter().any(|(_, info)| info.id == *id);
        match hooked.iter().find(|id| !is_ours(id)) {
            None => Ok(()),
            Some(id) => Err(DatapathError::new(
                ErrorKind::Kernel,
                "load a twin of the programs in force",
                format!("a hook runs the program {id}, which is of another generation"),
                "`mpesa-fw status` shows the hooks; `mpesa-fw reload` swaps all of them",
            )),
        }
    }
}

/// The constants, as the kernel has them.
pub(super) fn constants(ebpf: &Ebpf) -> Result<Vec<u8>> {
    sys::first_value(tables::array(ebpf, CONSTANTS)?).context(|| "read the constants of the programs")
}
