//! curl as the client.

use std::{fmt, net::IpAddr, path::PathBuf, process::Command};

use crate::{command::run, namespace::Namespace};

/// One request to be made by curl.
#[derive(Clone, Debug)]
pub struct Curl {
    url: String,
    arguments: Vec<String>,
    patience: f32,
    resolver: Option<PathBuf>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// An HTTP answer.
    Status {
        /// Its code.
        code: u16,
        /// Its body.
        body: String,
    },
    /// The connection was refused at once: the packets arrived, nobody listens.
    Refused,
    /// The kernel did not let it connect (EPERM).
    NotPermitted,
    /// No connection came about: packets vanish.
    Silence,
    /// A connection, but no whole answer; or another failure, with curl's exit code and words.
    Failed {
        /// curl's exit code.
        code: i32,
        /// curl's words.
        message: String,
    },
}

impl Curl {
    /// A GET.
    #[must_use]
    pub fn get(url: impl Into<String>) -> Self {
        Self { url: url.into(), arguments: Vec::new(), patience: 1.0, resolver: None }
    }

    /// A GET of `/` at an address of either family.
    #[must_use]
    pub fn http(address: impl Into<IpAddr>, port: u16) -> Self {
        let address = address.into();
        Self::get(if address.is_ipv6() {
            format!("http://[{address}]:{port}/")
        } else {
            format!("http://{address}:{port}/")
        })
    }

    /// Makes it a POST of this JSON.
    #[must_use]
    pub fn post(self, json: &str) -> Self {
        self.argument("--header").argument("Content-Type: application/json").argument("--data").argument(json)
    }

    /// Trusts this certificate.
    #[must_use]
    pub fn trusting(self, certificate: &std::path::Path) -> Self {
        self.argument("--cacert").argument(certificate.display().to_string())
    }

    /// Connects to this address whatever the URL says.
    #[must_use]
    pub fn at(self, address: impl Into<IpAddr>) -> Self {
        let address = match address.into() {
            IpAddr::V4(v4) => v4.to_string(),
            IpAddr::V6(v6) => format!("[{v6}]"),
        };
        self.argument("--connect-to").argument(format!("::{address}:"))
    }

    /// One more argument for curl.
    #[must_use]
    pub fn argument(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// How many seconds it waits for a connection; 1 if not said.
    #[must_use]
    pub fn patience(mut self, seconds: f32) -> Self {
        self.patience = seconds;
        self
    }

    /// Resolves names as this file says instead of `/etc/resolv.conf`.
    #[must_use]
    pub fn resolving(mut self, resolv_conf: PathBuf) -> Self {
        self.resolver = Some(resolv_conf);
        self
    }

    /// The command, for running it in the background.
    #[must_use]
    pub fn command(&self, namespace: &Namespace) -> Command {
        let mut command = match &self.resolver {
            Some(resolv_conf) => namespace.command_resolving(resolv_conf, "curl"),
            None => namespace.command("curl"),
        };
        command.args([
            "--silent",
            // Says why it could not connect.
            "--verbose",
            "--globoff",
            "--noproxy",
            "*",
            "--write-out",
            "\n%{http_code}",
        ]);
        command.arg("--connect-timeout").arg(self.patience.to_string());
        command.arg("--max-time").arg((self.patience + 5.0).to_string());
        command.args(&self.arguments).arg(&self.url);
        command
    }

    /// Makes the request from that namespace.
    ///
    /// # Panics
    /// curl can't be started.
    #[must_use]
    pub fn from(&self, namespace: &Namespace) -> Answer {
        let ran = run(&mut self.command(namespace)).expect("curl is installed");
        let (body, code) = ran.stdout.rsplit_once('\n').unwrap_or(("", "000"));
        match (ran.code, code.parse()) {
            (Some(0), Ok(code)) => Answer::Status { code, body: body.to_owned() },
            (Some(7), _) if ran.stderr.contains("Operation not permitted") => Answer::NotPermitted,
            (Some(7), _)
                if ran.stderr.contains("refused")
                    || ran.stderr.contains("Couldn't connect")
                    || ran.stderr.contains("Could not connect") =>
            {
                Answer::Refused
            }
            // 28 is also an answer that stops half-way; then a connection was there.
            (Some(28), _)
                if ran.stderr.contains("onnection timed out")
                    || ran.stderr.contains("onnection timeout")
                    || ran.stderr.contains("Failed to connect") =>
            {
                Answer::Silence
            }
            (code, _) => {
                let said = ran.stderr.lines().rfind(|line| line.starts_with("curl: "));
                Answer::Failed {
                    code: code.unwrap_or(-1),
                    message: said.unwrap_or(ran.stderr.trim()).to_owned(),
                }
            }
        }
    }
}

impl Answer {
    /// Whether it is an HTTP 200.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        matches!(self, Self::Status { code: 200, .. })
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status { code, .. } => write!(f, "HTTP {code}"),
            Self::Refused => f.write_str("refused"),
            Self::NotPermitted => f.write_str("not permitted"),
            Self::Silence => f.write_str("no connection"),
            Self::Failed { message, .. } => f.write_str(message),
        }
    }
}
