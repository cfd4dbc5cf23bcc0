//! The parts that behaviour tests share: the real daemon in its own folder, signed requests, real servers.
//!
//! A test reads as a story about the shipped binary. Nothing in here reaches into the binary.
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
//! | piece | what it provides |
//! | --- | --- |
//! | [`Builder`] | config.toml from its parts, guests in the plugins folder |
//! | [`Daemon`] | the running binary: its answers, its files, its command line, its start and end |
//! | [`Source`], [`Sender`] | a `[[source]]`, and a sender that posts to it with valid signatures |
//! | [`Interceptor`] | an `[[interceptor]]`, and a sender that asks it and waits |
//! | [`Event`] | a webhook's body, in the shape of real ones |
//! | [`Signer`] | both signature schemes, written independently so that they check the daemon's |
//! | [`Connection`] | HTTP by hand, for requests that no client library would send |
//! | [`Crowd`] | many hostile peers that hold connections |
//! | [`Load`] | a steady stream of events, each posted until it is acknowledged |
//! | [`SmtpServer`] | a real mail server that records its mail, and fails as a test says |
//! | [`WebServer`] | a web server that records its requests, and answers as a test says |
//! | [`EventList`] | a sender's API that lists its events |
//! | [`Flood`] | a web server whose answers never end |
//! | [`Collector`] | an OpenTelemetry collector that keeps the spans that it receives |
//! | [`DnsServer`] | a nameserver with a test's answers |
//! | [`certify`], [`validated_by_sns_validator`] | certificates with which senders sign, and a receiver's own library |
//! | [`NotifySocket`] | the messages of the daemon to its service manager |
//! | [`Postgres`] | a real PostgreSQL for one test, which the test can kill and start again |
//! | [`browse`] | a story in a real browser |
//! | [`corpus`] | the committed inputs of a fuzz target |
//! | [`requested`] | the results of requests that a guest makes |
//! | [`Proxy`] | a network that hangs when a test stalls it |
//! | [`Mail`] | a mail that was sent, parsed |
//! | [`guest`], [`new_revision`] | the bytes of a built guest, and the same with another SHA-256 |
//! | [`worst_statements`] | the statements that hold a SQLite database the longest |
//! | [`wait_until`], [`seed`] | waiting with a limit, and repeatable randomness |
//!
//! Environment variables control it. `POSTHOUSE_KEEP=1` keeps each test's folder and prints its path, and
//! `POSTHOUSE_SEED` repeats a seeded run. `POSTHOUSE_TIMEOUT` is the longest time of a wait in seconds (60),
//! and `POSTHOUSE_TEST_PYTHON` is a Python with the test servers' packages.
//!
//! Everything in here panics on failure, which fails the test. A daemon whose test failed prints the end of
//! its log.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a harness fails the test")]
#![allow(clippy::print_stderr, reason = "what a failed test has to say")]

mod browser;
mod builder;
mod certificates;
mod collector;
mod corpus;
mod crowd;
mod daemon;
mod dns;
mod event;
mod flood;
mod guest;
mod http;
mod http2;
mod interceptor;
mod libraries;
mod listing;
mod load;
mod mail;
mod manager;
mod ports;
mod postgres;
mod probe;
mod proxy;
mod quick;
mod receiver;
mod sender;
mod signer;
mod smtp;
mod wait;
mod web;
mod worst;

pub use browser::{browse, screenshots};
pub use builder::Builder;
pub use certificates::{Certified, certify};
pub use collector::{Collector, Span, SpanEvent};
pub use corpus::corpus;
pub use crowd::{Crowd, Opening};
pub use daemon::{Daemon, Output};
pub use dns::DnsServer;
pub use event::{Event, fresh_id};
pub use flood::Flood;
pub use guest::{guest, new_revision, put_in_place, workspace};
pub use http::{Answer, Connection};
pub use interceptor::{Interceptor, sign_up};
pub use libraries::{LibraryRequest, library_requests, validated_by_sns_validator};
pub use listing::{EventList, ListApi, ago, rfc3339};
pub use load::{Load, LoadReport};
pub use mail::Mail;
pub use manager::{Notice, NotifySocket};
pub use postgres::Postgres;
pub use probe::requested;
pub use proxy::Proxy;
pub use receiver::Receiver;
pub use sender::{Scheme, Sender, Source};
pub use signer::{Headers, Signer, unix_now};
pub use smtp::{SmtpOptions, SmtpServer, test_python};
pub use wait::{eventually, seed, timeout, wait_until};
pub use web::{WebReply, WebRequest, WebServer};
pub use worst::{Worst, worst_statements};
