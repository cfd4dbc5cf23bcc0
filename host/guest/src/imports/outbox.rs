//! `outbox`: mails and requests that are sent after the attempt has committed.
//!
//! A mail is checked completely before it is staged: every address parses, the grant allows the sender and every
//! recipient, and no header contains a line break. A request is checked like a fetch, except for the address of its
//! host, which is checked when the request is sent.

use lettre::{Address, message::Mailbox};
use posthouse_egress::{Bounds, Draft, PluginHttp, Refusal};
use posthouse_model::{Capability, DeliveryId, Mail, MailGrant, OutboxItem, ascii_domain, config::Limits};
use serde::{Deserialize, Serialize};

use super::{
    call::MailDraft,
    fault::Fault,
    http,
    limits::{Budget, lacks, size},
};

/// Recipients of one mail, with those of `bcc`.
const RECIPIENTS: usize = 100;
/// Bytes of a subject: the longest line that mail allows (RFC 5322, 2.1.1).
const SUBJECT: usize = 998;
/// Bytes of an address with its display name.
const ADDRESS: usize = 512;

/// An error that the guest can handle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum OutboxError {
    /// The plugin lacks the grant. The message contains the line for config.toml.
    Denied(String),
    /// The item is not valid. The message names the field.
    Invalid(String),
    /// The item is too large. The message names the field.
    Limit(String),
}

/// The parts of the state that one call on the outbox needs.
pub(super) struct Outbox<'a> {
    pub(super) plugin: &'a str,
    pub(super) delivery: DeliveryId,
    pub(super) grant: Option<&'a MailGrant>,
    pub(super) plugin_http: &'a PluginHttp,
    /// The number of requests in this attempt so far.
    pub(super) requests: &'a mut u32,
    pub(super) limits: &'a Limits,
    pub(super) staged: &'a mut Vec<OutboxItem>,
    pub(super) budget: &'a mut Budget,
}

impl Outbox<'_> {
    /// Stages a mail and returns its Message-ID. That consists of the delivery's id and the mail's position in the
    /// outbox, so it is the same in every attempt.
    pub(super) fn send_mail(&mut self, draft: MailDraft) -> Result<String, Fault<OutboxError>> {
        let grant = self.grant.ok_or_else(|| OutboxError::Denied(lacks(self.plugin, Capability::Mail)))?;
        let recipients = draft.to.len() + draft.cc.len() + draft.bcc.len();
        if recipients == 0 {
            return Err(invalid("to", "names nobody"));
        }
        if recipients > RECIPIENTS {
            let problem = format!("the mail has {recipients} recipients; {RECIPIENTS} is the limit");
            return Err(OutboxError::Limit(problem).into());
        }
        check_subject(&draft.subject)?;
        let from = self.sender(grant, draft.from.as_deref())?;
        let to = self.recipients(grant, "to", &draft.to)?;
        let cc = self.recipients(grant, "cc", &draft.cc)?;
        let bcc = self.recipients(grant, "bcc", &draft.bcc)?;
        let reply_to = draft.reply_to.as_deref().map(|text| mailbox("reply-to", text)).transpose()?;
        let message_id = format!("<{}.{}@{}>", self.delivery, self.staged.len() + 1, from.email.domain());
        let mail = Mail {
            message_id: message_id.clone(),
            from: from.to_string(),
            to,
            cc,
            bcc,
            reply_to: reply_to.map(|mailbox| mailbox.to_string()),
            subject: draft.subject,
            text: draft.text,
            html: draft.html,
        };
        self.budget.charge(self.limits, 1, weight(&mail), 0)?;
        self.staged.push(OutboxItem::Mail(mail));
        Ok(message_id)
    }

    /// Stages a request and returns its `Idempotency-Key`.
    pub(super) fn send_request(&mut self, draft: Draft) -> Result<String, Fault<OutboxError>> {
        let key = http::key(self.delivery, *self.requests + 1);
        let checked = self.plugin_http.check(draft, key.clone(), &Bounds::of(self.limits));
        let request = checked.map_err(|refusal| match refusal {
            Refusal::Denied(why) => OutboxError::Denied(why),
            Refusal::Limit(why) => OutboxError::Limit(why),
            other => OutboxError::Invalid(other.to_string()),
        })?;
        self.budget.charge(self.limits, 1, request.bytes(), 0)?;
        *self.requests += 1;
        self.staged.push(OutboxItem::Request(request));
        Ok(key)
    }

    fn sender(&self, grant: &MailGrant, from: Option<&str>) -> Result<Mailbox, Fault<OutboxError>> {
        let Some(from) = from else {
            let first = grant.from.first().map_or("", String::as_str);
            return mailbox("from", first).map_err(|_| {
                invalid("from", "is missing, and the first address of the grant is none to send from")
            });
        };
        let from = mailbox("from", from)?;
        self.granted("from", &grant.from, &from.email)?;
        Ok(from)
    }

    fn recipients(
        &self,
        grant: &MailGrant,
        field: &str,
        addresses: &[String],
    ) -> Result<Vec<String>, Fault<OutboxError>> {
        let checked = addresses.iter().map(|text| {
            let mailbox = mailbox(field, text)?;
            self.granted("to", &grant.to, &mailbox.email)?;
            Ok(mailbox.to_string())
        });
        checked.collect()
    }

    fn granted(&self, key: &str, patterns: &[String], address: &Address) -> Result<(), OutboxError> {
        if patterns.iter().any(|pattern| allows(pattern, address)) {
            return Ok(());
        }
        let plugin = self.plugin;
        Err(OutboxError::Denied(format!(
            "plugin `{plugin}` has no grant for mail {key} `{address}`; add it to `{key}` of `mail` below \
             [plugin.{plugin}.grants] in config.toml"
        )))
    }
}

