//! Every map, by the name under which the agent finds it.
//!
//! Tables of a generation are declared with one element: the agent creates them in the size that the policy
//! needs, fills them through a mapping (hence `BPF_F_MMAPABLE`) and freezes them before a program is loaded.
//! State maps are pinned and shared by all generations.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, BPF_F_RDONLY_PROG},
    btf_maps::SkStorage,
    macros::{btf_map, map},
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf},
};
use mpesa_fw_common::{
    Address, RuleSet,
    attempt::{Lease, Refusals, WAYS_CAPACITY},
    connection::{CALLERS_CAPACITY, CallerKey, ConnectionCount},
    counter::{COUNTER_BLOCKS, COUNTER_SLOTS, CounterBlock, INTERFACES},
    dns::{ANSWERED_CAPACITY, Answered, LEARNT_CAPACITY, LearnCount, Learnt, NameBudget, NameSlots, Reading},
    event::{EventBucket, QUOTAS},
    limit::{LIMIT_SETS, LimitSet},
    owner::{OWNERS_CAPACITY, Owner, OwnerKey, OwnerRules},
    program::Maker,
    state::{
        BITMAP_WORDS, FLOWS_CAPACITY, FRAGMENTS_CAPACITY, FlowKey, FlowState, FragmentKey, FragmentState,
        InterfaceSlot, NameSlot, OWN_ADDRESSES_CAPACITY, RESOLVED_CAPACITY,
    },
    tables::{
        AddressClass, Block4, Bucket, GenerationStamp, Ids6, NAMES, ResolvedNames, RuleInfo, Start6,
        WATCHED_SETS,
    },
    tally::{TALLIES_CAPACITY, Tally, TallyKey},
    twin::TwinCase,
};

use crate::case::Case;

macro_rules! tables {
    ($($name:ident: $t:ty;)+) => {$(
        #[map]
        pub static $name: Array<$t> = Array::with_max_entries(1, BPF_F_MMAPABLE);
    )+};
}

tables! {
    SOURCE4_INDEX: Bucket;
    SOURCE4_RANGES: Block4;
    SOURCE6_INDEX: Bucket;
    SOURCE6_STARTS: Start6;
    SOURCE6_IDS: Ids6;
    SOURCE_CLASSES: AddressClass;
    LOCAL4_INDEX: Bucket;
    LOCAL4_RANGES: Block4;
    LOCAL6_INDEX: Bucket;
    LOCAL6_STARTS: Start6;
    LOCAL6_IDS: Ids6;
    LOCAL_CLASSES: AddressClass;
    DESTINATION4_INDEX: Bucket;
    DESTINATION4_RANGES: Block4;
    DESTINATION6_INDEX: Bucket;
    DESTINATION6_STARTS: Start6;
    DESTINATION6_IDS: Ids6;
    DESTINATION_CLASSES: AddressClass;
    INGRESS_CLAIMS: RuleSet;
    EGRESS_CLAIMS: RuleSet;
    RULE_INFO: RuleInfo;
    NAME_RULES: RuleSet;
    GENERATION: GenerationStamp;
}

/// A table too: names of the policy, wildcards among them, by the name that is asked for in reverse.
#[map]
pub static ASKED_NAMES: LpmTrie<[u8; 256], NameSlots> =
    LpmTrie::with_max_entries(1, BPF_F_NO_PREALLOC | BPF_F_RDONLY_PROG);

/// Of a generation too, but the agent keeps it up to date: units start and stop.
#[map]
pub static OWNERS: HashMap<OwnerKey, OwnerRules> = HashMap::with_max_entries(OWNERS_CAPACITY, 0);

/// One a direction; a scratch of the programs, not pinned.
#[map]
pub static CASES: PerCpuArray<Case> = PerCpuArray::with_max_entries(2, 0);
/// What a twin is asked and answers; a scratch too.
#[map]
pub static TWIN: Array<TwinCase> = Array::with_max_entries(1, 0);
#[map]
pub static FLOWS: LruHashMap<FlowKey, FlowState> = LruHashMap::with_max_entries(FLOWS_CAPACITY, 0);
#[map]
pub static FRAGMENTS: LruHashMap<FragmentKey, FragmentState> =
    LruHashMap::with_max_entries(FRAGMENTS_CAPACITY, 0);
