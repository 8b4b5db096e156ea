//! Which policy is to be in force: what a file says, or what was kept of an earlier generation.

use std::path::PathBuf;

use super::{
    archive::{Archive, KeptGeneration},
    error::AgentError,
};
use crate::policy::{self, Loaded, Permissions};

/// A policy, by where it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// From a file and what that names.
    File(PathBuf),
    /// From the text that was kept of a generation.
    Kept(Box<KeptGeneration>),
}

impl Origin {
    /// The rules file, or the one that it was.
    #[must_use]
    pub(super) fn rules(&self) -> &PathBuf {
        match self {
            Self::File(rules) => rules,
            Self::Kept(kept) => &kept.rules,
        }
    }

    /// The generation whose text it is.
    #[must_use]
    pub(super) fn text_of(&self) -> Option<u32> {
        match self {
            Self::File(_) => None,
            Self::Kept(kept) => Some(kept.number),
        }
    }

    /// Reads it.
    ///
    /// # Errors
    /// The policy is not valid, or its text is not kept any more.
    pub(super) fn load(&self, archive: &Archive) -> Result<Loaded, AgentError> {
        match self {
            Self::File(rules) => policy::load(rules, Permissions::Check).map_err(AgentError::Policy),
            Self::Kept(kept) => {
                let texts = archive
                    .texts(kept)
                    .map_err(|why| AgentError::NotKept { number: kept.number, why: why.to_string() })?;
                policy::load_kept(&kept.rules, &texts).map_err(AgentError::Policy)
            }
        }
    }
}