/// Whether a pattern of the grant matches the address: `*`, `*@example.com`, or an address. A domain matches in Unicode
/// and in Punycode, since [`mailbox`] has converted that of the address to ASCII.
fn allows(pattern: &str, address: &Address) -> bool {
    if pattern == "*" {
        return true;
    }
    let is_its_domain = |domain: &str| ascii_domain(domain).is_some_and(|ascii| ascii == address.domain());
    if let Some(domain) = pattern.strip_prefix("*@") {
        return is_its_domain(domain);
    }
    pattern
        .parse::<Mailbox>()
        .is_ok_and(|allowed| allowed.email.user() == address.user() && is_its_domain(allowed.email.domain()))
}

/// Parses an address, and converts its domain to ASCII in lower case.
fn mailbox(field: &str, text: &str) -> Result<Mailbox, Fault<OutboxError>> {
    if text.len() > ADDRESS {
        let problem = format!("`{field}` holds an address of {} bytes; {ADDRESS} is the limit", text.len());
        return Err(OutboxError::Limit(problem).into());
    }
    if text.chars().any(char::is_control) {
        return Err(invalid(field, "holds a control character"));
    }
    posthouse_model::mailbox(text).map_err(|_| {
        invalid(field, &format!("holds {text:?}, which is no address; one looks like `ada@example.com`"))
    })
}

fn check_subject(subject: &str) -> Result<(), Fault<OutboxError>> {
    if subject.len() > SUBJECT {
        let problem = format!("`subject` is {} bytes long; {} is the limit", subject.len(), size(SUBJECT));
        return Err(OutboxError::Limit(problem).into());
    }
    if subject.chars().any(char::is_control) {
        return Err(invalid("subject", "holds a control character; it is one line"));
    }
    Ok(())
}

fn invalid(field: &str, problem: &str) -> Fault<OutboxError> {
    OutboxError::Invalid(format!("`{field}` {problem}")).into()
}

/// Bytes that a mail stages.
fn weight(mail: &Mail) -> usize {
    let lists = [&mail.to, &mail.cc, &mail.bcc].into_iter().flatten().map(String::len).sum::<usize>();
    let optional = [&mail.reply_to, &mail.html].into_iter().flatten().map(String::len).sum::<usize>();
    mail.message_id.len() + mail.from.len() + mail.subject.len() + mail.text.len() + lists + optional
}

