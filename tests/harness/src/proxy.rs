//! A network that can hang: a test stalls connections through it and lets them continue.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// Forwards connections to a port of this machine. While it is stalled, it keeps the bytes that it receives,
/// and forwards them afterwards, late and in order. On drop, it accepts no more connections.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    stalled: AtomicBool,
    ended: AtomicBool,
}

/// The interval of checks whether it may continue.
const LOOK: Duration = Duration::from_millis(5);

impl Proxy {
    /// Starts a proxy for this port.
    ///
    /// # Panics
    /// If there is no port for it.
    #[track_caller]
    pub fn start(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its port").port();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if shared.ended.load(Ordering::Relaxed) {
                    return;
                }
                let state = Arc::clone(&shared);
                thread::spawn(move || state.connect(&client, target));
            }
        });
        Self { port, state }
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Forwards nothing more, in either direction. No connection ends because of that.
    pub fn stall(&self) {
        self.state.stalled.store(true, Ordering::SeqCst);
    }

    /// Forwards everything again, beginning with the kept bytes.
    pub fn go_on(&self) {
        self.state.stalled.store(false, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::SeqCst);
        // Wakes the thread that listens.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

impl State {
    fn connect(self: &Arc<Self>, client: &TcpStream, target: u16) {
        self.wait();
        let Ok(server) = TcpStream::connect(("127.0.0.1", target)) else { return };
        let (Ok(from_client), Ok(to_client)) = (client.try_clone(), client.try_clone()) else { return };
        let (Ok(from_server), Ok(to_server)) = (server.try_clone(), server.try_clone()) else { return };
        let state = Arc::clone(self);
        thread::spawn(move || state.forward(from_server, to_client));
        self.forward(from_client, to_server);
    }

    fn forward(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            self.wait();
            if to.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        self.wait();
        let _ = to.shutdown(Shutdown::Write);
    }

    fn wait(&self) {
        while self.stalled.load(Ordering::SeqCst) && !self.ended.load(Ordering::SeqCst) {
            thread::sleep(LOOK);
        }
    }
}
