//! The secrets of a source, parsed into keys once when config.toml is read.
//!
//! A `whpk_` text is a public key and is never used as a shared secret: public keys are public, so anyone could
//! sign. An empty secret or a placeholder is refused for the same reason.

use std::{fmt, sync::Arc};

use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use ed25519_dalek::VerifyingKey;
use hmac::{Hmac, KeyInit};
use posthouse_model::{SourceName, config};
use sha2::Sha256;

use super::scheme::{self, Scheme, SecretText};

/// An HMAC-SHA256 with its key; each use begins with a clone.
pub(super) type KeyedHmac = Hmac<Sha256>;

/// The prefix of a shared key on a sender's page.
const SHARED: &str = "whsec_";
/// The prefix of the public half of a key pair.
const PUBLIC: &str = "whpk_";
/// The prefix of the private half, which stays with the sender.
const PRIVATE: &str = "whsk_";

/// Decodes keys as senders' libraries do: with or without padding, and with any trailing bits.
const KEY_BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// A secret that cannot be used. The error never shows the secret itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyError {
    /// The source of the secret.
    owner: SourceName,
    /// The position among its secrets, from 1.
    number: usize,
    /// The position in config.toml.
    place: Option<Arc<str>>,
    problem: KeyProblem,
}

impl KeyError {
    /// The problem, without the position in config.toml.
    pub(super) fn problem(&self) -> String {
        let Self { owner, number, problem, .. } = self;
        format!("secret {number} of source `{owner}` {problem}")
    }

    /// The position of the secret, such as `config.toml:69:12`.
    pub(super) fn place(&self) -> Option<&str> {
        self.place.as_deref()
    }
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        f.write_str(&self.problem())
    }
}

impl std::error::Error for KeyError {}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum KeyProblem {
    #[error("is empty; copy the signing secret from the sender's page")]
    Empty,
    #[error("is not base64 after its prefix; copy the signing secret whole from the sender's page")]
    Damaged,
    #[error(
        "is base64 of the kind for URLs after its prefix; write `+` for each `-` and `/` for each `_`, which means \
         the same key"
    )]
    ForUrls,
    #[error("{0}")]
    Unmeant(config::Unmeant),
    #[error("is not base64, as scheme `{0}` wants it; copy the signing secret with its `whsec_`")]
    NotForScheme(&'static str),
    #[error("is not a public key of ed25519; copy it whole, `whpk_` included, from the sender's page")]
    NotAPoint,
    #[error("is a public key (`whpk_`), and scheme `{0}` signs with a shared secret")]
    PublicForScheme(&'static str),
    #[error("is a private key (`whsk_`), which only the sender may have; put the `whpk_` one here")]
    Private,
}

impl KeyProblem {
    /// Whether another scheme of the same source may still accept the secret.
    fn is_of_scheme(self) -> bool {
        matches!(self, Self::NotForScheme(_) | Self::PublicForScheme(_))
    }
}

/// The keys with which one scheme verifies.
pub(super) struct Keyring {
    pub(super) scheme: &'static Scheme,
    pub(super) shared: Vec<KeyedHmac>,
    pub(super) public: Vec<VerifyingKey>,
}

impl Keyring {
    /// A keyring for each scheme that the source accepts. With several schemes, a secret is a key in each
    /// scheme that can parse it.
    pub(super) fn all(source: &config::Source) -> Result<Vec<Self>, KeyError> {
        let rows = scheme::rows(source.scheme);
        let mut keyrings: Vec<_> =
            rows.iter().map(|scheme| Self { scheme, shared: Vec::new(), public: Vec::new() }).collect();
        for (index, secret) in source.secrets.iter().enumerate() {
            let error = |problem| KeyError {
                owner: source.name.clone(),
                number: index + 1,
                place: secret.place().cloned(),
                problem,
            };
            let mut unfit = None;
            let mut fits = false;
            for keyring in &mut keyrings {
                match Key::parse(secret.expose(), keyring.scheme) {
                    Ok(Key::Shared(key)) => keyring.shared.push(key),
                    Ok(Key::Public(key)) => keyring.public.push(key),
                    Err(problem) if problem.is_of_scheme() => {
                        unfit = Some(problem);
                        continue;
                    }
                    Err(problem) => return Err(error(problem)),
                }
                fits = true;
            }
            match unfit {
                Some(problem) if !fits => return Err(error(problem)),
                _ => {}
            }
        }
        Ok(keyrings)
    }

    /// The same, but each secret is read as its scheme does not: as literal text instead of base64, and the
    /// other way round. This only serves to explain a sender's mistake.
    pub(super) fn all_misread(source: &config::Source) -> Vec<Self> {
        let texts =
            || source.secrets.iter().map(config::Secret::expose).filter(|text| !text.starts_with(PUBLIC));
        let misread = |scheme: &Scheme, text: &str| {
            let bare = text.strip_prefix(SHARED).unwrap_or(text);
            match scheme.secret {
                SecretText::Base64 => vec![text.as_bytes().to_vec(), bare.as_bytes().to_vec()],
                SecretText::Literal => {
                    KEY_BASE64.decode(bare).into_iter().chain([bare.as_bytes().to_vec()]).collect()
                }
            }
        };
        let keyring = |scheme: &&'static Scheme| Self {
            scheme,
            shared: texts()
                .flat_map(|text| misread(scheme, text))
                .filter_map(|key| KeyedHmac::new_from_slice(&key).ok())
                .collect(),
            public: Vec::new(),
        };
        scheme::rows(source.scheme).iter().map(keyring).collect()
    }
}

