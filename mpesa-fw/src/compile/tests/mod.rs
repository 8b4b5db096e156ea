//! Tests of whole compilations. Those of one part stand next to it.

mod addresses;
