//! From a name to the addresses that a connection may go to.
//!
//! The client asks here each time it connects, and connects to what it gets and nothing else: the name is
//! not looked up a second time, so there is no moment between check and use.

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

/// The most addresses of one name that are looked at.
const ADDRESSES: usize = 32;

/// Where names are looked up.
#[derive(Clone)]
pub(super) enum Names {
    /// As the operating system does it.
    System,
    /// At these nameservers.
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

/// A name led only to addresses that the grant does not name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OutOfReach {
    pub(super) name: String,
    pub(super) ip: IpAddr,
    /// What is special about it.
    pub(super) word: &'static str,
}

impl fmt::Display for OutOfReach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is at {}, an address that is {}", self.name, self.ip, self.word)
    }
}

impl Error for OutOfReach {}

/// What a client of one entry of a grant resolves names by.
#[derive(Clone)]
pub(super) struct Guard {
    pub(super) names: Names,
    pub(super) reach: Reach,
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let (names, reach, name) = (self.names.clone(), self.reach.clone(), name.as_str().to_owned());
        Box::pin(async move {
            let found = names.look_up(&name).await?;
            let allowed = within(&reach, &name, &found)?;
            Ok(Box::new(allowed.into_iter().map(|ip| SocketAddr::new(ip, 0))) as Addrs)
        })
    }
}

/// Those of the addresses that may be connected to; the first that may not, where none may.
fn within(reach: &Reach, name: &str, found: &[IpAddr]) -> Result<Vec<IpAddr>, OutOfReach> {
    let allowed: Vec<_> = found.iter().copied().filter(|ip| reach.allows(*ip).is_ok()).collect();
    let refused = found.iter().find_map(|ip| reach.allows(*ip).err().map(|word| (*ip, word)));
    match refused {
        Some((ip, word)) if allowed.is_empty() => Err(OutOfReach { name: name.to_owned(), ip, word }),
        _ => Ok(allowed),
    }
}
