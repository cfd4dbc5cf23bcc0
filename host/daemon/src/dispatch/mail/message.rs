//! Builds the text of a message from a mail.
//!
//! Every value passes through lettre's types. An address that does not parse refuses the mail, and a header
//! value that is not plain text is encoded (RFC 2047). So a subject or a name that contains a line break stays
//! a subject or a name. The boundary between the text and its HTML is random, so a text that quotes a stranger
//! can't end its part early.
//!
//! Every line ends with CRLF, whatever its ending was before. No other control character except the tab is sent
//! unencoded. Servers differ in how they treat a lone CR or LF (RFC 5321, 2.3.8). Between two such servers a text
//! can become a second mail.

use std::time::SystemTime;

use lettre::{
    Message,
    message::{
        Body, Mailbox, MultiPart, SinglePart,
        header::{ContentTransferEncoding, ContentType},
    },
};
use posthouse_model::{Env, Mail};

use super::NotSent;

/// Whether to keep the `Bcc` header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bcc {
    /// It is removed from the message; the envelope contains its addresses.
    Dropped,
    /// It is kept in the message, because a file has no envelope.
    Kept,
}

/// Builds the message, dated now.
pub(super) fn build(mail: &Mail, bcc: Bcc, env: &Env) -> Result<Message, NotSent> {
    let mut builder = Message::builder()
        .message_id(Some(mail.message_id.clone()))
        .date(SystemTime::from(env.now()))
        .from(mailbox("from", &mail.from)?)
        .subject(mail.subject.clone());
    if let Some(address) = &mail.reply_to {
        builder = builder.reply_to(mailbox("reply-to", address)?);
    }
    for address in &mail.to {
        builder = builder.to(mailbox("to", address)?);
    }
    for address in &mail.cc {
        builder = builder.cc(mailbox("cc", address)?);
    }
    for address in &mail.bcc {
        builder = builder.bcc(mailbox("bcc", address)?);
    }
    if bcc == Bcc::Kept {
        builder = builder.keep_bcc();
    }
    let built = match &mail.html {
        None => builder.singlepart(part(ContentType::TEXT_PLAIN, &mail.text)),
        Some(html) if mail.text.is_empty() => builder.singlepart(part(ContentType::TEXT_HTML, html)),
        Some(html) => builder.multipart(
            MultiPart::alternative()
                .boundary(boundary(env))
                .singlepart(part(ContentType::TEXT_PLAIN, &mail.text))
                .singlepart(part(ContentType::TEXT_HTML, html)),
        ),
    };
    built.map_err(|error| NotSent::Permanent(format!("not a mail: {error}")))
}

/// Reads an address of the mail.
fn mailbox(field: &str, address: &str) -> Result<Mailbox, NotSent> {
    posthouse_model::mailbox(address).map_err(|error| {
        NotSent::Permanent(format!("`{field}` is not a mail address (`{address}`): {error}"))
    })
}

fn part(kind: ContentType, text: &str) -> SinglePart {
    let text = with_crlf(text);
    let encoding = if text.chars().any(is_odd_control) {
        // lettre would treat these as plain ASCII and send them unencoded.
        Body::new_with_encoding(text, ContentTransferEncoding::QuotedPrintable)
    } else {
        Ok(Body::new(text))
    };
    // Quoted-printable can encode everything, but lettre's type does not say so.
    let body = encoding.unwrap_or_else(Body::new);
    SinglePart::builder().content_type(kind).body(body)
}

/// Returns the text with each CR, LF and CRLF replaced by CRLF.
fn with_crlf(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\r', "\n").replace('\n', "\r\n")
}

/// Whether it is an ASCII control character other than tab, CR and LF.
fn is_odd_control(c: char) -> bool {
    c.is_ascii_control() && !matches!(c, '\t' | '\r' | '\n')
}

fn boundary(env: &Env) -> String {
    let mut bytes = [0; 16];
    env.fill(&mut bytes);
    hex::encode(bytes)
}

#[cfg(test)]
pub(super) mod tests {
    use posthouse_model::testing::{Constant, ManualClock};

    use super::*;

    pub(in super::super) fn env() -> Env {
        Env::new(ManualClock::at("2026-03-01T12:00:00Z".parse().unwrap()), Constant(0xab))
    }

    pub(in super::super) fn mail() -> Mail {
        Mail {
            message_id: "<dlv_7.1@posthouse.example>".into(),
            from: "Team <team@example.com>".into(),
            to: vec!["ada@example.com".into()],
            cc: Vec::new(),
            bcc: Vec::new(),
            reply_to: None,
            subject: "Welcome".into(),
            text: "Good day.\n".into(),
            html: None,
        }
    }

    fn text(mail: &Mail, bcc: Bcc) -> String {
        String::from_utf8(build(mail, bcc, &env()).unwrap().formatted()).unwrap()
    }

    /// The names of the message's headers, in order.
    fn header_names(message: &str) -> Vec<String> {
        let (head, _) = message.split_once("\r\n\r\n").unwrap();
        head.split("\r\n")
            .filter(|line| !line.starts_with([' ', '\t']))
            .map(|line| line.split_once(':').unwrap_or_else(|| panic!("no header: {line:?}")).0.to_owned())
            .collect()
    }

    #[test]
    fn a_plain_mail_has_its_headers_and_its_text() {
        let message = text(&mail(), Bcc::Dropped);
        for line in [
            "Message-ID: <dlv_7.1@posthouse.example>",
            "Date: Sun, 01 Mar 2026 12:00:00 +0000",
            "From: Team <team@example.com>",
            "To: ada@example.com",
            "Subject: Welcome",
            "MIME-Version: 1.0",
            "Content-Type: text/plain; charset=utf-8",
        ] {
            assert!(message.contains(&format!("{line}\r\n")), "{line} in {message}");
        }
        assert!(message.trim_end().ends_with("\r\n\r\nGood day."), "{message}");
    }

