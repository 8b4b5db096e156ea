//! Frames of any kind, made by scapy, sent on one side of a link and looked for on the other.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{namespace::Namespace, network::Host};

/// Sends frames one way over the link between a host and the router.
///
/// Every frame gets a hardware source address of its own, by which the far side tells which arrived: that works
/// for frames without room for a payload too. After the frames goes the *fence*, one that the policy
/// allows: when it is there, what is missing will not come any more.
///
/// On the host's side frames are seen after XDP and, where TC ingress stands in for it, before.
#[derive(Debug)]
pub struct Wire {
    lab: Interpreter,
    tap: Interpreter,
    fence: String,
}

impl Wire {
    /// From the router to the host. The expressions may use `PEER` and `HOST` (hardware addresses), `S4`, `S6`
    /// (addresses of `source`), `H4`, `H6` (of the host), and everything of scapy's layers.
    ///
    /// # Errors
    /// python3 or scapy is not there.
    pub fn towards(host: &Host, router: &Namespace, source: crate::Place, fence: &str) -> Result<Self> {
        let names = names(host, source);
        let lab = Interpreter::start(router, include_str!("lab.py"), host.place.name, &names)?;
        let tap = Interpreter::start(&host.namespace, include_str!("tap.py"), Host::INTERFACE, &names)?;
        Ok(Self { lab, tap, fence: fence.to_owned() })
    }

    /// From the host to the router, with the same names.
    ///
    /// # Errors
    /// python3 or scapy is not there.
    pub fn out_of(host: &Host, router: &Namespace, source: crate::Place, fence: &str) -> Result<Self> {
        let names = names(host, source);
        let lab = Interpreter::start(&host.namespace, include_str!("lab.py"), Host::INTERFACE, &names)?;
        let tap = Interpreter::start(router, include_str!("tap.py"), host.place.name, &names)?;
        Ok(Self { lab, tap, fence: fence.to_owned() })
    }

    /// Sends the frames, `(name, scapy expression)`, in this order; returns the names of those that arrived.
    /// An expression may give a list of frames, or bytes; a name counts as arrived if each of its frames did.
    ///
    /// # Errors
    /// An expression is wrong, or the fence does not arrive.
    pub fn send<'a>(&mut self, frames: &[(&'a str, &str)]) -> Result<Vec<&'a str>> {
        let mut expressions: Vec<&str> = frames.iter().map(|(_, expression)| *expression).collect();
        expressions.push(&self.fence);
        let sent = self.lab.ask(&json!({ "send": expressions }))?;
        let sent: Vec<Vec<u64>> = serde_json::from_value(sent).context("the lab answers with marks")?;
        let fence = sent.last().and_then(|marks| marks.last()).context("the fence was sent")?;
        let seen = self.tap.ask(&json!({ "until": fence, "seconds": 5 }))?;
        let seen: Vec<u64> = serde_json::from_value(seen).context("the tap answers with marks")?;
        ensure!(
            seen.contains(fence),
            "the fence {:?} did not arrive; what did: {seen:?} of {sent:?}",
            self.fence
        );
        let arrived = |marks: &[u64]| marks.iter().all(|mark| seen.contains(mark));
        Ok(frames.iter().zip(&sent).filter(|(_, marks)| arrived(marks)).map(|((name, _), _)| *name).collect())
    }

    /// Sends without a fence and without looking for them.
    ///
    /// # Errors
    /// An expression is wrong.
    pub fn throw(&mut self, expressions: &[&str]) -> Result<()> {
        self.lab.ask(&json!({ "send": expressions })).map(drop)
    }

    /// Evaluates a Python expression on the sending side (scapy's names, and `sniff` results of `tap`).
    ///
    /// # Errors
    /// It raises.
    pub fn evaluate(&mut self, expression: &str) -> Result<Value> {
        self.lab.ask(&json!({ "evaluate": expression }))
    }
}

/// SYNs at a steady rate from the router to a host: five of six from sources that nobody allows (198.51.0.0/16), one from
/// sources that are forged.
#[derive(Debug)]
pub struct Flood {
    interpreter: Interpreter,
}

/// Frames that a [`Flood`] got as far as the host's interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flooded {
    /// From sources that nobody allows.
    pub denied: u64,
    /// From the forged ones.
    pub forged: u64,
}

impl Flood {
    /// Begins. Answers to the forged sources are the caller's affair.
    ///
    /// # Errors
    /// python3 is not there.
    pub fn start(
        host: &Host,
        router: &Namespace,
        port: u16,
        forged: &[std::net::Ipv4Addr],
        rate: u32,
    ) -> Result<Self> {
        let mut names = names(host, host.place);
        names["port"] = json!(port);
        names["forged"] = json!(forged);
        names["rate"] = json!(rate);
        let program = include_str!("flood.py");
        Ok(Self { interpreter: Interpreter::start(router, program, host.place.name, &names)? })
    }

    /// Ends, and says how much was sent.
    ///
    /// # Errors
    /// It has ended before.
    pub fn stop(mut self) -> Result<Flooded> {
        drop(self.interpreter.requests.take());
        let sent = self.interpreter.answer()?;
        let count = |kind: &str| sent[kind].as_u64().with_context(|| format!("no {kind} in {sent}"));
        Ok(Flooded { denied: count("denied")?, forged: count("forged")? })
    }
}

fn names(host: &Host, source: crate::Place) -> Value {
    json!({
        "PEER": host.router_mac(), "HOST": host.mac(),
        "S4": source.v4.to_string(), "S6": source.v6.to_string(),
        "H4": host.place.v4.to_string(), "H6": host.place.v6.to_string(),
    })
}

/// A Python program that answers each line of JSON with one.
#[derive(Debug)]
struct Interpreter {
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Interpreter {
    fn start(namespace: &Namespace, program: &str, interface: &str, names: &Value) -> Result<Self> {
        // Debian's own interpreter: another on PATH need not have python3-scapy.
        let mut command = namespace.command("/usr/bin/python3");
        command.args(["-c", program, interface]).arg(names.to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("could not start python3")?;
        let requests = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().context("stdout is piped")?);
        let mut interpreter = Self { child, requests, answers };
        let ready = interpreter.answer().context("python3 did not start (is python3-scapy installed?)")?;
        ensure!(ready == json!("ready"), "python3 began with {ready}");
        Ok(interpreter)
    }

    fn ask(&mut self, request: &Value) -> Result<Value> {
        let requests = self.requests.as_mut().context("the interpreter is open")?;
        writeln!(requests, "{request}").context("the interpreter is gone")?;
        let answer = self.answer()?;
        if let Some(error) = answer.get("error") {
            anyhow::bail!("python: {}", error.as_str().unwrap_or_default());
        }
        Ok(answer)
    }

    fn answer(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.answers.read_line(&mut line).context("no answer")?;
        serde_json::from_str(&line).with_context(|| format!("no JSON: {line:?}"))
    }
}

impl Drop for Interpreter {
    fn drop(&mut self) {
        drop(self.requests.take()); // End of input ends the program.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
