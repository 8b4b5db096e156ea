//! Whose the flows are: by the cookie that a flow keeps of its socket, or by its ends where no packet has used it yet.

use std::collections::HashMap;

use mpesa_fw_common::{
    owner::Owner,
    state::{FlowKey, FlowState},
};

use super::{holder::Holder, judge::Judge, sockets::Sockets};

/// The sockets at one moment, to be looked for by flow.
pub(super) struct FlowOwners<'a> {
    judge: &'a Judge<'a>,
    sockets: &'a Sockets,
    by_key: HashMap<&'a FlowKey, &'a Holder>,
}

impl<'a> FlowOwners<'a> {
    /// Owners are those that the policy of `judge` knows.
    pub(super) fn new(judge: &'a Judge<'a>, sockets: &'a Sockets) -> Self {
        // Where it matters to no rule, nobody is looked for.
        let connected = sockets.connected.iter().filter(|_| judge.has_owners());
        let by_key = connected.map(|connected| (&connected.key, &connected.holder)).collect();
        Self { judge, sockets, by_key }
    }

    /// Whose a flow is. None: it can't be told, for its socket is gone, or of a kind that the kernel does not list (raw, ICMP): the next
    /// packet of this host tells.
    pub(super) fn of(&self, key: &FlowKey, flow: &FlowState) -> Option<Owner> {
        if flow.cookie != 0 {
            return self.judge.owner(self.sockets.holders.get(&flow.cookie)?);
        }
        match self.by_key.get(key) {
            Some(holder) => self.judge.owner(holder),
            // Forwarded: nobody's, and no owner that a rule could name.
            None => Some(Owner::UNKNOWN),
        }
    }
}
