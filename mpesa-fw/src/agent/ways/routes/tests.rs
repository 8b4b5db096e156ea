use super::*;

const LO: u32 = 1;
/// Protected.
const ETH0: u32 = 2;
/// Not protected.
const ETH1: u32 = 3;
/// Protected, behind a program of others.
const ETH2: u32 = 4;

fn hooks() -> Hooks {
    Hooks::from([(ETH0, Way::Protected), (ETH2, Way::Unsure)])
}

fn route(table: u32, to: &str, leads: Leads) -> Route {
    let to: IpNet = to.parse().unwrap();
    Route { table, to, leads, may_fall_back: false }
}

fn main(to: &str, interface: u32) -> Route {
    route(254, to, Leads::By(vec![interface]))
}

fn local(address: &str) -> Route {
    route(255, address, Leads::Here)
}

/// As the trie answers.
fn way(ways: &BTreeMap<WayKey, Way>, address: &str) -> Way {
    let address = Address::from(address.parse::<IpAddr>().unwrap());
    let bits = |key: &WayKey| u128::from_be_bytes(key.octets);
    let wanted = bits(&WayKey::new(&address, 128));
    let holds = |key: &WayKey| key.length == 0 || (bits(key) ^ wanted) >> (128 - key.length) == 0;
    let longest = ways.iter().filter(|(key, _)| holds(key)).max_by_key(|(key, _)| key.length);
    longest.map_or(Way::Unsure, |(_, way)| *way)
}

fn all(routes: &[Route], expected: &[(&str, Way)]) {
    let ways = ways(routes, &hooks());
    for (address, expected) in expected {
        assert_eq!(way(&ways, address), *expected, "{address} of {routes:?}");
    }
}

#[test]
fn a_host_with_two_interfaces() {
    let routes = [
        main("0.0.0.0/0", ETH0),
        main("203.0.113.0/24", ETH0),
        main("10.0.0.0/8", ETH1),
        main("10.9.0.0/16", ETH0),
        local("203.0.113.10/32"),
        local("203.0.113.255/32"),
        local("127.0.0.0/8"),
        main("::/0", ETH0),
        main("fd00::/8", ETH1),
        main("fe80::/64", ETH0),
        local("fe80::2/128"),
        local("2001:db8::10/128"),
    ];
    all(
        &routes,
        &[
            ("192.0.2.1", Way::Protected),
            ("203.0.113.7", Way::Protected),
            ("203.0.113.10", Way::Elsewhere),
            ("203.0.113.255", Way::Elsewhere),
            ("10.1.2.3", Way::Elsewhere),
            ("10.9.2.3", Way::Protected),
            ("2001:db8::1", Way::Protected),
            ("2001:db8::10", Way::Elsewhere),
            ("fd00::1", Way::Elsewhere),
        ],
    );
}

/// RFC 1122 3.2.1.3, RFC 3927, RFC 1112, RFC 919; RFC 4291 2.5 and 2.7.
#[test]
fn what_no_route_decides() {
    let routes = [
        main("0.0.0.0/0", ETH0),
        main("::/0", ETH0),
        main("fe80::/64", ETH0),
        main("169.254.169.254/32", ETH0),
        main("224.0.0.251/32", ETH0),
        route(255, "ff00::/8", Leads::Unclear),
    ];
    all(
        &routes,
        &[
            ("0.0.0.0", Way::Unsure),
            ("127.0.0.1", Way::Elsewhere),
            ("127.9.9.9", Way::Elsewhere),
            ("169.254.169.254", Way::Unsure),
            ("224.0.0.251", Way::Unsure),
            ("255.255.255.255", Way::Unsure),
            ("::", Way::Unsure),
            ("::1", Way::Elsewhere),
            ("fe80::1", Way::Unsure),
            ("ff02::1", Way::Unsure),
            ("::2", Way::Protected),
            ("240.0.0.1", Way::Protected),
        ],
    );
}

#[test]
fn a_default_route_of_ipv6_says_nothing_of_ipv4() {
    all(&[main("::/0", ETH0)], &[("192.0.2.1", Way::Unsure), ("2001:db8::1", Way::Protected)]);
    all(&[main("0.0.0.0/0", ETH0)], &[("192.0.2.1", Way::Protected), ("2001:db8::1", Way::Unsure)]);
    all(&[], &[("192.0.2.1", Way::Unsure), ("2001:db8::1", Way::Unsure)]);
    // As some write to be safe: `ip -6 route add unreachable ::ffff:0.0.0.0/96`.
    let mapped = [main("0.0.0.0/0", ETH0), main("::ffff:0:0/96", ETH1), main("::ffff:192.0.2.0/120", ETH1)];
    all(&mapped, &[("192.0.2.1", Way::Protected)]);
}

