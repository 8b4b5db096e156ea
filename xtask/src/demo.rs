//! The demo between network namespaces.

/// Shows the firewall at work.
///
/// # Errors
/// When anything was seen that was not expected.
pub(crate) fn run() -> anyhow::Result<()> {
    anyhow::bail!("the demo is not there yet")
}
