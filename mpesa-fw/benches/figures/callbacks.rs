//! Safaricom's side: payment notices by HTTPS at a steady rate, half of them on connections of their own, half on
//! connections that are kept.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error as TlsError, SignatureScheme};

use crate::sample::Sample;

/// The name in the certificate.
pub(crate) const NAME: &str = "callbacks.example.co.ke";
/// Between one callback and the next: 50 a second.
const EVERY: Duration = Duration::from_millis(20);
/// Longer, and the callback is lost. A SYN that is lost twice comes again after 1 and 3 seconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// As Daraja's documentation shows the answer to an STK push.
const BODY: &str = r#"{"Body":{"stkCallback":{"MerchantRequestID":"29115-34620561-1","CheckoutRequestID":"ws_CO_191220191020363925","ResultCode":0,"ResultDesc":"The service request is processed successfully.","CallbackMetadata":{"Item":[{"Name":"Amount","Value":1.00},{"Name":"MpesaReceiptNumber","Value":"NLJ7RT61SV"},{"Name":"TransactionDate","Value":20191219102115},{"Name":"PhoneNumber","Value":254708374149}]}}}}"#;

/// What came of some seconds of callbacks.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// Milliseconds from the first packet to the last of the answer, on a connection of its own.
    pub(crate) fresh: Sample,
    /// Likewise on a kept connection.
    pub(crate) kept: Sample,
    /// Callbacks without an answer 200, and the last reason.
    pub(crate) lost: usize,
    pub(crate) why: Option<String>,
}

impl Outcome {
    pub(crate) const fn new() -> Self {
        Self { fresh: Sample::new(), kept: Sample::new(), lost: 0, why: None }
    }

    /// Takes those of another round too.
    pub(crate) fn add(&mut self, other: Self) {
        self.fresh.extend(other.fresh);
        self.kept.extend(other.kept);
        self.lost += other.lost;
        self.why = other.why.or(self.why.take());
    }

    pub(crate) fn sent(&self) -> usize {
        self.fresh.len() + self.kept.len() + self.lost
    }
}

/// Sends callbacks for that long, on this thread; `certificate` is the server's (PEM).
///
/// # Errors
/// There is no certificate, or no runtime. A lost callback is none.
pub(crate) fn send(server: SocketAddr, certificate: &Path, long: Duration) -> Result<Outcome> {
    let caller = Rc::new(Caller::new(server, certificate)?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(LocalSet::new().run_until(async move {
        let mut calls = JoinSet::new();
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        for turn in 0..long.as_millis() / EVERY.as_millis() {
            ticks.tick().await;
            let caller = Rc::clone(&caller);
            calls.spawn_local(async move { caller.call(turn % 2 == 0).await });
        }
        let mut outcome = Outcome::new();
        while let Some(call) = calls.join_next().await {
            match call? {
                (true, Ok(took)) => outcome.fresh.push(took),
                (false, Ok(took)) => outcome.kept.push(took),
                (_, Err(error)) => {
                    outcome.lost += 1;
                    outcome.why = Some(format!("{error:#}"));
                }
            }
        }
        Ok(outcome)
    }))
}

type Connection = TlsStream<TcpStream>;

struct Caller {
    server: SocketAddr,
    connector: TlsConnector,
    idle: RefCell<Vec<Connection>>,
}

impl Caller {
    fn new(server: SocketAddr, certificate: &Path) -> Result<Self> {
        let certificate = CertificateDer::from_pem_file(certificate)
            .map_err(|error| anyhow!("the certificate: {error}"))?;
        let provider = Arc::new(ring::default_provider());
        let pinned = Arc::new(Pinned { certificate, provider: Arc::clone(&provider) });
        let mut tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(pinned)
            .with_no_client_auth();
        // A new connection is a whole handshake.
        tls.resumption = tokio_rustls::rustls::client::Resumption::disabled();
        Ok(Self { server, connector: TlsConnector::from(Arc::new(tls)), idle: RefCell::default() })
    }

    /// One callback: on a connection of its own or not, and the milliseconds it took.
    async fn call(&self, fresh: bool) -> (bool, Result<f64>) {
        let begin = Instant::now();
        let called = timeout(PATIENCE, self.post(fresh)).await;
        let took = begin.elapsed().as_secs_f64() * 1e3;
        (fresh, called.unwrap_or_else(|_| Err(anyhow!("no answer within {PATIENCE:?}"))).map(|()| took))
    }

    async fn post(&self, fresh: bool) -> Result<()> {
        let idle = if fresh { None } else { self.idle.borrow_mut().pop() };
        let mut connection = match idle {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let keep = if fresh { "close" } else { "keep-alive" };
        let request = format!(
            "POST /callbacks/stk HTTP/1.1\r\nHost: {NAME}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: {keep}\r\n\r\n{BODY}",
            BODY.len()
        );
        connection.write_all(request.as_bytes()).await.context("write")?;
        connection.flush().await.context("write")?;
        answer(&mut connection).await?;
        if !fresh {
            self.idle.borrow_mut().push(connection);
        }
        Ok(())
    }

    async fn connect(&self) -> Result<Connection> {
        let stream = TcpStream::connect(self.server).await.context("connect")?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(NAME)?;
        self.connector.connect(name, stream).await.context("TLS")
    }
}

/// Reads one answer to its end; it must be a 200.
async fn answer(connection: &mut Connection) -> Result<()> {
    let mut answer = Vec::with_capacity(1024);
    loop {
        ensure!(connection.read_buf(&mut answer).await.context("read")? > 0, "the answer ends too early");
        let text = String::from_utf8_lossy(&answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        ensure!(head.starts_with("HTTP/1.1 200 "), "the answer is {:?}", head.lines().next());
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let length: usize = length.context("no Content-Length")?.parse()?;
        if body.len() >= length {
            return Ok(());
        }
    }
}

/// Believes this certificate and no other.
#[derive(Debug)]
struct Pinned {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        if *shown == self.certificate {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(TlsError::General(String::from("another certificate than the server's own")))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
