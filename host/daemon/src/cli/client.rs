//! The connection of the online commands to the running daemon. They use the admin API at the address of
//! `[admin]`, with the token of `[admin]` or of the file that the daemon made.
//!
//! The client ignores proxies of the environment: only the daemon may get the token.

use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use posthouse_model::config::{Config, Secret};
use serde_json::Value;
use ureq::{Agent, Body, Error, http::Response};

use super::CliError;

use crate::admin;

/// The time limit for connecting.
const CONNECT: Duration = Duration::from_secs(5);
/// The time limit for an answer. The daemon's own limit is shorter.
const ANSWER: Duration = Duration::from_secs(60);
/// The time limit for a replay of many.
const REPLAY: Duration = Duration::from_secs(3600);
/// The most bytes of an answer.
const LONGEST: u64 = 512 * 1024 * 1024;
/// The most rows on one page, as the admin API defines it.
const PAGE: usize = 1000;

/// A client of a daemon, which may or may not run.
pub struct Client {
    agent: Agent,
    address: SocketAddr,
    token: Secret,
    /// The source of the token, for an error about a wrong one.
    token_from: String,
}

impl Client {
    /// A client for the daemon of this config.toml.
    ///
    /// # Errors
    /// [`CliError::Failure`] if there is no token.
    pub fn new(config: &Config) -> Result<Self, CliError> {
        let token = admin::token::existing(config).map_err(|error| CliError::Failure(error.to_string()))?;
        let token_from = match config.admin.token {
            Some(_) => "from `[admin] token`".to_owned(),
            None => format!("from `{}`", admin::token::file(config).display()),
        };
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .max_redirects(0)
            .timeout_connect(Some(CONNECT))
            .build()
            .into();
        Ok(Self { agent, address: reachable(config.admin.listen), token, token_from })
    }

    /// Sends a GET for a path with these parameters. Those without a value are left out.
    ///
    /// # Errors
    /// [`CliError::Failure`] if no daemon answers, or it refuses.
    pub fn get(&self, path: &str, query: &[(&str, Option<String>)]) -> Result<Value, CliError> {
        let mut request = self.agent.get(self.url(path)).header("authorization", self.bearer());
        for (key, value) in query {
            if let Some(value) = value {
                request = request.query(key, value);
            }
        }
        self.answer(request.config().timeout_global(Some(ANSWER)).build().call())
    }

    /// Posts a JSON body to a path.
    ///
    /// # Errors
    /// [`CliError::Failure`] if no daemon answers, or it refuses.
    pub fn post(&self, path: &str, body: &Value) -> Result<Value, CliError> {
        let request = self.agent.post(self.url(path)).header("authorization", self.bearer());
        self.answer(request.config().timeout_global(Some(REPLAY)).build().send_json(body))
    }

    /// Returns up to `limit` rows of a list, requested page by page. `cursor` is the member of a row by which
    /// the next page begins.
    ///
    /// # Errors
    /// [`CliError::Failure`] if no daemon answers, or it refuses.
    pub fn list(
        &self,
        what: &str,
        query: &[(&str, Option<String>)],
        cursor: &str,
        limit: usize,
    ) -> Result<Vec<Value>, CliError> {
        let mut rows: Vec<Value> = Vec::new();
        let mut before = None;
        loop {
            let wanted = (limit - rows.len()).min(PAGE);
            let page = [("limit", Some(wanted.to_string())), ("before", before.take())];
            let mut answer = self.get(&format!("/v1/{what}"), &[query, &page].concat())?;
            let Some(found) = answer[what].as_array_mut() else {
                return Err(self.odd(&format!("an answer without `{what}`")));
            };
            let got = found.len();
            rows.append(found);
            // A search that took too long ends its page early, and says where the next one begins.
            before = match answer.get("next") {
                Some(next) => text(next),
                None if got == wanted => rows.last().and_then(|row| text(&row[cursor])),
                None => None,
            };
            if before.is_none() || rows.len() >= limit {
                return Ok(rows);
            }
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.token.expose())
    }

    fn answer(&self, response: Result<Response<Body>, Error>) -> Result<Value, CliError> {
        let mut response = response.map_err(|error| self.silence(&error))?;
        let status = response.status();
        let body = response.body_mut().with_config().limit(LONGEST).read_json::<Value>();
        if status.as_u16() == 401 {
            return Err(CliError::Failure(format!(
                "the daemon at {} rejected the admin token {}; is this the config.toml of another daemon?",
                self.address, self.token_from
            )));
        }
        match body {
            Ok(body) if status.is_success() => Ok(body),
            Ok(body) => match body["error"].as_str() {
                Some(error) => Err(CliError::Failure(error.to_owned())),
                None => Err(self.odd(&format!("HTTP {status}"))),
            },
            Err(Error::Timeout(_)) => Err(self.odd("the response did not end in time")),
            Err(_) => Err(self.odd(&format!("HTTP {status} without JSON"))),
        }
    }