#[map]
pub static LIMITS: Array<LimitSet> = Array::with_max_entries(LIMIT_SETS as u32, 0);
#[map]
pub static COUNTERS: PerCpuArray<CounterBlock> = PerCpuArray::with_max_entries(COUNTER_BLOCKS as u32, 0);
#[map]
pub static CONNECTIONS: Array<ConnectionCount> = Array::with_max_entries(COUNTER_SLOTS as u32, 0);
#[map]
pub static CALLERS: LruHashMap<CallerKey, ConnectionCount> =
    LruHashMap::with_max_entries(CALLERS_CAPACITY, 0);
#[map]
pub static STRANGERS: LruHashMap<CallerKey, ConnectionCount> =
    LruHashMap::with_max_entries(CALLERS_CAPACITY, 0);
/// By [`Bypass`](mpesa_fw_common::bypass::Bypass).
#[map]
pub static BYPASSES: Array<u64> = Array::with_max_entries(2, 0);
/// By which way packets to an address leave: a [`Way`](mpesa_fw_common::attempt::Way), which the agent keeps.
#[map]
pub static WAYS: LpmTrie<[u8; 16], u32> =
    LpmTrie::with_max_entries(WAYS_CAPACITY, BPF_F_NO_PREALLOC | BPF_F_RDONLY_PROG);
/// How long that holds.
#[map]
pub static LEASE: Array<Lease> = Array::with_max_entries(1, BPF_F_RDONLY_PROG);
#[map]
pub static REFUSALS: Array<Refusals> = Array::with_max_entries(COUNTER_SLOTS as u32, 0);
/// Who made each socket of this namespace.
#[btf_map]
pub static MAKERS: SkStorage<Maker> = SkStorage::new();
/// Whose each listener is that has answered: read where the answer has no socket behind it.
#[btf_map]
pub static LISTENERS: SkStorage<Owner> = SkStorage::new();
/// Who opened connections to which destination.
#[map]
pub static TALLIES: HashMap<TallyKey, Tally> = HashMap::with_max_entries(TALLIES_CAPACITY, 0);
/// What found no room there, by row.
#[map]
pub static TALLIES_REST: Array<Tally> = Array::with_max_entries(COUNTER_SLOTS as u32, 0);
#[map]
pub static NEAR_MISSES: PerCpuArray<u64> = PerCpuArray::with_max_entries(WATCHED_SETS as u32, 0);
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(256 * 1024, 0);
#[map]
pub static EVENT_BUCKETS: PerCpuArray<EventBucket> = PerCpuArray::with_max_entries(QUOTAS, 0);
/// Not 0: somebody captures what is dropped, and events carry the beginning of the frame.
#[map]
pub static CAPTURE: Array<u32> = Array::with_max_entries(1, 0);
/// To be mapped, so that the agent, which seeds flows, sets a bit in one step with the programs.
#[map]
pub static FLOW_PORTS: Array<u64> = Array::with_max_entries(BITMAP_WORDS as u32, BPF_F_MMAPABLE);
#[map]
pub static OWN_HINTS: Array<u64> = Array::with_max_entries(BITMAP_WORDS as u32, 0);
#[map]
pub static OWN_ADDRESSES: HashMap<Address, u8> = HashMap::with_max_entries(OWN_ADDRESSES_CAPACITY, 0);
#[map]
pub static RESOLVED: HashMap<Address, ResolvedNames> = HashMap::with_max_entries(RESOLVED_CAPACITY, 0);
#[map]
pub static LEARNT: LruHashMap<Address, Learnt> = LruHashMap::with_max_entries(LEARNT_CAPACITY, 0);
#[map]
pub static ANSWERED: LruHashMap<Address, Answered> = LruHashMap::with_max_entries(ANSWERED_CAPACITY, 0);
#[map]
pub static NAME_BUDGETS: Array<NameBudget> = Array::with_max_entries(NAMES as u32, 0);
#[map]
pub static LEARNING: PerCpuArray<LearnCount> = PerCpuArray::with_max_entries(1, 0);
/// An answer that is being read; a scratch of the programs, not pinned.
#[map]
pub static READINGS: PerCpuArray<Reading> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub static INTERFACE_SLOTS: Array<InterfaceSlot> = Array::with_max_entries(INTERFACES as u32, 0);

// Registries: only the agent reads them, here so that they are pinned with the state that they explain.
#[map]
pub static COUNTER_NAMES: Array<NameSlot> = Array::with_max_entries(COUNTER_SLOTS as u32, 0);
#[map]
pub static SET_NAMES: Array<NameSlot> = Array::with_max_entries(WATCHED_SETS as u32, 0);
#[map]
pub static DNS_NAMES: Array<NameSlot> = Array::with_max_entries(NAMES as u32, 0);
