//! The sender of webhooks in the demo: signed ones, a forged one, and one as a line for a shell.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
};

use super::{
    daemon::{Demo, TIMEOUT, output, posthouse},
    folder::{folder, shown},
};
use crate::shell::{Doing as _, Result, line};

impl Demo {
    /// Posts an event that was changed after it was signed. Returns the answer.
    pub(super) fn post_forged(&self) -> Result<String> {
        let (signed, forged) = (sample("evt_demo_forged", "ada"), sample("evt_demo_forged", "eve"));
        let headers = sign("evt_demo_forged", &signed)?.replace('\n', "\r\n");
        let request = format!(
            "POST /webhooks/scalekit HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{}\r\n\
             content-length: {}\r\n\r\n{forged}",
            headers.trim(),
            forged.len()
        );
        ask(&self.webhooks, &request).doing("post to posthouse")
    }

    /// A line for a shell in the top folder: it signs for the current time, then posts.
    pub(super) fn curl_line(&self, id: &str) -> Result<String> {
        let (body, headers) = (folder().join(format!("{id}.json")), folder().join(format!("{id}.headers")));
        fs::write(&body, sample(id, "grace")).doing(format_args!("write {}", body.display()))?;
        let (body, headers) = (shown(&body), shown(&headers));
        let sign = line(&posthouse(&["sign", "--source", "scalekit", "--id", id, "--body", &body]));
        Ok(format!(
            "{sign} > {headers} && curl -sS -i -H @{headers} -H 'content-type: application/json' \
             --data-binary @{body} http://{}/webhooks/scalekit",
            self.webhooks
        ))
    }

    /// Sends an event of this type with this `data`.
    pub(super) fn send(&self, event_type: &str, data: &str) -> Result {
        let file = folder().join("sent.json");
        fs::write(&file, data).doing(format_args!("write {}", file.display()))?;
        self.show(&["send", event_type, "--data", &shown(&file)], &["200", r#""received":true"#])
    }
}

/// Sends a request that asks to close the connection. Returns the answer.
pub(super) fn ask(address: &str, request: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// The headers that sign the body, one a line.
fn sign(id: &str, body: &str) -> Result<String> {
    let file = folder().join(format!("{id}.json"));
    fs::write(&file, body).doing(format_args!("write {}", file.display()))?;
    output(&["sign", "--source", "scalekit", "--id", id, "--body", &shown(&file)])
}

/// The body of an event about this person.
fn sample(id: &str, name: &str) -> String {
    format!(
        r#"{{"spec_version":"1","id":"{id}","type":"user.created","occurred_at":"2026-01-15T10:30:00Z","environment_id":"env_1","organization_id":"org_1","data":{{"user":{{"id":"usr_{name}","email":"{name}@example.com","first_name":"{name}"}}}}}}"#
    )
}
