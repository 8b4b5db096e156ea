//! Reads the maps when Prometheus asks, and only then.

use std::sync::Arc;

use prometheus::{
    core::{Collector, Desc},
    proto::MetricFamily,
};

use super::families::Families;
use crate::agent::Agent;

/// The agent as a collector.
pub struct AgentCollector {
    agent: Arc<Agent>,
    descriptions: Vec<Desc>,
}

impl AgentCollector {
    /// Collects from `agent`.
    ///
    /// # Errors
    /// A metric is not well-formed: a mistake of this program.
    pub fn new(agent: Arc<Agent>) -> prometheus::Result<Self> {
        Ok(Self { agent, descriptions: Families::new()?.descriptions() })
    }
}

impl Collector for AgentCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    /// Blocks while the kernel is asked. If it does not answer there are no metrics: a scrape that fails is better
    /// than counts that stand still.
    fn collect(&self) -> Vec<MetricFamily> {
        let families = match Families::new() {
            Ok(families) => families,
            Err(error) => {
                tracing::error!(%error, "metrics are not well-formed");
                return Vec::new();
            }
        };
        match self.agent.snapshot() {
            Ok(snapshot) => families.fill(&snapshot),
            Err(error) => {
                tracing::error!("counts could not be read: {error}");
                return Vec::new();
            }
        }
        families.collect()
    }
}
