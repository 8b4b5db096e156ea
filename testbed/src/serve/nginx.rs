//! nginx, with and without TLS.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{command::ok, namespace::Namespace, process::Process, wait::holds};

/// A self-signed certificate and its key.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// PEM.
    pub certificate: PathBuf,
    /// PEM, 0600.
    pub key: PathBuf,
}

impl Certificate {
    /// Made by openssl for these DNS names, valid for a day.
    ///
    /// # Errors
    /// openssl is not there or refuses.
    pub fn new(directory: &Path, names: &[&str]) -> Result<Self> {
        let made = Self { certificate: directory.join("certificate.pem"), key: directory.join("key.pem") };
        let names: Vec<String> = names.iter().map(|name| format!("DNS:{name}")).collect();
        let mut command = Command::new("openssl");
        command.args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "1",
        ]);
        command
            .args(["-subj", "/CN=mpesa-fw testbed", "-addext"])
            .arg(format!("subjectAltName={}", names.join(",")));
        command.arg("-keyout").arg(&made.key).arg("-out").arg(&made.certificate);
        ok(&mut command).context("could not make a certificate with openssl")?;
        Ok(made)
    }
}

/// One port on which nginx answers 200 with a fixed body.
#[derive(Clone, Copy, Debug)]
pub struct Site<'a> {
    /// On all addresses of both families.
    pub port: u16,
    /// With TLS if there is one.
    pub certificate: Option<&'a Certificate>,
    /// What it answers.
    pub body: &'a str,
}

/// A running nginx.
#[derive(Debug)]
pub struct Nginx {
    process: Process,
    access_log: PathBuf,
}

impl Nginx {
    /// Starts it in a namespace; its files go to `<scratch>/<name>/`.
    ///
    /// # Errors
    /// It is not there, or does not listen; the message holds its log.
    pub fn start(namespace: &Namespace, scratch: &Path, name: &str, sites: &[Site<'_>]) -> Result<Self> {
        let directory = scratch.join(name);
        fs::create_dir_all(&directory).with_context(|| format!("could not make {}", directory.display()))?;
        let access_log = directory.join("access.log");
        let file = directory.join("nginx.conf");
        fs::write(&file, configuration(&directory, sites))
            .with_context(|| format!("could not write {}", file.display()))?;
        let mut command = namespace.command("nginx");
        command.arg("-e").arg(directory.join("error.log")).arg("-p").arg(&directory).arg("-c").arg(&file);
        let mut process = Process::spawn(command, "nginx", &directory)?;
        let pid_file = directory.join("nginx.pid");
        let listening =
            holds("nginx to listen", Duration::from_secs(10), || pid_file.exists() || !process.running());
        if listening.is_err() || !process.running() {
            let errors = fs::read_to_string(directory.join("error.log")).unwrap_or_default();
            anyhow::bail!("nginx did not start: {}{errors}", process.log());
        }
        Ok(Self { process, access_log })
    }

    /// One line a request: peer, port, method, path.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        fs::read_to_string(&self.access_log).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }
}

fn configuration(directory: &Path, sites: &[Site<'_>]) -> String {
    let at = directory.display();
    // One process in the foreground, so that its id is all there is to end.
    let mut text = format!(
        "daemon off;\nmaster_process off;\nuser root;\npid {at}/nginx.pid;\nevents {{}}\nhttp {{\n\
         log_format brief '$remote_addr $server_port $request_method $uri';\naccess_log {at}/access.log brief;\n\
         client_body_temp_path {at}/body;\nproxy_temp_path {at}/proxy;\nfastcgi_temp_path {at}/fastcgi;\n\
         uwsgi_temp_path {at}/uwsgi;\nscgi_temp_path {at}/scgi;\n"
    );
    for Site { port, certificate, body } in sites {
        let tls = if certificate.is_some() { " ssl" } else { "" };
        let _ = writeln!(text, "server {{ listen {port}{tls}; listen [::]:{port}{tls};");
        if let Some(Certificate { certificate, key }) = certificate {
            let _ = writeln!(
                text,
                "ssl_certificate {}; ssl_certificate_key {};",
                certificate.display(),
                key.display()
            );
        }
        let _ = writeln!(text, "default_type application/json; location / {{ return 200 '{body}'; }} }}");
    }
    text.push_str("}\n");
    text
}
