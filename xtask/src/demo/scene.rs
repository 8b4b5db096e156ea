//! Who is there, and what they try.

use std::net::IpAddr;

use anyhow::Result;
use testbed::{
    Answer, Curl, Host, Network, place,
    serve::{Certificate, Dnsmasq, Nginx, Site},
};

/// Where somebody left a server running.
pub(super) const STRAY_PORT: u16 = 5000;
const API_PORT: u16 = 8080;
const CALLBACKS: &str = "pay.example.co.ke";
const DARAJA: &str = "api.safaricom.co.ke";
const DROP_BOX: &str = "files.example.net";
/// The other names in the shipped policy; nothing here asks them for anything.
const OTHER_NAMES: [&str; 3] = ["sandbox.safaricom.co.ke", "ntp.ubuntu.com", "2.debian.pool.ntp.org"];
/// What a C2B confirmation looks like.
const CALLBACK: &str =
    r#"{"TransactionType":"Pay Bill","TransID":"RKTQDM7W6S","TransAmount":"10.00","BillRefNumber":"A1"}"#;

/// All places with their servers. Fields are dropped from the top: servers, then places, then the network.
#[derive(Debug)]
pub(super) struct Scene {
    _servers: [Nginx; 4],
    pub(super) dns: Dnsmasq,
    certificate: Certificate,
    pub(super) host: Host,
    pub(super) safaricom: Host,
    pub(super) attacker: Host,
    pub(super) intranet: Host,
    api: Host,
    drop_box: Host,
    pub(super) network: Network,
}

impl Scene {
    /// Makes the namespaces and starts the servers.
    ///
    /// # Errors
    /// Something is not installed, or not allowed.
    pub(super) fn build() -> Result<Self> {
        let network = Network::new()?;
        let host = network.add(place::CALLBACK_HOST)?;
        let safaricom = network.add(place::SAFARICOM)?;
        let attacker = network.add(place::ATTACKER)?;
        let intranet = network.add(place::INTRANET)?;
        let api = network.add(place::API)?;
        let drop_box = network.add(place::DROP_BOX)?;

        let scratch = network.scratch.path();
        let certificate = Certificate::new(scratch, &[CALLBACKS, DARAJA, DROP_BOX])?;
        let tls = |body| Site { port: 443, certificate: Some(&certificate), body };
        let plain = |port, body| Site { port, certificate: None, body };
        let callbacks =
            [tls(r#"{"ResultCode":0,"ResultDesc":"Accepted"}"#), plain(API_PORT, r#"{"queued":true}"#)];
        let servers = [
            Nginx::start(&host.namespace, scratch, "callback-host", &callbacks)?,
            Nginx::start(&host.namespace, scratch, "stray", &[plain(STRAY_PORT, "debug")])?,
            Nginx::start(&api.namespace, scratch, "api", &[tls(r#"{"ResponseCode":"0"}"#)])?,
            Nginx::start(&drop_box.namespace, scratch, "drop-box", &[tls("thanks")])?,
        ];
        let mut names: Vec<(&str, IpAddr)> =
            vec![(DARAJA, api.place.v4.into()), (DROP_BOX, drop_box.place.v4.into())];
        names.extend(OTHER_NAMES.map(|name| (name, IpAddr::from(api.place.v4))));
        let dns = Dnsmasq::start(&intranet.namespace, intranet.place.v4, scratch, 60, &names)?;
        Ok(Self {
            _servers: servers,
            dns,
            certificate,
            host,
            safaricom,
            attacker,
            intranet,
            api,
            drop_box,
            network,
        })
    }

    /// One line a place.
    pub(super) fn describe(&self) -> Vec<String> {
        let line = |host: &Host, what: &str| {
            format!("{:14} {:16} {what}", host.place.name, host.place.v4.to_string())
        };
        vec![
            line(
                &self.host,
                &format!(
                    "nginx with TLS on 443, internal API on {API_PORT}, a stray listener on {STRAY_PORT}"
                ),
            ),
            line(&self.safaricom, "sends callbacks"),
            line(&self.attacker, "forges them"),
            line(&self.intranet, "asks the internal API; resolver of the callback host"),
            line(&self.api, &format!("is {DARAJA}")),
            line(&self.drop_box, &format!("is {DROP_BOX}, where nothing should go")),
        ]
    }

    /// A callback by HTTPS.
    pub(super) fn callback_from(&self, sender: &Host) -> Answer {
        self.callback(sender, self.host.place.v4.into())
    }

    /// Likewise, to the IPv6 address.
    pub(super) fn callback_by_ipv6_from(&self, sender: &Host) -> Answer {
        self.callback(sender, self.host.place.v6.into())
    }

    /// A look at what is on the stray port.
    pub(super) fn stray_from(&self, visitor: &Host) -> Answer {
        Curl::http(self.host.place.v4, STRAY_PORT).from(&visitor.namespace)
    }

    /// A request that would start a payout.
    pub(super) fn api_from(&self, visitor: &Host) -> Answer {
        Curl::http(self.host.place.v4, API_PORT).post(r#"{"Amount":10}"#).from(&visitor.namespace)
    }

    /// What the payment program does: by name, with the host's resolver.
    pub(super) fn request_daraja(&self) -> Answer {
        self.request(DARAJA)
    }

    /// What it should not do.
    pub(super) fn send_to_drop_box(&self) -> Answer {
        self.request(DROP_BOX)
    }

    fn callback(&self, sender: &Host, address: IpAddr) -> Answer {
        let curl = Curl::get(format!("https://{CALLBACKS}/c2b/confirmation")).post(CALLBACK);
        curl.trusting(&self.certificate.certificate).at(address).from(&sender.namespace)
    }

    fn request(&self, name: &str) -> Answer {
        let curl =
            Curl::get(format!("https://{name}/")).post(CALLBACK).resolving(self.dns.resolv_conf.clone());
        curl.trusting(&self.certificate.certificate).from(&self.host.namespace)
    }
}
