//! System calls that no crate wraps. The one module of the agent with `unsafe`.
//!
//! Maps are read and written through [`KernelMap`], which compares the sizes of its key and value with the kernel's
//! before the first access; the kernel copies exactly that many bytes, so no call can overrun a buffer.
#![expect(unsafe_code, reason = "bpf(2) and mmap(2) take raw pointers")]

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::{ffi::OsStrExt, process::CommandExt as _},
    },
    path::Path,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

mod cgroup;
mod info;
mod map;

pub use cgroup::{
    BPF_CGROUP_INET_SOCK_CREATE, BPF_CGROUP_INET4_CONNECT, BPF_CGROUP_INET6_CONNECT, BPF_CGROUP_SETSOCKOPT,
    BPF_CGROUP_SOCK_OPS, BPF_CGROUP_UDP4_SENDMSG, BPF_CGROUP_UDP6_SENDMSG, cgroup_link_create,
    cgroup_programs, netns_cookie,
};
pub use info::{
    LinkInfo, LinkKind, MapInfo, ObjectKind, ProgramInfo, link_info, map_info, object_kind, program_info,
};
pub use map::{KernelMap, Plain, first_value};

/// Attach type of an XDP link (enum `bpf_attach_type`).
pub const BPF_XDP: u32 = 37;
/// Attach type of a TCX link on ingress.
pub const BPF_TCX_INGRESS: u32 = 46;
/// Attach type of a TCX link on egress.
pub const BPF_TCX_EGRESS: u32 = 47;
/// Attach in front of all others (TCX).
pub const BPF_F_BEFORE: u32 = 1 << 3;
/// Generic XDP.
pub const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
/// XDP in the driver.
pub const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
/// Map flag: user space may map the values.
pub const BPF_F_MMAPABLE: u32 = 1 << 10;

/// Commands of bpf(2), enum `bpf_cmd`.
#[derive(Clone, Copy)]
#[repr(i32)]
enum Command {
    MapLookup = 1,
    MapUpdate = 2,
    MapDelete = 3,
    ObjectPin = 6,
    ObjectGet = 7,
    ProgramById = 13,
    MapById = 14,
    Info = 15,
    ProgramQuery = 16,
    MapFreeze = 22,
    MapLookupBatch = 24,
    LinkCreate = 28,
    LinkUpdate = 29,
    LinkDetach = 34,
    ProgramBindMap = 35,
}

/// # Safety
/// Every pointer in `attribute` must be valid for what `command` does with it.
unsafe fn bpf<A: IntoBytes + FromBytes>(command: Command, attribute: &mut A) -> io::Result<i64> {
    // SAFETY: the attribute is a plain struct of this size, the kernel writes at most that much into it; the rest
    // is the caller's promise.
    let answer =
        unsafe { libc::syscall(libc::SYS_bpf, command as i32, &raw mut *attribute, size_of::<A>() as u32) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

/// For commands whose attribute holds numbers only.
fn bpf_numbers<const N: usize>(command: Command, mut words: [u32; N]) -> io::Result<i64> {
    // SAFETY: called with commands that read no pointer from these words.
    unsafe { bpf(command, &mut words) }
}

fn bpf_fd<const N: usize>(command: Command, words: [u32; N]) -> io::Result<OwnedFd> {
    let fd = bpf_numbers(command, words)? as i32;
    // SAFETY: the kernel has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd() as u32
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::from)
}

#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct ObjectAttribute {
    path: u64,
    fd: u32,
    flags: u32,
}

/// Pins a map, program or link on a bpffs.
pub fn pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut attribute = ObjectAttribute { path: path.as_ptr() as u64, fd: raw(fd), flags: 0 };
    // SAFETY: a string that ends with 0 and outlives the call.
    unsafe { bpf(Command::ObjectPin, &mut attribute) }.map(drop)
}

/// Opens what is pinned.
pub fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut attribute = ObjectAttribute { path: path.as_ptr() as u64, fd: 0, flags: 0 };
    // SAFETY: a string that ends with 0 and outlives the call.
    let fd = unsafe { bpf(Command::ObjectGet, &mut attribute) }? as i32;
    // SAFETY: the kernel has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Opens a program by its id.
pub fn program_by_id(id: u32) -> io::Result<OwnedFd> {
    bpf_fd(Command::ProgramById, [id, 0, 0])
}

/// Opens a map by its id.
pub fn map_by_id(id: u32) -> io::Result<OwnedFd> {
    bpf_fd(Command::MapById, [id, 0, 0])
}

/// Attaches a program to an interface. The link lives as long as the descriptor or a pin of it.
pub fn link_create(
    program: BorrowedFd<'_>,
    interface: u32,
    attach_type: u32,
    flags: u32,
) -> io::Result<OwnedFd> {
    // Up to and including the TCX part of the union, all zero: no relative program, any revision.
    bpf_fd(Command::LinkCreate, [raw(program), interface, attach_type, flags, 0, 0, 0, 0])
}

