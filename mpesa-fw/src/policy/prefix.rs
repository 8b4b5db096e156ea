//! Addresses and prefixes as they are written.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Why a text is no prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct InvalidPrefix {
    /// In one sentence.
    pub(super) message: String,
    /// What was probably meant.
    pub(super) hint: Option<String>,
}

/// Whether a text is meant as an address or prefix, rather than as the name of something.
pub(super) fn is_meant(text: &str) -> bool {
    let last = text.rsplit('.').next().unwrap_or_default();
    text.contains([':', '/'])
        || (text.contains('.') && (last.starts_with(|c: char| c.is_ascii_digit()) || last == "*"))
}

/// An address (`10.0.0.1`, `fd00::1`) or a prefix (`10.0.0.0/8`) with its host bits clear.
///
/// # Errors
/// Anything else, with what was probably meant.
pub(super) fn parse(text: &str) -> Result<IpNet, InvalidPrefix> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let Ok(address) = address.parse::<IpAddr>() else {
        return Err(not_an_address(text, address, length));
    };
    let bits = if address.is_ipv4() { 32 } else { 128 };
    let length = match length {
        None => bits,
        Some(length) => length_of(address, length, bits)?,
    };
    let prefix = match address {
        IpAddr::V4(address) => IpNet::V4(Ipv4Net::new_assert(address, length)),
        IpAddr::V6(address) => IpNet::V6(Ipv6Net::new_assert(address, length)),
    };
    check(prefix)
}

/// Refuses host bits and IPv4-mapped addresses.
///
/// # Errors
/// Says which prefix was probably meant.
pub(super) fn check(prefix: IpNet) -> Result<IpNet, InvalidPrefix> {
    let meant = prefix.trunc();
    if meant != prefix {
        return Err(InvalidPrefix {
            message: format!("`{prefix}` has host bits set beyond its /{}", prefix.prefix_len()),
            hint: Some(format!(
                "write `{meant}` for the whole network, or `{}` for the one address",
                prefix.addr()
            )),
        });
    }
    if let IpNet::V6(prefix) = prefix
        && prefix.prefix_len() >= 96
        && let Some(v4) = prefix.addr().to_ipv4_mapped()
    {
        return Err(InvalidPrefix {
            message: format!("`{prefix}` is an IPv4-mapped address; no packet on a wire carries one"),
            hint: Some(match prefix.prefix_len() - 96 {
                32 => format!("write the IPv4 address: `{v4}`"),
                length => format!("write the IPv4 prefix: `{v4}/{length}`"),
            }),
        });
    }
    Ok(prefix)
}

fn length_of(address: IpAddr, length: &str, bits: u8) -> Result<u8, InvalidPrefix> {
    let digits = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
    let parsed = length.parse::<u8>().ok().filter(|parsed| *parsed <= bits && digits);
    let leading_zero = length.len() > 1 && length.starts_with('0');
    if let Some(parsed) = parsed
        && !leading_zero
    {
        return Ok(parsed);
    }
    let hint = match (length.parse::<Ipv4Addr>(), parsed) {
        (_, Some(parsed)) => Some(format!("write `{address}/{parsed}`")),
        (Ok(mask), None) => {
            ipnet::ipv4_mask_to_prefix(mask).ok().map(|length| format!("write `{address}/{length}`"))
        }
        (Err(_), None) => None,
    };
    Err(InvalidPrefix {
        message: format!("`/{length}` is not a prefix length"),
        hint: hint.or_else(|| {
            let family = if bits == 32 { "an IPv4" } else { "an IPv6" };
            Some(format!("the length of {family} prefix is 0 to {bits}"))
        }),
    })
}

fn not_an_address(text: &str, address: &str, length: Option<&str>) -> InvalidPrefix {
    let with_length = |address: String| match length {
        Some(length) => format!("{address}/{}", length.trim()),
        None => address,
    };
    let despaced: String = address.chars().filter(|c| !c.is_whitespace()).collect();
    let hint = if despaced != address && despaced.parse::<IpAddr>().is_ok() {
        Some(format!("remove the space: `{}`", with_length(despaced)))
    } else if let Some(prefix) = wildcard(address) {
        Some(format!("write the prefix `{prefix}`"))
    } else if let Some(address) = without_leading_zeros(address) {
        Some(format!("leading zeros may mean octal: write `{}`", with_length(address)))
    } else if let Some(host) = host_of_url(text) {
        Some(format!("write the host name alone, `{host}`; ports go to `ports`"))
    } else if let Some((host, port)) = address.rsplit_once(':')
        && !host.contains(':')
        && port.parse::<u16>().is_ok()
    {
        Some(format!("write `{host}` here and put the port under `ports: [{port}]`"))
    } else if let Some((first, last)) = address.split_once('-')
        && first.parse::<IpAddr>().is_ok()
        && (last.parse::<IpAddr>().is_ok() || last.parse::<u8>().is_ok())
    {
        Some("ranges are not supported: write the prefixes or the addresses that it consists of".to_owned())
    } else if address.contains('%') {
        Some("an address is written without its interface: remove the `%` and what follows".to_owned())
    } else {
        complaint_about_octets(address).or_else(|| no_name(text))
    };
    InvalidPrefix { message: format!("`{text}` is not an IP address or prefix"), hint }
}

