//! What the datapath has made, as it is to stay until the datapath itself changes it. Descriptors, so that what loses its pin
//! lives on and can be pinned again.

use std::{
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
};

use super::{
    Result,
    cgroup::{ByCgroupProgram, CgroupProgram},
    error::Context,
    generation::Programs,
    hooks::{Hook, Way},
    pins::{GenerationPins, PROGRAMS, Pins, STAMP, make_directory},
    state::LIMIT_SEED,
};
use crate::sys::{self, ObjectKind};

/// Everything that can be looked for.
pub(super) struct Baseline {
    pub(super) programs: Programs,
    pub(super) hooks: Vec<WatchedHook>,
    /// Links of programs at the cgroups' root.
    pub(super) at_cgroups: ByCgroupProgram<Option<OwnedFd>>,
    pub(super) pins: Vec<WatchedPin>,
}

/// A hook, and its link where it has one.
pub(super) struct WatchedHook {
    pub(super) hook: Hook,
    pub(super) link: Option<OwnedFd>,
    /// Foreign programs that ran before ours when it was last looked at.
    pub(super) ahead: Vec<u32>,
    /// It is gone, and that was told.
    pub(super) is_gone: bool,
}

/// A pin, and what is to be there.
pub(super) struct WatchedPin {
    pub(super) path: PathBuf,
    object: OwnedFd,
    inode: Option<u64>,
    /// It could not be put back, and that was told.
    pub(super) is_given_up: bool,
}

impl Baseline {
    /// From what is attached and pinned now.
    /// What was there `before` and has lost its pin meanwhile is held on to.
    pub(super) fn new(
        pins: &Pins,
        generation: &GenerationPins,
        hooks: Vec<Hook>,
        before: &mut Vec<WatchedPin>,
    ) -> Result<Self> {
        let programs = Programs::open(generation)?;
        let at_cgroups = ByCgroupProgram::new(|at_root| at_root.open_link(pins).unwrap_or(None));
        // A generation may be without some of them, whose links go with their pins.
        let here = CgroupProgram::ALL.into_iter().filter(|at_root| programs.at_cgroups(*at_root).is_some());
        let here: Vec<CgroupProgram> = here.collect();
        let mut paths: Vec<PathBuf> = PROGRAMS
            .into_iter()
            .chain(here.iter().map(|at_root| at_root.name()))
            .chain([STAMP])
            .map(|name| generation.path(name))
            .collect();
        paths.extend(here.iter().map(|at_root| pins.cgroup_link(*at_root)));
        let hooks: Vec<_> = hooks
            .into_iter()
            .map(|hook| {
                let link = match &hook.way {
                    Way::Xdp(pin) | Way::Tcx(pin) => {
                        paths.push(pin.clone());
                        sys::open_pin(pin).ok()
                    }
                    Way::Clsact => None,
                };
                WatchedHook { hook, link, ahead: Vec::new(), is_gone: false }
            })
            .collect();
        let open = |path: PathBuf| {
            let held = before.iter().position(|pin| pin.path == path).map(|at| before.swap_remove(at));
            WatchedPin::open(path).ok().or(held)
        };
        let pins = paths.into_iter().filter_map(open).collect();
        Ok(Self { programs, hooks, at_cgroups, pins })
    }
}

impl Baseline {
    /// What lies at a pin now is what is to lie there.
    pub(super) fn pin_anew(&mut self, path: &Path) {
        self.pins.retain(|watched| watched.path != path);
        self.pins.extend(WatchedPin::open(path.to_owned()));
    }

    /// Whether these are the hooks that it was made from.
    pub(super) fn is_of(&self, hooks: &[Hook]) -> bool {
        let place = |hook: &Hook| (hook.interface.clone(), hook.direction, hook.way.clone());
        self.hooks.iter().map(|watched| place(&watched.hook)).eq(hooks.iter().map(place))
    }
}

impl WatchedPin {
    /// Holds what is pinned there.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let object = sys::open_pin(&path)?;
        let inode = inode(&path);
        Ok(Self { path, object, inode, is_given_up: false })
    }

    fn is_map(&self, among: &[u32]) -> bool {
        let is_map = sys::object_kind(self.object.as_fd()).is_ok_and(|kind| kind == ObjectKind::Map);
        is_map && sys::map_info(self.object.as_fd()).is_ok_and(|info| among.contains(&info.id))
    }

    /// Whether it is there, and the one that was there.
    pub(super) fn is_there(&self) -> bool {
        let now = inode(&self.path);
        now.is_some() && now == self.inode
    }

    /// Pins the object again, in place of whatever lies there.
    pub(super) fn put_back(&mut self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        sys::pin(self.object.as_fd(), &self.path)?;
        self.inode = inode(&self.path);
        self.is_given_up = false;
        Ok(())
    }
}

/// bpffs gives every pin a number of its own, also where the same object is pinned again.
fn inode(path: &Path) -> Option<u64> {
    fs::symlink_metadata(path).ok().map(|of| of.ino())
}

/// The pins of the state, which all generations share.
/// `ours` are the maps; what else lies there is left alone.
pub(super) fn state_pins(pins: &Pins, ours: &[u32]) -> Result<Vec<WatchedPin>> {
    let directory = pins.state_directory();
    let what = || format!("hold the pins in {}", directory.display());
    let mut held = Vec::new();
    for entry in fs::read_dir(&directory).context(what)? {
        let path = entry.context(what)?.path();
        let is_seed = path.file_name().is_some_and(|name| name == LIMIT_SEED);
        held.extend(WatchedPin::open(path).ok().filter(|pin| is_seed || pin.is_map(ours)));
    }
    Ok(held)
}

/// Makes the directories again that pins are put back into.
pub(super) fn make_directories(pins: &Pins, generation: &GenerationPins) -> Result<()> {
    if let Some(bpffs) = pins.root().parent() {
        make_directory(bpffs)?;
    }
    pins.create()?;
    generation.create()
}
