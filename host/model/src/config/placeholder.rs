//! Detects texts that are not the secret that the operator meant.
//!
//! Most are placeholders that a deployment did not fill in (`${SECRET}`), or examples (`your-secret-here`).
//! Others have extra text around the secret: quotes, `v1,`, `NAME=`, a carriage return. With such a secret real
//! requests fail, and a request that is signed with the placeholder passes.
//!
//! If a text cannot be meant, posthouse refuses it. If it can, such as the password `changeme`, posthouse
//! warns. A message never contains the text itself.

use base64::{Engine as _, engine::general_purpose::STANDARD};

/// The purpose of a secret. It decides which texts are certainly wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// A sender signs with it.
    Signing,
    /// The operator logs in with it.
    Token,
    /// A URL with a login.
    Url,
    /// The value of a header.
    Header,
    /// A value of a plugin's own table, which may be any text.
    Own,
}

impl Role {
    /// The purpose of the secret at this key.
    pub(super) fn of(key: &str) -> Self {
        match key.split('.').next() {
            Some("source") if !key.contains(".catch_up.") => Self::Signing,
            Some("interceptor") => Self::Signing,
            Some("admin") => Self::Token,
            Some("mail" | "databases") => Self::Url,
            Some("plugin") if !key.contains(".grants.") => Self::Own,
            Some("plugin") if key.ends_with(".http.sign") => Self::Signing,
            _ => Self::Header,
        }
    }
}

/// Why a text cannot be meant as a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotASecret {
    /// Only white space.
    #[error("is empty but for white space; write the secret, or where it is: {{ env = \"NAME\" }}")]
    Blank,
    /// A byte order mark at the beginning.
    #[error("begins with a byte order mark; save the file as UTF-8 without one")]
    Mark,
    /// White space at the beginning or end.
    #[error(
        "begins or ends with white space; take it away (a carriage return comes of a file with Windows line ends)"
    )]
    Space,
    /// A line break, a control character, or an invisible one.
    #[error("holds a character that can't be seen (U+{0:04X}); copy it again without that")]
    Unseen(u32),
    /// A placeholder that the deployment did not fill in.
    #[error(
        "holds a placeholder (`{0}`) that nothing has filled in; write the secret, or {{ env = \"NAME\" }}"
    )]
    Template(&'static str),
    /// A reference to a secret store.
    #[error(
        "is a reference to a secret elsewhere (`{0}…`), which posthouse does not follow; use {{ file = \"PATH\" }}"
    )]
    Reference(&'static str),
    /// Quotes around the text.
    #[error("is in quotes, which would be part of it; take them away")]
    Quoted,
    /// A label that some pages show before the secret.
    #[error("begins with `{0}`, which belongs to a signature; let it begin with `whsec_` or `whpk_`")]
    Labelled(&'static str),
    /// A line of an environment file.
    #[error("is a whole line `NAME=…`; keep what comes after the `=`")]
    Assignment,
    /// The name of its variable or file, or of some other variable.
    #[error("is the name of a variable or file, not what that contains")]
    Name,
    /// Several secrets.
    #[error("holds more than one secret; write each as a separate entry: [\"…\", \"…\"]")]
    Several,
    /// Another kind of text.
    #[error("is {0}, not a secret; copy the signing secret from the sender's page")]
    Kind(&'static str),
    /// A word from an example.
    #[error("is a placeholder that anybody can guess; copy the secret from where it was made")]
    Word,
    /// A masked text, as pages show a secret.
    #[error("is masked, as pages show a secret (`****` or `…`); have the page reveal it, and copy that")]
    Masked,
    /// One character or byte, repeated.
    #[error(
        "is one character or byte over and over, which anybody can guess; copy the secret from where it was made"
    )]
    Same,
}

impl NotASecret {
    /// Whether the finding is certain for a secret of this purpose.
    pub(super) fn is_certain(self, role: Role) -> bool {
        match role {
            Role::Signing | Role::Token => true,
            Role::Url | Role::Header => !matches!(self, Self::Word | Self::Same | Self::Name),
            Role::Own => false,
        }
    }
}

/// Why this text cannot be meant as a signing secret.
pub fn not_a_secret(secret: &str) -> Option<NotASecret> {
    found(secret, Role::Signing, None)
}

