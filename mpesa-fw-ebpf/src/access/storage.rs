//! What is kept with a socket.

use core::{ffi::c_void, ptr};

use aya_ebpf::{btf_maps::SkStorage, helpers::generated::bpf_sk_storage_get};

/// What a map keeps with a socket that is held: one of those that are no full sockets has nothing.
#[inline(always)]
pub(super) fn storage<'a, T>(
    map: &'static SkStorage<T>,
    socket: *mut c_void,
    flags: u32,
) -> Option<&'a mut T> {
    let map = ptr::from_ref(map).cast_mut().cast();
    // SAFETY: the map is one of socket storages; its values are `T`s, zeros at first, that stay as long as the socket.
    unsafe {
        let value = bpf_sk_storage_get(map, socket, ptr::null_mut(), flags.into());
        value.cast::<T>().as_mut()
    }
}
