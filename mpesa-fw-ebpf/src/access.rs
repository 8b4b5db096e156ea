//! The one file of the programs (with its parts for sockets, who made them, listeners, connections, options and captures) that reads and writes through pointers: packets,
//! map values, sockets.

use core::{arch::asm, ptr};

use aya_ebpf::{
    bindings::{__sk_buff, xdp_md},
    helpers::generated::{
        bpf_jiffies64, bpf_ktime_get_coarse_ns, bpf_ktime_get_ns, bpf_skb_pull_data, bpf_xdp_get_buff_len,
    },
    maps::lpm_trie::{Key, LpmTrie},
};
use mpesa_fw_common::{
    dns::NAME_ROOM,
    packet::{PacketBytes, PacketMeta, Parsed},
};

/// Reads one field of a context by itself. Verifier: contexts are read in the width of their fields, and the compiler would join two.
macro_rules! field {
    ($of:expr, $($field:tt)+) => {{
        // SAFETY: the kernel passes a valid context to the program; the field lies within it.
        unsafe { core::ptr::read_volatile(&raw const (*$of.context).$($field)+) }
    }};
}

mod attempt;
mod capture;
mod connection;
mod listener;
mod maker;
mod option;
mod socket;
mod storage;

pub use attempt::{SocketAddress, current};
pub use capture::{Message, Skb, Source, entry};
pub use connection::Connection;
pub use maker::NewSocket;
pub use option::SocketOption;

/// Verifier: an offset into a packet must have an upper bound before it is added (MAX_PACKET_OFF is 0xffff). No header
/// that counts lies further in than this.
const MAX_OFFSET: usize = 0x3fff;
/// Bytes of headers that are made linear at TC: Ethernet, two tags, IPv6 and six extension headers of usual size.
const LINEAR_HEADERS: u32 = 256;

/// What a program asks of a frame besides its bytes.
pub trait Frame: PacketBytes {
    /// Index of the interface it comes in by, or leaves by.
    fn interface(&self) -> u32;
    /// Bytes to count for a frame of which `meta` is known.
    fn counted_length(&self, meta: &PacketMeta) -> u32;
}

/// A frame at XDP. The kernel sets both pointers of the context, and they stay valid while the program runs.
pub struct XdpFrame {
    context: *mut xdp_md,
    start: usize,
    end: usize,
}

impl XdpFrame {
    #[inline(always)]
    pub fn new(context: *mut xdp_md) -> Self {
        // SAFETY: the kernel passes a valid context to the program.
        let (start, end) = unsafe { ((*context).data as usize, (*context).data_end as usize) };
        Self { context, start, end }
    }

    /// What the kernel calls with.
    #[inline(always)]
    pub const fn context(&self) -> *mut xdp_md {
        self.context
    }

    #[inline(always)]
    fn linear(&self) -> u32 {
        (self.end - self.start) as u32
    }
}

impl Frame for XdpFrame {
    #[inline(always)]
    fn interface(&self) -> u32 {
        // SAFETY: the context is valid.
        unsafe { (*self.context).ingress_ifindex }
    }

    #[inline(always)]
    fn counted_length(&self, meta: &PacketMeta) -> u32 {
        // The helper is not inlined by the JIT; a packet in one buffer does without. Where it ends is known of IP only.
        let is_known = matches!(meta.parsed, Parsed::Ip);
        if is_known && meta.end <= self.linear() { self.linear() } else { self.length() }
    }
}

impl PacketBytes for XdpFrame {
    #[inline(always)]
    fn length(&self) -> u32 {
        // SAFETY: the context is valid.
        unsafe { bpf_xdp_get_buff_len(self.context) as u32 }
    }

    #[inline(always)]
    fn holds(&self, length: u32) -> bool {
        // Only a frame of several buffers (a large MTU) is longer than its linear part.
        length <= self.linear() || length <= self.length()
    }

    #[inline(always)]
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        read(self.start, self.end, offset)
    }

    #[inline(always)]
    fn stripped_tags(&self) -> u32 {
        0 // a tag that the NIC took off (rx-vlan offload) can't be seen at XDP; `doctor` warns of the offload
    }

    #[inline(always)]
    fn is_segmented(&self) -> bool {
        false
    }
}

