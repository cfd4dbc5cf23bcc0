//! A nameserver with a test's answers.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

/// The type of a question for IPv4 addresses. Questions of other types get an empty answer.
const A: u16 = 1;

/// A running nameserver, which stops on drop.
pub struct DnsServer {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl DnsServer {
    /// Starts a nameserver at 127.0.0.1. `answer` gets a name in lower case, without a dot at its end, and
    /// the number of earlier questions for IPv4 addresses. Its answers have a TTL of 0.
    ///
    /// # Panics
    /// If it can't listen.
    #[track_caller]
    pub fn start(answer: impl Fn(&str, usize) -> Vec<IpAddr> + Send + 'static) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port to listen at");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
        let address = socket.local_addr().expect("its address");
        let (asked, stop) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let (counter, stopped) = (Arc::clone(&asked), Arc::clone(&stop));
        thread::spawn(move || {
            let mut packet = [0; 1500];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut packet) else { continue };
                let Some((name, kind, end)) = question(&packet[..length]) else { continue };
                let mut addresses = Vec::new();
                if kind == A {
                    addresses = answer(&name, counter.fetch_add(1, Ordering::Relaxed));
                }
                drop(socket.send_to(&reply(&packet[..end], &addresses), from));
            }
        });
        Self { address, asked, stop }
    }

    /// The value of `nameservers` in `[http]`.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The number of questions for IPv4 addresses.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The name in a packet's question, its type, and the end of the question.
fn question(packet: &[u8]) -> Option<(String, u16, usize)> {
    let mut at = 12;
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*packet.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(packet.get(at..at + length)?).to_ascii_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]);
    (packet.len() >= at + 4).then(|| (labels.join("."), kind, at + 4))
}

/// The answer packet: the question with its addresses.
fn reply(question: &[u8], addresses: &[IpAddr]) -> Vec<u8> {
    let v4: Vec<_> = addresses.iter().filter(|ip| ip.is_ipv4()).collect();
    let mut packet = question.to_vec();
    // An answer, recursion desired and available, no error. It has one question, the answers, and nothing
    // else.
    packet[2..4].copy_from_slice(&[0x81, 0x80]);
    packet[4..6].copy_from_slice(&[0, 1]);
    packet[6..8].copy_from_slice(&(v4.len() as u16).to_be_bytes());
    packet[8..12].copy_from_slice(&[0; 4]);
    for ip in v4 {
        let IpAddr::V4(ip) = ip else { continue };
        // The question's name, A, IN, for 0 s, four bytes.
        packet.extend_from_slice(&[0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
        packet.extend_from_slice(&ip.octets());
    }
    packet
}
