//! A look at the interfaces of this host, for those who are not the agent.

use super::{
    Choice, View,
    error::AgentError,
    install::{Before, Surroundings},
};
use crate::policy::model::Policy;

/// What there is, and what a policy would protect of it.
///
/// # Errors
/// The kernel does not answer.
pub async fn look_around(policy: &Policy) -> Result<(View, Choice), AgentError> {
    let Surroundings { view, choice } = Surroundings::look_leniently(policy, &Before::default()).await?;
    Ok((view, choice))
}
