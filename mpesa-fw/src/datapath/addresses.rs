//! Addresses of this host, and answers of DNS names: state that the agent keeps up to date.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
};

use mpesa_fw_common::{
    Address,
    state::BITMAP_WORDS,
    tables::{NAMES_PER_ADDRESS, ResolvedNames},
};

use super::{DatapathError, ErrorKind, Result, error::Context, state::State};

/// Sets the addresses of this host. One that stays is never missing meanwhile: the exact table first, then the hints.
pub(super) fn set_own(state: &State, addresses: &BTreeSet<IpAddr>) -> Result<()> {
    let what = || "set the addresses of this host";
    let wanted: BTreeSet<Address> = addresses.iter().copied().map(Address::from).collect();
    let capacity = state.own_addresses.max_entries();
    if wanted.len() > capacity as usize {
        return Err(DatapathError::new(
            ErrorKind::Full,
            what(),
            format!("there are {}, and the table holds {capacity}", wanted.len()),
            "remove some of them from the interfaces: packets that claim the others as source are not recognised",
        ));
    }
    let mut known = BTreeSet::new();
    state.own_addresses.for_each(|address, _| known.extend([*address])).context(what)?;
    // Those that are gone first only where there is no room for both.
    let gone: Vec<_> = known.difference(&wanted).collect();
    let crowded = known.len() + wanted.len() > capacity as usize;
    let remove = || gone.iter().try_for_each(|address| state.own_addresses.remove(address).map(drop));
    if crowded {
        remove().context(what)?;
    }
    for address in wanted.difference(&known) {
        state.own_addresses.put(address, &1).context(what)?;
    }
    set_hints(state, wanted.iter().chain(&known)).context(what)?;
    remove().context(what)?;
    set_hints(state, wanted.iter()).context(what)
}

/// Writes the words of the bitmap that differ.
fn set_hints<'a>(state: &State, addresses: impl Iterator<Item = &'a Address>) -> io::Result<()> {
    let mut words = vec![0u64; BITMAP_WORDS];
    for address in addresses {
        let hint = address.hint();
        words[usize::from(hint / 64)] |= 1 << (hint % 64);
    }
    for (index, word) in (0u32..).zip(words) {
        if state.own_hints.get(&index)? != Some(word) {
            state.own_hints.put(&index, &word)?;
        }
    }
    Ok(())
}

/// Sets which name slots each address is an answer to. Answers how many addresses, or names of one, had no room.
pub(super) fn set_resolved(state: &State, answers: &BTreeMap<IpAddr, Vec<u16>>) -> Result<usize> {
    let what = || "set the answers of DNS names";
    let mut unfit = 0;
    let mut wanted = BTreeMap::new();
    for (address, slots) in answers {
        let slots: BTreeSet<u16> = slots.iter().copied().collect();
        unfit += slots.len().saturating_sub(NAMES_PER_ADDRESS);
        let mut names: ResolvedNames = [0; NAMES_PER_ADDRESS];
        for (place, slot) in names.iter_mut().zip(slots) {
            *place = slot + 1;
        }
        wanted.insert(Address::from(*address), names);
    }
    let mut known = BTreeMap::new();
    state.resolved.for_each(|address, names| known.extend([(*address, *names)])).context(what)?;

    let mut postponed = Vec::new();
    for (address, names) in &wanted {
        if known.get(address) != Some(names) && !put_if_room(state, address, names).context(what)? {
            postponed.push((address, names));
        }
    }
    for address in known.keys().filter(|address| !wanted.contains_key(address)) {
        state.resolved.remove(address).context(what)?;
    }
    for (address, names) in postponed {
        unfit += usize::from(!put_if_room(state, address, names).context(what)?);
    }
    Ok(unfit)
}

fn put_if_room(state: &State, address: &Address, names: &ResolvedNames) -> io::Result<bool> {
    match state.resolved.put(address, names) {
        Err(error) if error.raw_os_error() == Some(libc::E2BIG) => Ok(false),
        other => other.map(|()| true),
    }
}

/// Takes name slots out of every answer: they are about to belong to other names.
pub(super) fn purge_names(state: &State, slots: &[u16]) -> io::Result<()> {
    if slots.is_empty() {
        return Ok(());
    }
    let mut changed = Vec::new();
    state.resolved.for_each(|address, names| {
        let kept = names.map(|name| if name != 0 && slots.contains(&(name - 1)) { 0 } else { name });
        if kept != *names {
            changed.push((*address, kept));
        }
    })?;
    for (address, names) in changed {
        if names == [0; NAMES_PER_ADDRESS] {
            state.resolved.remove(&address)?;
        } else {
            state.resolved.replace(&address, &names)?;
        }
    }
    Ok(())
}
