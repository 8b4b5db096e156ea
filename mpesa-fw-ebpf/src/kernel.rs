//! The tables and the state of the decision, as maps.

use core::ops::Deref;

use aya_ebpf::maps::Array;
use mpesa_fw_common::{
    Address, Direction, Mode, RuleSet, Verdict,
    decide::{self, Found, Sender},
    dns::Learnt,
    limit::LimitSet,
    owner::{self, Owner, OwnerKey, OwnerRules},
    packet::PacketMeta,
    settings::Settings,
    state::{self, BITMAP_WORDS, FlowKey, FlowState, FragmentKey, FragmentState, State},
    tables::{
        AddressClass, AddressTable, Block4, Bucket, ClaimIndex, ClassId, IDS_PER_BLOCK, ResolvedNames,
        RuleIndex, RuleInfo, SCANNED, Start6, Tables, Window, rule_info_index, scan4,
    },
};

use crate::{access, case, maps, search, twin};

/// Written by the agent before the programs are loaded, and frozen with `.rodata`.
#[unsafe(no_mangle)]
static SETTINGS: Settings = Settings::INERT;

/// Reads one field of the settings by itself, so that the verifier sees a constant.
macro_rules! setting {
    ($($field:tt)+) => { access::constant(&raw const SETTINGS.$($field)+) };
}

/// Whether the agent asked for a log line a packet.
#[inline(always)]
pub fn traces() -> bool {
    setting!(trace) != 0
}

/// Cookie of the network namespace in which the agent protects.
#[inline(always)]
pub fn namespace() -> u64 {
    setting!(netns_cookie)
}

/// Whether packets are judged and counted and nothing else: neither traced nor by a twin. One load for both.
#[inline(always)]
pub fn is_ordinary() -> bool {
    access::constant((&raw const SETTINGS.trace).cast::<u64>()) == 0
}

/// Whether some rule says `by`.
#[inline(always)]
pub fn asks_owners() -> bool {
    setting!(owned[0]) | setting!(owned[1]) != 0
}

/// Whether nothing may be left behind.
#[inline(always)]
pub fn is_twin() -> bool {
    setting!(twin) != 0
}

/// The maps of this generation, and those that all share. `IN_PLACE`: the search for an IPv4 source is no function of its
/// own, which the verifier pays for.
pub struct Kernel<const IN_PLACE: bool>;

/// For programs that may meet a flood.
pub const FAST: Kernel<true> = Kernel;
/// For all others.
pub const KERNEL: Kernel<false> = Kernel;

/// The map of one dimension among three.
macro_rules! by_table {
    ($table:expr, $source:ident, $local:ident, $destination:ident) => {
        match $table {
            AddressTable::Source => &maps::$source,
            AddressTable::Local => &maps::$local,
            AddressTable::Destination => &maps::$destination,
        }
    };
}

#[inline(always)]
fn element<T: Copy>(map: &Array<T>, i: u32) -> Option<T> {
    access::copied(map.get_ptr(i))
}

impl<const IN_PLACE: bool> Tables for Kernel<IN_PLACE> {
    #[inline(always)]
    fn features(&self) -> u32 {
        setting!(features)
    }

    #[inline(always)]
    fn generation(&self) -> u32 {
        setting!(generation)
    }

    #[inline(always)]
    fn default_passes(&self, direction: Direction) -> bool {
        setting!(defaults[direction as usize]) == Verdict::Pass as u32
    }

    #[inline(always)]
    fn observes(&self) -> bool {
        setting!(mode) == Mode::Observe as u32
    }

    #[inline(always)]
    fn outside(&self, table: AddressTable) -> RuleSet {
        RuleSet(setting!(outside[table as usize]))
    }

    #[inline(always)]
    fn names_only(&self) -> RuleSet {
        RuleSet(setting!(names_only))
    }

    #[inline(always)]
    fn owned(&self, direction: Direction) -> RuleSet {
        RuleSet(setting!(owned[direction as usize]))
    }

    #[inline(always)]
    fn owner(&self, key: &OwnerKey) -> Option<OwnerRules> {
        access::copied(maps::OWNERS.get_ptr(key))
    }

