//! Keeps the datapath as the policy says.