/// A frame at TC, its headers made linear.
pub struct SkbFrame {
    context: *mut __sk_buff,
    start: usize,
    end: usize,
    length: u32,
    segmented: bool,
    stripped_tags: u32,
}

impl SkbFrame {
    #[inline(always)]
    pub fn new(context: *mut __sk_buff) -> Self {
        // SAFETY: the kernel passes a valid context to the program; pulling may move the data, so that the pointers are
        // read after it.
        unsafe {
            let length = (*context).len;
            let linear = (*context).data_end - (*context).data;
            if linear < LINEAR_HEADERS && linear < length {
                let wanted = if length < LINEAR_HEADERS { length } else { LINEAR_HEADERS };
                // Where it fails, the headers can't be read and the frame is malformed.
                let _pulled = bpf_skb_pull_data(context, wanted);
            }
            Self {
                context,
                start: (*context).data as usize,
                end: (*context).data_end as usize,
                length,
                segmented: (*context).gso_size != 0,
                stripped_tags: ((*context).vlan_present != 0) as u32,
            }
        }
    }
}

impl Frame for SkbFrame {
    #[inline(always)]
    fn interface(&self) -> u32 {
        // SAFETY: the context is valid.
        unsafe { (*self.context).ifindex }
    }

    #[inline(always)]
    fn counted_length(&self, _: &PacketMeta) -> u32 {
        self.length
    }
}

impl PacketBytes for SkbFrame {
    #[inline(always)]
    fn length(&self) -> u32 {
        self.length
    }

    #[inline(always)]
    fn holds(&self, length: u32) -> bool {
        length <= self.length
    }

    #[inline(always)]
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        read(self.start, self.end, offset)
    }

    #[inline(always)]
    fn stripped_tags(&self) -> u32 {
        self.stripped_tags
    }

    #[inline(always)]
    fn is_segmented(&self) -> bool {
        self.segmented
    }
}

impl SkbFrame {
    /// What the kernel calls with.
    #[inline(always)]
    pub const fn context(&self) -> *mut __sk_buff {
        self.context
    }
}

#[inline(always)]
fn read<const N: usize>(start: usize, end: usize, offset: u32) -> Option<[u8; N]> {
    let from = within(start, end, offset, N)?;
    // SAFETY: from .. from + N lies within the packet; any bytes are a [u8; N].
    Some(unsafe { ptr::read_unaligned(from as *const [u8; N]) })
}

/// A frame whose bytes can be changed.
#[cfg(feature = "bench")]
pub trait Editable: Frame {
    /// Writes `N` bytes at `offset`, if they are in the part of the frame that can be reached.
    fn write<const N: usize>(&mut self, offset: u32, bytes: [u8; N]) -> Option<()>;
}

#[cfg(feature = "bench")]
impl Editable for XdpFrame {
    #[inline(always)]
    fn write<const N: usize>(&mut self, offset: u32, bytes: [u8; N]) -> Option<()> {
        write(self.start, self.end, offset, bytes)
    }
}

#[cfg(feature = "bench")]
impl Editable for SkbFrame {
    #[inline(always)]
    fn write<const N: usize>(&mut self, offset: u32, bytes: [u8; N]) -> Option<()> {
        write(self.start, self.end, offset, bytes)
    }
}

#[cfg(feature = "bench")]
#[inline(always)]
fn write<const N: usize>(start: usize, end: usize, offset: u32, bytes: [u8; N]) -> Option<()> {
    let to = within(start, end, offset, N)?;
    // SAFETY: to .. to + N lies within the packet, and nothing else refers to it.
    unsafe { ptr::write_unaligned(to as *mut [u8; N], bytes) };
    Some(())
}

/// Where `length` bytes at `offset` are, if they lie within the packet.
#[inline(always)]
fn within(start: usize, end: usize, offset: u32, length: usize) -> Option<usize> {
    // Verifier: the number that is compared must be the one that is added, in one register of 64 bits. Where the compiler knows
    // a bound from elsewhere it leaves the comparison out, or compares another copy, or signed 32 bits: up to Linux 6.12 the
    // verifier then takes the pointer for one without a bound.
    let mut offset = offset as usize;
    // SAFETY: the statement has no effect.
    unsafe { asm!("{0} = {0}", inout(reg) offset) };
    if offset > MAX_OFFSET {
        return None;
    }
    let mut from = start + offset;
    // Verifier: the pointer that is checked must be the one that is read; without this the compiler checks
    // `offset` against a length and then adds it anew ("offset is outside of the packet").
    // SAFETY: the statement has no effect.
    unsafe { asm!("{0} = {0}", inout(reg) from) };
    if from + length > end { None } else { Some(from) }
}