    #[inline(always)]
    fn rules_of(&self, direction: Direction, _: &Owner) -> RuleSet {
        let owned = self.owned(direction);
        if owned.is_empty() { RuleSet::ALL } else { RuleSet(rules_of_case(direction as u32)) }
    }

    #[inline(always)]
    fn owned_by_users(&self) -> RuleSet {
        RuleSet(setting!(owned_by_users))
    }

    #[inline(always)]
    fn resolvers(&self) -> RuleSet {
        RuleSet(setting!(resolvers))
    }

    #[inline(always)]
    fn limit_seed(&self) -> u64 {
        setting!(limit_seed)
    }

    #[inline(always)]
    fn window(&self, table: AddressTable) -> Window {
        // Field by field: as a whole it lies on the stack.
        let i = table as usize;
        Window {
            prefix: [setting!(windows[i].prefix[0]), setting!(windows[i].prefix[1])],
            mask: [setting!(windows[i].mask[0]), setting!(windows[i].mask[1])],
            low: setting!(windows[i].low),
            shift: setting!(windows[i].shift),
        }
    }

    #[inline(always)]
    fn index4(&self, table: AddressTable, i: u32) -> Option<Bucket> {
        element(by_table!(table, SOURCE4_INDEX, LOCAL4_INDEX, DESTINATION4_INDEX), i)
    }

    #[inline(always)]
    fn block4(&self, table: AddressTable, i: u32) -> Option<&Block4> {
        by_table!(table, SOURCE4_RANGES, LOCAL4_RANGES, DESTINATION4_RANGES).get(i)
    }

    #[inline(always)]
    fn index6(&self, table: AddressTable, i: u32) -> Option<Bucket> {
        element(by_table!(table, SOURCE6_INDEX, LOCAL6_INDEX, DESTINATION6_INDEX), i)
    }

    #[inline(always)]
    fn start6(&self, table: AddressTable, i: u32) -> Option<Start6> {
        element(by_table!(table, SOURCE6_STARTS, LOCAL6_STARTS, DESTINATION6_STARTS), i)
    }

    #[inline(always)]
    fn id6(&self, table: AddressTable, i: u32) -> Option<ClassId> {
        let map = by_table!(table, SOURCE6_IDS, LOCAL6_IDS, DESTINATION6_IDS);
        let block = map.get(i / IDS_PER_BLOCK as u32)?;
        Some(block[i as usize % IDS_PER_BLOCK])
    }

    #[inline(always)]
    fn class(&self, table: AddressTable, id: ClassId) -> Option<AddressClass> {
        element(by_table!(table, SOURCE_CLASSES, LOCAL_CLASSES, DESTINATION_CLASSES), u32::from(id))
    }

    #[inline(always)]
    fn claims(&self, direction: Direction, claim: ClaimIndex) -> Option<RuleSet> {
        let map = match direction {
            Direction::Ingress => &maps::INGRESS_CLAIMS,
            Direction::Egress => &maps::EGRESS_CLAIMS,
        };
        element(map, claim.0)
    }

    #[inline(always)]
    fn rule_info(&self, direction: Direction, rule: RuleIndex) -> Option<RuleInfo> {
        element(&maps::RULE_INFO, rule_info_index(direction, rule))
    }

    #[inline(always)]
    fn name_rules(&self, slot: u16) -> Option<RuleSet> {
        element(&maps::NAME_RULES, u32::from(slot))
    }

    #[inline(always)]
    fn class4(&self, table: AddressTable, bucket: Bucket, bits: u32) -> Option<ClassId> {
        match table {
            AddressTable::Source if IN_PLACE && bucket.count <= SCANNED => scan4(self, table, bucket, bits),
            AddressTable::Source if IN_PLACE => search::climb(bucket, bits),
            AddressTable::Source | AddressTable::Local | AddressTable::Destination => {
                search::class4(table, bucket, bits)
            }
        }
    }

    #[inline(always)]
    fn class6(&self, table: AddressTable, bucket: Bucket, high: u64, low: u64) -> Option<ClassId> {
        search::class6(table, bucket, high, low)
    }
}

impl<const IN_PLACE: bool> State for Kernel<IN_PLACE> {
    type Flow<'a> = &'a mut FlowState;
    type Limits<'a> = &'a mut LimitSet;

