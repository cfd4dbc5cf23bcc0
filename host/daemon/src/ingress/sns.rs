//! The text that Amazon SNS signs: some members of the body, each as its name and its value, a line each.
//!
//! Format: <https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message-verify-message-signature.html>.
//! Only the message itself may have several lines here. So a reader that begins at the end of the text finds one border
//! of each member, and nothing of a message can pass for another member, such as the topic.

use std::sync::Arc;

use posthouse_model::json;

use super::{members::Found, refusal::Refusal};

/// The members of a body that may be signed. `Type` says which of them are.
pub(super) const MEMBERS: [&str; 8] =
    ["Message", "MessageId", "Subject", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"];

/// Hands out the signed text. `numbers` are those of [`MEMBERS`] in `found`.
///
/// # Errors
/// [`Refusal`] names the member that is missing, is no text, or has a line break.
pub(super) fn compose(
    found: Option<&Found<'_>>,
    numbers: &[usize; MEMBERS.len()],
    sink: &mut dyn FnMut(&[u8]),
) -> Result<(), Refusal> {
    let named = |name: &str| Arc::<str>::from(format!("json:/{name}"));
    let member = |name: &str| {
        let number = MEMBERS.iter().position(|of| *of == name).map(|index| numbers[index])?;
        found?.json(number).filter(|json| *json != "null")
    };
    let text = |name: &str| {
        let json = member(name).ok_or_else(|| Refusal::Missing(named(name)))?;
        json::string(json).ok_or_else(|| Refusal::Unreadable(named(name)))
    };
    let signed: &[&str] = match &*text("Type")? {
        "Notification" if member("Subject").is_some() => {
            &["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"]
        }
        "Notification" => &["Message", "MessageId", "Timestamp", "TopicArn", "Type"],
        "SubscriptionConfirmation" | "UnsubscribeConfirmation" => {
            &["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
        }
        _ => return Err(Refusal::Unmet(named("Type"))),
    };
    for name in signed {
        let value = text(name)?;
        if *name != "Message" && value.contains('\n') {
            return Err(Refusal::BadId(named(name)));
        }
        for line in [*name, &*value] {
            sink(line.as_bytes());
            sink(b"\n");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use posthouse_model::config::{Scheme, Secret, Source};
    use serde_json::{Value, json};

    use super::*;

    use crate::ingress::{Verifier, fixtures, members::Wanted, published::PublishedKey};

    /// Of tests/data/rsa-test-key.pem, which has made the two signatures with another program.
    const CERTIFICATE: &[u8] = include_bytes!("../../../../tests/data/rsa-test-certificate.pem");
    const SHA1: &str = "r751ZVw4hqYgj6Itf+n9XDdHbWFpuCS6Nk58S+qmBlGQCmuME+gzSy/aX7ziZEqzRtDjSoykxLSgr2ETNcu+kwRphGL1Oah8YpduZDpVeLDm3gBgc9B39CD56Muq5Mt+Um9Qgj0URacxd8teAnbOzBYIKvyYgvIcuh6aklsNiTsd7kqwYWpS5QbjH/ukppf606aQ7rqaYJcVI09vxCu39HBK7b+bgrBc3jCOZyVsY5P9a/omqO1gjWkilETlRs6UPZaB2wJY4E3fpvLtxCdy0Au8aagAu+AaQogblsn3VSWXrLKZ3M31ImQ6QjWAnwe4VCPMXjYZktZCSouRItMIXw==";
    const SHA256: &str = "Gh26dtTL4QXwBKAQ4Cid/Sq/PWNB1R7uTgYqzNigFu6XvdFXOuHvePYnEzE3RmfvKVSUrOHjzIuGz3SxkFb95zx7wyshhDdxeeqDfg/WssNsbyT4F34m1dNI/9zxgH4jc4iui5oV5ttpazmG/hS7F64kxaiNznpXUwfAQhbNqFpxHHgub4iaWRzgvzDKhk3Y6QQ6f2l/SuFk8HKXrqqdccqqWV79/qWkanrVTV4XgMgz1kdOs6vnIWcp5nFt4gEoMJc6dNoJPFRh2P8fLFOVZl4xqPSI03EEzLetkhjocvmU3tPYFQm1FpUU7QlbvowvQ2NTNMBbLonRiHI8kzZU+g==";

    fn message(version: &str, signature: &str) -> Value {
        json!({
            "Type": "Notification",
            "MessageId": "m-1",
            "TopicArn": "arn:aws:sns:eu-north-1:1:coaches",
            "Message": "hello",
            "Timestamp": "2026-01-23T08:58:07.250Z",
            "SignatureVersion": version,
            "Signature": signature,
            "SigningCertURL": "https://sns.eu-north-1.amazonaws.com/SimpleNotificationService-0f.pem",
        })
    }

    fn composed(message: &Value) -> Result<String, &'static str> {
        let mut wanted = Wanted::default();
        let numbers = MEMBERS.map(|name| wanted.add(&[name.to_owned()]));
        let body = message.to_string();
        let found = wanted.read(&body).unwrap();
        let mut text = Vec::new();
        compose(Some(&found), &numbers, &mut |piece| text.extend_from_slice(piece))
            .map_err(|refusal| refusal.label())?;
        Ok(String::from_utf8(text).unwrap())
    }

    #[test]
    fn a_scheme_takes_the_hash_that_it_names_and_no_other() {
        let now = Timestamp::from_second(1_780_000_000).unwrap();
        let valid = |scheme: &str, version: &str, signature: &str| {
            let source = Source {
                scheme: Scheme::named(scheme).unwrap(),
                secrets: vec![Secret::new("arn:aws:sns:eu-north-1:1:coaches")],
                ..fixtures::source("standard-webhooks")
            };
            let request = fixtures::request(&[], message(version, signature).to_string().as_bytes());
            let der = posthouse_egress::first_certificate(CERTIFICATE).unwrap();
            let key = |_: &_| PublishedKey::of_certificate(&der).ok();
            Verifier::new(&source).unwrap().verify_with(&request, now, &key).is_ok()
        };
        assert!(valid("sns", "2", SHA256) && valid("sns-sha1", "1", SHA1));
        for (scheme, version, signature) in [
            ("sns", "1", SHA1),
            ("sns", "2", SHA1),
            ("sns", "1", SHA256),
            ("sns-sha1", "2", SHA256),
            ("sns-sha1", "1", SHA256),
            ("sns-sha1", "2", SHA1),
        ] {
            assert!(!valid(scheme, version, signature), "{scheme} {version}");
        }
    }

    #[test]
    fn nothing_of_a_message_passes_for_another_member() {
        let good = message("2", SHA256);
        let text = "Message\nhello\nMessageId\nm-1\nTimestamp\n2026-01-23T08:58:07.250Z\nTopicArn\n\
                    arn:aws:sns:eu-north-1:1:coaches\nType\nNotification\n";
        assert_eq!(composed(&good).unwrap(), text);
        let with = |name: &str, value: Value| {
            let mut message = good.clone();
            message[name] = value;
            composed(&message)
        };
        assert_eq!(with("Subject", Value::Null).unwrap(), text);
        assert_eq!(
            with("Subject", json!("")).unwrap(),
            text.replace("Timestamp\n", "Subject\n\nTimestamp\n")
        );
        assert_eq!(with("Message", json!("a\nb")).unwrap(), text.replace("hello", "a\nb"));
        for name in ["MessageId", "Subject", "Timestamp", "TopicArn"] {
            assert_eq!(with(name, json!("a\nTopicArn\nb")), Err("bad-id"), "{name}");
        }
        assert_eq!(with("Type", json!("Notification\n")), Err("requirement-unmet"));
        assert_eq!(with("Type", json!("Other")), Err("requirement-unmet"));
        assert_eq!(with("Type", json!("SubscriptionConfirmation")), Err("missing-header"));
        assert_eq!(with("MessageId", Value::Null), Err("missing-header"));
        assert_eq!(with("MessageId", json!(7)), Err("body-not-json"));
    }
}
