//! Asks nameservers for the addresses of a name, as a stub resolver does (RFC 1035, 7; RFC 5452).
//!
//! A question goes over UDP from a port of its own with an id that can't be guessed, and over TCP where
//! the answer did not fit. Nothing is remembered: connections are kept, names are not.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, TYPE, rdata::RData};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use crate::model::Ambient;

/// How long one server may take to answer one question.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often each server is asked.
const ROUNDS: usize = 2;
/// The most bytes of an answer over UDP that is looked at.
const DATAGRAM: usize = 4096;

/// Why a name has no addresses.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoAddress {
    /// It does not exist.
    #[error("there is no name `{0}`")]
    NoName(String),
    /// It exists, and has none.
    #[error("`{0}` has no address")]
    Empty(String),
    /// It can't be asked for.
    #[error("`{0}` is no name that can be looked up")]
    NotAName(String),
    /// No server said anything of use.
    #[error("no nameserver answered for `{name}`: {error}")]
    NoAnswer {
        /// The name.
        name: String,
        /// What the last one did.
        error: io::Error,
    },
}

/// Nameservers that are asked one after another.
#[derive(Clone)]
pub(super) struct Nameservers {
    servers: Vec<SocketAddr>,
    ambient: Ambient,
}

/// What a server said of a name: its addresses of one version, or that there is no such name.
type Said = Option<Vec<IpAddr>>;

impl Nameservers {
    pub(super) fn new(servers: &[SocketAddr], ambient: Ambient) -> Self {
        Self { servers: servers.to_vec(), ambient }
    }

    /// All addresses of a name, those of version 4 first.
    pub(super) async fn look_up(&self, name: &str) -> Result<Vec<IpAddr>, NoAddress> {
        let not_a_name = |_| NoAddress::NotAName(name.to_owned());
        let asked = Name::new(name).map_err(not_a_name)?;
        let (four, six) = tokio::join!(self.ask(&asked, TYPE::A), self.ask(&asked, TYPE::AAAA));
        let no_answer = |error| NoAddress::NoAnswer { name: name.to_owned(), error };
        let found = match (four, six) {
            (Ok(None), _) | (_, Ok(None)) => return Err(NoAddress::NoName(name.to_owned())),
            (Ok(four), Ok(six)) => four.into_iter().chain(six).flatten().collect(),
            // One version is enough to go on with.
            (Ok(Some(found)), Err(error)) | (Err(error), Ok(Some(found))) => match found.is_empty() {
                true => return Err(no_answer(error)),
                false => found,
            },
            (Err(error), Err(_)) => return Err(no_answer(error)),
        };
        if found.is_empty() { Err(NoAddress::Empty(name.to_owned())) } else { Ok(found) }
    }

    async fn ask(&self, name: &Name<'_>, kind: TYPE) -> io::Result<Said> {
        let mut last = io::Error::other("there is none");
        for server in self.servers.iter().cycle().take(self.servers.len() * ROUNDS) {
            match timeout(PATIENCE, self.ask_one(*server, name, kind)).await {
                Ok(Ok(said)) => return Ok(said),
                Ok(Err(error)) => last = error,
                Err(_) => last = io::Error::other(format!("{server} said nothing within {PATIENCE:?}")),
            }
        }
        Err(last)
    }

    async fn ask_one(&self, server: SocketAddr, name: &Name<'_>, kind: TYPE) -> io::Result<Said> {
        let mut random = [0; 2];
        self.ambient.fill(&mut random);
        let id = u16::from_be_bytes(random);
        let mut query = Packet::new_query(id);
        query.set_flags(PacketFlag::RECURSION_DESIRED);
        query.questions.push(Question::new(name.clone(), QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN), false));
        let query = query.build_bytes_vec().map_err(io::Error::other)?;

        let any: SocketAddr = if server.is_ipv4() {
            (Ipv4Addr::UNSPECIFIED, 0).into()
        } else {
            (Ipv6Addr::UNSPECIFIED, 0).into()
        };
        let socket = UdpSocket::bind(any).await?;
        socket.connect(server).await?;
        socket.send(&query).await?;
        let mut answer = vec![0; DATAGRAM];
        loop {
            let length = socket.recv(&mut answer).await?;
            match read(&answer[..length], id, name, kind) {
                Some(Read::Said(said)) => return said,
                Some(Read::CutShort) => return over_tcp(server, &query, id, name, kind).await,
                // Somebody else's words: the true answer may still come.
                None => {}
            }
        }
    }
}

async fn over_tcp(
    server: SocketAddr,
    query: &[u8],
    id: u16,
    name: &Name<'_>,
    kind: TYPE,
) -> io::Result<Said> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(query.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), query].concat()).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    match read(&answer, id, name, kind) {
        Some(Read::Said(said)) => said,
        Some(Read::CutShort) | None => Err(io::Error::other(format!("{server} answered something else"))),
    }
}

enum Read {
    Said(io::Result<Said>),
    CutShort,
}

