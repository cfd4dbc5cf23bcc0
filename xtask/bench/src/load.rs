//! The load generator: 64 keep-alive connections on two threads, with hand-written HTTP/1.1.
//!
//! It shares two cores with the server that it measures, so it must be cheap. Requests are signed beforehand
//! (see [`crate::requests`]), answers are checked just far enough, and every result says how much of a core
//! the generator took. In a closed loop, each connection sends when it has its last answer. In an open loop,
//! requests are due at fixed times, and the time of an answer counts from then. So a stall counts for every
//! request that it delays (no coordinated omission).

use std::{
    net::SocketAddr,
    sync::{Arc, Barrier},
    thread,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    runtime::Builder,
    sync::mpsc,
    task::JoinSet,
};

use crate::requests::Batch;

const THREADS: usize = 2;
const CONNECTIONS: usize = 64;
/// The interval at which the open loop hands out requests that are due.
const TICK: Duration = Duration::from_micros(250);

/// The results of a run of the generator.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// Answers that were as expected.
    pub(crate) good: u64,
    /// Wrong answers, and connections that broke.
    pub(crate) odd: u64,
    /// One wrong answer, for people.
    pub(crate) example: Option<String>,
    /// The time from the first request to the last answer.
    pub(crate) took: Duration,
    /// The time of each answer, in µs, ascending.
    pub(crate) micros: Vec<u32>,
}

impl Seen {
    /// The time within which this share of the answers arrived, in µs.
    pub(crate) fn percentile(&self, share: f64) -> u32 {
        let at = (self.micros.len() as f64 * share) as usize;
        self.micros.get(at.min(self.micros.len().saturating_sub(1))).copied().unwrap_or(0)
    }

    fn add(&mut self, other: Self) {
        self.good += other.good;
        self.odd += other.odd;
        self.example = self.example.take().or(other.example);
        self.micros.extend(other.micros);
    }
}

/// Sends as fast as answers arrive, until `until` or the end of the batch.
pub(crate) fn closed(
    address: SocketAddr,
    batch: &Arc<Batch>,
    lasting: Duration,
    expected: &'static str,
) -> Seen {
    run(address, batch, expected, |_, start| Pace::Closed { end: start + lasting })
}

/// Sends `rate` requests a second for this time.
pub(crate) fn open(
    address: SocketAddr,
    batch: &Arc<Batch>,
    lasting: Duration,
    rate: f64,
    expected: &'static str,
) -> Seen {
    let (senders, mut receivers): (Vec<_>, Vec<_>) =
        (0..CONNECTIONS).map(|_| mpsc::unbounded_channel()).map(|(s, r)| (s, Some(r))).unzip();
    let begin = Arc::new(Barrier::new(2));
    let pacer = thread::spawn({
        let begin = Arc::clone(&begin);
        move || {
            begin.wait();
            hand_out(&senders, rate, lasting);
        }
    });
    let mut begun = false;
    let seen = run(address, batch, expected, |connection, _| {
        if !std::mem::replace(&mut begun, true) {
            begin.wait();
        }
        Pace::Open { due: receivers[connection].take().expect("one pace a connection") }
    });
    pacer.join().expect("the pacer");
    seen
}

/// When a connection sends.
enum Pace {
    Closed { end: Instant },
    Open { due: mpsc::UnboundedReceiver<Instant> },
}

impl Pace {
    /// The time from which the next request counts. None after the last request.
    async fn next(&mut self) -> Option<Instant> {
        match self {
            Self::Closed { end } => Some(Instant::now()).filter(|now| now < end),
            Self::Open { due } => due.recv().await,
        }
    }
}

/// Gives the connections in turn the times at which their requests are due.
fn hand_out(connections: &[mpsc::UnboundedSender<Instant>], rate: f64, lasting: Duration) {
    let began = Instant::now();
    let total = (rate * lasting.as_secs_f64()) as u64;
    let mut given = 0;
    while given < total {
        let now = began.elapsed();
        while given < total && Duration::from_secs_f64(given as f64 / rate) <= now {
            let due = began + Duration::from_secs_f64(given as f64 / rate);
            // A broken connection takes no more; its run does not count anyway.
            let _ = connections[given as usize % connections.len()].send(due);
            given += 1;
        }
        thread::sleep(TICK);
    }
}

fn run(
    address: SocketAddr,
    batch: &Arc<Batch>,
    expected: &'static str,
    mut pace: impl FnMut(usize, Instant) -> Pace,
) -> Seen {
    let (to_threads, paces): (Vec<_>, Vec<_>) = (0..THREADS).map(|_| std::sync::mpsc::channel()).unzip();
    let connected = Arc::new(Barrier::new(THREADS + 1));
    let threads: Vec<_> = paces
        .into_iter()
        .map(|paces| {
            let (batch, connected) = (Arc::clone(batch), Arc::clone(&connected));
            thread::spawn(move || {
                let runtime = Builder::new_current_thread().enable_io().build().expect("a runtime");
                runtime.block_on(drive(address, &batch, expected, &connected, &paces))
            })
        })
        .collect();
    connected.wait();
    let began = Instant::now();
    for connection in 0..CONNECTIONS {
        to_threads[connection % THREADS].send(pace(connection, began)).expect("a thread that drives");
    }
    drop(to_threads);
    let mut seen = Seen::default();
    for thread in threads {
        seen.add(thread.join().expect("a thread that drives"));
    }
    seen.took = began.elapsed();
    seen.micros.sort_unstable();
    seen
}

