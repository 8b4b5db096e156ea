//! What compile makes, and how the decision reads it on the host.

use std::{collections::BTreeMap, sync::Arc};

use mpesa_fw_common::{
    Direction, Mode, RuleSet, Verdict,
    owner::{OwnerKey, OwnerRules},
    settings::Settings,
    tables::{
        AddressClass, AddressTable, Block4, Bucket, ClaimIndex, ClassId, IDS_PER_BLOCK, Ids6, RuleIndex,
        RuleInfo, Start6, Tables, Window, rule_info_index,
    },
};

use super::AskedName;
use crate::policy::model::Owner;

/// One generation, ready to be loaded.
#[derive(Clone, Debug, PartialEq)]
pub struct Compiled {
    /// The constants. `generation`, `trace` and `limit_seed` are 0 until it is loaded.
    pub settings: Settings,
    /// The tables, which may be large: a copy of all of this shares them.
    pub tables: Arc<GenerationTables>,
    /// The rules that name an owner.
    pub owners: BTreeMap<Owner, OwnerRules>,
    /// The same by what the kernel knows owners by, of those that are there: for whoever judges by this. Empty until somebody
    /// looks.
    pub present: BTreeMap<OwnerKey, OwnerRules>,
    /// SHA-256 over the policy's files and everything above that decides a verdict. It does not depend on the slots:
    /// two hosts with the same policy show the same digest, whatever they ran before.
    pub digest: [u8; 32],
}

/// The tables of a generation, in the lay-out of its maps.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerationTables {
    /// By [`AddressTable`].
    pub address: [AddressTables; 3],
    /// By [`Direction`]: [`CLAIMS_LEN`](mpesa_fw_common::tables::CLAIMS_LEN) elements each.
    pub claims: [Vec<RuleSet>; 2],
    /// [`RULE_INFO_LEN`](mpesa_fw_common::tables::RULE_INFO_LEN) elements.
    pub rule_info: Vec<RuleInfo>,
    /// [`NAMES`](mpesa_fw_common::tables::NAMES) elements, by name slot.
    pub name_rules: Vec<RuleSet>,
    /// One for each name.
    pub asked_names: Vec<AskedName>,
}

/// The maps of one [`AddressTable`]. Where a family has no ranges its feature bit is off and its vectors hold one
/// zero element, because a map can't be empty.
#[derive(Clone, Debug, PartialEq)]
pub struct AddressTables {
    /// `<NAME>4_INDEX`.
    pub index4: Vec<Bucket>,
    /// `<NAME>4_RANGES`.
    pub ranges4: Vec<Block4>,
    /// `<NAME>6_INDEX`.
    pub index6: Vec<Bucket>,
    /// `<NAME>6_STARTS`.
    pub starts6: Vec<Start6>,
    /// `<NAME>6_IDS`. The last block is filled up with zeros.
    pub ids6: Vec<Ids6>,
    /// `<NAME>_CLASSES`: at least the two outside classes.
    pub classes: Vec<AddressClass>,
}

impl AddressTables {
    /// Bytes of all of its maps.
    #[must_use]
    pub fn size(&self) -> usize {
        let Self { index4, ranges4, index6, starts6, ids6, classes } = self;
        size_of_val(index4.as_slice())
            + size_of_val(ranges4.as_slice())
            + size_of_val(index6.as_slice())
            + size_of_val(starts6.as_slice())
            + size_of_val(ids6.as_slice())
            + size_of_val(classes.as_slice())
    }
}

impl Compiled {
    fn address(&self, table: AddressTable) -> &AddressTables {
        &self.tables.address[table as usize]
    }
}

fn at<T: Copy>(elements: &[T], i: u32) -> Option<T> {
    elements.get(i as usize).copied()
}

fn in_block<T: Copy, const N: usize>(blocks: &[[T; N]], i: u32) -> Option<T> {
    blocks.as_flattened().get(i as usize).copied()
}

impl Tables for Compiled {
    fn features(&self) -> u32 {
        self.settings.features
    }
    fn generation(&self) -> u32 {
        self.settings.generation
    }
    fn default_passes(&self, direction: Direction) -> bool {
        self.settings.defaults[direction as usize] == Verdict::Pass as u32
    }
    fn observes(&self) -> bool {
        self.settings.mode == Mode::Observe as u32
    }
    fn outside(&self, table: AddressTable) -> RuleSet {
        RuleSet(self.settings.outside[table as usize])
    }
    fn names_only(&self) -> RuleSet {
        RuleSet(self.settings.names_only)
    }
    fn owned(&self, direction: Direction) -> RuleSet {
        RuleSet(self.settings.owned[direction as usize])
    }
    fn owner(&self, key: &OwnerKey) -> Option<OwnerRules> {
        self.present.get(key).copied()
    }
    fn owned_by_users(&self) -> RuleSet {
        RuleSet(self.settings.owned_by_users)
    }
    fn resolvers(&self) -> RuleSet {
        RuleSet(self.settings.resolvers)
    }
    fn limit_seed(&self) -> u64 {
        self.settings.limit_seed
    }
    fn window(&self, table: AddressTable) -> Window {
        self.settings.windows[table as usize]
    }
    fn index4(&self, table: AddressTable, i: u32) -> Option<Bucket> {
        at(&self.address(table).index4, i)
    }
    fn block4(&self, table: AddressTable, i: u32) -> Option<&Block4> {
        self.address(table).ranges4.get(i as usize)
    }
    fn index6(&self, table: AddressTable, i: u32) -> Option<Bucket> {
        at(&self.address(table).index6, i)
    }
    fn start6(&self, table: AddressTable, i: u32) -> Option<Start6> {
        at(&self.address(table).starts6, i)
    }
    fn id6(&self, table: AddressTable, i: u32) -> Option<ClassId> {
        in_block::<ClassId, IDS_PER_BLOCK>(&self.address(table).ids6, i)
    }
    fn class(&self, table: AddressTable, id: ClassId) -> Option<AddressClass> {
        at(&self.address(table).classes, u32::from(id))
    }
    fn claims(&self, direction: Direction, claim: ClaimIndex) -> Option<RuleSet> {
        at(&self.tables.claims[direction as usize], claim.0)
    }
    fn rule_info(&self, direction: Direction, rule: RuleIndex) -> Option<RuleInfo> {
        at(&self.tables.rule_info, rule_info_index(direction, rule))
    }
    fn name_rules(&self, slot: u16) -> Option<RuleSet> {
        at(&self.tables.name_rules, u32::from(slot))
    }
}