/// A secret, parsed.
pub(super) enum Key {
    Shared(KeyedHmac),
    Public(VerifyingKey),
}

impl Key {
    fn parse(text: &str, scheme: &Scheme) -> Result<Self, KeyProblem> {
        let literal = scheme.secret == SecretText::Literal;
        if text.trim().is_empty() || text == SHARED {
            return Err(KeyProblem::Empty);
        }
        if let Some(unmeant) = config::unmeant(text) {
            return Err(KeyProblem::Unmeant(unmeant));
        }
        if let Some(public) = text.strip_prefix(PUBLIC) {
            return if literal {
                Err(KeyProblem::PublicForScheme(scheme.name))
            } else {
                Self::public(public)
            };
        }
        if literal {
            return Self::shared(text.as_bytes());
        }
        if text.starts_with(PRIVATE) {
            return Err(KeyProblem::Private);
        }
        match text.strip_prefix(SHARED) {
            Some(rest) => Self::shared(&KEY_BASE64.decode(rest).map_err(|_| damage(rest))?),
            None => {
                Self::shared(&KEY_BASE64.decode(text).map_err(|_| KeyProblem::NotForScheme(scheme.name))?)
            }
        }
    }

    fn shared(key: &[u8]) -> Result<Self, KeyProblem> {
        match KeyedHmac::new_from_slice(key) {
            Ok(hmac) if !key.is_empty() => Ok(Self::Shared(hmac)),
            _ => Err(KeyProblem::Empty),
        }
    }

    fn public(text: &str) -> Result<Self, KeyProblem> {
        let bytes = KEY_BASE64.decode(text).map_err(|_| damage(text))?;
        let bytes = bytes.try_into().map_err(|_| KeyProblem::NotAPoint)?;
        VerifyingKey::from_bytes(&bytes)
            .ok()
            .filter(|key| !key.is_weak())
            .map(Self::Public)
            .ok_or(KeyProblem::NotAPoint)
    }
}