/// One thread, with its share of the connections.
async fn drive(
    address: SocketAddr,
    batch: &Arc<Batch>,
    expected: &'static str,
    connected: &Barrier,
    paces: &std::sync::mpsc::Receiver<Pace>,
) -> Seen {
    let mut streams = Vec::new();
    for _ in 0..CONNECTIONS / THREADS {
        let stream = TcpStream::connect(address).await.expect("who is measured listens");
        stream.set_nodelay(true).expect("a TCP option");
        streams.push(stream);
    }
    connected.wait();
    let mut tasks = JoinSet::new();
    for (stream, pace) in streams.into_iter().zip(paces) {
        tasks.spawn(talk(stream, Arc::clone(batch), pace, expected));
    }
    let mut seen = Seen::default();
    while let Some(one) = tasks.join_next().await {
        seen.add(one.expect("a connection that ends well"));
    }
    seen
}

/// Runs one connection to its end.
async fn talk(mut stream: TcpStream, batch: Arc<Batch>, mut pace: Pace, expected: &str) -> Seen {
    let mut seen = Seen::default();
    let mut text = batch.text();
    let mut buffer = vec![0; 4096];
    while let Some(due) = pace.next().await {
        let Some(stamp) = batch.take() else { break };
        match exchange(&mut stream, text.stamped(stamp), &mut buffer).await {
            // The body tells the status too.
            Ok(answer) if answer.trim_end().ends_with(expected) => {
                seen.good += 1;
                seen.micros.push(due.elapsed().as_micros().try_into().unwrap_or(u32::MAX));
            }
            Ok(other) => {
                seen.odd += 1;
                seen.example = Some(other.to_owned());
            }
            Err(error) => {
                seen.odd += 1;
                seen.example = Some(error.to_string());
                break;
            }
        }
    }
    seen
}

/// Sends a request and reads its answer.
async fn exchange<'b>(
    stream: &mut TcpStream,
    request: &[u8],
    buffer: &'b mut [u8],
) -> std::io::Result<&'b str> {
    stream.write_all(request).await?;
    let mut filled = 0;
    loop {
        match stream.read(&mut buffer[filled..]).await? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            more => filled += more,
        }
        if let Some(length) = length_of_answer(&buffer[..filled])
            && length <= filled
        {
            break;
        }
    }
    std::str::from_utf8(&buffer[..filled]).map_err(std::io::Error::other)
}

/// The length of the answer, head and body, once its head is complete.
fn length_of_answer(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let mut lines = bytes[..head].split(|&byte| byte == b'\n');
    let length = lines.find_map(|line| {
        let (name, value) = line.split_at_checked("content-length:".len())?;
        name.eq_ignore_ascii_case(b"content-length:").then_some(value)
    })?;
    let length: usize = std::str::from_utf8(length).ok()?.trim().parse().ok()?;
    Some(head + 4 + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_as_long_as_it_says() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(length_of_answer(answer), Some(answer.len()));
        assert_eq!(length_of_answer(&answer[..30]), None);
    }

    #[test]
    fn every_request_is_answered_and_paced() {
        let (to_test, address) = std::sync::mpsc::channel();
        thread::spawn(move || crate::noop::serve(|address| to_test.send(address).unwrap()));
        let address = address.recv().unwrap();
        let expected = crate::noop::ANSWER;

        let batch = Arc::new(Batch::sign(crate::bench::PATH, 1000));
        let seen = closed(address, &batch, Duration::from_secs(60), expected);
        assert_eq!((seen.good, seen.odd, seen.micros.len()), (1000, 0, 1000));
        assert_eq!(closed(address, &batch, Duration::from_secs(60), expected).good, 0, "each is sent once");

        let batch = Arc::new(Batch::sign(crate::bench::PATH, 1000));
        let seen = open(address, &batch, Duration::from_millis(500), 1000.0, expected);
        assert_eq!((seen.good, seen.odd), (500, 0), "{seen:?}");
        assert!(seen.took >= Duration::from_millis(490), "{seen:?}");

        let batch = Arc::new(Batch::sign(crate::bench::PATH, 100));
        let seen = closed(address, &batch, Duration::from_secs(60), "something else");
        assert_eq!((seen.good, seen.odd), (0, 100), "{seen:?}");
    }

    #[test]
    fn percentiles_are_of_what_was_seen() {
        let seen = Seen { micros: (1..=100).collect(), ..Seen::default() };
        assert_eq!((seen.percentile(0.5), seen.percentile(0.99), seen.percentile(1.0)), (51, 100, 100));
    }
}
