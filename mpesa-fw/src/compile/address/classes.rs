//! Class numbers for the combinations that some address really has.

use mpesa_fw_common::tables::{AddressClass, AddressTable, ClassId, OUTSIDE_V6};

use super::{
    list,
    masks::{MaskId, Masks, OUTSIDE},
};
use crate::compile::{CompileError, error::CLASSES};

/// Numbers classes in the order in which they are asked for, behind the two outside classes.
pub(super) struct Classes<'a> {
    masks: &'a Masks,
    ids: Vec<Option<usize>>,
    table: Vec<AddressClass>,
}

impl<'a> Classes<'a> {
    pub(super) fn new(masks: &'a Masks) -> Self {
        let outside = masks.all()[OUTSIDE as usize];
        Self { masks, ids: vec![None; masks.all().len()], table: vec![outside; usize::from(OUTSIDE_V6) + 1] }
    }

    /// The class of a combination; `outside` is the outside class of the family. Where there are too many the
    /// number is cut off and [`Classes::into_table`] fails.
    pub(super) fn id(&mut self, mask: MaskId, outside: ClassId) -> ClassId {
        if mask == OUTSIDE {
            return outside;
        }
        let id = *self.ids[mask as usize].get_or_insert_with(|| {
            self.table.push(self.masks.all()[mask as usize]);
            self.table.len() - 1
        });
        id as ClassId
    }

    /// All classes, by number.
    pub(super) fn into_table(self, table: AddressTable) -> Result<Vec<AddressClass>, CompileError> {
        if self.table.len() > CLASSES {
            return Err(CompileError::TooManyClasses { list: list(table), count: self.table.len() });
        }
        Ok(self.table)
    }
}
