//! What would become of a packet, and why: asked of a [twin](crate::datapath::Twin) of the programs in force.
//!
//! The decision is the twin's alone. What is said around it (the place of the rule, the nearest prefix, the flow) is looked
//! up here, in the policy that the twin's tables were made of.

mod advice;
mod answer;
mod captured;
mod difference;
mod nearest;
mod owner;
mod packet;
mod question;
mod twins;

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use mpesa_fw_common::{
    Direction, Mode, Reason, Verdict, decide::Sender, packet::PacketMeta, state::FlowPhase,
};
use serde::{Deserialize, Serialize};

pub use answer::{
    Asked, BatchAnswer, Explanation, FlowFacts, FrameAnswer, Outcome, PacketFacts, Place, Verdicts,
};
pub use captured::{Captured, HEADERS};
pub use difference::{Difference, DifferenceRequest};
pub(super) use nearest::destination as nearest_destination;
pub use owner::OwnerAsked;
pub use question::{Question, Socket, Way};
pub(super) use twins::Twins;

use super::{Agent, AgentError, NameStatus, Running, clock, kernel::beside, network::Network};
use crate::datapath::{Attachment, IngressHook, Judgement, Probe, Program};
use advice::Matter;

/// Frames of a capture, to be judged by the generation in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// In the order of the capture.
    pub frames: Vec<Captured>,
    /// Which way they go; none: those from an address of this host go out.
    pub way: Option<Way>,
    /// The interface whose hooks are asked.
    pub interface: Option<String>,
    /// A policy that is not in force, by the number that [`Difference`] gave: judge by that too.
    pub candidate: Option<u64>,
}

/// Frames of a batch at most.
pub const BATCH: usize = 512;

/// A hook, as far as the question which program is asked goes.
struct Hook {
    program: Program,
    interface: Option<(u32, String)>,
    kind: &'static str,
}

impl Hook {
    /// The hook of an interface, or the first one in this direction.
    fn find(network: &Network, way: Way, interface: Option<&str>) -> Result<Self, AgentError> {
        let judges = |a: &&Attachment| match way {
            Way::Ingress => a.ingress.is_some(),
            Way::Egress => a.egress.is_some(),
        };
        let named = |a: &&Attachment| interface.is_none_or(|name| a.interface.name == name);
        let attachment = network.attachments.iter().filter(judges).find(named);
        if let (None, Some(name)) = (attachment, interface) {
            return Err(AgentError::Question(format!(
                "{name} has no hook for {}: mpesa-fw judges nothing there (`mpesa-fw status` lists what it protects)",
                Direction::from(way).label()
            )));
        }
        let (program, kind) = match way {
            Way::Egress => (Program::EgressTc, "tc"),
            Way::Ingress => match attachment.and_then(|a| a.ingress) {
                Some(IngressHook::TcIngress { .. }) => (Program::IngressTc, "tc"),
                Some(IngressHook::XdpGeneric) => (Program::IngressXdp, "xdp (generic)"),
                Some(IngressHook::XdpNative) => (Program::IngressXdp, "xdp (native)"),
                None => (Program::IngressXdp, "none yet; asked as at xdp"),
            },
        };
        let interface = attachment.map(|a| (a.interface.index, a.interface.name.clone()));
        Ok(Self { program, interface, kind })
    }

    const fn label(&self) -> &'static str {
        match self.program {
            Program::IngressXdp => "ingress_xdp",
            Program::IngressTc => "ingress_tc",
            Program::EgressTc => "egress_tc",
        }
    }
}

impl Agent {
    /// Explains what would become of a packet.
    ///
    /// # Errors
    /// The question makes no packet, or no twin can be had.
    pub async fn why(self: &Arc<Self>, question: Question) -> Result<Explanation, AgentError> {
        let (running, twin) = self.running_twin().await?;
        let (network, names) = {
            let current = &self.state().current;
            (current.network.clone(), current.names.status())
        };
        let hook = Hook::find(&network, question.way, question.interface.as_deref())?;
        let asked = question.owner.clone();
        let owner = beside(move || asked.find()).await?;
        let index = hook.interface.as_ref().map(|(index, _)| *index);
        let settled = question.settle(&network.view, index, owner)?;
        let frame = settled
            .packet
            .frame()
            .ok_or_else(|| AgentError::Internal("two families in one packet".to_owned()))?;
        let length = frame.len() as u32;
        let (meta, _) = captured::facts(&frame, length, false);
        let direction = Direction::from(question.way);
        let agent = Arc::clone(self);
        beside(move || {
            let probe =
                Probe { program: hook.program, frame: &frame, segmented: false, sender: settled.sender };
            let judgement = twin.judge(&probe)?.ok_or_else(|| {
                AgentError::Internal("the kernel takes no such packet for a test run".to_owned())
            })?;
            let flow = agent.flow_facts(&running, &meta, direction)?;
            let matter = Matter {
                policy: &running.policy,
                direction,
                meta: &meta,
                judgement: &judgement,
                is_own: network.view.impossible_sources().contains(&meta.source.into()),
                names: &by_name(&names),
                owner: question.owner.is_named().then_some(&question.owner),
            };
            Ok(Explanation {
                outcome: Outcome::new(&running.policy, direction, &judgement),
                dropped: drops(running.mode(), &judgement),
                description: describe(&judgement),
                rule_at: answer::rule(&running.policy, direction, &judgement).map(|(_, at)| at.into()),
                flow,
                packet: PacketFacts::new(question.way, &meta),
                chosen: settled.chosen,
                injected: settled.injected,
                advice: if advice::is_ip(&meta) { matter.advice() } else { Vec::new() },
                asked: Asked {
                    generation: twin.stamp().number,
                    digest: super::hex(&twin.stamp().digest),
                    program: hook.label().to_owned(),
                    interface: hook.interface.as_ref().map(|(_, name)| name.clone()),
                    hook: hook.kind.to_owned(),
                },
            })
        })
        .await
    }

