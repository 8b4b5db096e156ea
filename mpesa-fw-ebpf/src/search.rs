//! The searches for an address, each a global function: the verifier looks at it once, whatever calls it, instead of
//! walking its 17 or 24 steps again on every path (Linux 5.6, "function by function verification"). They take and
//! return numbers only.

use mpesa_fw_common::tables::{AddressTable, Bucket, ClassId, climb4, search4, search6};

use crate::kernel::KERNEL;

/// No class: a table did not answer.
const NONE: u32 = u32::MAX;

macro_rules! searches {
    ($($four:ident, $six:ident: $table:ident;)+) => {
        $(
            #[unsafe(no_mangle)]
            #[inline(never)]
            extern "C" fn $four(begin: u32, count: u32, bits: u32) -> u32 {
                search4(&KERNEL, AddressTable::$table, Bucket { begin, count }, bits).map_or(NONE, u32::from)
            }

            #[unsafe(no_mangle)]
            #[inline(never)]
            extern "C" fn $six(begin: u32, count: u32, high: u64, low: u64) -> u32 {
                search6(&KERNEL, AddressTable::$table, Bucket { begin, count }, high, low).map_or(NONE, u32::from)
            }
        )+

        #[inline(always)]
        pub fn class4(table: AddressTable, Bucket { begin, count }: Bucket, bits: u32) -> Option<ClassId> {
            let id = match table { $(AddressTable::$table => $four(begin, count, bits),)+ };
            ClassId::try_from(id).ok()
        }

        #[inline(always)]
        pub fn class6(table: AddressTable, Bucket { begin, count }: Bucket, high: u64, low: u64) -> Option<ClassId> {
            let id = match table { $(AddressTable::$table => $six(begin, count, high, low),)+ };
            ClassId::try_from(id).ok()
        }
    };
}

searches! {
    search_source4, search_source6: Source;
    search_local4, search_local6: Local;
    search_destination4, search_destination6: Destination;
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn climb_source4(begin: u32, count: u32, bits: u32) -> u32 {
    climb4(&KERNEL, AddressTable::Source, Bucket { begin, count }, bits).map_or(NONE, u32::from)
}

/// The class of an IPv4 source in a bucket of many ranges, more quickly.
#[inline(always)]
pub fn climb(Bucket { begin, count }: Bucket, bits: u32) -> Option<ClassId> {
    ClassId::try_from(climb_source4(begin, count, bits)).ok()
}