/// A map value, to be changed in place.
#[inline(always)]
pub fn value<'a, T>(value: Option<*mut T>) -> Option<&'a mut T> {
    // SAFETY: the map look-up returned it, so it points to a value that stays allocated while the program runs.
    // Programs on other CPUs and the agent may write to it at the same time, as with every BPF map: values are
    // plain integers, and a lost update costs one count or one refresh, never a bound.
    value.map(|value| unsafe { &mut *value })
}

/// Copies the value of a trie under the key that begins at `begin` of `room`.
#[inline(always)]
pub fn trie_value<D, V: Copy>(map: &LpmTrie<D, V>, room: &[u8; NAME_ROOM], begin: usize) -> Option<V> {
    const { assert!(size_of::<Key<D>>() < NAME_ROOM) }
    // Verifier: as in `within`, the number that is compared is the one that is added.
    let mut begin = begin;
    // SAFETY: the statement has no effect.
    unsafe { asm!("{0} = {0}", inout(reg) begin) };
    if begin > NAME_ROOM - size_of::<Key<D>>() {
        return None;
    }
    // SAFETY: the whole key lies within `room`; it is packed, and any octets are one.
    let key = unsafe { &*room.as_ptr().add(begin).cast::<Key<D>>() };
    map.get(key).copied()
}

/// Copies a map value.
#[inline(always)]
pub fn copied<T: Copy>(value: Option<*const T>) -> Option<T> {
    // SAFETY: as in `value`.
    value.map(|value| unsafe { *value })
}

/// Sets bits in a word that others may set bits in at the same time.
#[inline(always)]
pub fn set_bits(word: Option<*mut u64>, bits: u64) {
    if let Some(word) = word {
        // SAFETY: as in `value`; an array's values are aligned to 8 bytes. An instruction of its own
        // (BPF_ATOMIC | BPF_OR, any kernel), because `core` has no atomics that write for this target.
        unsafe {
            if ptr::read_volatile(word) & bits != bits {
                asm!("lock *(u64 *)({0} + 0) |= {1}", in(reg) word, in(reg) bits);
            }
        }
    }
}

/// Adds to a number that others may add to at the same time.
#[inline(always)]
pub fn add(number: &mut u64, more: u64) {
    // SAFETY: a valid, aligned number. An instruction of its own (BPF_ATOMIC | BPF_ADD, any kernel), as in `set_bits`.
    unsafe { asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) number, in(reg) more) };
}

/// Makes the compiler forget what it knows of a number.
///
/// Verifier: a mask that the compiler finds superfluous (the number comes from an enum) is not superfluous to the
/// verifier, which sees any byte.
#[inline(always)]
pub fn opaque(mut number: u32) -> u32 {
    // SAFETY: the statement has no effect.
    unsafe { asm!("{0} = {0}", inout(reg) number) };
    number
}

/// Makes the compiler forget what it knows of the contents of maps: from here on it reads them again.
///
/// Verifier: what it then has in its registers is the same whichever way it came here, so that it walks on from here once.
#[inline(always)]
pub fn settle() {
    opaque(0);
}

/// Reads a constant that the agent wrote into `.rodata` before the program was loaded.
#[inline(always)]
pub fn constant<T: Copy>(field: *const T) -> T {
    // SAFETY: `field` points into a static. Volatile, so that the compiler does not take the initial value for the one.
    unsafe { ptr::read_volatile(field) }
}

/// Monotonic clock, nanoseconds, as of the last tick (Linux 5.11).
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: takes no arguments.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// Monotonic clock, nanoseconds, as of now. A call of about 35 ns.
#[inline(always)]
pub fn exactly_now() -> u64 {
    // SAFETY: takes no arguments.
    unsafe { bpf_ktime_get_ns() }
}

/// Ticks since boot. The JIT inlines it.
#[inline(always)]
pub fn jiffies() -> u64 {
    // SAFETY: takes no arguments.
    unsafe { bpf_jiffies64() }
}