/// Reads an answer; none where it is none to this question.
fn read(answer: &[u8], id: u16, name: &Name<'_>, kind: TYPE) -> Option<Read> {
    let packet = Packet::parse(answer).ok()?;
    let asked = |question: &Question<'_>| {
        question.qtype == QTYPE::TYPE(kind)
            && question.qname.to_string().eq_ignore_ascii_case(&name.to_string())
    };
    if packet.id() != id || !packet.has_flags(PacketFlag::RESPONSE) || !packet.questions.iter().all(asked) {
        return None;
    }
    if packet.has_flags(PacketFlag::TRUNCATION) {
        return Some(Read::CutShort);
    }
    // A name that is another's goes with it in one answer, the addresses of both among the records.
    let addresses = packet.answers.iter().filter_map(|record| match &record.rdata {
        RData::A(a) => Some(Ipv4Addr::from(a.address).into()),
        RData::AAAA(aaaa) => Some(Ipv6Addr::from(aaaa.address).into()),
        _ => None,
    });
    Some(Read::Said(match packet.rcode() {
        RCODE::NoError => Ok(Some(addresses.collect())),
        RCODE::NameError => Ok(None),
        odd => Err(io::Error::other(format!("the nameserver says {odd:?}"))),
    }))
}

#[cfg(test)]
mod tests {
    use simple_dns::{ResourceRecord, rdata::A};
    use tokio::net::TcpListener;

    use super::*;
    use crate::model::testing::still;

    /// What the fake server says over UDP, before it says more over TCP.
    #[derive(Clone, Copy, PartialEq)]
    enum Udp {
        Whole,
        CutShort,
        /// Another's answer first, to another question and with another id.
        Forged,
        NoName,
        Broken,
    }

    fn answer(query: &[u8], udp: Option<Udp>) -> Vec<u8> {
        let query = Packet::parse(query).unwrap();
        let mut packet = Packet::new_reply(query.id());
        packet.questions.clone_from(&query.questions);
        let asked = &query.questions[0];
        if asked.qtype == QTYPE::TYPE(TYPE::A) && !matches!(udp, Some(Udp::CutShort | Udp::NoName)) {
            let address = A { address: Ipv4Addr::new(192, 0, 2, 7).into() };
            packet.answers.push(ResourceRecord::new(asked.qname.clone(), CLASS::IN, 0, RData::A(address)));
        }
        match udp {
            Some(Udp::CutShort) => packet.set_flags(PacketFlag::TRUNCATION),
            Some(Udp::NoName) => *packet.rcode_mut() = RCODE::NameError,
            Some(Udp::Broken) => *packet.rcode_mut() = RCODE::ServerFailure,
            _ => {}
        }
        packet.build_bytes_vec().unwrap()
    }

    async fn server(says: Udp) -> SocketAddr {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap();
        let udp = UdpSocket::bind(address).await.unwrap();
        tokio::spawn(async move {
            let mut query = [0; 512];
            loop {
                let (length, from) = udp.recv_from(&mut query).await.unwrap();
                let answer = answer(&query[..length], Some(says));
                if says == Udp::Forged {
                    let mut forged = answer.clone();
                    forged[0] ^= 1;
                    let end = forged.len() - 1;
                    forged[end] = 66;
                    udp.send_to(&forged, from).await.unwrap();
                    udp.send_to(b"no packet", from).await.unwrap();
                }
                udp.send_to(&answer, from).await.unwrap();
            }
        });
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = tcp.accept().await.unwrap();
                let mut query = vec![0; usize::from(stream.read_u16().await.unwrap())];
                stream.read_exact(&mut query).await.unwrap();
                let answer = answer(&query, None);
                stream.write_u16(answer.len() as u16).await.unwrap();
                stream.write_all(&answer).await.unwrap();
            }
        });
        address
    }

    async fn look_up(servers: &[SocketAddr]) -> Result<Vec<IpAddr>, NoAddress> {
        Nameservers::new(servers, still()).look_up("a.example").await
    }

    #[tokio::test]
    async fn an_answer_is_taken_whole_over_either_way_and_from_nobody_else() {
        for says in [Udp::Whole, Udp::CutShort, Udp::Forged] {
            let found = look_up(&[server(says).await]).await.unwrap();
            assert_eq!(found, [IpAddr::from([192, 0, 2, 7])]);
        }
    }

    #[tokio::test]
    async fn the_next_server_is_asked_where_one_is_of_no_use() {
        let servers = [server(Udp::Broken).await, server(Udp::Whole).await];
        assert_eq!(look_up(&servers).await.unwrap(), [IpAddr::from([192, 0, 2, 7])]);
        let error = look_up(&servers[..1]).await.unwrap_err().to_string();
        assert!(error.contains("no nameserver answered for `a.example`"), "{error}");
    }

    #[tokio::test]
    async fn a_name_that_is_not_there_is_said_so() {
        let error = look_up(&[server(Udp::NoName).await]).await.unwrap_err();
        assert!(matches!(error, NoAddress::NoName(_)), "{error}");
    }
}
