//! Looks up the addresses of a name at the nameservers that `[http] nameservers` lists.
//!
//! hickory-resolver speaks the protocol: ports and ids that cannot be guessed, EDNS, TCP where an answer
//! does not fit into a datagram, and CNAME chains. This module decides the order: it asks one nameserver
//! after another, because the first may know names that the next does not. Nothing is cached.

use std::{net::IpAddr, net::SocketAddr, time::Duration};

use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig},
    net::{DnsError, NetError, NoRecords, runtime::TokioRuntimeProvider},
    proto::{
        op::ResponseCode,
        rr::{Name, RData, Record, RecordType},
    },
};

/// The timeout of one query to one nameserver.
const TIMEOUT: Duration = Duration::from_secs(2);
/// The number of times that each nameserver is asked.
const ROUNDS: usize = 2;

/// Why a name has no addresses.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoAddress {
    /// It does not exist.
    #[error("the name `{0}` does not exist")]
    NoName(String),
    /// It exists, and has none.
    #[error("`{0}` has no address")]
    Empty(String),
    /// It is not a valid name.
    #[error("`{0}` is not a valid DNS name")]
    NotAName(String),
    /// No nameserver answered.
    #[error("no nameserver answered for `{name}`: {server}: {error}")]
    NoAnswer {
        /// The name.
        name: String,
        /// The nameserver that was asked last.
        server: SocketAddr,
        /// The error of that nameserver.
        error: NetError,
    },
}

/// The nameservers, asked in the order of the configuration.
#[derive(Clone)]
pub(super) struct Nameservers(Vec<(SocketAddr, TokioResolver)>);

/// A nameserver's answer: the addresses of one version, or that the name does not exist.
type Found = Option<Vec<IpAddr>>;

impl Nameservers {
    /// Prepares to ask these nameservers; sends nothing.
    ///
    /// # Errors
    /// If hickory-resolver rejects its settings.
    pub(super) fn new(servers: &[SocketAddr]) -> Result<Self, NetError> {
        servers.iter().map(|server| Ok((*server, resolver(*server)?))).collect::<Result<_, _>>().map(Self)
    }

    /// All addresses of a name, IPv4 first.
    pub(super) async fn look_up(&self, name: &str) -> Result<Vec<IpAddr>, NoAddress> {
        let mut full = Name::from_ascii(name).map_err(|_| NoAddress::NotAName(name.to_owned()))?;
        // No search list: the name is complete.
        full.set_fqdn(true);
        let (v4, v6) = tokio::join!(self.ask(&full, RecordType::A), self.ask(&full, RecordType::AAAA));
        let no_answer = |(server, error)| NoAddress::NoAnswer { name: name.to_owned(), server, error };
        let found: Vec<_> = match (v4, v6) {
            (Ok(None), _) | (_, Ok(None)) => return Err(NoAddress::NoName(name.to_owned())),
            (Ok(v4), Ok(v6)) => v4.into_iter().chain(v6).flatten().collect(),
            // One version is enough to continue.
            (Ok(Some(found)), Err(error)) | (Err(error), Ok(Some(found))) => match found.is_empty() {
                true => return Err(no_answer(error)),
                false => found,
            },
            (Err(error), Err(_)) => return Err(no_answer(error)),
        };
        if found.is_empty() { Err(NoAddress::Empty(name.to_owned())) } else { Ok(found) }
    }

    /// Asks one nameserver after another, each [`ROUNDS`] times at most, until one answers.
    async fn ask(&self, name: &Name, kind: RecordType) -> Result<Found, (SocketAddr, NetError)> {
        let mut last = (SocketAddr::from(([0, 0, 0, 0], 0)), NetError::NoConnections);
        for (server, resolver) in self.0.iter().cycle().take(self.0.len() * ROUNDS) {
            match resolver.lookup(name.clone(), kind).await {
                Ok(lookup) => return Ok(Some(addresses(name, lookup.answers()))),
                Err(NetError::Dns(DnsError::NoRecordsFound(NoRecords {
                    response_code: ResponseCode::NoError,
                    ..
                }))) => return Ok(Some(Vec::new())),
                Err(NetError::Dns(DnsError::NoRecordsFound(NoRecords {
                    response_code: ResponseCode::NXDomain,
                    ..
                }))) => return Ok(None),
                Err(error) => last = (*server, error),
            }
        }
        Err(last)
    }
}

/// The addresses of a name and of the names in its CNAME chain. An answer may contain records of other names.
fn addresses(name: &Name, answers: &[Record]) -> Vec<IpAddr> {
    let mut chain = vec![name];
    while let Some(next) = answers.iter().find_map(|record| match &record.data {
        RData::CNAME(alias) if chain.last() == Some(&&record.name) => Some(&alias.0),
        _ => None,
    }) && !chain.contains(&next)
    {
        chain.push(next);
    }
    let of_chain = answers.iter().filter(|record| chain.contains(&&record.name));
    of_chain.filter_map(|record| record.data.ip_addr()).collect()
}

