//! The flow table, as the agent reads and changes it.

use mpesa_fw_common::state::{FlowKey, FlowState};

use super::{Datapath, Result, error::Context};

impl Datapath {
    /// The flow of a key, if there is one, expired or not. Looking does not touch it.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn flow(&self, key: &FlowKey) -> Result<Option<FlowState>> {
        self.state.flows.get(key).context(|| format!("look for the flow {key:?}"))
    }

    /// Every flow, expired ones included.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn flows(&self) -> Result<Vec<(FlowKey, FlowState)>> {
        let mut flows = Vec::new();
        self.state.flows.for_each(|key, flow| flows.push((*key, *flow))).context(|| "read the flow table")?;
        Ok(flows)
    }

    /// Number of entries of the flow table, expired ones included.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn flow_count(&self) -> Result<u32> {
        let mut count = 0;
        self.state.flows.for_each(|_, _| count += 1).context(|| "count the flows")?;
        Ok(count)
    }

    /// Entries that the flow table can hold.
    #[must_use]
    pub const fn flows_capacity(&self) -> u32 {
        self.state.flows.max_entries()
    }

    /// Records a flow that is not known yet (its local port is marked first). False: it is known, and stays as it is.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn add_flow(&self, key: &FlowKey, flow: &FlowState) -> Result<bool> {
        self.state.flow_ports.mark(key.local_port)?;
        self.state.flows.add(key, flow).context(|| format!("record the flow {key:?}"))
    }

    /// Changes a flow only if it is still there. False: it is gone.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn update_flow(&self, key: &FlowKey, flow: &FlowState) -> Result<bool> {
        self.state.flows.replace(key, flow).context(|| format!("change the flow {key:?}"))
    }

    /// Forgets a flow. False: it was gone already.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn remove_flow(&self, key: &FlowKey) -> Result<bool> {
        self.state.flows.remove(key).context(|| format!("forget the flow {key:?}"))
    }
}
