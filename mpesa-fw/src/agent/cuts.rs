//! Connections that pass now and would not under another policy: the lock-out guard looks at all of them.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use mpesa_fw_common::{
    Direction, DropReason, Mode,
    owner::Owner,
    packet::protocol::TCP,
    state::{FlowKey, FlowPhase, FlowState},
};

use super::{
    Running, SshConnection,
    callers::{self, Present},
    clock,
    error::AgentError,
    flow_owners::FlowOwners,
    guard::{check, inbound, passes_a_hook},
    holder::Holder,
    interfaces::Choice,
    judge::Judge,
    owners,
    seed::protocol,
    sockets::{Connected, Sockets},
    view::View,
    would_cut::{Cut, WouldCut},
};
use crate::{
    compile::Compiled,
    datapath::{Caller, Datapath, LearntNames},
};

/// Where it is not known by which policy packets are judged now, a connection from which nothing was heard for this long
/// is not one that passes.
const HEARD: Duration = Duration::from_secs(300);

/// By what packets are judged now.
pub(super) enum Before<'r> {
    /// Nothing is: all of them pass.
    Nothing,
    /// A policy that is known, and the answers of DNS that it knows.
    Policy(&'r Running, BTreeMap<IpAddr, Vec<u16>>),
    /// A generation whose policy is not known: what was heard of lately passes.
    Unknown,
}

/// A policy that may come into force.
pub(super) struct Future<'a> {
    /// Its decision.
    pub judge: &'a Judge<'a>,
    /// Whether it drops.
    pub mode: Mode,
    /// The interfaces of this host.
    pub view: &'a View,
    /// What it protects.
    pub choice: &'a Choice,
}

/// What is open now.
#[derive(Default)]
pub(super) struct Open {
    /// As the kernel lists it.
    pub sockets: Sockets,
    /// The flow table.
    pub flows: Vec<(FlowKey, FlowState)>,
    /// Who finished handshakes.
    pub callers: Vec<Caller>,
    /// What was learnt from answers of resolvers.
    pub learnt: LearntNames,
}

impl Open {
    /// Asks the kernel.
    ///
    /// # Errors
    /// It does not answer.
    pub(super) fn look(datapath: &Datapath) -> Result<Self, AgentError> {
        let sockets = Sockets::dump_with_activity();
        let sockets = sockets.map_err(AgentError::netlink("list the sockets of this host"))?;
        Ok(Self {
            sockets,
            flows: datapath.flows()?,
            callers: datapath.recent_callers()?,
            learnt: datapath.learnt()?,
        })
    }
}

