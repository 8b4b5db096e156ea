//! A fixed number of places that names keep.

use std::collections::{BTreeMap, BTreeSet};

use mpesa_fw_common::{Direction, state::NameSlot};

use super::{
    RegistryError, RowOwner,
    rows::{self, Entry, LONGEST_NAME},
};

/// Who wants a place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) direction: Direction,
    pub(super) name: String,
}

impl Key {
    pub(super) fn new(direction: Direction, name: &str) -> Self {
        Self { direction, name: name.to_owned() }
    }

    /// What has no direction is kept under the first.
    pub(super) fn undirected(name: &str) -> Self {
        Self::new(Direction::Ingress, name)
    }
}

/// The places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Places {
    places: Vec<Option<Place>>,
    /// How many of them, from the first, belong to nobody for good.
    reserved: usize,
    /// Assignments so far: the clock of [`Place::gone_since`].
    round: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    key: Key,
    /// The assignment that no longer wanted it.
    gone_since: Option<u64>,
}

impl Place {
    fn entry(&self) -> Entry<'_> {
        Entry { direction: self.key.direction, name: &self.key.name, in_use: self.gone_since.is_none() }
    }
}

/// What an assignment leads to.
#[derive(Debug)]
pub(super) struct Assigned {
    pub(super) places: Places,
    pub(super) taken: BTreeMap<Key, u32>,
    /// Places whose owner is new.
    pub(super) fresh: Vec<u32>,
}

impl Places {
    pub(super) fn from_rows(rows: &[NameSlot], room: usize, reserved: &[Direction]) -> Self {
        let mut places = vec![None; room];
        for (place, direction) in places.iter_mut().zip(reserved) {
            *place = Some(Place { key: Key::new(*direction, ""), gone_since: None });
        }
        let mut seen = BTreeSet::new();
        for (place, row) in places.iter_mut().zip(rows).skip(reserved.len()) {
            let Some(Entry { direction, name, in_use }) = rows::read(row) else {
                continue;
            };
            let key = Key::new(direction, name);
            if seen.insert(key.clone()) {
                *place = Some(Place { key, gone_since: (!in_use).then_some(0) });
            }
        }
        Self { places, reserved: reserved.len(), round: 0 }
    }

    pub(super) fn to_rows(&self) -> Vec<NameSlot> {
        self.places.iter().map(|place| rows::write(place.as_ref().map(Place::entry))).collect()
    }

    pub(super) fn owners(&self) -> impl Iterator<Item = RowOwner<'_>> {
        (0..).zip(&self.places).filter_map(|(row, place)| {
            let Entry { direction, name, in_use } = place.as_ref()?.entry();
            Some(RowOwner { row, direction, name, in_use })
        })
    }

    pub(super) fn assign(
        &self,
        wanted: impl Iterator<Item = Key>,
        what: &'static str,
        advice: &'static str,
    ) -> Result<Assigned, RegistryError> {
        let wanted: Vec<Key> = distinct(wanted);
        let room = self.places.len() - self.reserved;
        if wanted.len() > room {
            return Err(RegistryError::Full { what, wanted: wanted.len(), room, advice });
        }
        if let Some(Key { name, .. }) = wanted.iter().find(|key| key.name.len() > LONGEST_NAME) {
            return Err(RegistryError::NameTooLong {
                name: name.clone(),
                length: name.len(),
                room: LONGEST_NAME,
            });
        }
        let mut places = self.clone();
        let mut taken = places.keep(&wanted);
        let new: Vec<Key> = wanted.into_iter().filter(|key| !taken.contains_key(key)).collect();
        let fresh: Vec<u32> = places.vacant().into_iter().take(new.len()).collect();
        for (key, row) in new.into_iter().zip(&fresh) {
            places.places[*row as usize] = Some(Place { key: key.clone(), gone_since: None });
            taken.insert(key, *row);
        }
        Ok(Assigned { places, taken, fresh })
    }

    /// Who is wanted and has a place keeps it; who is not wanted is gone from now on.
    fn keep(&mut self, wanted: &[Key]) -> BTreeMap<Key, u32> {
        self.round += 1;
        let wanted: BTreeSet<&Key> = wanted.iter().collect();
        let mut kept = BTreeMap::new();
        for (row, place) in (0..).zip(&mut self.places).skip(self.reserved) {
            let Some(place) = place else { continue };
            if wanted.contains(&place.key) {
                place.gone_since = None;
                kept.insert(place.key.clone(), row);
            } else {
                place.gone_since = place.gone_since.or(Some(self.round));
            }
        }
        kept
    }

    /// Places that may be given away, in that order: the free ones, then those whose owner has been gone for longest.
    /// Last come the ones that the running generation still uses.
    fn vacant(&self) -> Vec<u32> {
        let since = |place: &Option<Place>| match place {
            None => Some(None),
            Some(place) => place.gone_since.map(Some),
        };
        let mut vacant: Vec<(Option<u64>, u32)> = (0..)
            .zip(&self.places)
            .skip(self.reserved)
            .filter_map(|(row, place)| Some((since(place)?, row)))
            .collect();
        vacant.sort_unstable();
        vacant.into_iter().map(|(_, row)| row).collect()
    }
}

/// Each once, in the order of their first mention.
fn distinct(keys: impl Iterator<Item = Key>) -> Vec<Key> {
    let mut seen = BTreeSet::new();
    keys.filter(|key| seen.insert(key.clone())).collect()
}
