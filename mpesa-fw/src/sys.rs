//! System calls that no crate wraps. The one file of the agent with `unsafe`.
