//! The last generations with the text of their policies, so that any of them can come back whatever the files say now.
//!
//! `<state-dir>/generations/<number>.json` says what a generation was, `<state-dir>/texts/<SHA-256>` holds the contents
//! of its files; generations that share a file share its text.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use super::{
    Running, clock, hex,
    prepare::Prepared,
    start::private_directory,
    store::{Store, replace},
};
use crate::policy::{Text, Texts};

/// Generations that are kept.
pub const KEPT: usize = 10;

/// A generation whose text is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptGeneration {
    /// Its number; 0 until it has one.
    pub number: u32,
    /// SHA-256 of the policy and its tables, in hexadecimal.
    pub digest: String,
    /// SHA-256 of the files alone.
    pub source_digest: String,
    /// What the author numbered it.
    pub serial: Option<u64>,
    /// `enforce` or `observe`.
    pub mode: String,
    /// When it came into force.
    #[serde(with = "time::serde::rfc3339")]
    pub loaded: OffsetDateTime,
    /// The rules file.
    pub rules: PathBuf,
    /// Its files, the rules file first.
    pub files: Vec<KeptFile>,
    /// The generation whose text it is, where it is a return to an earlier one.
    #[serde(default)]
    pub text_of: Option<u32>,
}

/// A file of a policy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KeptFile {
    /// Under what name it was read.
    pub path: PathBuf,
    /// SHA-256 of what it said, in hexadecimal.
    pub sha256: String,
}

impl KeptGeneration {
    /// What is known of it before it runs.
    #[must_use]
    pub(super) fn new(running: &Running, files: Vec<KeptFile>) -> Self {
        Self {
            number: running.stamp.number,
            digest: running.digest(),
            source_digest: hex(&running.policy.source_digest),
            serial: running.policy.serial,
            mode: running.mode().label().to_owned(),
            loaded: clock::at(running.stamp.loaded_at),
            rules: running.rules.clone(),
            files,
            text_of: running.text_of,
        }
    }

    /// What is known of one that is to be on trial.
    #[must_use]
    pub(super) fn on_trial(prepared: &Prepared, files: Vec<KeptFile>) -> Self {
        Self {
            number: 0,
            digest: hex(&prepared.compiled.digest),
            source_digest: hex(&prepared.policy.source_digest),
            serial: prepared.policy.serial,
            mode: prepared.policy.mode.label().to_owned(),
            loaded: clock::at(clock::unix()),
            rules: prepared.rules.clone(),
            files,
            text_of: prepared.text_of,
        }
    }

    /// Whether it is the same text under the same names.
    fn says_the_same(&self, other: &Self) -> bool {
        self.source_digest == other.source_digest && self.rules == other.rules && self.files == other.files
    }
}

/// The generations that are kept.
#[derive(Clone, Debug)]
pub(super) struct Archive {
    generations: PathBuf,
    texts: PathBuf,
}

impl Archive {
    /// The one below `state_dir`.
    #[must_use]
    pub(super) fn below(state_dir: &Path) -> Self {
        Self { generations: state_dir.join("generations"), texts: state_dir.join("texts") }
    }

    /// Keeps texts. They go with the next [`record`](Self::record) that does not name them.
    ///
    /// # Errors
    /// The state directory can't be written.
    pub(super) fn keep(&self, texts: &Texts) -> io::Result<Vec<KeptFile>> {
        for directory in [&self.generations, &self.texts] {
            private_directory(directory, 0o700).map_err(io::Error::other)?;
        }
        let one = |text: &Text| {
            let sha256 = sha256(&text.bytes);
            let path = self.texts.join(&sha256);
            if !fs::read(&path).is_ok_and(|kept| kept == *text.bytes) {
                replace(&path, &text.bytes)?;
            }
            Ok(KeptFile { path: text.path.clone(), sha256 })
        };
        texts.0.iter().map(one).collect()
    }

    /// Has the texts of these on the disk before it returns, for a machine that loses power.
    ///
    /// # Errors
    /// The state directory can't be written, or a text is gone.
    pub(super) fn sync(&self, generations: [&KeptGeneration; 2]) -> io::Result<()> {
        for file in generations.into_iter().flat_map(|generation| &generation.files) {
            fs::File::open(self.texts.join(&file.sha256))?.sync_all()?;
        }
        fs::File::open(&self.texts)?.sync_all()
    }

