//! Finds the client of a request that came through proxies.
//!
//! Each proxy appends its peer's address to `X-Forwarded-For`, and passes on the existing content, which a
//! client can make up. So posthouse reads the header from its end, past the proxies that config.toml names. The
//! first other address is the client. posthouse does not read `Forwarded` (RFC 7239): a proxy that maintains
//! one of the two headers passes on the other as the client wrote it.
//!
//! The result is for the log. It never allows or refuses a request.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use ipnet::IpNet;

/// The most hops that are read.
const MOST: usize = 32;

/// The client of a request behind trusted proxies. `peer` is the address of the connection.
pub(crate) fn client(peer: IpAddr, headers: &HeaderMap, proxies: &[IpNet]) -> IpAddr {
    let trusted = |address: &IpAddr| proxies.iter().any(|proxies| proxies.contains(address));
    let mut client = peer;
    if !trusted(&client) {
        return client;
    }
    let lines = headers.get_all("x-forwarded-for").iter().rev();
    let hops = lines.flat_map(|line| line.as_bytes().rsplit(|&byte| byte == b','));
    for hop in hops.take(MOST) {
        // No proxy wrote this, so the hop before it is the last one known.
        let Some(address) = address(hop) else { break };
        client = address;
        if !trusted(&client) {
            break;
        }
    }
    client
}

/// Parses an address as proxies write it: bare, with a port, or in brackets.
fn address(hop: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(hop).ok()?.trim();
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let parsed = bare.parse::<IpAddr>();
    let address = parsed.or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()));
    address.ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_is_the_last_hop_that_no_trusted_proxy_vouches_past() {
        let proxies: Vec<IpNet> =
            ["10.0.0.0/8", "127.0.0.1/32", "fd00::/8"].map(|net| net.parse().expect("a network")).into();
        for (peer, lines, client_is) in [
            ("203.0.113.9", vec!["198.51.100.1"], "203.0.113.9"),
            ("127.0.0.1", vec![], "127.0.0.1"),
            ("127.0.0.1", vec!["198.51.100.1"], "198.51.100.1"),
            ("127.0.0.1", vec!["1.2.3.4, 198.51.100.1"], "198.51.100.1"),
            ("127.0.0.1", vec!["1.2.3.4", "198.51.100.1, 10.1.1.1"], "198.51.100.1"),
            ("127.0.0.1", vec!["198.51.100.1:5060"], "198.51.100.1"),
            ("127.0.0.1", vec!["[2001:db8::1]:443"], "2001:db8::1"),
            ("127.0.0.1", vec!["[2001:db8::1]"], "2001:db8::1"),
            ("fd00::1", vec!["::ffff:198.51.100.1"], "198.51.100.1"),
            ("127.0.0.1", vec!["1.2.3.4, unknown"], "127.0.0.1"),
            ("127.0.0.1", vec!["1.2.3.4, <script>, 10.0.0.2"], "10.0.0.2"),
            ("127.0.0.1", vec![""], "127.0.0.1"),
        ] {
            let mut headers = HeaderMap::new();
            for line in &lines {
                headers.append("x-forwarded-for", line.parse().expect("a header"));
            }
            let peer = peer.parse().expect("an address");
            assert_eq!(client(peer, &headers, &proxies).to_string(), client_is, "{peer} {lines:?}");
        }
        let mut headers = HeaderMap::new();
        headers.append(
            "x-forwarded-for",
            format!("1.2.3.4{}", ", 10.0.0.1".repeat(MOST)).parse().expect("a header"),
        );
        assert_eq!(client([127, 0, 0, 1].into(), &headers, &proxies).to_string(), "10.0.0.1");
    }
}
