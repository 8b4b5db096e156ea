//! A second instance of the programs that judge packets, which no hook runs and which changes nothing: it is asked what
//! would become of a packet (`BPF_PROG_TEST_RUN`).
//!
//! It is loaded from the same object with the same constants, but for the switch
//! [`Settings::twin`](mpesa_fw_common::settings::Settings::twin), and reads the very maps of the running programs, tables and
//! state. That is compared, not believed: the instructions by the kernel's own tag of them, the maps by their ids, the
//! constants byte by byte, the stamp by its digest.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    os::fd::AsFd,
    sync::{Mutex, PoisonError},
};

use aya::{
    Ebpf, TestRunOptions,
    programs::{ProgramError, SchedClassifier, TestRun as _, Xdp},
};
use mpesa_fw_common::{
    Direction, DropReason, PassReason, Reason, Verdict,
    decide::{Decision, Found, Sender},
    settings::Settings,
    tables::{GenerationStamp, RuleIndex},
    twin::TwinCase,
};
use zerocopy::{FromBytes, IntoBytes};

use super::{
    Datapath, DatapathError, ErrorKind, Result,
    error::Context,
    generation::{self, Choice, load_programs, program},
    loaded::{Loaded, constants},
    object::Object,
    pins::{PROGRAMS, STAMP},
    shape::{LOGS, TWIN, data_of},
    tables,
};
use crate::{
    compile::Compiled,
    sys::{self, KernelMap, ProgramInfo},
};

impl Datapath {
    /// A twin of the programs that judge packets now: see [`Twin`]. Compared with them before it is given away.
    ///
    /// # Errors
    /// Nothing was loaded by this process yet, a hook runs another program, the kernel refuses, or the twin is none.
    pub fn twin(&mut self) -> Result<Twin> {
        let (Some(loaded), Some(stamp)) = (&self.loaded, self.running()) else {
            return Err(nothing_loaded());
        };
        loaded.expect_hooked(&self.hooked_programs()?)?;
        Twin::of(&mut self.object, loaded, &stamp)
    }

    /// A twin of the generation that `compiled` would become, with tables of its own and the state that all share. Nothing is
    /// pinned, and it is gone when it is dropped.
    ///
    /// # Errors
    /// The kernel refuses a table or a program.
    pub fn candidate(&mut self, compiled: &Compiled, serial: Option<u64>) -> Result<Twin> {
        let choice = Choice {
            number: self.next_number()?,
            serial,
            trace: false,
            limit_seed: self.limit_seed,
            netns_cookie: self.netns_cookie,
            twin: true,
        };
        let ids = &self.state.ids;
        let fresh = generation::load(&mut self.object, compiled, &choice, |id| ids.contains(&id))?;
        Twin::candidate(fresh.ebpf, fresh.stamp)
    }
}

/// Which of a generation's programs is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// Ingress at XDP.
    IngressXdp,
    /// Ingress at TC.
    IngressTc,
    /// Egress.
    EgressTc,
}

impl Program {
    /// The way of the packets that it judges.
    #[must_use]
    pub const fn direction(self) -> Direction {
        match self {
            Self::IngressXdp | Self::IngressTc => Direction::Ingress,
            Self::EgressTc => Direction::Egress,
        }
    }
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Probe<'f> {
    /// Whom.
    pub program: Program,
    /// The frame, from its Ethernet header on.
    pub frame: &'f [u8],
    /// Whether it is many segments in one. TC only.
    pub segmented: bool,
    /// The socket that sends it. Egress only.
    pub sender: Sender,
}

/// What a twin says of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The decision, as the programs came to it.
    pub decision: Decision,
    /// Whether they found a live flow of the packet; no also where the decision came before they looked.
    pub of_flow: bool,
}

/// For tests: what may be wrong with a twin.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Falsehood {
    Instructions,
    Maps,
    Constants,
    Digest,
}

/// Programs that can be asked.
pub struct Twin {
    ebpf: Ebpf,
    case: Mutex<KernelMap<u32, TwinCase>>,
    stamp: GenerationStamp,
    /// For tests: what it was compared with.
    beside: Option<Loaded>,
}

impl Twin {
    /// Of a generation that runs.
    pub(super) fn of(object: &mut Object, loaded: &Loaded, stamp: &GenerationStamp) -> Result<Self> {
        for (name, _) in &loaded.maps {
            if let Some(name) = tables::known(name) {
                object.size(name, 1); // made by the loader, and let go of at once
            }
        }
        object.size(LOGS, 4096);
        let place = object.settings_in_section();
        let settings =
            loaded.constants.get(place.clone()).and_then(|bytes| Settings::read_from_bytes(bytes).ok());
        let settings = settings.ok_or_else(|| none_of("the constants in force can't be read"))?;
        let settings = Settings { twin: 1, trace: 0, ..settings };
        let mut ebpf = object.load(&settings)?;
        for (name, fd) in &loaded.maps {
            let map =
                ebpf.map(name).and_then(data_of).ok_or_else(|| none_of(&format!("it has no map {name}")))?;
            sys::stand_in(map.fd().as_fd(), fd.as_fd()).context(|| format!("share the map {name}"))?;
        }
        load_programs(&mut ebpf, &settings)?;
        let twin = Self::candidate(ebpf, *stamp)?;
        twin.compare(loaded, place.start, stamp)?;
        Ok(twin)
    }

