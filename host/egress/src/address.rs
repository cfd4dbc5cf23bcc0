//! Special addresses: private ones, ones that are local to the machine or link, and reserved ones. A host that
//! resolves to one is refused, unless the grant allows the address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use posthouse_model::HttpGrant;
use url::Host;

/// From the registries of special addresses (RFC 6890 and similar), and the metadata services of clouds.
const SPECIAL_4: [(Ipv4Net, &str); 19] = [
    (v4(169, 254, 169, 254, 32), "a metadata service's"),
    (v4(100, 100, 100, 200, 32), "a metadata service's"),
    (v4(168, 63, 129, 16, 32), "a metadata service's"),
    (v4(0, 0, 0, 0, 8), "unspecified"),
    (v4(10, 0, 0, 0, 8), "private"),
    (v4(100, 64, 0, 0, 10), "shared (carrier-grade NAT)"),
    (v4(127, 0, 0, 0, 8), "loopback"),
    (v4(169, 254, 0, 0, 16), "link-local"),
    (v4(172, 16, 0, 0, 12), "private"),
    (v4(192, 0, 0, 0, 24), "reserved"),
    (v4(192, 0, 2, 0, 24), "for documentation"),
    (v4(192, 88, 99, 0, 24), "reserved"),
    (v4(192, 168, 0, 0, 16), "private"),
    (v4(198, 18, 0, 0, 15), "for benchmarks"),
    (v4(198, 51, 100, 0, 24), "for documentation"),
    (v4(203, 0, 113, 0, 24), "for documentation"),
    (v4(224, 0, 0, 0, 4), "multicast"),
    (v4(255, 255, 255, 255, 32), "broadcast"),
    (v4(240, 0, 0, 0, 4), "reserved"),
];

/// The same for version 6. Addresses outside of 2000::/3 are reserved anyway.
const SPECIAL_6: [(Ipv6Net, &str); 10] = [
    (v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], 128), "a metadata service's"),
    (v6([0, 0, 0, 0, 0, 0, 0, 1], 128), "loopback"),
    (v6([0; 8], 128), "unspecified"),
    (v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7), "private"),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), "link-local"),
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), "multicast"),
    (v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32), "for documentation"),
    (v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20), "for documentation"),
    // Teredo, ORCHID and other ranges without hosts.
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), "reserved"),
    // NAT64 of a single site: its target is unknown.
    (v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48), "private"),
];

const UNICAST: Ipv6Net = v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);
const SIX_TO_FOUR: Ipv6Net = v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16);
const NAT64: Ipv6Net = v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96);

const fn v4(a: u8, b: u8, c: u8, d: u8, length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length)
}

const fn v6(s: [u16; 8], length: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7]), length)
}

/// A word for what is special about an address; none if it is public.
pub(super) fn special(ip: IpAddr) -> Option<&'static str> {
    match ip.to_canonical() {
        IpAddr::V4(ip) => SPECIAL_4.iter().find(|(net, _)| net.contains(&ip)).map(|(_, word)| *word),
        IpAddr::V6(ip) => {
            if let Some((_, word)) = SPECIAL_6.iter().find(|(net, _)| net.contains(&ip)) {
                return Some(word);
            }
            let bytes = ip.octets();
            let within = |at: usize| special(Ipv4Addr::from([0, 1, 2, 3].map(|n| bytes[at + n])).into());
            if NAT64.contains(&ip) {
                within(12)
            } else if SIX_TO_FOUR.contains(&ip) {
                within(2)
            } else {
                (!UNICAST.contains(&ip)).then_some("reserved")
            }
        }
    }
}

/// The special addresses that the hosts of a grant's entry may have.
#[derive(Debug, Clone)]
pub(super) struct Reach {
    nets: Vec<IpNet>,
    /// The host is this machine, by name.
    local: bool,
}

