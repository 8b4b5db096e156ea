//! t
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {}
pub(crate) fn run(_: &Arguments) -> anyhow::Result<()> {
    Ok(())
}
pub(crate) fn build_and_try() -> anyhow::Result<()> {
    Ok(())
}