    /// Of one that never runs: nothing to compare it with.
    pub(super) fn candidate(ebpf: Ebpf, stamp: GenerationStamp) -> Result<Self> {
        let what = || "use the twin's own map";
        let case = tables::array(&ebpf, TWIN)?.try_clone_to_owned().and_then(KernelMap::new).context(what)?;
        Ok(Self { ebpf, case: Mutex::new(case), stamp, beside: None })
    }

    /// For tests and the bench, which load the programs by themselves: a twin of programs that no hook runs.
    ///
    /// # Errors
    /// As [`Datapath::twin`](super::Datapath::twin).
    #[doc(hidden)]
    pub fn beside(ebpf: &Ebpf) -> Result<Self> {
        thread_local! {
            static OBJECT: RefCell<Option<Object>> = const { RefCell::new(None) };
        }
        let loaded = Loaded::of(ebpf)?;
        let stamp =
            tables::array(ebpf, STAMP)?.try_clone_to_owned().and_then(KernelMap::<u32, GenerationStamp>::new);
        let stamp = stamp.and_then(|map| map.get(&0)).context(|| "read the stamp")?;
        let stamp = stamp.ok_or_else(|| none_of("there is no stamp"))?;
        let twin = OBJECT.with_borrow_mut(|object| {
            let object = match object {
                Some(object) => object,
                None => object.insert(Object::open()?),
            };
            Self::of(object, &loaded, &stamp)
        })?;
        Ok(Self { beside: Some(loaded), ..twin })
    }

    /// For tests: compares a twin that was made by [`beside`](Self::beside) again, with one thing that is not so.
    ///
    /// # Errors
    /// It is noticed, or the twin was made otherwise.
    #[doc(hidden)]
    pub fn compare_falsely(&mut self, ebpf: &Ebpf, falsely: Option<Falsehood>) -> Result<()> {
        let mut loaded = self.beside.take().ok_or_else(|| none_of("it was not made for a test"))?;
        let compared = self.compare_with(&mut loaded, ebpf, falsely);
        self.beside = Some(loaded);
        compared
    }

    fn compare_with(&self, loaded: &mut Loaded, ebpf: &Ebpf, falsely: Option<Falsehood>) -> Result<()> {
        let mut stamp = self.stamp;
        let (programs, constants) = (loaded.programs.clone(), loaded.constants.clone());
        match falsely {
            None => {}
            Some(Falsehood::Instructions) => loaded.programs[2].1.tag[7] ^= 1,
            Some(Falsehood::Maps) => loaded.programs[2].1.maps.retain({
                let missing = sys::map_info(tables::array(ebpf, "EGRESS_CLAIMS")?).map_or(0, |info| info.id);
                move |id| *id != missing
            }),
            Some(Falsehood::Constants) => loaded.constants[0] ^= 1,
            Some(Falsehood::Digest) => stamp.digest[31] ^= 1,
        }
        let compared = self.compare(loaded, Object::open()?.settings_in_section().start, &stamp);
        (loaded.programs, loaded.constants) = (programs, constants);
        compared
    }

    /// The generation that it is a twin of.
    #[must_use]
    pub const fn stamp(&self) -> GenerationStamp {
        self.stamp
    }

