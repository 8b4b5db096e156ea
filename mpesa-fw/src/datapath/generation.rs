//! A generation: loaded and verified beside the running one, then opened again from its pins.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use aya::{
    Ebpf,
    programs::{CgroupSock, CgroupSockAddr, CgroupSockopt, Program, SchedClassifier, SockOps, Xdp},
};
use mpesa_fw_common::{settings::Direction, settings::Settings, tables::GenerationStamp};

use super::{
    DatapathError, ErrorKind, Result,
    cgroup::{ByCgroupProgram, CgroupProgram},
    error::Context,
    loaded::Loaded,
    object::Object,
    pins::{GenerationPins, PROGRAMS, Pins, STAMP},
    shape,
    tables::{self, Table},
};
use crate::{
    compile::Compiled,
    fault::{self, Point},
    sys,
};

/// A generation that is loaded, verified and pinned, but judges nothing yet. Dropped without a commit it is removed.
#[derive(Debug)]
pub struct Staged {
    stamp: GenerationStamp,
    pub(super) pins: GenerationPins,
    /// Why it is without a program at the cgroups' root.
    pub(super) without: Without,
    pub(super) loaded: Loaded,
    keep: bool,
}

impl Staged {
    /// Number, digest and mode of it.
    #[must_use]
    pub const fn stamp(&self) -> GenerationStamp {
        self.stamp
    }

    pub(super) fn keep(&mut self) {
        self.keep = true;
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = self.pins.remove()
        {
            tracing::warn!(generation = self.stamp.number, %error, "the pins of a generation that was not used stay");
        }
    }
}

/// What the agent decides of a generation besides the policy.
pub(super) struct Choice {
    pub(super) number: u32,
    pub(super) serial: Option<u64>,
    pub(super) trace: bool,
    pub(super) limit_seed: u64,
    pub(super) netns_cookie: u64,
    /// Nothing of it is ever attached: it is only asked.
    pub(super) twin: bool,
}

/// Makes the tables, loads the programs, pins both.
pub(super) fn stage(
    object: &mut Object,
    pins: &Pins,
    compiled: &Compiled,
    choice: &Choice,
    is_state: impl Fn(u32) -> bool,
) -> Result<Staged> {
    let Fresh { ebpf, stamp, without } = load(object, compiled, choice, is_state)?;
    let (pins, loaded) = (pins.generation(&stamp), Loaded::of(&ebpf)?);
    let staged = Staged { stamp, pins, without, loaded, keep: false };
    staged.pins.create()?;
    fault::point(Point::GenerationMade)?;
    let at_cgroups = CgroupProgram::ALL
        .into_iter()
        .filter(|at_root| at_root.is_wanted(&compiled.settings) && staged.without.get(*at_root).is_none());
    for name in PROGRAMS.into_iter().chain(at_cgroups.map(CgroupProgram::name)) {
        let pin = staged.pins.path(name);
        sys::pin(program(&ebpf, name)?, &pin).context(|| format!("pin the program {}", pin.display()))?;
        fault::point(Point::ProgramPinned)?;
    }
    let pin = staged.pins.path(STAMP);
    sys::pin(tables::array(&ebpf, STAMP)?, &pin).context(|| format!("pin the map {}", pin.display()))?;
    fault::point(Point::StampPinned)?;
    Ok(staged)
}

/// Why programs at the cgroups' root could not be loaded.
pub(super) type Without = ByCgroupProgram<Option<DatapathError>>;

/// Programs with their tables, that nothing runs.
pub(super) struct Fresh {
    pub(super) ebpf: Ebpf,
    pub(super) stamp: GenerationStamp,
    pub(super) without: Without,
}

/// Makes the tables and loads the programs.
pub(super) fn load(
    object: &mut Object,
    compiled: &Compiled,
    choice: &Choice,
    is_state: impl Fn(u32) -> bool,
) -> Result<Fresh> {
    let settings = Settings {
        generation: choice.number,
        trace: u32::from(choice.trace),
        limit_seed: choice.limit_seed,
        netns_cookie: choice.netns_cookie,
        twin: u32::from(choice.twin),
        ..compiled.settings
    };
    let stamp = GenerationStamp {
        digest: compiled.digest,
        loaded_at: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        serial_plus_one: choice.serial.map_or(0, |serial| serial.saturating_add(1)),
        number: choice.number,
        mode: settings.mode,
    };
    let mut tables = tables::tables(&compiled.tables);
    tables.push(Table::new(STAMP, std::slice::from_ref(&stamp)));
    for table in &tables {
        object.size(table.name, table.entries);
    }
    if !choice.trace {
        object.size(shape::LOGS, 4096); // the smallest there is
    }
    let mut ebpf = object.load(&settings)?;
    shape::check_reused(&ebpf, is_state)?;
    fault::point(Point::TablesMade)?;
    for table in &tables {
        tables::fill(&ebpf, table)?;
        fault::point(Point::TableFilled)?;
    }
    let without = load_programs(&mut ebpf, &settings)?;
    fault::point(Point::ProgramsLoaded)?;
    Ok(Fresh { ebpf, stamp, without })
}