#[test]
fn several_next_hops() {
    let to = |interfaces: &[u32]| [route(254, "192.0.2.0/24", Leads::By(interfaces.to_vec()))];
    all(&to(&[ETH0, ETH0]), &[("192.0.2.1", Way::Protected)]);
    all(&to(&[ETH0, ETH1]), &[("192.0.2.1", Way::Unsure)]);
    all(&to(&[ETH1, LO]), &[("192.0.2.1", Way::Elsewhere)]);
    all(&to(&[ETH0, ETH2]), &[("192.0.2.1", Way::Unsure)]);
    all(&to(&[ETH2]), &[("192.0.2.1", Way::Unsure)]);
    all(&to(&[]), &[("192.0.2.1", Way::Unsure)]);
}

/// Blackholes, tunnels, types of service: [`Leads::Unclear`]. What is around them does not count there.
#[test]
fn unclear_inside_of_clear() {
    let routes =
        [main("0.0.0.0/0", ETH0), route(254, "192.0.2.0/24", Leads::Unclear), main("192.0.2.128/25", ETH0)];
    all(
        &routes,
        &[("192.0.2.1", Way::Unsure), ("192.0.2.129", Way::Protected), ("192.0.3.1", Way::Protected)],
    );
}

/// `ip route add default via … dev eth1 metric 200` beside one by eth0: which one counts hangs on more than the metric.
#[test]
fn metrics() {
    all(&[main("0.0.0.0/0", ETH0), main("0.0.0.0/0", ETH1)], &[("192.0.2.1", Way::Unsure)]);
    all(&[main("0.0.0.0/0", ETH0), main("0.0.0.0/0", ETH0)], &[("192.0.2.1", Way::Protected)]);
}

/// The tables in the order of `ip rule`, and IPv4's single tree of local and main.
#[test]
fn tables() {
    let other = |to, interface| route(253, to, Leads::By(vec![interface]));
    // Main before default, whatever the length, unless there is doubt.
    all(&[main("0.0.0.0/0", ETH0), other("0.0.0.0/0", ETH0)], &[("192.0.2.1", Way::Protected)]);
    all(&[main("0.0.0.0/0", ETH0), other("0.0.0.0/0", ETH1)], &[("192.0.2.1", Way::Unsure)]);
    all(
        &[main("0.0.0.0/0", ETH0), other("192.0.2.0/24", ETH1)],
        &[("192.0.2.1", Way::Unsure), ("198.51.100.1", Way::Protected)],
    );
    all(
        &[main("192.0.2.0/24", ETH0), other("0.0.0.0/0", ETH1)],
        &[("192.0.2.1", Way::Protected), ("198.51.100.1", Way::Elsewhere)],
    );
    // `ip route add local 10.0.0.0/8 dev lo`: all of it is this host, or what main says inside.
    all(
        &[main("0.0.0.0/0", ETH0), local("10.0.0.0/8"), main("10.1.0.0/16", ETH0)],
        &[("10.2.0.1", Way::Elsewhere), ("10.1.0.1", Way::Unsure)],
    );
    // The same prefix: local counts.
    all(&[local("10.1.0.0/16"), main("10.1.0.0/16", ETH0)], &[("10.1.0.1", Way::Elsewhere)]);
    // Tables of rules that there are none of.
    all(
        &[main("0.0.0.0/0", ETH0), route(100, "192.0.2.0/24", Leads::By(vec![ETH1]))],
        &[("192.0.2.1", Way::Protected)],
    );
}

/// `fib6_backtrack`: where no gateway of a prefix answers, the prefix around it counts.
#[test]
fn gateways_that_do_not_answer() {
    let by_gateway = |to, interface| Route { may_fall_back: true, ..main(to, interface) };
    let inner = by_gateway("2001:db8:1::/48", ETH0);
    all(&[inner.clone(), by_gateway("::/0", ETH0)], &[("2001:db8:1::1", Way::Protected)]);
    all(std::slice::from_ref(&inner), &[("2001:db8:1::1", Way::Protected)]);
    all(
        &[inner.clone(), by_gateway("::/0", ETH1)],
        &[("2001:db8:1::1", Way::Unsure), ("2001:db8:2::1", Way::Elsewhere)],
    );
    all(
        &[inner, main("2001:db8:1:2::/64", ETH0), main("::/0", ETH1)],
        &[("2001:db8:1:2::1", Way::Protected)],
    );
}