/// Replaces the program of a link: packets see the old or the new one.
pub fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    bpf_numbers(Command::LinkUpdate, [raw(link), raw(program), 0, 0]).map(drop)
}

/// Detaches a link wherever else it is held.
pub fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    bpf_numbers(Command::LinkDetach, [raw(link)]).map(drop)
}

/// Makes a program keep a map that its code does not use, so that `bpftool prog` shows it (Linux 5.10).
pub fn bind_map(program: BorrowedFd<'_>, map: BorrowedFd<'_>) -> io::Result<()> {
    bpf_numbers(Command::ProgramBindMap, [raw(program), raw(map), 0]).map(drop)
}

/// No update from user space from now on, not even by root (Linux 5.2). EBUSY while it is mapped for writing.
pub fn freeze(map: BorrowedFd<'_>) -> io::Result<()> {
    bpf_numbers(Command::MapFreeze, [raw(map)]).map(drop)
}

/// Makes a descriptor stand for what another one stands for; what it stood for before is closed.
///
/// For instructions that name maps by the numbers of descriptors: they then name other maps.
pub fn stand_in(descriptor: BorrowedFd<'_>, for_this: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: both are open, and the number that is replaced stays open throughout.
    let answer = unsafe { libc::dup3(for_this.as_raw_fd(), descriptor.as_raw_fd(), libc::O_CLOEXEC) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct InfoAttribute {
    fd: u32,
    length: u32,
    info: u64,
}

fn object_info<T: FromBytes + IntoBytes>(fd: BorrowedFd<'_>, info: &mut T) -> io::Result<()> {
    let mut attribute =
        InfoAttribute { fd: raw(fd), length: size_of::<T>() as u32, info: (&raw mut *info) as u64 };
    // SAFETY: the kernel writes at most `length` bytes there; pointers inside are the caller's and zero or valid.
    unsafe { bpf(Command::Info, &mut attribute) }.map(drop)
}

#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct QueryAttribute {
    place: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    programs: u64,
    count: u32,
    reserved: u32,
    rest: [u64; 4],
}

/// Ids of the TCX programs of an interface, in the order in which they run (Linux 6.6; before: EINVAL).
pub fn tcx_programs(interface: u32, attach_type: u32) -> io::Result<Vec<u32>> {
    programs_at(interface, attach_type)
}

/// Ids of the programs at an interface (index) or a cgroup (descriptor).
fn programs_at(place: u32, attach_type: u32) -> io::Result<Vec<u32>> {
    /// `BPF_MPROG_MAX` and `BPF_CGROUP_MAX_PROGS` of the kernel.
    const PROGRAMS: u32 = 64;
    let mut programs = vec![0u32; PROGRAMS as usize];
    let mut attribute = QueryAttribute::new_zeroed();
    attribute.place = place;
    attribute.attach_type = attach_type;
    attribute.count = PROGRAMS;
    attribute.programs = programs.as_mut_ptr() as u64;
    // SAFETY: the array has room for `count` ids and outlives the call.
    unsafe { bpf(Command::ProgramQuery, &mut attribute) }?;
    programs.truncate(attribute.count as usize);
    Ok(programs)
}

/// Writes `bytes` to the beginning of an array map that was made with `BPF_F_MMAPABLE`, and lets the mapping go.
pub fn fill(map: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<()> {
    let info = map_info(map)?;
    let capacity = info.value_size.next_multiple_of(8) as usize * info.max_entries as usize;
    if bytes.len() > capacity {
        return Err(io::Error::other(format!("{} bytes do not fit into {capacity}", bytes.len())));
    }
    let mapping = Mapping::new(map, capacity)?;
    // SAFETY: the mapping is `capacity` bytes long, which was compared above, and nobody else knows it.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), mapping.start.as_ptr(), bytes.len()) };
    Ok(())
}

/// Whether an array map that was made with `BPF_F_MMAPABLE` begins with `bytes` and holds zeros behind. Also of a frozen one.
pub fn holds(map: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<bool> {
    let info = map_info(map)?;
    let capacity = info.value_size.next_multiple_of(8) as usize * info.max_entries as usize;
    if bytes.len() > capacity {
        return Ok(false);
    }
    let mapping = Mapping::with(map, capacity, libc::PROT_READ)?;
    let mut page = [0u8; 4096];
    let mut rest = bytes;
    let mut offset = 0;
    while offset < capacity {
        let length = page.len().min(capacity - offset);
        // SAFETY: `offset + length` lies within the mapping. A program that writes there meanwhile makes it differ, no more.
        unsafe {
            std::ptr::copy_nonoverlapping(mapping.start.as_ptr().add(offset), page.as_mut_ptr(), length);
        }
        let (wanted, behind) = rest.split_at(length.min(rest.len()));
        let (written, zeros) = page[..length].split_at(wanted.len());
        if written != wanted || zeros.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        rest = behind;
        offset += length;
    }
    Ok(true)
}

/// A mapping of a map's values.
struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

impl Mapping {
    fn new(map: BorrowedFd<'_>, length: usize) -> io::Result<Self> {
        Self::with(map, length, libc::PROT_READ | libc::PROT_WRITE)
    }

    fn with(map: BorrowedFd<'_>, length: usize, protection: libc::c_int) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe {
            libc::mmap(std::ptr::null_mut(), length, protection, libc::MAP_SHARED, map.as_raw_fd(), 0)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mmap answered 0"))?;
        Ok(Self { start, length })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: it is ours, and no reference into it outlives it. It can't fail for a mapping that is there.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

/// Whether some process has a regular file open for writing. File systems that can't tell say no, and so does the kernel
/// where the file belongs to another user (without CAP_LEASE).
pub fn is_open_for_writing(file: BorrowedFd<'_>) -> bool {
    /// Not in the crate libc for this platform.
    const F_SETSIG: libc::c_int = 10;
    let fcntl = |command, argument: libc::c_int| {
        // SAFETY: these commands take a number and touch no memory of ours.
        if unsafe { libc::fcntl(file.as_raw_fd(), command, argument) } < 0 {
            return io::Error::last_os_error().raw_os_error();
        }
        None
    };
    // Whoever opens the file for writing while we hold the lease makes the kernel send a signal, which by default (SIGIO)
    // would end this process; SIGURG is ignored unless somebody asks for it.
    if fcntl(F_SETSIG, libc::SIGURG).is_some() {
        return false;
    }
    let refused = fcntl(libc::F_SETLEASE, libc::F_RDLCK);
    if refused.is_none() {
        fcntl(libc::F_SETLEASE, libc::F_UNLCK);
    }
    refused == Some(libc::EAGAIN)
}

/// The words of an array map of `u64`, shared with the kernel's programs while they run.
pub struct SharedWords {
    mapping: Mapping,
}

// SAFETY: the memory is only accessed through atomics.
unsafe impl Send for SharedWords {}
// SAFETY: likewise.
unsafe impl Sync for SharedWords {}

impl SharedWords {
    /// Maps an array of `u64` that was made with `BPF_F_MMAPABLE`.
    pub fn new(map: BorrowedFd<'_>) -> io::Result<Self> {
        let info = map_info(map)?;
        if info.value_size != 8 {
            return Err(io::Error::other(format!("values of {} bytes, not 8", info.value_size)));
        }
        Ok(Self { mapping: Mapping::new(map, 8 * info.max_entries as usize)? })
    }

    /// Sets bits of one word; false: there is no such word.
    pub fn set_bits(&self, word: usize, bits: u64) -> bool {
        if word >= self.mapping.length / 8 {
            return false;
        }
        // SAFETY: within the mapping, aligned (the mapping starts at a page), and every access is atomic.
        let word = unsafe { AtomicU64::from_ptr(self.mapping.start.cast::<u64>().add(word).as_ptr()) };
        word.fetch_or(bits, Ordering::SeqCst);
        true
    }
}

/// Keeps the memory of large policies from staying with the process: blocks of 128 KiB and more are mapped and
/// unmapped one by one, always. Left alone, glibc stops to do so when the first is freed (`mallopt(3)`,
/// `M_MMAP_THRESHOLD`). Does nothing where the C library is another.
pub fn map_large_blocks() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes two numbers.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 128 * 1024);
    }
}

/// Gives memory that is free back to the system: reading and compiling a large policy leaves much of it, and the
/// allocator would keep it for good. Does nothing where the C library is not glibc.
pub fn trim_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number, and locks what it touches.
    unsafe {
        libc::malloc_trim(0);
    }
}
/// Whether somebody keeps the wall clock right, as adjtimex(2) says.
pub fn clock_is_synchronized() -> io::Result<bool> {
    // SAFETY: all zeroes is a `timex` that asks and changes nothing (`modes` is 0), and the kernel writes no more than it.
    let state = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        libc::adjtimex(&raw mut timex)
    };
    if state < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(state != libc::TIME_ERROR)
}

/// The process that `command` starts leads a session and a process group of its own from its first instruction on.
pub fn lead_a_session(command: &mut std::process::Command) {
    // SAFETY: the closure runs between fork and exec, and setsid is async-signal-safe (signal-safety(7)); it allocates
    // nothing and takes no lock.
    unsafe {
        command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(io::Error::from));
    }
}