/// Why this text cannot be meant as a secret for this purpose. `name` is its variable or file.
pub(super) fn found(text: &str, role: Role, name: Option<&str>) -> Option<NotASecret> {
    if text.is_empty() {
        return None;
    }
    let bare = bare(text);
    if role == Role::Own {
        // The value may be any text, such as a template.
        let mark = text.starts_with('\u{feff}').then_some(NotASecret::Mark);
        let named = name.is_some_and(|name| name == text).then_some(NotASecret::Name);
        return mark.or(named).or_else(|| whole_template(text).map(NotASecret::Template));
    }
    let kind = (role == Role::Signing).then(|| other_kind(text.trim())).flatten();
    kind.or_else(|| around(text, role))
        .or_else(|| name.filter(|name| text.eq_ignore_ascii_case(name)).map(|_| NotASecret::Name))
        .or_else(|| template(text, bare, role))
        .or_else(|| match role {
            Role::Url => password(text).and_then(|password| guessed(password, role)),
            // The key ring checks the point of a public key.
            _ => guessed(bare, role).filter(|told| *told != NotASecret::Same || !text.starts_with("whpk_")),
        })
}

/// The text without the usual prefixes of a secret.
fn bare(text: &str) -> &str {
    ["whsec_", "whpk_", "Bearer ", "bearer ", "Basic ", "Token ", "token "]
        .iter()
        .find_map(|prefix| text.strip_prefix(prefix))
        .unwrap_or(text)
}

/// Finds text around a secret that is not part of it.
fn around(text: &str, role: Role) -> Option<NotASecret> {
    if text.trim().is_empty() {
        return Some(NotASecret::Blank);
    }
    if text.starts_with('\u{feff}') {
        return Some(NotASecret::Mark);
    }
    if text.trim() != text {
        return Some(NotASecret::Space);
    }
    let unseen = |letter: char| {
        letter.is_control()
            || matches!(letter, '\u{a0}' | '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2064}' | '\u{feff}')
    };
    if let Some(letter) = text.chars().find(|letter| unseen(*letter)) {
        return Some(NotASecret::Unseen(u32::from(letter)));
    }
    let quoted = [('\'', '\''), ('"', '"'), ('`', '`'), ('“', '”'), ('‘', '’'), ('«', '»')];
    let is_quoted = |text: &str| {
        let mut letters = text.chars();
        letters.next().zip(letters.next_back()).is_some_and(|ends| quoted.contains(&ends))
    };
    if is_quoted(text) || is_quoted(bare(text)) {
        return Some(NotASecret::Quoted);
    }
    for label in ["v1,", "v1a,", "v1="] {
        if role == Role::Signing && text.starts_with(label) {
            return Some(NotASecret::Labelled(label));
        }
    }
    let (name, rest) = text.strip_prefix("export ").unwrap_or(text).split_once('=')?;
    (is_variable(name.trim_end()) && !rest.is_empty() && !rest.starts_with('='))
        .then_some(NotASecret::Assignment)
}

/// Whether the text is a name as environment variables have it: capitals, digits and `_`.
fn is_variable(text: &str) -> bool {
    let mut letters = text.chars();
    letters.next().is_some_and(|first| first.is_ascii_uppercase() || first == '_')
        && text.len() > 1
        && letters.all(|letter| letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == '_')
}

/// Finds a template, or a reference that another program would resolve.
fn template(text: &str, bare: &str, role: Role) -> Option<NotASecret> {
    const REFERENCES: [&str; 11] = [
        "op://",
        "vault:",
        "vault://",
        "arn:aws:secretsmanager:",
        "arn:aws:ssm:",
        "awssm://",
        "gcpsm://",
        "secretref:",
        "ENC[",
        "env:",
        "file:",
    ];
    if between(text, "${", "}")
        .is_some_and(|name| name.starts_with(|first: char| first.is_alphabetic() || first == '_'))
    {
        return Some(NotASecret::Template("${…}"));
    }
    if between(text, "{{", "}}").is_some() {
        return Some(NotASecret::Template("{{…}}"));
    }
    if role == Role::Url {
        let password = password(text)?;
        let documented = text.contains("://USER:PASSWORD@").then_some("USER:PASSWORD");
        return whole_template(password).or(documented).map(NotASecret::Template);
    }
    let reference = REFERENCES.into_iter().find(|start| text.starts_with(start)).map(NotASecret::Reference);
    reference.or_else(|| whole_template(text).or_else(|| whole_template(bare)).map(NotASecret::Template))
}

