//! Destinations by DNS name, with dnsmasq as the host's resolver.

mod support;

use anyhow::Result;
use support::{Field, SOON, kinds, policy, web};
use testbed::{Answer, Curl, holds, place, serve::Dnsmasq};

const DARAJA: &str = "{ name: daraja, to: [api.safaricom.co.ke], ports: [443] }";
const DNS: &str = "{ name: dns, to: [10.20.0.5], protocol: [udp, tcp], ports: [53] }";

#[test]
#[ignore = "needs root and a kernel"]
fn names_are_followed_as_their_answers_change() -> Result<()> {
    let field = Field::new()?;
    let api = field.network.add(place::API)?;
    let other = field.network.add(place::DROP_BOX)?;
    let intranet = field.network.add(place::INTRANET)?;
    let _servers = (web(&field.network, &api, &[443])?, web(&field.network, &other, &[443])?);
    let name = "api.safaricom.co.ke";
    let answers = [(name, api.place.v4.into()), (name, api.place.v6.into())];
    let dns =
        Dnsmasq::start(&intranet.namespace, intranet.place.v4, field.network.scratch.path(), 1, &answers)?;
    let mut firewall = field.firewall()?;
    firewall.resolv_conf = Some(dns.resolv_conf.clone());
    firewall.policy(&policy(&[], &[DARAJA, DNS]))?;
    let _agent = firewall.start(&[])?;

    let by_name = || {
        Curl::get(format!("http://{name}:443/"))
            .resolving(dns.resolv_conf.clone())
            .from(&field.host.namespace)
    };
    let get = |address: std::net::IpAddr| Curl::http(address, 443).from(&field.host.namespace);
    holds("the name to be resolved", SOON, || by_name().is_ok())?;
    assert!(get(api.place.v4.into()).is_ok() && get(api.place.v6.into()).is_ok(), "both families");
    assert_eq!(firewall.metrics()?.sum("mpesa_fw_resolved_addresses", &[("name", name)]), 2.0);
    let before = firewall.metrics()?;
    assert_eq!(get(other.place.v4.into()), Answer::Silence);
    assert_eq!(kinds(&firewall.metrics()?.drops_since(&before)), ["egress daraja name_not_allowed"]);

    dns.change(&[(name, other.place.v4.into())])?;
    holds("the new address to be allowed", SOON, || get(other.place.v4.into()).is_ok())?;

    // The resolver fails: the last good answer is kept.
    dns.change(&[])?;
    holds("a question after the change", SOON, || dns.log().matches("NXDOMAIN").count() > 1)?;
    assert!(get(other.place.v4.into()).is_ok());
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn an_agent_starts_without_a_resolver_and_learns_later() -> Result<()> {
    let field = Field::new()?;
    let api = field.network.add(place::API)?;
    let intranet = field.network.add(place::INTRANET)?;
    let _server = web(&field.network, &api, &[443])?;
    let scratch = field.network.scratch.path();
    let answers = [("api.safaricom.co.ke", api.place.v4.into())];
    // Only to have its resolv.conf: it is gone before the agent starts.
    let resolv_conf =
        Dnsmasq::start(&intranet.namespace, intranet.place.v4, scratch, 1, &answers)?.resolv_conf.clone();
    let mut firewall = field.firewall()?;
    firewall.resolv_conf = Some(resolv_conf);
    firewall.policy(&policy(&[support::WEB], &[DARAJA, DNS]))?;
    let _agent = firewall.start(&[])?;
    let get = || Curl::http(api.place.v4, 443).from(&field.host.namespace);
    assert_eq!(get(), Answer::Silence, "enforcing does not wait for DNS");
    let _dns = Dnsmasq::start(&intranet.namespace, intranet.place.v4, scratch, 1, &answers)?;
    holds("the name to be resolved", std::time::Duration::from_secs(60), || get().is_ok())?;
    Ok(())
}
