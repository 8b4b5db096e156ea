//! The combinations of rules and watched sets that come up while prefixes are flattened.

use std::collections::HashMap;

use mpesa_fw_common::tables::AddressClass;

/// Number of a combination. Unlike a class id it is never scarce: combinations that end up nowhere have one too.
pub(super) type MaskId = u32;

/// What holds where no prefix is.
pub(super) const OUTSIDE: MaskId = 0;

/// All combinations seen so far.
pub(super) struct Masks {
    all: Vec<AddressClass>,
    ids: HashMap<AddressClass, MaskId>,
    unions: HashMap<(MaskId, MaskId), MaskId>,
    /// The last answer of [`Masks::union`]: a feed asks the same a million times.
    last: ((MaskId, MaskId), MaskId),
}

impl Masks {
    pub(super) fn new(outside: AddressClass) -> Self {
        Self {
            all: vec![outside],
            ids: HashMap::from([(outside, OUTSIDE)]),
            unions: HashMap::new(),
            last: ((OUTSIDE, OUTSIDE), OUTSIDE),
        }
    }

    /// All, by number.
    pub(super) fn all(&self) -> &[AddressClass] {
        &self.all
    }

    /// The number of a combination.
    pub(super) fn id(&mut self, mask: AddressClass) -> MaskId {
        *self.ids.entry(mask).or_insert_with(|| {
            self.all.push(mask);
            (self.all.len() - 1) as MaskId
        })
    }

    /// The number of both together.
    pub(super) fn union(&mut self, a: MaskId, b: MaskId) -> MaskId {
        if self.last.0 == (a, b) {
            return self.last.1;
        }
        let id = match self.unions.get(&(a, b)) {
            Some(id) => *id,
            None => {
                let (x, y) = (self.all[a as usize], self.all[b as usize]);
                let id = self.id(AddressClass { rules: x.rules.or(y.rules), watch: x.watch | y.watch });
                self.unions.insert((a, b), id);
                id
            }
        };
        self.last = ((a, b), id);
        id
    }
}
