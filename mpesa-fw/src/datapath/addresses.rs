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
    state.written.borrow_mut().own = None;
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
    set_hints(state, wanted.iter()).context(what)?;
    state.written.borrow_mut().own = Some(wanted.into_iter().collect());
    Ok(())
}

/// Whether somebody else wrote into the addresses of this host, or their hints.
pub(super) fn is_own_changed(state: &State) -> Result<bool> {
    let what = || "read the addresses of this host";
    let written = state.written.borrow();
    let Some(own) = &written.own else { return Ok(false) };
    let mut known = Vec::with_capacity(own.len());
    state.own_addresses.for_each(|address, _| known.push(*address)).context(what)?;
    known.sort_unstable();
    let words = hint_words(own.iter());
    let mut is_hint_changed = false;
    let read =
        state.own_hints.for_each(|index, word| is_hint_changed |= words.get(*index as usize) != Some(word));
    read.context(what)?;
    Ok(known != *own || is_hint_changed)
}

/// Writes them again. Where that fails they are still known, to be found changed at the next look.
pub(super) fn restore_own(state: &State) -> Result<()> {
    let own = state.written.borrow().own.clone().unwrap_or_default();
    let written = set_own(state, &own.iter().copied().map(IpAddr::from).collect());
    state.written.borrow_mut().own = Some(own);
    written
}

/// Whether somebody else wrote into the answers of names.
pub(super) fn is_resolved_changed(state: &State) -> Result<bool> {
    let written = state.written.borrow();
    let Some(resolved) = &written.resolved else { return Ok(false) };
    let (mut count, mut is_changed) = (0, false);
    let read = state.resolved.for_each(|address, names| {
        count += 1;
        is_changed |= resolved.get(address) != Some(names);
    });
    read.context(|| "read the answers of DNS names")?;
    Ok(is_changed || count != resolved.len())
}

/// Likewise.
pub(super) fn restore_resolved(state: &State) -> Result<()> {
    let wanted = state.written.borrow().resolved.clone().unwrap_or_default();
    let written = put_resolved(state, wanted.clone()).map(drop);
    if written.is_err() {
        state.written.borrow_mut().resolved = Some(wanted);
    }
    written
}

/// Writes the words of the bitmap that differ.
fn set_hints<'a>(state: &State, addresses: impl Iterator<Item = &'a Address>) -> io::Result<()> {
    for (index, word) in (0u32..).zip(hint_words(addresses)) {
        if state.own_hints.get(&index)? != Some(word) {
            state.own_hints.put(&index, &word)?;
        }
    }
    Ok(())
}

fn hint_words<'a>(addresses: impl Iterator<Item = &'a Address>) -> Vec<u64> {
    let mut words = vec![0u64; BITMAP_WORDS];
    for address in addresses {
        let hint = address.hint();
        words[usize::from(hint / 64)] |= 1 << (hint % 64);
    }
    words
}

/// Sets which name slots each address is an answer to. Answers how many addresses, or names of one, had no room.
pub(super) fn set_resolved(state: &State, answers: &BTreeMap<IpAddr, Vec<u16>>) -> Result<usize> {
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
    Ok(unfit + put_resolved(state, wanted)?)
}

/// Makes the table hold these, additions first. Answers how many had no room.
fn put_resolved(state: &State, mut wanted: BTreeMap<Address, ResolvedNames>) -> Result<usize> {
    let what = || "set the answers of DNS names";
    state.written.borrow_mut().resolved = None;
    let mut known = BTreeMap::new();
    state.resolved.for_each(|address, names| known.extend([(*address, *names)])).context(what)?;

    let mut postponed = Vec::new();
    for (address, names) in &wanted {
        if known.get(address) != Some(names) && !put_if_room(state, address, names).context(what)? {
            postponed.push((*address, *names));
        }
    }
    for address in known.keys().filter(|address| !wanted.contains_key(address)) {
        state.resolved.remove(address).context(what)?;
    }
    let mut unfit = 0;
    for (address, names) in postponed {
        if !put_if_room(state, &address, &names).context(what)? {
            unfit += 1;
            wanted.remove(&address);
        }
    }
    state.written.borrow_mut().resolved = Some(wanted);
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
    state.written.borrow_mut().resolved = None;
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
