//! The eBPF object inside this program, and aya's loader of it.

use std::{fmt::Write as _, ops::Range, path::PathBuf};

use aya::{Ebpf, EbpfLoader};
use mpesa_fw_common::settings::Settings;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _};
use zerocopy::IntoBytes;

use super::{DatapathError, ErrorKind, Result, error::Context};

/// The eBPF object inside this program; none where it was built without (`MPESA_FW_SKIP_EBPF=1`).
#[cfg(not(mpesa_fw_no_object))]
pub static OBJECT: Option<&[u8]> = Some(aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/mpesa-fw")));
/// None: this program was built without the eBPF object.
#[cfg(mpesa_fw_no_object)]
pub static OBJECT: Option<&[u8]> = None;

const SETTINGS: &str = "SETTINGS";
/// The map that holds them.
pub(super) const CONSTANTS: &str = ".rodata";

/// The object and what is known of it.
pub(super) struct Object {
    /// Kept for its lifetime: making one reads the kernel's whole BTF (8 ms and 20 MB), which nothing here needs.
    loader: EbpfLoader<'static>,
    bytes: &'static [u8],
    /// Where the constants lie in it.
    settings: Range<usize>,
    /// Where they lie in their section, which the kernel has as a map.
    settings_in_section: usize,
}

impl Object {
    pub(super) fn open() -> Result<Self> {
        let bytes = OBJECT.ok_or_else(|| {
            internal(
                "this program was built without the eBPF object (MPESA_FW_SKIP_EBPF=1)",
                "build it without that",
            )
        })?;
        let mut loader = EbpfLoader::new();
        loader.btf(None);
        let (settings, settings_in_section) = find_settings(bytes)?;
        Ok(Self { loader, bytes, settings, settings_in_section })
    }

    /// Gives a map another number of entries in every later load.
    pub(super) fn size(&mut self, map: &'static str, entries: u32) {
        self.loader.map_max_entries(map, entries);
    }

    /// Makes every later load use the pinned map.
    pub(super) fn reuse(&mut self, map: &'static str, pin: PathBuf) {
        self.loader.map_pin_path(map, pin);
    }

    /// Where the constants lie in the map [`CONSTANTS`].
    pub(super) const fn settings_in_section(&self) -> Range<usize> {
        self.settings_in_section..self.settings_in_section + size_of::<Settings>()
    }

    /// Creates the maps. The programs are parsed, not loaded.
    pub(super) fn load(&mut self, settings: &Settings) -> Result<Ebpf> {
        // The loader's `override_global` borrows for as long as the loader lives. Words, so that the copy is aligned.
        let mut words = vec![0u64; self.bytes.len().div_ceil(8)];
        let copy = &mut words.as_mut_bytes()[..self.bytes.len()];
        copy.copy_from_slice(self.bytes);
        copy[self.settings.clone()].copy_from_slice(settings.as_bytes());
        self.loader.load(copy).context(|| "create the maps of the eBPF object")
    }
}

/// Where `.rodata` symbol `SETTINGS` lies in the file, and in its section.
fn find_settings(bytes: &[u8]) -> Result<(Range<usize>, usize)> {
    let broken = |why: &str| {
        internal(&format!("the eBPF object {why}"), "build the agent and the object from one tree")
    };
    let file = object::File::parse(bytes).map_err(|error| broken(&format!("is no ELF file: {error}")))?;
    let symbol = file
        .symbols()
        .find(|symbol| symbol.name() == Ok(SETTINGS))
        .ok_or_else(|| broken("has no constants SETTINGS"))?;
    let section = symbol
        .section_index()
        .and_then(|index| file.section_by_index(index).ok())
        .and_then(|section| section.file_range());
    let (start, length) = section.ok_or_else(|| broken("has constants SETTINGS without data"))?;
    let start = (start + symbol.address()) as usize;
    let end = start + size_of::<Settings>();
    if symbol.size() as usize != size_of::<Settings>()
        || symbol.address() + symbol.size() > length
        || end > bytes.len()
    {
        let mut why = String::from("was built for other constants: ");
        let _ = write!(why, "{} bytes, not {}", symbol.size(), size_of::<Settings>());
        return Err(broken(&why));
    }
    Ok((start..end, symbol.address() as usize))
}

fn internal(why: &str, help: &str) -> DatapathError {
    DatapathError::new(ErrorKind::Internal, "load the eBPF object", why, help)
}
