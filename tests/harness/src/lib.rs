//! What the behaviour tests share: the real daemon in a folder of its own, signed requests, real servers.
//!
//! A test reads as a story about the binary that is shipped; nothing in here reaches into it.
//!
//! ```no_run
//! use posthouse_harness::{Daemon, Event, wait_until};
//!
//! # const BINARY: &str = "posthouse";
//! // In a test: const BINARY: &str = env!("CARGO_BIN_EXE_posthouse");
//! let mut daemon = Daemon::builder(BINARY).guest("counter").start();
//! let answer = daemon.post_event(&Event::new("user.created"));
//! assert_eq!(answer.status, 200, "{answer}");
//! daemon.wait_settled();
//! assert!(daemon.stop().success());
//! ```
//!
//! | piece | what it gives |
//! | --- | --- |
//! | [`Builder`] | config.toml from its parts, guests in the plugins folder |
//! | [`Daemon`] | the running binary: its answers, its files, its command line, its life and death |
//! | [`Source`], [`Sender`] | a `[[source]]`, and who posts to it with the right signature |
//! | [`Event`] | a webhook's body, of the shape real ones have |
//! | [`Signer`] | both signature schemes, written anew here so that they check the daemon's |
//! | [`Connection`] | HTTP by hand, for requests no client library would send |
//! | [`Crowd`] | hostile peers in numbers that hold connections |
//! | [`Load`] | a steady stream of events, each posted until it is acknowledged |
//! | [`SmtpServer`] | a real mail server that writes down what it got, and fails when told to |
//! | [`WebServer`] | a web server that writes down what it was asked, and answers as it is told |
//! | [`Flood`] | a web server whose answers never end |
//! | [`Collector`] | an OpenTelemetry collector that keeps the spans it is sent |
//! | [`DnsServer`] | a nameserver that knows what a test tells it |
//! | [`NotifySocket`] | what the daemon tells its service manager |
//! | [`Postgres`] | a real PostgreSQL of the test's own, which can be killed and started again |
//! | [`browse`] | a story in a real browser |
//! | [`requested`] | what came of the requests that a guest was asked to make |
//! | [`Proxy`] | a network that hangs when told to |
//! | [`Mail`] | a mail that came out, parsed |
//! | [`guest`], [`new_revision`] | the bytes of a built guest, and the same with another SHA-256 |
//! | [`worst_statements`] | the statements that hold a SQLite database the longest |
//! | [`wait_until`], [`seed`] | waiting with a bound, chance that can be repeated |
//!
//! The environment steers it: `POSTHOUSE_KEEP=1` keeps each test's folder and prints where it is,
//! `POSTHOUSE_SEED` repeats a seeded run, `POSTHOUSE_PATIENCE` is the seconds a wait may take (60),
//! `POSTHOUSE_TEST_PYTHON` is a Python that has the test servers' packages.
//!
//! Everything in here panics when it fails: that is how a test hears of it. A daemon whose test
//! failed shows the end of its log.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a harness fails the test")]
#![allow(clippy::print_stderr, reason = "what a failed test has to say")]

mod browser;
mod builder;
mod certificates;
mod collector;
mod crowd;
mod daemon;
mod dns;
mod event;
mod flood;
mod guest;
mod http;
mod http2;
mod load;
mod mail;
mod manager;
mod ports;
mod postgres;
mod probe;
mod proxy;
mod quick;
mod sender;
mod signer;
mod smtp;
mod wait;
mod web;
mod worst;

pub use browser::{browse, screenshots};
pub use builder::Builder;
pub use collector::{Collector, Span, SpanEvent};
pub use crowd::{Crowd, Opening};
pub use daemon::{Daemon, Output};
pub use dns::DnsServer;
pub use event::{Event, fresh_id};
pub use flood::Flood;
pub use guest::{guest, new_revision, put_in_place, workspace};
pub use http::{Answer, Connection};
pub use load::{Load, LoadReport};
pub use mail::Mail;
pub use manager::{Notice, NotifySocket};
pub use postgres::Postgres;
pub use probe::requested;
pub use proxy::Proxy;
pub use sender::{Scheme, Sender, Source};
pub use signer::{Headers, Signer, unix_now};
pub use smtp::{SmtpOptions, SmtpServer, test_python};
pub use wait::{eventually, patience, seed, wait_until};
pub use web::{WebReply, WebRequest, WebServer};
pub use worst::{Worst, worst_statements};