    #[test]
    fn html_stands_beside_the_text_behind_a_random_boundary() {
        let message = text(&Mail { html: Some("<p>Good day.</p>".into()), ..mail() }, Bcc::Dropped);
        let boundary = "ab".repeat(16);
        assert!(message.contains("multipart/alternative"), "{message}");
        assert_eq!(message.matches(&format!("--{boundary}\r\n")).count(), 2, "{message}");
        assert!(message.contains("text/html") && message.contains("text/plain"), "{message}");
        let only = text(&Mail { text: String::new(), html: Some("<p>x</p>".into()), ..mail() }, Bcc::Dropped);
        assert!(only.contains("text/html") && !only.contains("multipart"), "{only}");
    }

    #[test]
    fn nothing_a_plugin_writes_becomes_a_header() {
        let plain = header_names(&text(&mail(), Bcc::Dropped));
        for break_ in ["\r\n", "\n", "\r", "\r\n\r\n", "\u{2028}", "\0"] {
            let evil = format!("Hi{break_}X-Evil: yes{break_}");
            for odd in [
                Mail { subject: evil.clone(), ..mail() },
                Mail { message_id: format!("<a@b>{evil}"), ..mail() },
                Mail { from: format!("\"{evil}\" <team@example.com>"), ..mail() },
                Mail { from: format!("{evil} <team@example.com>"), ..mail() },
                Mail { to: vec![format!("\"{evil}\"@example.com")], ..mail() },
                Mail { to: vec![format!("ada@example.com{evil}")], ..mail() },
            ] {
                // A refusal is as good.
                if let Ok(message) = build(&odd, Bcc::Dropped, &env()) {
                    let message = String::from_utf8(message.formatted()).unwrap();
                    assert_eq!(header_names(&message), plain, "{odd:?}\n{message}");
                }
            }
        }
    }

    #[test]
    fn every_line_ends_with_crlf_and_no_other_control_character_is_sent_as_it_is() {
        let odd = "a\rb\nc\r\nd\r\r\n\n\re\r.\r\nMAIL FROM:<eve@example.com>\r";
        for text in [
            odd.to_owned(),
            format!("{odd}\0\u{b}\u{1b}"),
            format!("{odd} ü"),
            format!("{odd}{}", "ü".repeat(99)),
        ] {
            for mail in [
                Mail { text: text.clone(), ..mail() },
                Mail { html: Some(text.clone()), ..mail() },
                Mail { text: text.clone(), html: Some(text.clone()), ..mail() },
            ] {
                let message = super::build(&mail, Bcc::Dropped, &env()).unwrap().formatted();
                let message = String::from_utf8(message).unwrap();
                let left = message.replace("\r\n", "");
                assert!(!left.contains(|c: char| c.is_control() && c != '\t'), "{message:?}");
            }
        }
        let message = text(&Mail { text: "a\rb\nc\r\nd".into(), ..mail() }, Bcc::Dropped);
        assert!(message.trim_end().ends_with("\r\n\r\na\r\nb\r\nc\r\nd"), "{message:?}");
    }

    #[test]
    fn a_domain_is_sent_in_ascii_however_it_is_spelled() {
        for domain in ["bücher.example", "BÜCHER.example", "xn--bcher-kva.example", "bücher。example"] {
            let mail = Mail { to: vec![format!("Ada <ada@{domain}>")], ..mail() };
            let message = build(&mail, Bcc::Dropped, &env()).unwrap();
            assert_eq!(message.envelope().to()[0].to_string(), "ada@xn--bcher-kva.example", "{domain}");
            assert!(message.formatted().is_ascii(), "{domain}");
        }
    }

    #[test]
    fn unicode_is_encoded_and_the_message_stays_ascii() {
        let message = text(
            &Mail {
                from: "Ada Løvelace <ada@example.com>".into(),
                subject: "Grüße aus der Poststation, 你好".into(),
                text: "Schöne Grüße 你好\n".into(),
                ..mail()
            },
            Bcc::Dropped,
        );
        assert!(message.is_ascii(), "{message}");
        assert!(message.contains("=?utf-8?b?"), "{message}");
        assert_eq!(header_names(&message), header_names(&text(&mail(), Bcc::Dropped)));
    }

    #[test]
    fn bcc_is_in_the_envelope_and_in_the_header_only_when_kept() {
        let mail = Mail { bcc: vec!["eve@example.com".into()], ..mail() };
        let message = build(&mail, Bcc::Dropped, &env()).unwrap();
        assert!(message.envelope().to().iter().any(|address| address.to_string() == "eve@example.com"));
        assert!(!text(&mail, Bcc::Dropped).contains("eve@"));
        assert!(text(&mail, Bcc::Kept).contains("Bcc: eve@example.com\r\n"));
    }

    #[test]
    fn what_is_no_address_refuses_the_mail_and_is_named() {
        let error = build(&Mail { to: vec!["nobody".into()], ..mail() }, Bcc::Dropped, &env()).unwrap_err();
        assert!(
            matches!(&error, NotSent::Permanent(text) if text.contains("`to`") && text.contains("nobody"))
        );
        let error = build(&Mail { to: vec![], ..mail() }, Bcc::Dropped, &env()).unwrap_err();
        assert!(matches!(error, NotSent::Permanent(_)));
    }
}