/// `196.201.214.*` as a prefix.
fn wildcard(address: &str) -> Option<String> {
    let parts: Vec<&str> = address.split('.').collect();
    let fixed = parts.iter().take_while(|part| part.parse::<u8>().is_ok()).count();
    let rest = &parts[fixed..];
    if !(1..=3).contains(&fixed) || parts.len() > 4 || rest.is_empty() || rest.iter().any(|part| *part != "*")
    {
        return None;
    }
    let zeros = vec!["0"; 4 - fixed];
    Some(format!("{}.{}/{}", parts[..fixed].join("."), zeros.join("."), fixed * 8))
}

fn without_leading_zeros(address: &str) -> Option<String> {
    let parts: Option<Vec<String>> =
        address.split('.').map(|part| part.parse::<u8>().ok().map(|octet| octet.to_string())).collect();
    let plain = parts?.join(".");
    (plain != address && plain.parse::<Ipv4Addr>().is_ok()).then_some(plain)
}

fn host_of_url(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("://")?;
    rest.split(['/', ':']).next().filter(|host| !host.is_empty())
}

fn complaint_about_octets(address: &str) -> Option<String> {
    if address.contains(':') {
        return Some(
            "check its groups: up to 4 hexadecimal digits each, 8 of them, `::` at most once".to_owned(),
        );
    }
    if !address.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let parts: Vec<&str> = address.split('.').collect();
    if let Some(part) = parts.iter().find(|part| part.parse::<u8>().is_err()) {
        let why = if part.bytes().all(|b| b.is_ascii_digit()) && !part.is_empty() {
            "each part is 0 to 255"
        } else {
            "it is no number"
        };
        return Some(format!("look at `{part}`: {why}"));
    }
    (parts.len() != 4).then(|| format!("an IPv4 address has 4 parts, this has {}", parts.len()))
}

fn no_name(text: &str) -> Option<String> {
    let hint = "addresses only: DNS names may stand in `to` of a destination, and there alone";
    (text.contains('.') && super::names::host(text).is_ok()).then(|| hint.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(text: &str) -> String {
        parse(text).expect_err(text).hint.unwrap_or_default()
    }

    #[test]
    fn addresses_and_prefixes() {
        for (written, meant) in [
            ("10.0.0.1", "10.0.0.1/32"),
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("fd00::/8", "fd00::/8"),
            ("2C0F::1", "2c0f::1/128"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(parse(written).map(|prefix| prefix.to_string()), Ok(meant.to_owned()));
        }
    }

    #[test]
    fn mistakes_are_recognised() {
        for (written, meant) in [
            ("10.0.0.1/8", "write `10.0.0.0/8`"),
            ("fd00::1/64", "write `fd00::/64`"),
            ("196.201.214. 206", "remove the space: `196.201.214.206`"),
            ("196.201.214.*", "write the prefix `196.201.214.0/24`"),
            ("196.201.*.*", "write the prefix `196.201.0.0/16`"),
            ("010.0.0.1", "write `10.0.0.1`"),
            ("10.0.0.0/08", "write `10.0.0.0/8`"),
            ("10.0.0.0/255.0.0.0", "write `10.0.0.0/8`"),
            ("10.0.0.0/33", "0 to 32"),
            ("fd00::/129", "0 to 128"),
            ("10.0.0.0/", "0 to 32"),
            ("10.0.0.0/+8", "0 to 32"),
            ("10.0.0.256", "`256`: each part is 0 to 255"),
            ("10.0.0", "has 4 parts, this has 3"),
            ("::ffff:10.0.0.1", "write the IPv4 address: `10.0.0.1`"),
            ("::ffff:10.0.0.0/104", "write the IPv4 prefix: `10.0.0.0/8`"),
            ("10.0.0.1-10.0.0.9", "ranges are not supported"),
            ("fe80::1%eth0", "without its interface"),
            ("https://api.example.net/v1", "`api.example.net`"),
            ("api.example.net:443", "ports: [443]"),
        ] {
            assert!(hint(written).contains(meant), "{written}: {}", hint(written));
        }
    }
}
