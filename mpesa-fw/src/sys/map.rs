//! Elements of maps, read and written with keys and values of a known size.

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{Command, bpf, map_info, raw};

#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct ElementAttribute {
    map: u32,
    reserved: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct BatchAttribute {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// A plain value that can be copied to and from the kernel byte by byte.
pub trait Plain: FromBytes + IntoBytes + Immutable + Copy {}
impl<T: FromBytes + IntoBytes + Immutable + Copy> Plain for T {}

/// A map with keys `K` and values `V`; of a map per CPU, `V` is one CPU's value.
pub struct KernelMap<K, V> {
    fd: OwnedFd,
    max_entries: u32,
    cpus: Option<usize>,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K: Plain, V: Plain> KernelMap<K, V> {
    /// Takes a map, if its keys and values have the size of the types.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        const PER_CPU: [u32; 4] = [5, 6, 10, 21]; // hash, array, LRU hash, cgroup storage
        let info = map_info(fd.as_fd())?;
        let sizes = (info.key_size as usize, info.value_size as usize);
        if sizes != (size_of::<K>(), size_of::<V>()) {
            return Err(io::Error::other(format!(
                "keys and values of {} and {} bytes, expected {} and {}",
                sizes.0,
                sizes.1,
                size_of::<K>(),
                size_of::<V>()
            )));
        }
        let cpus = if PER_CPU.contains(&info.kind) { Some(possible_cpus()?) } else { None };
        Ok(Self { fd, max_entries: info.max_entries, cpus, types: PhantomData })
    }

    /// Its descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Entries at most.
    pub const fn max_entries(&self) -> u32 {
        self.max_entries
    }

    fn element(&self, command: Command, key: &K, value: u64, flags: u64) -> io::Result<()> {
        let mut attribute = ElementAttribute {
            map: raw(self.fd.as_fd()),
            reserved: 0,
            key: std::ptr::from_ref(key) as u64,
            value,
            flags,
        };
        // SAFETY: the key has the map's key size (checked by `new`); callers give a value of the map's value size, times
        // the possible CPUs for a map per CPU.
        unsafe { bpf(command, &mut attribute) }.map(drop)
    }

    /// The value of a key. Not for maps per CPU.
    pub fn get(&self, key: &K) -> io::Result<Option<V>> {
        self.not_per_cpu()?;
        let mut value = V::new_zeroed();
        present(self.element(Command::MapLookup, key, (&raw mut value) as u64, 0))
            .map(|found| found.then_some(value))
    }

    /// Sets the value of a key. Not for maps per CPU.
    pub fn put(&self, key: &K, value: &V) -> io::Result<()> {
        self.not_per_cpu()?;
        self.element(Command::MapUpdate, key, std::ptr::from_ref(value) as u64, 0)
    }

    /// Sets the value of a key that is not there yet; false: it is there, and stays as it is. Not for maps per CPU.
    pub fn add(&self, key: &K, value: &V) -> io::Result<bool> {
        const BPF_NOEXIST: u64 = 1;
        self.not_per_cpu()?;
        match self.element(Command::MapUpdate, key, std::ptr::from_ref(value) as u64, BPF_NOEXIST) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Sets the value of a key that is there; false: it is not. Not for maps per CPU.
    pub fn replace(&self, key: &K, value: &V) -> io::Result<bool> {
        const BPF_EXIST: u64 = 2;
        self.not_per_cpu()?;
        present(self.element(Command::MapUpdate, key, std::ptr::from_ref(value) as u64, BPF_EXIST))
    }

    /// Removes a key; false: it was not there.
    pub fn remove(&self, key: &K) -> io::Result<bool> {
        present(self.element(Command::MapDelete, key, 0, 0))
    }

    /// The values of a key on every possible CPU. Only for maps per CPU.
    pub fn per_cpu(&self, key: &K) -> io::Result<Vec<V>> {
        let (stride, mut bytes) = self.per_cpu_buffer()?;
        self.element(Command::MapLookup, key, bytes.as_mut_ptr() as u64, 0)?;
        Ok(bytes
            .chunks_exact(stride)
            .filter_map(|chunk| V::read_from_prefix(chunk).ok())
            .map(|(v, _)| v)
            .collect())
    }

    /// Sets the values of a key to zero on every CPU. Only for maps per CPU.
    pub fn zero_per_cpu(&self, key: &K) -> io::Result<()> {
        let (_, bytes) = self.per_cpu_buffer()?;
        self.element(Command::MapUpdate, key, bytes.as_ptr() as u64, 0)
    }

    fn per_cpu_buffer(&self) -> io::Result<(usize, Vec<u8>)> {
        let cpus = self.cpus.ok_or_else(|| io::Error::other("not a map per CPU"))?;
        let stride = size_of::<V>().next_multiple_of(8);
        Ok((stride, vec![0; stride * cpus]))
    }

    fn not_per_cpu(&self) -> io::Result<()> {
        if self.cpus.is_some() { Err(io::Error::other("a map per CPU")) } else { Ok(()) }
    }

    /// Calls `each` for every entry of a hash, an array or a trie, many a system call (Linux 5.6). Entries that come or go
    /// meanwhile may be missed or seen twice.
    pub fn for_each(&self, mut each: impl FnMut(&K, &V)) -> io::Result<()> {
        self.not_per_cpu()?;
        /// Entries a system call, once it is known that there are many.
        const MANY: usize = 4096;
        let mut room = (self.max_entries as usize).clamp(1, 256);
        let mut keys = vec![K::new_zeroed(); room];
        let mut values = vec![V::new_zeroed(); room];
        // Where the kernel is: of a hash the number of a bucket, of any other map a key (`generic_map_lookup_batch`).
        let place = size_of::<K>().max(size_of::<u32>());
        let (mut from, mut to) = (vec![0u8; place], vec![0u8; place]);
        let mut has_begun = false;
        loop {
            let mut attribute = BatchAttribute {
                in_batch: if has_begun { from.as_ptr() as u64 } else { 0 },
                out_batch: to.as_mut_ptr() as u64,
                keys: keys.as_mut_ptr() as u64,
                values: values.as_mut_ptr() as u64,
                count: room as u32,
                map: raw(self.fd.as_fd()),
                element_flags: 0,
                flags: 0,
            };
            // SAFETY: room for `count` keys and values of the map's sizes, and for a place of either kind.
            let answer = unsafe { bpf(Command::MapLookupBatch, &mut attribute) };
            let last = match answer {
                Ok(_) => false,
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
                // One bucket of the hash alone has more entries than there is room.
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) && room < 1 << 20 => {
                    room *= 4;
                    keys.resize(room, K::new_zeroed());
                    values.resize(room, V::new_zeroed());
                    continue;
                }
                Err(error) => return Err(error),
            };
            let count = (attribute.count as usize).min(room);
            keys.iter().zip(&values).take(count).for_each(|(key, value)| each(key, value));
            if last {
                return Ok(());
            }
            (from, to, has_begun) = (to, from, true);
            if room < MANY {
                room = MANY.min(self.max_entries as usize).max(room);
                keys.resize(room, K::new_zeroed());
                values.resize(room, V::new_zeroed());
            }
        }
    }
}

/// The first value of an array whose values have any size. Not for maps per CPU.
pub fn first_value(map: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    const ARRAY: u32 = 2;
    let info = map_info(map)?;
    if (info.kind, info.key_size) != (ARRAY, 4) {
        return Err(io::Error::other(format!("a map of type {} is no array", info.kind)));
    }
    let key = 0u32;
    let mut value = vec![0; info.value_size as usize];
    let mut attribute = ElementAttribute {
        map: raw(map),
        reserved: 0,
        key: (&raw const key) as u64,
        value: value.as_mut_ptr() as u64,
        flags: 0,
    };
    // SAFETY: a key of 4 bytes, and room for one value of this map, which is an array.
    unsafe { bpf(Command::MapLookup, &mut attribute) }?;
    Ok(value)
}

fn present(answer: io::Result<()>) -> io::Result<bool> {
    match answer {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// CPUs that may ever be there: how many values an element of a map per CPU has.
fn possible_cpus() -> io::Result<usize> {
    aya::util::nr_cpus().map_err(|(path, error)| io::Error::other(format!("{path}: {error}")))
}

#[cfg(test)]
mod tests {
    use aya::maps::{
        IterableMap as _, MapData,
        lpm_trie::{Key, LpmTrie},
    };

    use super::*;

    /// A key of `ASKED_NAMES`: a length, and a name.
    type Name = [u8; 260];

    #[test]
    #[ignore = "needs root and a kernel"]
    fn every_entry_of_a_trie_is_read_once() {
        for (entries, room) in [(0u32, 1u32), (1, 1), (2, 2), (300, 300), (300, 5000)] {
            let mut trie = LpmTrie::<MapData, [u8; 256], u64>::create(room, 1).unwrap(); // BPF_F_NO_PREALLOC
            for n in 0..entries {
                let mut name = [0; 256];
                name[..4].copy_from_slice(&n.to_be_bytes());
                trie.insert(&Key::new(8 * 256, name), u64::from(n), 0).unwrap();
            }
            let fd = trie.map().fd().as_fd().try_clone_to_owned().unwrap();
            let map = KernelMap::<Name, u64>::new(fd).unwrap();
            let mut seen = Vec::new();
            map.for_each(|key, value| seen.push((key[7], *value))).unwrap();
            seen.sort_by_key(|(_, value)| *value);
            let expected: Vec<_> = (0..entries).map(|n| (n as u8, u64::from(n))).collect();
            assert_eq!(seen, expected, "{entries} in {room}");
        }
    }
}