    /// Asks. One packet at a time: there is one place for the answer. None: a test run can't have such a frame.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn judge(&self, probe: &Probe<'_>) -> Result<Option<Judgement>> {
        let case = self.case.lock().unwrap_or_else(PoisonError::into_inner);
        case.put(&0, &TwinCase::asked(&probe.sender)).context(|| "ask the twin")?;
        let verdict = match self.run(probe) {
            Ok(verdict) => verdict,
            Err(ProgramError::SyscallError(error)) if is_about_the_frame(&error.io_error) => return Ok(None),
            Err(error) => return Err(error).context(|| "run the twin on a packet"),
        };
        let answer = case.get(&0).context(|| "read the twin's answer")?.unwrap_or_default();
        judgement(&answer, verdict).map(Some)
    }

    /// Runs the program; the verdict that it returns.
    fn run(&self, probe: &Probe<'_>) -> Result<Verdict, ProgramError> {
        let (name, pass) = match probe.program {
            Program::IngressXdp => (PROGRAMS[0], 2),       // XDP_PASS
            Program::IngressTc => (PROGRAMS[1], u32::MAX), // TC_ACT_UNSPEC
            Program::EgressTc => (PROGRAMS[2], u32::MAX),
        };
        let program = self.ebpf.program(name).ok_or(ProgramError::NotLoaded)?;
        let context = segmented_context();
        let options = TestRunOptions {
            data_in: Some(probe.frame),
            ctx_in: probe.segmented.then_some(&context[..]),
            ..TestRunOptions::default()
        };
        let result = match probe.program {
            Program::IngressXdp => <&Xdp>::try_from(program)?.test_run(options)?,
            Program::IngressTc | Program::EgressTc => {
                <&SchedClassifier>::try_from(program)?.test_run(options)?
            }
        };
        Ok(if result.return_value == pass { Verdict::Pass } else { Verdict::Drop })
    }

    /// Fails where this is not a twin of what is loaded.
    fn compare(&self, loaded: &Loaded, settings: usize, stamp: &GenerationStamp) -> Result<()> {
        let what = || "compare the twin with the programs in force";
        let shared = loaded.maps.iter().map(|(_, fd)| sys::map_info(fd.as_fd()).map(|info| info.id));
        let shared: BTreeSet<u32> = shared.collect::<Result<_, _>>().context(what)?;
        let stamp_map = sys::map_info(tables::array(&self.ebpf, STAMP)?).context(what)?;
        for (name, running) in &loaded.programs {
            let own = sys::program_info(program(&self.ebpf, name)?).context(what)?;
            if own.tag != running.tag {
                return Err(none_of(&format!("{name} has other instructions than the program in force")));
            }
            let split = |info: &ProgramInfo| {
                // The stamp is no map that they read: it is bound to them, for whoever looks at them.
                let maps = info.maps.iter().copied().filter(|id| *id != stamp_map.id);
                maps.partition::<BTreeSet<u32>, _>(|id| shared.contains(id))
            };
            let ((own_shared, own_rest), (shared, rest)) = (split(&own), split(running));
            if own_shared != shared || own_rest.len() != rest.len() || !own_rest.is_disjoint(&rest) {
                return Err(none_of(&format!("{name} reads other maps than the program in force")));
            }
        }
        let mut expected = loaded.constants.clone();
        let twin = settings + std::mem::offset_of!(Settings, twin);
        let trace = settings + std::mem::offset_of!(Settings, trace);
        expected[twin..twin + 4].copy_from_slice(1u32.as_bytes());
        expected[trace..trace + 4].copy_from_slice(0u32.as_bytes());
        if constants(&self.ebpf)? != expected {
            return Err(none_of("it has other constants than the programs in force"));
        }
        let map =
            tables::array(&self.ebpf, STAMP)?.try_clone_to_owned().and_then(KernelMap::new).context(what)?;
        if map.get(&0).context(what)? != Some(*stamp) {
            return Err(none_of("its tables have another digest than the generation in force"));
        }
        Ok(())
    }
}

/// Whether a test run failed for the form of the frame: too short, too long, a header that it needs cut short.
fn is_about_the_frame(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EMSGSIZE | libc::ENOMEM | libc::E2BIG))
}

/// `struct __sk_buff` that says no more than a `gso_size`, which makes a frame a segmented one.
fn segmented_context() -> [u8; 192] {
    const GSO_SIZE: usize = 176;
    let mut context = [0; 192];
    context[GSO_SIZE..GSO_SIZE + 4].copy_from_slice(&500u32.to_ne_bytes());
    context
}

fn judgement(answer: &TwinCase, verdict: Verdict) -> Result<Judgement> {
    let nonsense = || none_of("it gave no answer");
    if answer.judged == 0 {
        return Err(nonsense());
    }
    let reason = if answer.drops == 0 {
        Reason::Pass(PassReason::try_from(answer.reason).map_err(|_| nonsense())?)
    } else {
        Reason::Drop(DropReason::try_from(answer.reason).map_err(|_| nonsense())?)
    };
    let rule = RuleIndex::new(answer.rule).unwrap_or(RuleIndex::NONE);
    let decision = Decision { reason, rule, near_miss: answer.near_miss };
    if decision.verdict() != verdict {
        return Err(none_of("its verdict is not that of its decision"));
    }
    Ok(Judgement { decision, of_flow: Found::from_code(answer.found) != Found::NONE })
}

fn nothing_loaded() -> DatapathError {
    DatapathError::new(
        ErrorKind::Internal,
        "load a twin of the programs in force",
        "this process has not loaded a generation yet",
        "ask again when the agent says `enforcing` or `observing`",
    )
}

fn none_of(why: &str) -> DatapathError {
    DatapathError::new(
        ErrorKind::Internal,
        "load a twin of the programs in force",
        why,
        "nothing was asked of it, because its answer could be wrong; the programs in force are not touched",
    )
}
