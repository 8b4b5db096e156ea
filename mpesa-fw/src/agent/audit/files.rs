//! The files of the book, one a day, and what becomes of one that can't be read.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, de::DeserializeOwned};

use super::book::VERSION;
use crate::agent::clock;

/// Every day's file, oldest first.
pub(super) fn files(directory: &Path) -> Vec<(String, PathBuf)> {
    let mut all = all_files(directory);
    all.retain(|(_, path)| path.extension().is_some_and(|kind| kind == "json"));
    all
}

/// Those that were set aside too.
pub(super) fn all_files(directory: &Path) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut all: Vec<_> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let (day, kind) = name.split_once('.')?;
            let is_day = day.len() == 10 && day.bytes().all(|octet| octet.is_ascii_digit() || octet == b'-');
            (is_day && (kind == "json" || kind.ends_with(ASIDE))).then(|| (day.to_owned(), entry.path()))
        })
        .collect();
    all.sort();
    all
}

const ASIDE: &str = "unreadable";

/// Reads a file; one that is no whole file is set aside, and nobody waits for it.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    match parse::<T>(path) {
        Ok(value) => Some(value),
        Err(error) => {
            let aside = path.with_extension(format!("{}.{ASIDE}", clock::unix()));
            let moved = fs::rename(path, &aside);
            tracing::error!(
                file = %path.display(), %error, aside = %aside.display(), ?moved,
                "a day of the egress audit can't be read: it is set aside, and its connections are missing in the audit"
            );
            None
        }
    }
}

pub(super) fn parse<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let text = fs::read(path)?;
    let Version { version } = serde_json::from_slice(&text)?;
    if version != VERSION {
        return Err(io::Error::other(format!("it is of version {version}, not {VERSION}")));
    }
    Ok(serde_json::from_slice(&text)?)
}