/// The form of a placeholder that is the whole text.
fn whole_template(text: &str) -> Option<&'static str> {
    let within = |start: &str, end: &str| {
        let within = text.strip_prefix(start)?.strip_suffix(end)?;
        (!within.is_empty() && !within.contains(['<', '>', '{', '}', '[', ']'])).then_some(within)
    };
    let words = |text: &str| text.chars().all(|letter| letter.is_alphanumeric() || " _-.:".contains(letter));
    if within("${", "}").is_some() {
        Some("${…}")
    } else if text.starts_with("{{") && text.ends_with("}}") {
        Some("{{…}}")
    } else if within("$(", ")").is_some() {
        Some("$(…)")
    } else if text
        .strip_prefix('$')
        .is_some_and(|name| is_variable(name.strip_prefix("env:").unwrap_or(name)))
    {
        Some("$…")
    } else if within("%", "%").is_some_and(words) {
        Some("%…%")
    } else if within("<", ">").is_some() {
        Some("<…>")
    } else if within("#{", "}").is_some() {
        Some("#{…}")
    } else if within("{", "}").is_some_and(words) {
        Some("{…}")
    } else if within("[", "]").is_some_and(words) {
        Some("[…]")
    } else if within("@", "@").is_some_and(is_variable) {
        Some("@…@")
    } else if within("__", "__").is_some_and(is_variable) {
        Some("__…__")
    } else {
        None
    }
}

/// The text between the first `start` and the next `end`.
fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(start)?;
    let (within, _) = rest.split_once(end)?;
    (!within.is_empty()).then_some(within)
}

/// The password of a URL, not decoded.
fn password(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    // A placeholder such as `<a/b>` may contain a character that ends an authority.
    let (login, _) = authority.rsplit_once('@').or_else(|| rest.rsplit_once('@'))?;
    login.split_once(':').map(|(_, password)| password)
}

/// Finds texts of another kind, which no sender signs with.
fn other_kind(text: &str) -> Option<NotASecret> {
    if text.match_indices("whsec_").count() + text.match_indices("whpk_").count() > 1 {
        return Some(NotASecret::Several);
    }
    let kind = if text.starts_with("-----BEGIN ") {
        "a key or certificate in PEM"
    } else if text.starts_with("ssh-") || text.starts_with("ecdsa-sha2-") {
        "a key of SSH"
    } else if text.starts_with("https://") || text.starts_with("http://") {
        "a URL"
    } else if text.starts_with('{') && text.ends_with('}') && text.contains('"') {
        "JSON"
    } else {
        return None;
    };
    Some(NotASecret::Kind(kind))
}