#[cfg(test)]
mod tests {
    use posthouse_model::{HttpGrant, Secret, WebPattern, config::Http, testing::still};

    use super::*;

    use crate::imports::tests::limits;

    fn send(grant: Option<&MailGrant>, draft: MailDraft) -> Result<Mail, Fault<OutboxError>> {
        let mut staged = Vec::new();
        Outbox {
            plugin: "welcome",
            delivery: DeliveryId(7),
            grant,
            plugin_http: &plugin_http(&[]),
            requests: &mut 0,
            limits: &limits(),
            staged: &mut staged,
            budget: &mut Budget::default(),
        }
        .send_mail(draft)?;
        let Some(OutboxItem::Mail(mail)) = staged.pop() else { panic!("a mail was staged") };
        Ok(mail)
    }

    fn plugin_http(urls: &[&str]) -> std::sync::Arc<PluginHttp> {
        let grant = |url: &&str| HttpGrant {
            url: WebPattern::parse(url).unwrap(),
            addresses: Vec::new(),
            header: [("authorization".to_owned(), Secret::new("hunter2"))].into(),
            sign: Vec::new(),
        };
        let grants: Vec<_> = urls.iter().map(grant).collect();
        let env = still();
        posthouse_egress::Egress::new(&Http::default(), env).unwrap().plugin_http("seats", &grants)
    }

    #[test]
    fn a_staged_request_has_the_number_after_the_last_and_no_secret_of_its_grant() {
        let (mut staged, mut requests) = (Vec::new(), 4);
        let plugin_http = plugin_http(&["https://billing.example/v1"]);
        let mut outbox = Outbox {
            plugin: "seats",
            delivery: DeliveryId(7),
            grant: None,
            plugin_http: &plugin_http,
            requests: &mut requests,
            limits: &limits(),
            staged: &mut staged,
            budget: &mut Budget::default(),
        };
        let draft = |url: &str, header: &str| Draft {
            method: "POST".into(),
            url: url.into(),
            headers: vec![(header.into(), "x".into())],
            body: b"{}".into(),
            deliver: false,
        };
        let ours = "https://billing.example/v1/seats";
        assert_eq!(outbox.send_request(draft(ours, "x-a")).unwrap(), "dlv_7-5");
        for (url, header, says) in [
            ("https://elsewhere.example/v1", "x-a", "no grant for `https://elsewhere.example`"),
            ("https://billing.example/v2", "x-a", "no grant for `https://billing.example/v2`"),
            (ours, "Authorization", "`authorization`, which the grant of `https://billing.example/v1` sets"),
            (ours, "Idempotency-Key", "`idempotency-key`, which the host sets"),
            (ours, "Host", "`host`, which the host sets"),
            (ours, "Transfer-Encoding", "`transfer-encoding`, which the host sets"),
            (ours, "x y", "no name"),
        ] {
            let text = words(outbox.send_request(draft(url, header)));
            assert!(text.contains(says), "{text}");
        }
        assert_eq!(
            outbox.send_request(draft(ours, "x-a")).unwrap(),
            "dlv_7-6",
            "what was refused has no number"
        );
        assert_eq!(staged.len(), 2);
        let stored = serde_json::to_string(&staged).unwrap();
        assert!(!stored.contains("hunter2") && !stored.contains("authorization"), "{stored}");
    }

    fn grant(from: &[&str], to: &[&str]) -> MailGrant {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        MailGrant { from: owned(from), to: owned(to) }
    }

    fn to(address: &str) -> MailDraft {
        MailDraft { to: vec![address.to_owned()], subject: "Hello".into(), ..MailDraft::default() }
    }

    fn problem(result: Result<Mail, Fault<OutboxError>>) -> String {
        words(result)
    }

    fn words<T: std::fmt::Debug>(result: Result<T, Fault<OutboxError>>) -> String {
        match result.unwrap_err() {
            Fault::Answer(
                OutboxError::Denied(text) | OutboxError::Invalid(text) | OutboxError::Limit(text),
            ) => text,
            Fault::Stop(stop) => stop.to_string(),
        }
    }

