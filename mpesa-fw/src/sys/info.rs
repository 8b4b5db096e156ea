//! What the kernel says of its objects: maps, programs, links.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

use super::{BPF_TCX_EGRESS, BPF_TCX_INGRESS, object_info};

const LINK_TYPE_CGROUP: u32 = 3;
const LINK_TYPE_XDP: u32 = 6;
const LINK_TYPE_TCX: u32 = 11;

/// What a pin may stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectKind {
    /// A map.
    Map,
    /// A program.
    Program,
    /// A link.
    Link,
    /// None of them.
    Other,
}

/// What is behind a descriptor. To be asked of pins that somebody else may have made: each kind of object has another
/// structure of information, and the kernel fills in that of the object, whatever the caller expects.
pub fn object_kind(fd: BorrowedFd<'_>) -> io::Result<ObjectKind> {
    let target = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
    Ok(match target.to_string_lossy().as_ref() {
        "anon_inode:bpf-map" => ObjectKind::Map,
        "anon_inode:bpf-prog" => ObjectKind::Program,
        // Both are in use: bpf_link_prime and bpf_link_new_fd.
        "anon_inode:bpf_link" | "anon_inode:bpf-link" => ObjectKind::Link,
        _ => ObjectKind::Other,
    })
}

/// What the kernel says of a map (the beginning of struct `bpf_map_info`).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct MapInfo {
    /// enum `bpf_map_type`.
    pub kind: u32,
    /// Unique until the next boot.
    pub id: u32,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// Entries at most.
    pub max_entries: u32,
    /// `BPF_F_…`.
    pub flags: u32,
    /// At most 15 bytes of it.
    pub name: [u8; 16],
}

/// What the kernel says of a map.
pub fn map_info(fd: BorrowedFd<'_>) -> io::Result<MapInfo> {
    let mut answer = MapInfo::new_zeroed();
    object_info(fd, &mut answer)?;
    Ok(answer)
}

/// The beginning of struct `bpf_prog_info`.
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct RawProgramInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    lengths: [u32; 2],
    instructions: [u64; 2],
    load_time: u64,
    uid: u32,
    maps_len: u32,
    maps: u64,
    name: [u8; 16],
}

/// What the kernel says of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramInfo {
    /// Unique until the next boot.
    pub id: u32,
    /// At most 15 bytes of it.
    pub name: String,
    /// Hash of its instructions as they were loaded, whichever maps they name.
    pub tag: [u8; 8],
    /// When it was loaded, nanoseconds since boot.
    pub load_time: u64,
    /// Who loaded it.
    pub uid: u32,
    /// Maps that it uses or keeps.
    pub maps: Vec<u32>,
}

/// What the kernel says of a program.
pub fn program_info(fd: BorrowedFd<'_>) -> io::Result<ProgramInfo> {
    /// `MAX_USED_MAPS` of the kernel.
    const MAPS: u32 = 64;
    let mut maps = vec![0u32; MAPS as usize];
    let mut answer = RawProgramInfo::new_zeroed();
    answer.maps_len = MAPS;
    answer.maps = maps.as_mut_ptr() as u64;
    object_info(fd, &mut answer)?;
    maps.truncate(answer.maps_len as usize);
    let RawProgramInfo { id, tag, load_time, uid, .. } = answer;
    Ok(ProgramInfo { id, name: name_of(&answer.name), tag, load_time, uid, maps })
}

fn name_of(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// What kind of hook a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// XDP.
    Xdp,
    /// TCX ingress.
    TcxIngress,
    /// TCX egress.
    TcxEgress,
    /// A hook of a cgroup, by its attach type.
    Cgroup(u32),
    /// Something that this program never makes.
    Other,
}

/// The beginning of struct `bpf_link_info` for XDP and TCX links. Of a cgroup's link both words are its id, and the attach type is
/// behind.
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct RawLinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    reserved: u32,
    interface: u32,
    attach_type: u32,
    rest: [u64; 4],
}

/// What the kernel says of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkInfo {
    /// Unique until the next boot.
    pub id: u32,
    /// XDP or TCX.
    pub kind: LinkKind,
    /// Id of its program.
    pub program: u32,
    /// Index of its interface; 0: the interface is gone, or the link was detached. 0 also of a cgroup's link.
    pub interface: u32,
    /// Id of its cgroup; 0: the link was detached, or is of another kind.
    pub cgroup: u64,
}

/// What the kernel says of a link.
pub fn link_info(fd: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let mut answer = RawLinkInfo::new_zeroed();
    object_info(fd, &mut answer)?;
    let of_cgroup = answer.kind == LINK_TYPE_CGROUP;
    let kind = match (answer.kind, answer.attach_type) {
        (LINK_TYPE_CGROUP, _) => LinkKind::Cgroup(answer.rest[0] as u32),
        (LINK_TYPE_XDP, _) => LinkKind::Xdp,
        (LINK_TYPE_TCX, BPF_TCX_INGRESS) => LinkKind::TcxIngress,
        (LINK_TYPE_TCX, BPF_TCX_EGRESS) => LinkKind::TcxEgress,
        _ => LinkKind::Other,
    };
    let cgroup = u64::from(answer.attach_type) << 32 | u64::from(answer.interface);
    Ok(LinkInfo {
        id: answer.id,
        kind,
        program: answer.program,
        interface: if of_cgroup { 0 } else { answer.interface },
        cgroup: if of_cgroup { cgroup } else { 0 },
    })
}