/// Finds texts that are easy to guess.
fn guessed(text: &str, role: Role) -> Option<NotASecret> {
    const WORDS: &[&str] = &[
        "abc123",
        "api key",
        "apikey",
        "bar",
        "change it",
        "change me",
        "change this",
        "changeit",
        "changeme",
        "changethis",
        "default",
        "demo",
        "dummy",
        "example",
        "fixme",
        "foo",
        "foobar",
        "hidden",
        "insecure",
        "key",
        "my secret",
        "mysecret",
        "nil",
        "none",
        "null",
        "passwd",
        "password",
        "placeholder",
        "qwerty",
        "redacted",
        "replace me",
        "replace this",
        "replaceme",
        "sample",
        "secret",
        "secret key",
        "secretkey",
        "signing secret",
        "supersecret",
        "tbd",
        "test",
        "test secret",
        "testing",
        "testsecret",
        "the secret",
        "todo",
        "token",
        "undefined",
        "unset",
        "webhook secret",
        "webhook signing secret",
        "whsec",
        "your secret",
        "yoursecret",
    ];
    const MARKS: &[&str] = &[
        "add",
        "change",
        "copy",
        "dummy",
        "enter",
        "example",
        "fill",
        "here",
        "insert",
        "my",
        "paste",
        "placeholder",
        "put",
        "replace",
        "sample",
        "set",
        "your",
    ];
    const THINGS: &[&str] = &["key", "password", "secret", "token", "value", "whsec"];
    let masks = text.chars().filter(|letter| "*•●…".contains(*letter)).count();
    if masks * 2 > text.chars().count() || text.ends_with("...") || text.ends_with('…') {
        return Some(NotASecret::Masked);
    }
    let lower = text.to_lowercase();
    let words: Vec<_> =
        lower.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let letters: Vec<_> = words.iter().flat_map(|word| word.chars()).collect();
    if let Some(first) = letters.first()
        && (letters.len() > 7 || letters.len() > 2 && "01ax".contains(*first))
        && letters.iter().all(|letter| letter == first)
    {
        return Some(NotASecret::Same);
    }
    let joined = words.join(" ");
    let is_word = WORDS.contains(&joined.trim_end_matches(|letter: char| letter.is_ascii_digit()).trim_end());
    let has = |of: &[&str]| words.iter().any(|word| of.contains(word));
    let is_sentence = words.len() > 1 && has(MARKS) && has(THINGS);
    if is_word
        || WORDS.contains(&&*joined)
        || is_sentence
        || "01234567890123456789".contains(&*joined) && !joined.is_empty()
    {
        return Some(NotASecret::Word);
    }
    if role != Role::Url && is_variable(text) && text.contains('_') && has(THINGS) {
        return Some(NotASecret::Name);
    }
    let key = (role == Role::Signing).then(|| STANDARD.decode(text).ok()).flatten()?;
    let first = key.first()?;
    (key.len() > 2 && key.iter().all(|byte| byte == first)).then_some(NotASecret::Same)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_meant_to_sign_with_is_told() {
        for secret in [
            " ",
            "\u{feff}whsec_AAEC",
            "whsec_AAEC\r",
            "whsec_AAEC\n",
            " whsec_AAEC",
            "whsec_AAEC\u{a0}",
            "wh\u{200b}sec_AAEC",
            "whsec_AA\nEC",
            "${SCALEKIT_WEBHOOK_SECRET}",
            "${SECRET:-}",
            "whsec_${SECRET}",
            "a${SECRET}b",
            "$SCALEKIT_SECRET",
            "whsec_$SECRET",
            "$env:SECRET",
            "%SECRET%",
            "{{secret}}",
            "{{ .Values.secret }}",
            "{secret}",
            "<secret>",
            "<your secret>",
            "whsec_<secret>",
            "[your-secret]",
            "#{SECRET}",
            "@SECRET@",
            "__SECRET__",
            "$(cat secret)",
            "'whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8='",
            "\"whsec_AAEC\"",
            "`x y z`",
            "“whsec_AAEC”",
            "whsec_\"AAEC\"",
            "v1,whsec_AAEC",
            "v1a,whpk_AAEC",
            "v1=ab",
            "SECRET=whsec_AAEC",
            "export WEBHOOK_SECRET=\"whsec_AAEC\"",
            "op://vault/item/field",
            "vault:secret/data/x#y",
            "arn:aws:secretsmanager:eu:1:secret:x",
            "ENC[AES256_GCM,data:x]",
            "whsec_AAEC whsec_BBBB",
            "whsec_AAEC,whsec_BBBB",
            "-----BEGIN PUBLIC KEY----- AAEC",
            "ssh-ed25519 AAAA x",
            "https://example.com/webhooks",
            "{\"secret\":\"x\"}",
            "your-secret-here",
            "YOUR_SECRET_HERE",
            "whsec_your_secret_here",
            "changeme",
            "ChangeMe!",
            "change-me",
            "xxx",
            "xxxxxxxx",
            "XXXX-XXXX",
            "whsec_xxxxxxxxxxxxxxxx",
            "00000000",
            "todo",
            "my-secret",
            "my_webhook_secret",
            "secret",
            "secret123",
            "password1",
            "insert secret here",
            "<>",
            "replace-me",
            "paste your signing secret here",
            "********",
            "whsec_****************",
            "whsec_abcd...",
            "whsec_…",
            "••••••••",
            "SCALEKIT_WEBHOOK_SECRET",
            "1234567890",
            "123456",
            "undefined",
            "null",
            "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
            "//////////////////////////////////////////8=",
        ] {
            let expected = secret != "<>";
            assert_eq!(not_a_secret(secret).is_some(), expected, "{secret:?}: {:?}", not_a_secret(secret));
            if let Some(told) = not_a_secret(secret).map(|told| told.to_string()) {
                assert!(secret.len() < 12 || !told.contains(secret), "{told}");
            }
        }
    }

    #[test]
    fn what_may_be_a_secret_is_left_alone() {
        for secret in [
            "",
            crate::config::DEMO_SECRET,
            "whsec_",
            "whsec_AAEC",
            "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
            "whsec_seedSecretTakenLiterally",
            "whpk_A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=",
            "taken as it stands",
            "any text at all!",
            "correct horse battery staple",
            "not base64!",
            "qdocumentedsecretq",
            "skt_9f8e7d6c5b4a",
            "a$b%c<d>e",
            "pa$$word-of-mine-7f3a",
            "p{2}q}",
            "it's",
            "\"",
            "x=y",
            "A1B2C3D4E5F6==",
            "7f3a9c4e1b",
            "$2y$10$abc",
            "GOCSPX-abc_DEF",
            "sk_live_51H",
            "SG.abc.def",
            "xoxb-1234-5678-abcd",
            "100%sure%",
            "ABCD_EFGH_1234",
            // A topic of SNS and a webhook of PayPal, which are no secrets.
            "arn:aws:sns:eu-north-1:845178247138:coaches",
            "MDVCEJCNP36DJAEKS",
        ] {
            assert_eq!(not_a_secret(secret), None, "{secret}");
        }
    }

    #[test]
    fn a_login_is_judged_by_its_password_and_a_header_by_what_follows_its_scheme() {
        let certain = |role, text: &str| found(text, role, None).map(|told| told.is_certain(role));
        for (role, text, expected) in [
            (Role::Url, "postgres://app:${PASSWORD}@host/app", Some(true)),
            (Role::Url, "postgres://app:$PASSWORD@host/app", Some(true)),
            (Role::Url, "postgres://app:%PASSWORD%@host/app", Some(true)),
            (Role::Url, "postgres://app:<password>@host/app", Some(true)),
            (Role::Url, "postgres://app:{{ password }}@host/app", Some(true)),
            (Role::Url, "postgres://USER:PASSWORD@HOST/NAME", Some(true)),
            (Role::Url, "'postgres://app:x7f@host/app'", Some(true)),
            (Role::Url, "postgres://app:x7f@host/app\r", Some(true)),
            (Role::Url, "smtps://app:changeme@mail.example.com", Some(false)),
            (Role::Url, "smtps://app:your-password@mail.example.com", Some(false)),
            (Role::Url, "smtp://user:p%40ss%3Cx%3E@127.0.0.1:2525?tls=required", None),
            (Role::Url, "postgres://app@host/app?sslmode=disable", None),
            (Role::Header, "Bearer ${TOKEN}", Some(true)),
            (Role::Header, "Bearer $TOKEN", Some(true)),
            (Role::Header, "Bearer <token>", Some(true)),
            (Role::Header, "Bearer \"abc\"", Some(true)),
            (Role::Header, "Bearer your-token", Some(false)),
            (Role::Header, "Bearer eyJhbGciOi.JIUzI1NiJ9.x-y_z", None),
            (Role::Header, "application/json; charset=\"utf-8\"", None),
            (Role::Token, "changeme", Some(true)),
            (Role::Token, "${ADMIN_TOKEN}", Some(true)),
            (Role::Token, "t", None),
            (Role::Own, "${API_KEY}", Some(false)),
            (Role::Own, "Dear {{name}}, welcome", None),
            (Role::Own, "changeme\n", None),
        ] {
            assert_eq!(certain(role, text), expected, "{text}");
        }
        for (key, role) in [
            ("source.secrets", Role::Signing),
            ("admin.token", Role::Token),
            ("mail.url", Role::Url),
            ("databases.app.url", Role::Url),
            ("plugin.x.grants.http.header.Authorization", Role::Header),
            ("telemetry.header.x-token", Role::Header),
            ("plugin.x.config.key", Role::Own),
        ] {
            assert_eq!(Role::of(key), role, "{key}");
        }
        assert_eq!(found("api_token", Role::Header, Some("API_TOKEN")), Some(NotASecret::Name));
    }
}