impl Future<'_> {
    /// Looks at the caller's connection and at all that are open.
    ///
    /// # Errors
    /// What would be cut.
    pub(super) fn guard(
        &self,
        before: &Before<'_>,
        open: &Open,
        caller: Option<SshConnection>,
    ) -> Result<(), Box<WouldCut>> {
        let own = caller.and_then(|caller| {
            check(self.judge, self.mode, caller, &open.sockets, self.view, self.choice).err()
        });
        let (mut others, callers) = match (self.mode, before) {
            (Mode::Observe, _) => (Vec::new(), Vec::new()),
            (Mode::Enforce, Before::Policy(running, resolved)) => {
                let own = self.view.addresses.iter().map(|(_, address)| *address);
                // Units have come and gone since it was put in force.
                let present = owners::look(&running.compiled.owners, &mut |_| {}).rules;
                let compiled = Compiled { present, ..running.compiled.clone() };
                let judge = Judge::new(&compiled, own, resolved);
                let present = Present { running, judge: &judge };
                let callers = callers::lost(open, &present, self.judge, self.view, self.choice);
                let past = Past { view: self.view, how: How::Judged(&judge, running.mode()) };
                (self.cuts(before, &past, open), callers)
            }
            // Whose connections were counted is not known then.
            (Mode::Enforce, Before::Nothing) => {
                (self.cuts(before, &Past { view: self.view, how: How::All }, open), Vec::new())
            }
            (Mode::Enforce, Before::Unknown) => {
                (self.cuts(before, &Past { view: self.view, how: How::Heard }, open), Vec::new())
            }
        };
        others.retain(|cut| Some(cut.remote) != own.as_ref().map(|own| own.remote));
        if own.is_none() && others.is_empty() && callers.is_empty() {
            return Ok(());
        }
        Err(Box::new(WouldCut { own, others, callers }))
    }

    fn cuts(&self, before: &Before<'_>, past: &Past<'_>, open: &Open) -> Vec<Cut> {
        let called = |c: &&Connected| open.sockets.serve(&c.key);
        let connected = open.sockets.connected.iter();
        let inbound = connected.filter(called).filter_map(|c| self.cut_inbound(past, c, &open.sockets));
        let owners = FlowOwners::new(self.judge, &open.sockets);
        let outgoing = match before {
            // A connection without a flow does not pass.
            Before::Policy(running, _) => self.cut_flows(&open.flows, &owners, running.mode()),
            Before::Unknown => self.cut_flows(&open.flows, &owners, Mode::Enforce),
            Before::Nothing => {
                let tcp = open.sockets.outgoing().filter(|c| c.key.protocol == TCP);
                tcp.filter_map(|c| self.cut_flow(&c.key, self.judge.owner(&c.holder).as_ref())).collect()
            }
        };
        inbound.chain(outgoing).collect()
    }

    fn cut_inbound(&self, past: &Past<'_>, connected: &Connected, sockets: &Sockets) -> Option<Cut> {
        if connected.key.protocol != TCP || connected.phase != FlowPhase::Answered {
            return None;
        }
        let connection = as_call(&connected.key);
        if !passes_a_hook(connection, self.view, |index| self.choice.protect.contains_key(&index)) {
            return None;
        }
        let servers = sockets.servers(connection.server, connection.server_port);
        let (direction, reason) = inbound(self.judge, connection, &servers).err()?;
        past.passes(connection, connected, &servers).then(|| connection.cut(direction, reason))
    }

    /// `now`: the mode in which they are judged; what is marked as not permitted passes in one and not in the other.
    fn cut_flows(&self, flows: &[(FlowKey, FlowState)], owners: &FlowOwners<'_>, now: Mode) -> Vec<Cut> {
        let passes = |state: &FlowState| match now {
            Mode::Observe => true,
            Mode::Enforce => state.would_drop == 0,
        };
        let now = clock::monotonic();
        let is_live = |key: &FlowKey, state: &FlowState| {
            state.phase == FlowPhase::Answered as u8 && passes(state) && !state.is_expired(key.protocol, now)
        };
        flows
            .iter()
            .filter(|(key, state)| is_live(key, state))
            .filter_map(|(key, state)| self.cut_flow(key, owners.of(key, state).as_ref()))
            .collect()
    }

    fn cut_flow(&self, key: &FlowKey, owner: Option<&Owner>) -> Option<Cut> {
        let (local, remote) = (IpAddr::from(key.local), IpAddr::from(key.remote));
        // An address of no interface is a guest's, or gone: its packets pass some hook.
        let leaves = SshConnection {
            client: remote,
            client_port: key.remote_port,
            server: local,
            server_port: key.local_port,
        };
        if !passes_a_hook(leaves, self.view, |index| self.choice.protect.contains_key(&index)) {
            return None;
        }
        let reason: DropReason = self.judge.flow_of(key, owner).err()?;
        Some(Cut {
            protocol: protocol(key.protocol),
            local: SocketAddr::new(local, key.local_port),
            remote: SocketAddr::new(remote, key.remote_port),
            opened: Direction::Egress,
            direction: Direction::Egress,
            reason,
        })
    }
}

/// How inbound connections are judged now.
struct Past<'r> {
    view: &'r View,
    how: How<'r>,
}

enum How<'r> {
    All,
    Judged(&'r Judge<'r>, Mode),
    Heard,
}

impl Past<'_> {
    fn passes(&self, connection: SshConnection, connected: &Connected, servers: &[Holder]) -> bool {
        if !passes_a_hook(connection, self.view, |index| self.view.hooked.contains(&index)) {
            return true;
        }
        match &self.how {
            How::All | How::Judged(_, Mode::Observe) => true,
            How::Judged(judge, Mode::Enforce) => inbound(judge, connection, servers).is_ok(),
            How::Heard => connected.heard.is_some_and(|heard| heard < HEARD),
        }
    }
}

/// The local end was called by the other.
pub(super) fn as_call(key: &FlowKey) -> SshConnection {
    SshConnection {
        client: key.remote.into(),
        client_port: key.remote_port,
        server: key.local.into(),
        server_port: key.local_port,
    }
}