/// A resolver that asks one nameserver over UDP, and over TCP if an answer is truncated.
fn resolver(server: SocketAddr) -> Result<TokioResolver, NetError> {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = server.port();
        connection
    });
    let servers = vec![NameServerConfig::new(server.ip(), true, connections.into())];
    let config = ResolverConfig::from_parts(None, Vec::new(), servers);
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    let options = builder.options_mut();
    options.timeout = TIMEOUT;
    options.attempts = 0;
    options.edns0 = true;
    options.cache_size = 0;
    options.preserve_intermediates = true;
    options.use_hosts_file = ResolveHosts::Never;
    builder.build()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use hickory_resolver::proto::{
        op::{Message, OpCode},
        rr::rdata::{A, CNAME},
    };
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, UdpSocket},
    };

    use super::*;

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
    const FORGED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 66);

    /// How the fake nameserver answers over UDP. Over TCP it always gives the complete answer.
    #[derive(Clone, Copy, PartialEq)]
    enum Udp {
        Whole,
        /// By the way of another name.
        Alias,
        Truncated,
        /// After an answer with another id and one that is no packet.
        AfterForged,
        /// With an address of a name that nobody asked for.
        Unasked,
        NoName,
        Broken,
        Silent,
    }

    fn answer(query: &[u8], udp: Option<Udp>) -> Option<Message> {
        let query = Message::from_vec(query).unwrap();
        let asked = query.queries[0].clone();
        let mut message = Message::response(query.metadata.id, OpCode::Query);
        message.queries.push(asked.clone());
        let record = |name: &Name, ip| Record::from_rdata(name.clone(), 300, RData::A(A(ip)));
        match udp {
            Some(Udp::Silent) => return None,
            Some(Udp::Truncated) => message.metadata.truncation = true,
            Some(Udp::NoName) => message.metadata.response_code = ResponseCode::NXDomain,
            Some(Udp::Broken) => message.metadata.response_code = ResponseCode::ServFail,
            _ if asked.query_type() != RecordType::A => {}
            Some(Udp::Alias) => {
                let alias = Name::from_ascii("b.example.").unwrap();
                let cname = RData::CNAME(CNAME(alias.clone()));
                message.answers.push(Record::from_rdata(asked.name().clone(), 300, cname));
                message.answers.push(record(&alias, ADDRESS));
            }
            Some(Udp::Unasked) => {
                message.answers.push(record(asked.name(), ADDRESS));
                message.answers.push(record(&Name::from_ascii("c.example.").unwrap(), FORGED));
            }
            Some(Udp::Whole | Udp::AfterForged) | None => message.answers.push(record(asked.name(), ADDRESS)),
        }
        Some(message)
    }

    async fn server(says: Udp) -> SocketAddr {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap();
        let udp = UdpSocket::bind(address).await.unwrap();
        tokio::spawn(async move {
            let mut query = [0; 512];
            loop {
                let (length, from) = udp.recv_from(&mut query).await.unwrap();
                let Some(answer) = answer(&query[..length], Some(says)) else { continue };
                if says == Udp::AfterForged {
                    let mut forged = answer.clone();
                    forged.metadata.id ^= 1;
                    forged.answers.iter_mut().for_each(|record| record.data = RData::A(A(FORGED)));
                    udp.send_to(&forged.to_vec().unwrap(), from).await.unwrap();
                    udp.send_to(b"no packet", from).await.unwrap();
                }
                udp.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
            }
        });
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = tcp.accept().await.unwrap();
                let mut query = vec![0; usize::from(stream.read_u16().await.unwrap())];
                stream.read_exact(&mut query).await.unwrap();
                let answer = answer(&query, None).unwrap().to_vec().unwrap();
                stream.write_u16(answer.len() as u16).await.unwrap();
                stream.write_all(&answer).await.unwrap();
            }
        });
        address
    }

    async fn look_up(servers: &[SocketAddr]) -> Result<Vec<IpAddr>, NoAddress> {
        Nameservers::new(servers).unwrap().look_up("a.example").await
    }

    #[tokio::test]
    async fn an_answer_is_taken_whole_over_either_transport_and_from_nobody_else() {
        for says in [Udp::Whole, Udp::Alias, Udp::Truncated, Udp::AfterForged] {
            assert_eq!(look_up(&[server(says).await]).await.unwrap(), [IpAddr::from(ADDRESS)]);
        }
    }

    #[tokio::test]
    async fn addresses_of_names_that_were_not_asked_for_are_left_out() {
        assert_eq!(look_up(&[server(Udp::Unasked).await]).await.unwrap(), [IpAddr::from(ADDRESS)]);
    }

    #[tokio::test]
    async fn the_next_nameserver_is_asked_where_one_fails_or_is_silent() {
        for useless in [Udp::Broken, Udp::Silent] {
            let servers = [server(useless).await, server(Udp::Whole).await];
            assert_eq!(look_up(&servers).await.unwrap(), [IpAddr::from(ADDRESS)]);
        }
        let error = look_up(&[server(Udp::Broken).await]).await.unwrap_err().to_string();
        assert!(error.contains("no nameserver answered for `a.example`"), "{error}");
    }

    #[tokio::test]
    async fn the_first_nameserver_decides_that_a_name_does_not_exist() {
        let error = look_up(&[server(Udp::NoName).await, server(Udp::Whole).await]).await.unwrap_err();
        assert!(matches!(error, NoAddress::NoName(_)), "{error}");
    }
}
