//! The searches for an address, each a global function: the verifier looks at it once, whatever calls it, instead of
//! walking its 17 or 24 steps again on every path (Linux 5.6, "function by function verification"). They take and
//! return numbers only.

use mpesa_fw_common::tables::{AddressTable, ClassId, search4, search6};

use crate::kernel::Kernel;

/// No class: a table did not answer.
const NONE: u32 = u32::MAX;

macro_rules! searches {
    ($($four:ident, $six:ident: $table:ident;)+) => {
        $(
            #[unsafe(no_mangle)]
            #[inline(never)]
            extern "C" fn $four(bits: u32) -> u32 {
                search4(&Kernel, AddressTable::$table, bits).map_or(NONE, u32::from)
            }

            #[unsafe(no_mangle)]
            #[inline(never)]
            extern "C" fn $six(high: u64, low: u64) -> u32 {
                search6(&Kernel, AddressTable::$table, high, low).map_or(NONE, u32::from)
            }
        )+

        #[inline(always)]
        pub fn class4(table: AddressTable, bits: u32) -> Option<ClassId> {
            let id = match table { $(AddressTable::$table => $four(bits),)+ };
            ClassId::try_from(id).ok()
        }

        #[inline(always)]
        pub fn class6(table: AddressTable, high: u64, low: u64) -> Option<ClassId> {
            let id = match table { $(AddressTable::$table => $six(high, low),)+ };
            ClassId::try_from(id).ok()
        }
    };
}

searches! {
    search_source4, search_source6: Source;
    search_local4, search_local6: Local;
    search_destination4, search_destination6: Destination;
}
