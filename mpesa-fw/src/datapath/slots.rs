//! Places of interfaces in the counters.

use std::io;

use mpesa_fw_common::{
    counter::{COUNTER_SLOTS, INTERFACES, counter_index},
    state::InterfaceSlot,
};

use super::{DatapathError, ErrorKind, Interface, Result, error::Context, registry::name_of, state::State};

/// A place, and the interface that has it. Index 0: the interface is gone, its counts are kept under its name.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) number: u32,
    pub(super) interface: Interface,
}

/// Every place that has or had an interface.
pub(super) fn taken(state: &State) -> Result<Vec<Place>> {
    let places = all(state)?;
    Ok(places.into_iter().filter(|place| !place.interface.name.is_empty()).collect())
}

/// Every place as it stands in the map.
pub(super) fn read(state: &State) -> Result<Vec<InterfaceSlot>> {
    (0..INTERFACES as u32)
        .map(|number| Ok(state.interface_slots.get(&number)?.unwrap_or_default()))
        .collect::<io::Result<_>>()
        .context(|| "read the places of interfaces")
}

/// Writes them.
pub(super) fn restore(state: &State, places: &[InterfaceSlot]) -> Result<()> {
    let write = |(number, place)| state.interface_slots.put(&number, place);
    (0u32..).zip(places).try_for_each(write).context(|| "write the places of interfaces")
}

fn all(state: &State) -> Result<Vec<Place>> {
    (0..INTERFACES as u32)
        .map(|number| {
            let slot = state.interface_slots.get(&number)?.unwrap_or_default();
            let interface = Interface { name: name_of(&slot.name), index: slot.index };
            Ok(Place { number, interface })
        })
        .collect::<io::Result<_>>()
        .context(|| "read the places of interfaces")
}

/// Gives an interface a place: its old one by name, a free one, that of one that is gone, or at last of one that is `spare`, which is
/// counted with the first until it is let go. Before it is attached.
pub(super) fn assign(state: &State, interface: &Interface, spare: impl Fn(u32) -> bool) -> Result<()> {
    let what = || format!("give {} a place in the counters", interface.name);
    let places = all(state)?;
    // The programs look for the index: it stands in one place only.
    for place in &places {
        if place.interface.index == interface.index && place.interface.name != interface.name {
            write(state, place.number, &Interface { name: place.interface.name.clone(), index: 0 })
                .context(what)?;
        }
    }
    let by_name = places.iter().find(|place| place.interface.name == interface.name);
    let free = || places.iter().find(|place| place.interface.name.is_empty());
    let gone =
        || places.iter().find(|place| place.interface.index == 0 || place.interface.index == interface.index);
    let let_go = || places.iter().find(|place| spare(place.interface.index));
    let Some(place) = by_name.or_else(free).or_else(gone).or_else(let_go) else {
        return Err(DatapathError::new(
            ErrorKind::Full,
            what(),
            format!("{INTERFACES} interfaces are protected already"),
            "name fewer interfaces in the policy",
        ));
    };
    if place.interface == *interface {
        return Ok(());
    }
    if place.interface.name != interface.name && !place.interface.name.is_empty() {
        for row in 0..COUNTER_SLOTS as u32 {
            state.counters.zero_per_cpu(&counter_index(place.number, row)).context(what)?;
        }
    }
    write(state, place.number, interface).context(what)
}

/// Frees the place of an interface; its counts stay.
pub(super) fn release(state: &State, index: u32) -> Result<()> {
    for place in taken(state)? {
        if place.interface.index == index {
            let gone = Interface { name: place.interface.name, index: 0 };
            write(state, place.number, &gone).context(|| format!("free the place of {}", gone.name))?;
        }
    }
    Ok(())
}

fn write(state: &State, number: u32, interface: &Interface) -> io::Result<()> {
    let mut slot = InterfaceSlot { index: interface.index, ..InterfaceSlot::default() };
    for (place, byte) in slot.name.iter_mut().zip(interface.name.bytes()) {
        *place = byte;
    }
    state.interface_slots.put(&number, &slot)
}