/// Each on a thread of its own: the verifier is what a reload spends its time on (30 ms a program), and it takes no lock.
/// Answers why one that judges no packets, and is wanted, could not be loaded.
pub(super) fn load_programs(ebpf: &mut Ebpf, settings: &Settings) -> Result<Without> {
    let is_wanted = |at_root: &CgroupProgram| at_root.is_wanted(settings);
    let mut loaded = thread::scope(|scope| {
        let loads: Vec<_> = ebpf
            .programs_mut()
            .filter_map(|(name, program)| {
                let at_cgroups = CgroupProgram::ALL.into_iter().filter(is_wanted);
                let mut all = PROGRAMS.into_iter().chain(at_cgroups.map(CgroupProgram::name));
                let name = all.find(|wanted| *wanted == name)?;
                Some((name, scope.spawn(move || load_program(name, program))))
            })
            .collect();
        loads
            .into_iter()
            .map(|(name, load)| (name, load.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))))
            .collect::<Vec<_>>()
    });
    let without = Without::new(|at_root| {
        if !is_wanted(&at_root) {
            return None;
        }
        let at = loaded.iter().position(|(name, _)| *name == at_root.name());
        at.map_or_else(|| Err(no_program(at_root.name())), |at| loaded.swap_remove(at).1).err()
    });
    if loaded.len() != PROGRAMS.len() {
        return Err(no_program(&PROGRAMS.join(", ")));
    }
    loaded.into_iter().try_for_each(|(_, loaded)| loaded)?;
    // So that the stamp is found from a program (`bpftool prog` shows it) even where the code does not read it.
    let stamp = tables::array(ebpf, STAMP)?;
    for name in PROGRAMS {
        if let Err(error) = sys::bind_map(program(ebpf, name)?, stamp) {
            tracing::debug!(program = name, %error, "the stamp is not bound to the program");
        }
    }
    Ok(without)
}

fn load_program(name: &str, program: &mut Program) -> Result<()> {
    let what = || format!("load the program {name}");
    if let Ok(program) = <&mut Xdp>::try_from(&mut *program) {
        return program.load().context(what);
    }
    if let Ok(program) = <&mut SockOps>::try_from(&mut *program) {
        return program.load().context(what);
    }
    if let Ok(program) = <&mut CgroupSockopt>::try_from(&mut *program) {
        return program.load().context(what);
    }
    if let Ok(program) = <&mut CgroupSock>::try_from(&mut *program) {
        return program.load().context(what);
    }
    if let Ok(program) = <&mut CgroupSockAddr>::try_from(&mut *program) {
        return program.load().context(what);
    }
    let program = <&mut SchedClassifier>::try_from(program).context(what)?;
    program.load().context(what)
}

pub(super) fn program<'a>(ebpf: &'a Ebpf, name: &str) -> Result<BorrowedFd<'a>> {
    let fd = ebpf
        .program(name)
        .ok_or_else(|| no_program(name))
        .and_then(|program: &Program| program.fd().context(|| format!("use the program {name}")))?;
    Ok(fd.as_fd())
}

fn no_program(name: &str) -> DatapathError {
    DatapathError::new(
        ErrorKind::Internal,
        format!("load the program {name}"),
        "the eBPF object has no such program",
        "build the agent and the object from one tree",
    )
}

/// The programs of one generation, from its pins.
pub(super) struct Programs {
    ingress_xdp: OwnedFd,
    ingress_tc: OwnedFd,
    egress_tc: OwnedFd,
    at_cgroups: ByCgroupProgram<Option<OwnedFd>>,
}

impl Programs {
    pub(super) fn open(pins: &GenerationPins) -> Result<Self> {
        let open = |name: &str| {
            let path = pins.path(name);
            sys::open_pin(&path).context(|| format!("open the pinned program {}", path.display()))
        };
        let [ingress_xdp, ingress_tc, egress_tc] = PROGRAMS;
        Ok(Self {
            ingress_xdp: open(ingress_xdp)?,
            ingress_tc: open(ingress_tc)?,
            egress_tc: open(egress_tc)?,
            at_cgroups: ByCgroupProgram::new(|at_root| sys::open_pin(&pins.path(at_root.name())).ok()),
        })
    }

    pub(super) fn xdp(&self) -> BorrowedFd<'_> {
        self.ingress_xdp.as_fd()
    }

    pub(super) fn tc(&self, direction: Direction) -> BorrowedFd<'_> {
        match direction {
            Direction::Ingress => self.ingress_tc.as_fd(),
            Direction::Egress => self.egress_tc.as_fd(),
        }
    }

    /// The one at the cgroups' root, where there is one.
    pub(super) fn at_cgroups(&self, program: CgroupProgram) -> Option<BorrowedFd<'_>> {
        self.at_cgroups.get(program).as_ref().map(AsFd::as_fd)
    }

    /// Of those that judge.
    pub(super) fn ids(&self) -> io::Result<Vec<u32>> {
        [&self.ingress_xdp, &self.ingress_tc, &self.egress_tc]
            .into_iter()
            .map(|fd| sys::program_info(fd.as_fd()).map(|info| info.id))
            .collect()
    }
}