    fn silence(&self, error: &Error) -> CliError {
        let refused = match error {
            Error::ConnectionFailed | Error::HostNotFound => true,
            Error::Io(error) => {
                matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::AddrNotAvailable)
            }
            _ => false,
        };
        CliError::Failure(if refused {
            format!(
                "no daemon answers at {}; start it with `posthouse serve`, or name its config.toml with \
                 `--config`",
                self.address
            )
        } else {
            format!("the daemon at {} does not answer: {error}", self.address)
        })
    }

    fn odd(&self, what: &str) -> CliError {
        CliError::Failure(format!(
            "the server at {} is not the admin listener of posthouse: {what}",
            self.address
        ))
    }
}

/// A cursor as a parameter. None if there is no cursor.
fn text(cursor: &Value) -> Option<String> {
    match cursor {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

/// A part of a path, in which every special character is escaped.
pub fn segment(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// The address at which a client reaches a listener. A listener on every address is on loopback too.
pub(super) fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader, Write},
        net::TcpListener,
    };

    use super::*;

    fn client(address: SocketAddr) -> Client {
        let agent = Agent::config_builder().http_status_as_error(false).proxy(None).build().into();
        Client { agent, address, token: Secret::new("s3cret"), token_from: "from `data/admin-token`".into() }
    }

    /// Gives these answers to successive requests, and returns the requests.
    fn answering(answers: Vec<&'static str>) -> (Client, std::thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = client(listener.local_addr().unwrap());
        let heard = std::thread::spawn(move || {
            let mut heard = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let lines = BufReader::new(stream.try_clone().unwrap()).lines();
                heard.push(
                    lines
                        .map_while(Result::ok)
                        .take_while(|line| !line.is_empty())
                        .collect::<Vec<_>>()
                        .join("\n"),
                );
                stream.write_all(answer.as_bytes()).unwrap();
            }
            heard
        });
        (client, heard)
    }

    fn failure(result: Result<Value, CliError>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn nobody_there_is_said_in_one_line_with_the_way_out() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let said = failure(client(address).get("/v1/stats", &[]));
        assert!(said.contains(&address.to_string()) && said.contains("posthouse serve"), "{said}");
        assert!(!said.contains('\n'), "{said}");
    }

    #[test]
    fn a_wrong_token_names_where_it_is_from_and_not_the_token() {
        let (client, heard) = answering(vec![
            "HTTP/1.1 401 x\r\ncontent-length: 13\r\nconnection: close\r\n\r\n{\"error\":\"x\"}",
        ]);
        let said = failure(client.get("/v1/stats", &[]));
        assert!(said.contains("data/admin-token") && !said.contains("s3cret"), "{said}");
        assert!(heard.join().unwrap()[0].contains("Bearer s3cret"));
    }

    #[test]
    fn a_refusal_is_passed_on_and_a_stranger_is_called_one() {
        let (client, _heard) = answering(vec![
            "HTTP/1.1 404 x\r\ncontent-length: 19\r\nconnection: close\r\n\r\n{\"error\":\"no such\"}",
            "HTTP/1.1 200 x\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi",
        ]);
        assert_eq!(failure(client.get("/v1/x", &[])), "no such");
        assert!(failure(client.get("/v1/x", &[])).contains("is not the admin listener"));
    }

    #[test]
    fn a_list_goes_on_where_a_page_ended() {
        let page: &'static str = Box::leak(
            {
                let rows: Vec<_> = (0..1000).rev().map(|seq| format!("{{\"seq\":{}}}", seq + 5)).collect();
                let body = format!("{{\"events\":[{}]}}", rows.join(","));
                format!("HTTP/1.1 200 x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
            }
            .into_boxed_str(),
        );
        let (client, heard) = answering(vec![
            page,
            "HTTP/1.1 200 x\r\ncontent-length: 22\r\nconnection: close\r\n\r\n{\"events\":[{\"seq\":4}]}",
        ]);
        let rows = client.list("events", &[("type", Some("a b".into()))], "seq", 1500).unwrap();
        assert_eq!(rows.len(), 1001);
        let heard = heard.join().unwrap();
        assert!(heard[0].contains("type=a%20b&limit=1000 "), "{heard:?}");
        assert!(heard[1].contains("limit=500&before=5 "), "{heard:?}");
    }

    #[test]
    fn an_id_stays_one_segment() {
        assert_eq!(segment("../a?b#c%"), "%2E%2E%2Fa%3Fb%23c%25");
    }

    #[test]
    fn a_listener_everywhere_is_reached_on_loopback() {
        for (listen, reached) in
            [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1"), ("10.0.0.5:1", "10.0.0.5:1")]
        {
            assert_eq!(reachable(listen.parse().unwrap()), reached.parse().unwrap());
        }
    }
}