    #[test]
    fn a_mail_without_a_sender_is_from_the_first_address_granted() {
        let mail = send(Some(&grant(&["Team <team@example.com>"], &["*"])), to("ada@example.org")).unwrap();
        assert!(mail.from.contains("team@example.com"), "{}", mail.from);
        assert_eq!(mail.message_id, "<dlv_7.1@example.com>");
    }

    #[test]
    fn patterns_mean_an_address_a_domain_or_everybody() {
        let cases = [
            ("*", "a@b.example", true),
            ("*@example.com", "a@EXAMPLE.com", true),
            ("*@example.com", "a@sub.example.com", false),
            ("*@example.com", "a@evilexample.com", false),
            ("ada@example.com", "Ada <ada@Example.com>", true),
            ("ada@example.com", "bob@example.com", false),
            ("Ada <ada@example.com>", "ada@example.com", true),
            ("nonsense", "ada@example.com", false),
            ("*@bücher.example", "ada@xn--bcher-kva.example", true),
            ("*@xn--bcher-kva.example", "ada@BÜCHER.example", true),
            ("ada@bücher.example", "ada@XN--bcher-kva.example", true),
            ("ada@bücher.example", "ada@bu\u{308}cher.example", true),
            ("*@bücher.example", "ada@bucher.example", false),
        ];
        for (pattern, address, allowed) in cases {
            let grant = grant(&["team@example.com"], &[pattern]);
            assert_eq!(send(Some(&grant), to(address)).is_ok(), allowed, "{pattern} and {address}");
        }
    }

    #[test]
    fn what_is_not_granted_names_the_line_that_would_allow_it() {
        assert_eq!(
            problem(send(None, to("ada@example.com"))),
            "plugin `welcome` has no grant for mail; add `mail = { from = [\"team@example.com\"], to = \
             [\"*\"] }` below [plugin.welcome.grants] in config.toml"
        );
        let grant = grant(&["team@example.com"], &["*@example.com"]);
        for field in ["to", "cc", "bcc"] {
            let mut draft = to("ada@example.com");
            let list = match field {
                "to" => &mut draft.to,
                "cc" => &mut draft.cc,
                _ => &mut draft.bcc,
            };
            list.push("eve@elsewhere.example".to_owned());
            assert!(
                problem(send(Some(&grant), draft)).contains("no grant for mail to `eve@elsewhere.example`")
            );
        }
        let forged = MailDraft { from: Some("boss@example.com".into()), ..to("ada@example.com") };
        assert!(problem(send(Some(&grant), forged)).contains("no grant for mail from `boss@example.com`"));
    }

    #[test]
    fn no_header_can_hold_a_line_break() {
        let grant = grant(&["team@example.com"], &["*"]);
        let evil = "x\r\nBcc: eve@example.com";
        let drafts = [
            MailDraft { subject: evil.into(), ..to("ada@example.com") },
            MailDraft { from: Some(format!("{evil} <team@example.com>")), ..to("ada@example.com") },
            MailDraft { reply_to: Some(format!("\"{evil}\" <a@example.com>")), ..to("ada@example.com") },
            to(&format!("{evil} <ada@example.com>")),
        ];
        for draft in drafts {
            assert!(problem(send(Some(&grant), draft)).contains("control character"));
        }
    }

    #[test]
    fn a_mail_is_bounded() {
        let grant = grant(&["team@example.com"], &["*"]);
        let many = MailDraft { bcc: vec!["ada@example.com".into(); RECIPIENTS], ..to("ada@example.com") };
        assert!(problem(send(Some(&grant), many)).contains("101 recipients"));
        let long = MailDraft { subject: "x".repeat(SUBJECT + 1), ..to("ada@example.com") };
        assert!(problem(send(Some(&grant), long)).contains("`subject`"));
        let big = MailDraft { text: "x".repeat(limits().staged_bytes), ..to("ada@example.com") };
        assert_eq!(problem(send(Some(&grant), big)), "limit `staged_bytes` (4 MiB) reached");
        assert!(problem(send(Some(&grant), MailDraft::default())).contains("names nobody"));
    }
}