/// The problem of a text that is not base64.
fn damage(text: &str) -> KeyProblem {
    match KEY_BASE64.decode(text.replace('-', "+").replace('_', "/")) {
        Ok(_) => KeyProblem::ForUrls,
        Err(_) => KeyProblem::Damaged,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use base64::engine::general_purpose::STANDARD as BASE64;
    use posthouse_model::config::{SchemeName, Secret};

    use super::*;

    fn keyrings(scheme: SchemeName, secrets: &[&str]) -> Result<Vec<Keyring>, String> {
        let source = config::Source {
            name: SourceName::new("crm").unwrap(),
            path: "/webhooks/crm".into(),
            scheme,
            secrets: secrets.iter().copied().map(Secret::new).collect(),
            tolerance: Duration::from_secs(300),
            events: vec![],
            redact: Default::default(),
            respond: config::Respond::Accepted,
            rate: None,
        };
        Keyring::all(&source).map_err(|error| error.to_string())
    }

    fn refused(scheme: SchemeName, secret: &str) -> String {
        let error = keyrings(scheme, &["whsec_AAEC", secret]).err().expect("the secret is refused");
        assert!(error.contains("secret 2 of source `crm`"), "{error}");
        assert!(secret.len() < 8 || !error.contains(secret), "{error}");
        error
    }

    #[test]
    fn an_empty_key_is_refused_in_every_scheme() {
        for scheme in [SchemeName::StandardWebhooks, SchemeName::ScalekitDocumented, SchemeName::Scalekit] {
            for secret in ["", "whsec_", " "] {
                assert!(refused(scheme, secret).contains("is empty"), "{secret:?}");
            }
        }
        assert!(refused(SchemeName::StandardWebhooks, "whsec_====").contains("base64"));
    }

    #[test]
    fn damaged_secrets_are_refused_and_not_shown() {
        for secret in ["whsec_not base64!", "whpk_not base64!", "whsec_AAECAwQFBgcI*"] {
            assert!(refused(SchemeName::StandardWebhooks, secret).contains("is not base64"), "{secret}");
            if !secret.starts_with("whpk") {
                assert!(refused(SchemeName::Scalekit, secret).contains("is not base64"), "{secret}");
            }
        }
        assert!(refused(SchemeName::StandardWebhooks, "correct horse").contains("`whsec_`"));
        assert!(refused(SchemeName::StandardWebhooks, "whsk_AAECAwQFBgcI").contains("private"));
    }

    #[test]
    fn a_placeholder_is_refused_in_every_scheme_and_not_shown() {
        for scheme in [SchemeName::StandardWebhooks, SchemeName::ScalekitDocumented, SchemeName::Scalekit] {
            for (secret, problem) in [
                ("${SCALEKIT_WEBHOOK_SECRET}", "placeholder (`${…}`)"),
                ("'whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8='", "in quotes"),
                ("v1,whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "begins with `v1,`"),
                ("your-secret-here", "anybody can guess"),
                ("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\r", "white space"),
                ("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "over and over"),
            ] {
                assert!(refused(scheme, secret).contains(problem), "{secret}");
            }
        }
        assert!(refused(SchemeName::StandardWebhooks, "whsec_AAEC-_8").contains("for URLs"));
    }

    #[test]
    fn a_public_key_is_a_point_of_large_order() {
        let short = format!("whpk_{}", BASE64.encode([7; 31]));
        let small_order = format!("whpk_{}", BASE64.encode([[1].as_slice(), &[0; 31]].concat()));
        for secret in [short, small_order] {
            assert!(refused(SchemeName::StandardWebhooks, &secret).contains("ed25519"), "{secret}");
        }
    }

    #[test]
    fn a_public_key_never_becomes_a_shared_one() {
        let public = "whpk_A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=";
        let keyrings_of = |scheme| keyrings(scheme, &[public]);
        for keyring in keyrings_of(SchemeName::Scalekit).unwrap() {
            assert!(keyring.shared.is_empty(), "{}", keyring.scheme.name);
        }
        assert!(refused(SchemeName::ScalekitDocumented, public).contains("public key"));
    }

    #[test]
    fn a_secret_serves_in_each_scheme_that_can_read_it() {
        let keyrings = keyrings(SchemeName::Scalekit, &["whsec_AAEC", "correct horse"]).unwrap();
        let counts: Vec<_> = keyrings.iter().map(|k| (k.scheme.name, k.shared.len())).collect();
        assert_eq!(counts, [("standard-webhooks", 1), ("scalekit-documented", 2)]);
    }

    #[test]
    fn padding_and_prefix_are_optional() {
        for secret in ["whsec_AAECAw==", "whsec_AAECAw", "AAECAw==", "AAECAw"] {
            let keyrings = keyrings(SchemeName::StandardWebhooks, &[secret]).unwrap();
            assert_eq!(keyrings[0].shared.len(), 1, "{secret}");
        }
    }
}
