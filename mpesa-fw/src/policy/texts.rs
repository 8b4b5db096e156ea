//! The files of a policy as they were read, so that it can be read again when they say something else.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// Under what name it was read.
    pub path: PathBuf,
    /// What it said.
    pub bytes: Arc<Vec<u8>>,
}

/// All files of one policy, in the order of reading: the rules file is the first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts(pub Vec<Text>);

impl Texts {
    /// What the file of this name said.
    #[must_use]
    pub fn get(&self, path: &Path) -> Option<&Arc<Vec<u8>>> {
        self.0.iter().find(|text| text.path == path).map(|text| &text.bytes)
    }
}
