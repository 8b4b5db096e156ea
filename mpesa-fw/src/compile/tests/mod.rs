//! Tests of whole compilations. Those of one part stand next to it.

mod addresses;
mod any_policy;
mod claims;
mod contents;
mod large;
mod registry;

use mpesa_fw_common::{
    Address, Family,
    tables::{AddressClass, AddressTable, look_up},
};
use std::net::IpAddr;

use super::Compiled;

/// The class of an address, as the datapath finds it.
fn class(compiled: &Compiled, table: AddressTable, address: IpAddr) -> AddressClass {
    let family = if address.is_ipv4() { Family::V4 } else { Family::V6 };
    look_up(compiled, table, family, &Address::from(address)).expect("the tables are whole")
}