    /// Notes that a generation came into force. What is more than [`KEPT`] goes, and every text that neither these nor
    /// `others` need. A generation that says what the one before it says takes its place.
    ///
    /// # Errors
    /// The state directory can't be written.
    pub(super) fn record(&self, generation: &KeptGeneration, others: &[&KeptGeneration]) -> io::Result<()> {
        private_directory(&self.generations, 0o700).map_err(io::Error::other)?;
        let before = self.list();
        self.store(generation.number).write(generation)?;
        let mut kept = vec![generation.clone()];
        for (at, old) in before.into_iter().filter(|old| old.number != generation.number).enumerate() {
            let is_repeated = at == 0 && old.says_the_same(generation) && generation.text_of.is_none();
            if is_repeated || kept.len() >= KEPT {
                fs::remove_file(self.path(old.number))?;
            } else {
                kept.push(old);
            }
        }
        let needed: BTreeSet<&str> = kept
            .iter()
            .chain(others.iter().copied())
            .flat_map(|g| &g.files)
            .map(|f| f.sha256.as_str())
            .collect();
        for entry in fs::read_dir(&self.texts)? {
            let entry = entry?;
            if !entry.file_name().to_str().is_some_and(|name| needed.contains(name)) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Those that are kept, the last first. What can't be read is left out.
    #[must_use]
    pub(super) fn list(&self) -> Vec<KeptGeneration> {
        let Ok(entries) = fs::read_dir(&self.generations) else { return Vec::new() };
        let number = |entry: io::Result<fs::DirEntry>| -> Option<u32> {
            entry.ok()?.file_name().to_str()?.strip_suffix(".json")?.parse().ok()
        };
        let mut numbers: Vec<u32> = entries.filter_map(number).collect();
        numbers.sort_unstable_by_key(|number| std::cmp::Reverse(*number));
        numbers.into_iter().filter_map(|number| self.get(number)).collect()
    }

    /// One of them.
    #[must_use]
    pub(super) fn get(&self, number: u32) -> Option<KeptGeneration> {
        self.store(number).read().filter(|kept: &KeptGeneration| kept.number == number)
    }

    /// What its files said.
    ///
    /// # Errors
    /// A text is gone, or is not what it was.
    pub(super) fn texts(&self, generation: &KeptGeneration) -> io::Result<Texts> {
        let one = |file: &KeptFile| {
            let path = self.texts.join(&file.sha256);
            let told = |why: &dyn std::fmt::Display| io::Error::other(format!("{}: {why}", path.display()));
            let bytes = fs::read(&path).map_err(|error| told(&error))?;
            if sha256(&bytes) != file.sha256 {
                return Err(told(&"it was changed after it was kept"));
            }
            Ok(Text { path: file.path.clone(), bytes: Arc::new(bytes) })
        };
        generation.files.iter().map(one).collect::<io::Result<_>>().map(Texts)
    }

    fn path(&self, number: u32) -> PathBuf {
        self.generations.join(format!("{number}.json"))
    }

    fn store(&self, number: u32) -> Store {
        Store::new(&self.generations, &format!("{number}.json"))
    }
}

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(rules: &str) -> Texts {
        let text = |path: &str, said: &str| Text { path: path.into(), bytes: Arc::new(said.into()) };
        Texts(vec![text("/etc/mpesa-fw/rules.yaml", rules), text("/etc/mpesa-fw/sets.yaml", "shared")])
    }

    fn generation(archive: &Archive, number: u32, rules: &str) -> KeptGeneration {
        KeptGeneration {
            number,
            digest: String::new(),
            source_digest: rules.to_owned(),
            serial: None,
            mode: "enforce".to_owned(),
            loaded: OffsetDateTime::UNIX_EPOCH,
            rules: "/etc/mpesa-fw/rules.yaml".into(),
            files: archive.keep(&texts(rules)).unwrap(),
            text_of: None,
        }
    }

    #[test]
    fn the_last_ten_come_back_as_they_were() {
        let dir = tempfile::tempdir().unwrap();
        let archive = Archive::below(dir.path());
        assert_eq!(archive.list(), []);
        for number in 1..=15 {
            archive.record(&generation(&archive, number, &number.to_string()), &[]).unwrap();
        }
        let kept = archive.list();
        assert_eq!(kept.iter().map(|g| g.number).collect::<Vec<_>>(), (6..=15).rev().collect::<Vec<_>>());
        for generation in &kept {
            assert_eq!(archive.texts(generation).unwrap(), texts(&generation.number.to_string()));
        }
        assert_eq!(fs::read_dir(dir.path().join("texts")).unwrap().count(), 11, "shared texts are kept once");
    }

    #[test]
    fn the_same_text_again_pushes_nothing_out() {
        let dir = tempfile::tempdir().unwrap();
        let archive = Archive::below(dir.path());
        archive.record(&generation(&archive, 1, "old"), &[]).unwrap();
        for number in 2..=30 {
            archive.record(&generation(&archive, number, "same"), &[]).unwrap();
        }
        assert_eq!(archive.list().iter().map(|g| g.number).collect::<Vec<_>>(), [30, 1]);
    }

    #[test]
    fn what_is_on_trial_and_not_yet_recorded_keeps_its_text() {
        let dir = tempfile::tempdir().unwrap();
        let archive = Archive::below(dir.path());
        let trial = generation(&archive, 0, "trial");
        archive.record(&generation(&archive, 1, "one"), &[&trial]).unwrap();
        assert_eq!(archive.texts(&trial).unwrap(), texts("trial"));
        archive.record(&generation(&archive, 2, "two"), &[]).unwrap();
        assert!(archive.texts(&trial).is_err());
    }

    #[test]
    fn a_text_that_was_changed_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let archive = Archive::below(dir.path());
        let kept = generation(&archive, 1, "one");
        fs::write(dir.path().join("texts").join(&kept.files[0].sha256), "two").unwrap();
        assert!(archive.texts(&kept).unwrap_err().to_string().contains("changed"));
    }
}
