//! Target `sequence`: packets one after the other, time between them, reloads; after each step what no history may break.

use std::collections::{HashMap, HashSet};

use mpesa_fw_common::{
    Direction, Mode, PassReason, Reason, Verdict,
    decide::{Decision, Sender},
    limit::LimitWhat,
    packet::{FragmentKind, PacketMeta},
    state::{FRAGMENT_LIFETIME, FlowKey, FragmentKey},
    tables::Tables as _,
};

use super::{
    laws, model, rules,
    steps::{self, Step},
};
use crate::{
    case::Rules,
    host::{self, Frame, HostState, SECOND},
};

/// No flow is idle for longer and lives.
const LONGEST_IDLE: u64 = 5 * 86_400 * SECOND;

thread_local! {
    static RULES: [Rules; rules::COUNT] = rules::all();
}

pub(crate) fn run(data: &[u8]) {
    RULES.with(|all| {
        let mut history = History::new(&all[0]);
        let mut current = 0;
        for step in steps::read(data) {
            match step {
                Step::Wait(time) => history.state.wait(time),
                Step::Reload(number) => {
                    current = number;
                    history.reload(&all[current]);
                }
                Step::Packet { frame, direction, sender } => {
                    let _seen = history.packet(&all[current], &frame, direction, &sender);
                }
            }
        }
    });
}

/// What happened so far, told by what was decided, not by how.
struct History {
    state: HostState,
    /// Flows that this host opened, and when they last moved.
    opened: HashMap<FlowKey, u64>,
    /// Fragmented packets whose first part passed, and when.
    firsts: HashMap<FragmentKey, u64>,
    /// Packets that each limited rule let pass, of each source or of all.
    charged: HashMap<(u32, Option<[u32; 4]>), u64>,
    began: u64,
}

impl History {
    fn new(rules: &Rules) -> Self {
        let state = rules::state(rules);
        let began = state.now.get();
        Self { state, opened: HashMap::new(), firsts: HashMap::new(), charged: HashMap::new(), began }
    }

    fn reload(&mut self, rules: &Rules) {
        // The agent writes the names' new slots.
        let names = self.state.names.clone();
        self.state.resolve(rules, &names);
    }

    fn packet(&mut self, rules: &Rules, frame: &Frame, direction: Direction, sender: &Sender) -> Decision {
        let meta = host::facts(frame);
        let before = self.sizes();
        let decision = host::judge(&rules.compiled, &self.state, frame, direction, sender);
        let observes = rules.policy.mode == Mode::Observe;
        let passes = matches!(decision.verdict(), Verdict::Pass);
        if !observes || passes {
            laws::coherent(rules, &decision, direction);
        }
        let after = self.sizes();
        // Nothing that an outsider sends makes a flow, and nothing that is dropped leaves anything.
        let may_open = direction == Direction::Egress && (passes || observes);
        assert!(after.0 <= before.0 + usize::from(may_open), "{decision:?}");
        assert!(
            after.1 <= before.1 + usize::from(passes && meta.fragment == FragmentKind::First),
            "{decision:?}"
        );
        self.check(rules, &meta, &decision, direction);
        self.remember(&meta, &decision, direction, may_open);
        decision
    }

    fn sizes(&self) -> (usize, usize) {
        (self.state.flows.borrow().len(), self.state.fragments.borrow().len())
    }

    /// Whether a pass was earned.
    fn check(&mut self, rules: &Rules, meta: &PacketMeta, decision: &Decision, direction: Direction) {
        let now = self.state.now.get();
        let Reason::Pass(reason) = decision.reason else { return };
        match reason {
            PassReason::Flow => {
                let key = meta.flow_key(direction);
                let moved = self.opened.get(&key).copied();
                let moved = moved.unwrap_or_else(|| panic!("a flow that nobody opened: {key:?}"));
                assert!(now - moved <= LONGEST_IDLE, "a flow of long ago");
                assert!(!(meta.opens_connection() && direction == Direction::Ingress), "a SYN as a reply");
                self.still_permitted(rules, &key);
            }
            PassReason::Fragment => {
                let passed = self.firsts.get(&meta.fragment_key(direction));
                assert!(passed.is_some_and(|at| now - at <= FRAGMENT_LIFETIME), "the rest of nothing");
            }
            PassReason::Service => self.within_limit(rules, meta, decision, now),
            PassReason::Destination => {
                let rule = model::destination(rules, &model::Asked::by(meta), meta.target);
                assert_eq!(rule, decision.rule.index());
            }
            PassReason::ServiceReply => assert!(!meta.opens_connection()),
            PassReason::LinkLayer | PassReason::Control | PassReason::Default => {}
        }
    }

    /// A live flow is one that this generation would open.
    fn still_permitted(&self, rules: &Rules, key: &FlowKey) {
        let asked = model::Asked::by_flow(key);
        let permitted = model::destination(rules, &asked, key.remote).is_some()
            || rules.policy.mode == Mode::Observe
            || matches!(rules.policy.egress.default, Verdict::Pass) && !model::is_claimed(rules, &asked);
        assert!(permitted, "a flow that the policy denies: {key:?}");
    }

    /// No source gets more than a burst and what has been earned since.
    fn within_limit(&mut self, rules: &Rules, meta: &PacketMeta, decision: &Decision, now: u64) {
        let Some(limit) = decision.rule.index().and_then(|rule| rules.policy.ingress.services[rule].limit)
        else {
            return;
        };
        if limit.what == LimitWhat::NewConnections && meta.is_tcp() && !meta.opens_connection() {
            return;
        }
        let info =
            rules.compiled.rule_info(Direction::Ingress, decision.rule).expect("there is one of each rule");
        let source = match limit.per {
            mpesa_fw_common::limit::LimitPer::Source => Some(meta.source.words),
            mpesa_fw_common::limit::LimitPer::Service => None,
        };
        let count = self.charged.entry((info.counter_slot, source)).or_default();
        *count += 1;
        let period = limit.period.as_nanos() as u64;
        let earned = limit.burst.get() + (now - self.began) * limit.rate.get() / period + 1;
        assert!(*count <= earned, "{count} packets where {earned} are earned");
    }

    fn remember(&mut self, meta: &PacketMeta, decision: &Decision, direction: Direction, may_open: bool) {
        let now = self.state.now.get();
        if matches!(decision.reason, Reason::Pass(PassReason::Flow)) || may_open {
            let key = meta.flow_key(direction);
            if self.state.flows.borrow().contains_key(&key) {
                self.opened.insert(key, now);
            }
        }
        if matches!(decision.verdict(), Verdict::Pass) && meta.fragment == FragmentKind::First {
            self.firsts.insert(meta.fragment_key(direction), now);
        }
        let known: HashSet<FlowKey> = self.state.flows.borrow().keys().copied().collect();
        assert!(known.iter().all(|key| self.opened.contains_key(key)), "a flow from nowhere");
    }
}