    #[inline(always)]
    fn is_twin(&self) -> bool {
        is_twin()
    }

    #[inline(always)]
    fn now(&self) -> u64 {
        access::now()
    }

    #[inline(always)]
    fn is_own(&self, address: &Address) -> bool {
        // The hash look-up is a call that the JIT does not inline: asked only where the hint does not rule it out.
        has_bit(&maps::OWN_HINTS, address.hint()) && maps::OWN_ADDRESSES.get_ptr(address).is_some()
    }

    #[inline(always)]
    fn resolved(&self, address: &Address) -> Option<ResolvedNames> {
        access::copied(maps::RESOLVED.get_ptr(address))
    }

    #[inline(always)]
    fn learnt(&self, address: &Address) -> Option<impl Deref<Target = Learnt>> {
        access::value(maps::LEARNT.get_ptr_mut(address))
    }

    #[inline(always)]
    fn flow(&self, key: &FlowKey) -> Option<&mut FlowState> {
        access::value(maps::FLOWS.get_ptr_mut(key))
    }

    #[inline(always)]
    fn open_flow(&self, key: &FlowKey, flow: &FlowState) -> bool {
        if is_twin() {
            return true;
        }
        let port = u32::from(key.local_port);
        access::set_bits(maps::FLOW_PORTS.get_ptr_mut(port / 64), 1 << (port % 64));
        maps::FLOWS.insert(key, flow, 0).is_ok()
    }

    #[inline(always)]
    fn may_have_flow(&self, local_port: u16) -> bool {
        has_bit(&maps::FLOW_PORTS, local_port)
    }

    #[inline(always)]
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentState> {
        access::copied(maps::FRAGMENTS.get_ptr(key))
    }

    #[inline(always)]
    fn note_fragment(&self, key: &FragmentKey, state: &FragmentState) {
        if is_twin() {
            return;
        }
        // Where it fails, the later fragments are dropped: closed.
        let _noted = maps::FRAGMENTS.insert(key, state, 0);
    }

    #[inline(always)]
    fn limit_set(&self, index: u32) -> Option<&mut LimitSet> {
        access::value(maps::LIMITS.get_ptr_mut(index))
    }

    #[inline(always)]
    fn find_flow<T: Tables>(&self, _: &T, _: &PacketMeta, direction: Direction, _: &Sender) -> Found {
        Found::from_code(find_flow_of_case(direction as u32))
    }

    #[inline(always)]
    fn charge(&self, tag: u64, interval: u64, tolerance: u64) -> bool {
        charge_limit(tag, interval, tolerance) == CONFORMS
    }
}

/// A global function, see [`case`]: the flow of the case that is being judged.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn find_flow_of_case(direction: u32) -> u32 {
    let direction =
        if direction == Direction::Ingress as u32 { Direction::Ingress } else { Direction::Egress };
    match case::current(direction) {
        Some(case) => {
            let found = decide::find_flow(&KERNEL, &KERNEL, &case.meta, direction, &case.sender);
            case.is_of_flow = u32::from(found != Found::NONE);
            if is_twin() {
                twin::note_flow(found);
            }
            found.code()
        }
        None => Found::NONE.code(),
    }
}

/// Likewise: the rules that the sender of the case may use.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn rules_of_case(direction: u32) -> u64 {
    let direction =
        if direction == Direction::Ingress as u32 { Direction::Ingress } else { Direction::Egress };
    match case::current(Direction::Egress) {
        Some(case) => owner::rules_of(&KERNEL, direction, &case.sender.owner).0,
        None => RuleSet::NONE.0,
    }
}

const CONFORMS: u32 = 1;

/// Likewise; called for each of the limited services of a port.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn charge_limit(tag: u64, interval: u64, tolerance: u64) -> u32 {
    if state::charge(&KERNEL, tag, interval, tolerance) { CONFORMS } else { 0 }
}

#[inline(always)]
fn has_bit(bitmap: &Array<u64>, bit: u16) -> bool {
    let bit = u32::from(bit);
    const { assert!(BITMAP_WORDS * 64 == 1 << 16) };
    element(bitmap, bit / 64).is_some_and(|word| word & (1 << (bit % 64)) != 0)
}
