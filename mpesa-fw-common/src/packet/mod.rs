//! Bytes of a frame to facts.
