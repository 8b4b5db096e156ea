//! A policy becomes tables.
