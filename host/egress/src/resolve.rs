//! Resolves a name to the addresses that a connection may use.
//!
//! The client calls this for each connection, and connects only to the returned addresses. It does not resolve
//! the name a second time, so the result cannot change between check and use.

use std::{
    error::Error,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::{
    address::{Reach, is_localhost},
    nameserver::Nameservers,
};

/// The most addresses of one name that are used.
const ADDRESSES: usize = 32;

/// How names are resolved.
#[derive(Clone)]
pub(super) enum Names {
    /// By the operating system.
    System,
    /// By these name servers.
    Servers(Nameservers),
}

impl Names {
    async fn look_up(&self, name: &str) -> Result<Vec<IpAddr>, Box<dyn Error + Send + Sync>> {
        if is_localhost(name) {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        Ok(match self {
            Self::System => {
                let found = tokio::net::lookup_host((name, 0)).await?;
                found.map(|address| address.ip()).take(ADDRESSES).collect()
            }
            Self::Servers(servers) => {
                let mut found = servers.look_up(name).await?;
                found.truncate(ADDRESSES);
                found
            }
        })
    }
}

/// A name has only addresses that the grant does not allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OutOfReach {
    pub(super) name: String,
    pub(super) ip: IpAddr,
    /// A word for what is special about the address.
    pub(super) word: &'static str,
}

impl fmt::Display for OutOfReach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is at {}, an address that is {}", self.name, self.ip, self.word)
    }
}

impl Error for OutOfReach {}

/// The resolver of a client for one entry of a grant.
#[derive(Clone)]
pub(super) struct AddressFilter {
    pub(super) names: Names,
    pub(super) reach: Reach,
}

impl Resolve for AddressFilter {
    fn resolve(&self, name: Name) -> Resolving {
        let (names, reach, name) = (self.names.clone(), self.reach.clone(), name.as_str().to_owned());
        Box::pin(async move {
            let found = names.look_up(&name).await?;
            let allowed = within(&reach, &name, &found)?;
            Ok(Box::new(allowed.into_iter().map(|ip| SocketAddr::new(ip, 0))) as Addrs)
        })
    }
}

/// The addresses that may be used.
///
/// # Errors
/// The first refused address, if no address may be used.
fn within(reach: &Reach, name: &str, found: &[IpAddr]) -> Result<Vec<IpAddr>, OutOfReach> {
    let allowed: Vec<_> = found.iter().copied().filter(|ip| reach.allows(*ip).is_ok()).collect();
    let refused = found.iter().find_map(|ip| reach.allows(*ip).err().map(|word| (*ip, word)));
    match refused {
        Some((ip, word)) if allowed.is_empty() => Err(OutOfReach { name: name.to_owned(), ip, word }),
        _ => Ok(allowed),
    }
}