    /// Judges frames of a capture.
    ///
    /// # Errors
    /// Too many at once, the candidate is not kept any more, or no twin can be had.
    pub async fn judge_frames(self: &Arc<Self>, batch: Batch) -> Result<BatchAnswer, AgentError> {
        if batch.frames.len() > BATCH {
            return Err(AgentError::Question(format!("more than {BATCH} frames in a batch")));
        }
        let (running, twin) = self.running_twin().await?;
        let candidate = batch.candidate.map(|number| self.candidate(number)).transpose()?;
        let network = self.state().current.network.clone();
        let hooks =
            [Way::Ingress, Way::Egress].map(|way| Hook::find(&network, way, batch.interface.as_deref()));
        let [ingress, egress] = hooks;
        let hooks = [ingress?, egress?];
        beside(move || {
            let own: Vec<IpAddr> = network.view.addresses.iter().map(|(_, address)| *address).collect();
            let judge = |captured: &Captured| -> Result<FrameAnswer, AgentError> {
                let way = batch.way.unwrap_or_else(|| way_of(captured, &own));
                let hook = &hooks[way as usize];
                let askable = match captured.askable(hook.program) {
                    Ok(askable) => askable,
                    Err(why) => {
                        return Ok(FrameAnswer { packet: None, verdicts: Verdicts::NotJudged(why.to_owned()) });
                    }
                };
                let packet = Some(PacketFacts::new(way, &askable.meta));
                let direction = Direction::from(way);
                let probe = Probe {
                    program: hook.program,
                    frame: &askable.bytes,
                    segmented: askable.segmented,
                    sender: sender_of(way, &askable.meta),
                };
                let Some(now) = twin.judge(&probe)? else {
                    let why = "the kernel takes no such frame for a test run: too short, or cut in its network header";
                    return Ok(FrameAnswer { packet, verdicts: Verdicts::NotJudged(why.to_owned()) });
                };
                let then = match &candidate {
                    Some(candidate) => candidate
                        .twin
                        .judge(&probe)?
                        .map(|judgement| Outcome::new(&candidate.policy, direction, &judgement)),
                    None => None,
                };
                let now = Outcome::new(&running.policy, direction, &now);
                Ok(FrameAnswer { packet, verdicts: Verdicts::Judged { now, then, shortened: askable.segmented } })
            };
            Ok(BatchAnswer {
                generation: twin.stamp().number,
                digest: super::hex(&twin.stamp().digest),
                frames: batch.frames.iter().map(judge).collect::<Result<_, _>>()?,
            })
        })
        .await
    }

    /// The live flow of a packet, looked up without touching it.
    fn flow_facts(
        &self,
        running: &Running,
        meta: &PacketMeta,
        direction: Direction,
    ) -> Result<Option<FlowFacts>, AgentError> {
        let key = meta.flow_key(direction);
        let now = clock::monotonic();
        let flow = self.kernel.lock().flow(&key)?.filter(|flow| !flow.is_expired(key.protocol, now));
        Ok(flow.map(|flow| FlowFacts {
            // The number of a rule means nothing in another generation.
            destination: if flow.generation == running.stamp.number {
                running.rule(Direction::Egress, flow.rule).to_owned()
            } else {
                String::new()
            },
            idle_seconds: now.saturating_sub(flow.last_seen) / 1_000_000_000,
            phase: match FlowPhase::from_code(flow.phase) {
                FlowPhase::Opened => "opened",
                FlowPhase::Answered => "answered",
                FlowPhase::Closing => "closing",
            }
            .to_owned(),
        }))
    }
}

/// Whether a packet of this decision would be dropped in a mode.
const fn drops(mode: Mode, judgement: &Judgement) -> bool {
    match mode {
        Mode::Enforce => matches!(judgement.decision.verdict(), Verdict::Drop),
        Mode::Observe => false,
    }
}

fn describe(judgement: &Judgement) -> String {
    let sentence = match judgement.decision.reason {
        Reason::Pass(reason) => reason.describe(),
        Reason::Drop(reason) => reason.describe(),
    };
    sentence.trim().to_owned()
}

fn by_name(names: &[NameStatus]) -> BTreeMap<String, Vec<IpAddr>> {
    names.iter().map(|status| (status.name.clone(), status.addresses.clone())).collect()
}

/// A captured packet from an address of this host goes out.
fn way_of(captured: &Captured, own: &[IpAddr]) -> Way {
    let is_own = captured
        .askable(Program::EgressTc)
        .is_ok_and(|askable| advice::is_ip(&askable.meta) && own.contains(&askable.meta.source.into()));
    if is_own { Way::Egress } else { Way::Ingress }
}

/// Who has sent a captured packet is not known: taken for a program's, bound to the source port.
const fn sender_of(way: Way, meta: &PacketMeta) -> Sender {
    match way {
        Way::Ingress => Sender::NONE,
        Way::Egress => Sender { bound_port: meta.source_port, is_full: true, ..Sender::NONE },
    }
}