impl Reach {
    pub(super) fn of(grant: &HttpGrant) -> Self {
        let mut nets = grant.addresses.clone();
        let mut local = false;
        match grant.url.host() {
            // An address in the grant allows itself.
            Some(Host::Ipv4(ip)) => nets.push(IpAddr::from(*ip).into()),
            Some(Host::Ipv6(ip)) => nets.push(IpAddr::from(*ip).to_canonical().into()),
            Some(Host::Domain(name)) => local = is_localhost(name),
            None => {}
        }
        Self { nets, local }
    }

    /// Allows public addresses and these.
    pub(super) fn also(addresses: &[IpNet]) -> Self {
        Self { nets: addresses.to_vec(), local: false }
    }

    /// Allows all addresses, for a URL that only the operator can set.
    pub(super) fn everywhere() -> Self {
        let nets = vec![v4(0, 0, 0, 0, 0).into(), v6([0; 8], 0).into()];
        Self { nets, local: true }
    }

    /// Checks that a host may have this address.
    ///
    /// # Errors
    /// A word for what is special about the address.
    pub(super) fn allows(&self, ip: IpAddr) -> Result<(), &'static str> {
        let ip = ip.to_canonical();
        match special(ip) {
            None => Ok(()),
            Some(_) if self.nets.iter().any(|net| net.contains(&ip)) => Ok(()),
            Some(_) if self.local && ip.is_loopback() => Ok(()),
            Some(word) => Err(word),
        }
    }
}

/// Whether a name means this machine (RFC 6761, 6.3).
pub(super) fn is_localhost(name: &str) -> bool {
    name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use posthouse_model::WebPattern;

    use super::*;

    #[test]
    fn special_addresses_are_known_however_they_are_wrapped() {
        let special_ones = [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.255.255",
            "169.254.1.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "100.100.100.200",
            "168.63.129.16",
            "::",
            "::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2001:db8::1",
            "3fff::1",
            "2001::1",
            "5f00::1",
            "100::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "::8.8.8.8",
            "2002:7f00:1::",
            "2002:a00:1::1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::808:808",
        ];
        for text in special_ones {
            assert!(special(text.parse().unwrap()).is_some(), "{text}");
        }
        let open = [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450::1",
            "::ffff:8.8.8.8",
            "2002:808:808::1",
            "64:ff9b::808:808",
        ];
        for text in open {
            assert_eq!(special(text.parse().unwrap()), None, "{text}");
        }
    }

    #[test]
    fn a_grant_reaches_what_it_names_and_no_further() {
        let reach = |url: &str, addresses: &[&str]| {
            Reach::of(&HttpGrant {
                url: WebPattern::parse(url).unwrap(),
                addresses: addresses.iter().map(|net| net.parse().unwrap()).collect(),
                header: Default::default(),
                sign: Vec::new(),
            })
        };
        let cases = [
            (reach("https://a.example", &[]), "8.8.8.8", true),
            (reach("https://a.example", &[]), "127.0.0.1", false),
            (reach("https://a.example", &["127.0.0.0/8"]), "127.0.0.1", true),
            (reach("https://a.example", &["127.0.0.0/8"]), "::ffff:127.0.0.1", true),
            (reach("https://a.example", &["127.0.0.0/8"]), "10.0.0.1", false),
            (reach("https://a.example", &["0.0.0.0/0"]), "::1", false),
            (reach("http://localhost", &[]), "127.0.0.2", true),
            (reach("http://localhost", &[]), "::1", true),
            (reach("http://localhost", &[]), "169.254.169.254", false),
            (reach("http://127.0.0.1", &[]), "127.0.0.1", true),
            (reach("http://127.0.0.1", &[]), "127.0.0.2", false),
            (reach("http://[::ffff:127.0.0.1]", &[]), "127.0.0.1", true),
        ];
        for (reach, ip, allowed) in cases {
            assert_eq!(reach.allows(ip.parse().unwrap()).is_ok(), allowed, "{reach:?} and {ip}");
        }
    }
}
