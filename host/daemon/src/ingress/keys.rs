//! The secrets of a source, parsed into keys once when config.toml is read.
//!
//! A `whpk_` text is a public key and is never used as a shared secret: public keys are public, so anyone could
//! sign. An empty secret or a placeholder is refused for the same reason.

use std::{fmt, path::Path, sync::Arc};

use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use posthouse_model::{
    SourceName,
    config::{
        self,
        scheme::{Algorithm, KeyEncoding, Row},
    },
};

use super::{
    crypto::{PublicKey, SharedKey},
    plan::Plan,
};

/// The prefix of a shared key on the pages of many senders.
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
    /// The file with the key that the sender of this source brought can't be used.
    pub(super) fn unread(owner: &SourceName, path: &Path, error: &dyn fmt::Display) -> Self {
        let problem = KeyProblem::Unread(path.display().to_string(), error.to_string());
        Self { owner: owner.clone(), number: 1, place: None, problem }
    }

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

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
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
    NotASecret(config::NotASecret),
    #[error("is not base64, as scheme `{0}` wants it; copy the signing secret with its `whsec_`")]
    NotForScheme(Arc<str>),
    #[error("is not hexadecimal, as scheme `{0}` wants it; copy the key whole from the sender's page")]
    NotHex(Arc<str>),
    #[error("is not a public key of ed25519; copy it whole, `whpk_` included, from the sender's page")]
    NotAPoint,
    #[error("is not a public key as scheme `{0}` wants it; copy it whole from the sender's page")]
    NotAPublicKey(Arc<str>),
    #[error("is a public key (`whpk_`), and scheme `{0}` signs with a shared secret")]
    PublicForScheme(Arc<str>),
    #[error("is a private key (`whsk_`), which only the sender may have; put the `whpk_` one here")]
    Private,
    #[error("was brought by the sender to `{0}`, which can't be read: {1}")]
    Unread(String, String),
    #[error("is not USER:PASSWORD, as scheme `{0}` wants it; neither may be empty")]
    NotCredentials(Arc<str>),
}

impl KeyProblem {
    /// Whether another scheme of the same source may still accept the secret.
    fn is_of_scheme(&self) -> bool {
        matches!(self, Self::NotForScheme(_) | Self::NotHex(_) | Self::PublicForScheme(_))
    }
}

/// The keys with which one row verifies.
pub(super) struct Keyring {
    pub(super) plan: Plan,
    pub(super) shared: Vec<SharedKey>,
    pub(super) public: Vec<PublicKey>,
}

impl Keyring {
    /// A keyring for each row of the source's scheme. With several rows, a secret is a key in each row that can
    /// parse it.
    pub(super) fn all(source: &config::Source) -> Result<Vec<Self>, KeyError> {
        let keyring = |row| Self { plan: Plan::new(row), shared: Vec::new(), public: Vec::new() };
        let mut keyrings: Vec<_> = source.scheme.rows.iter().map(keyring).collect();
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
                match Key::parse(secret.expose(), &keyring.plan) {
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

    /// The same, but each secret is read as its row does not: as literal text instead of base64, and the other
    /// way round. This only serves to explain a sender's mistake.
    pub(super) fn all_misread(source: &config::Source) -> Vec<Self> {
        let texts =
            || source.secrets.iter().map(config::Secret::expose).filter(|text| !text.starts_with(PUBLIC));
        let misread = |row: &Row, text: &str| {
            let bare = text.strip_prefix(SHARED).unwrap_or(text);
            match row.key.encoding {
                KeyEncoding::Text => {
                    KEY_BASE64.decode(bare).into_iter().chain([bare.as_bytes().to_vec()]).collect()
                }
                _ => vec![text.as_bytes().to_vec(), bare.as_bytes().to_vec()],
            }
        };
        let keyring = |row: &Arc<Row>| Self {
            plan: Plan::new(row),
            shared: texts()
                .flat_map(|text| misread(row, text))
                .filter_map(|key| SharedKey::new(row.signature.algorithm, &key))
                .collect(),
            public: Vec::new(),
        };
        source.scheme.rows.iter().map(keyring).collect()
    }
}

/// A secret, parsed.
pub(super) enum Key {
    Shared(SharedKey),
    Public(PublicKey),
}

impl Key {
    /// Whether the text is a shared secret of this row.
    pub(super) fn is_shared(text: &str, plan: &Plan) -> bool {
        matches!(Self::parse(text, plan), Ok(Self::Shared(_)))
    }

    fn parse(text: &str, plan: &Plan) -> Result<Self, KeyProblem> {
        let row = &*plan.row;
        let name = || Arc::clone(plan.name());
        let prefix = row.key.prefix.as_str();
        if text.trim().is_empty() || text == SHARED || (!prefix.is_empty() && text == prefix) {
            return Err(KeyProblem::Empty);
        }
        if let Some(problem) = config::not_a_secret(text) {
            return Err(KeyProblem::NotASecret(problem));
        }
        let (algorithm, own_prefix) = plan.algorithm_of(text);
        if let Some(prefix) = own_prefix {
            let bare = text.strip_prefix(prefix).unwrap_or(text);
            let bytes = KEY_BASE64.decode(bare).map_err(|_| damage(bare))?;
            return PublicKey::ed25519(&bytes).map(Self::Public).ok_or(KeyProblem::NotAPoint);
        }
        if text.starts_with(PUBLIC) {
            return Err(KeyProblem::PublicForScheme(name()));
        }
        if row.key.encoding == KeyEncoding::Base64 && text.starts_with(PRIVATE) {
            return Err(KeyProblem::Private);
        }
        let stripped = if prefix.is_empty() { None } else { text.strip_prefix(prefix) };
        let bare = stripped.unwrap_or(text);
        let key = match row.key.encoding {
            KeyEncoding::Text => bare.as_bytes().to_vec(),
            KeyEncoding::Base64 => KEY_BASE64.decode(bare).map_err(|_| match stripped {
                Some(rest) => damage(rest),
                None => KeyProblem::NotForScheme(name()),
            })?,
            KeyEncoding::Hex => hex::decode(bare).map_err(|_| KeyProblem::NotHex(name()))?,
            KeyEncoding::Spki => KEY_BASE64.decode(bare).map_err(|_| KeyProblem::NotAPublicKey(name()))?,
        };
        match algorithm {
            Algorithm::Ed25519 => {
                PublicKey::ed25519(&key).map(Self::Public).ok_or_else(|| KeyProblem::NotAPublicKey(name()))
            }
            Algorithm::EcdsaP256 => {
                PublicKey::p256(&key).map(Self::Public).ok_or_else(|| KeyProblem::NotAPublicKey(name()))
            }
            Algorithm::Basic | Algorithm::JwtEs256 => match bare.split_once(':') {
                Some((user, password)) if !user.is_empty() && !password.is_empty() => {
                    SharedKey::new(algorithm, &key).map(Self::Shared).ok_or(KeyProblem::Empty)
                }
                _ => Err(KeyProblem::NotCredentials(name())),
            },
            _ => SharedKey::new(algorithm, &key).map(Self::Shared).ok_or(KeyProblem::Empty),
        }
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
    use posthouse_model::config::{Scheme, Secret};

    use super::*;

    fn keyrings(scheme: &str, secrets: &[&str]) -> Result<Vec<Keyring>, String> {
        let source = config::Source {
            name: SourceName::new("crm").unwrap(),
            path: "/webhooks/crm".into(),
            scheme: Scheme::named(scheme).unwrap(),
            url: None,
            secrets: secrets.iter().copied().map(Secret::new).collect(),
            tolerance: Duration::from_secs(300),
            events: vec![],
            redact: Default::default(),
            respond: config::Respond::Accepted,
            rate: None,
            brings_key: false,
            catch_up: None,
            headers: Vec::new(),
            keeps_signatures: false,
            verify_token: None,
        };
        Keyring::all(&source).map_err(|error| error.to_string())
    }

    fn refused(scheme: &str, secret: &str) -> String {
        let error = keyrings(scheme, &["whsec_AAEC", secret]).err().expect("the secret is refused");
        assert!(error.contains("secret 2 of source `crm`"), "{error}");
        assert!(secret.len() < 8 || !error.contains(secret), "{error}");
        error
    }

    #[test]
    fn an_empty_key_is_refused_in_every_scheme() {
        for scheme in ["standard-webhooks", "scalekit-documented", "scalekit"] {
            for secret in ["", "whsec_", " "] {
                assert!(refused(scheme, secret).contains("is empty"), "{secret:?}");
            }
        }
        assert!(refused("standard-webhooks", "whsec_====").contains("base64"));
    }

    #[test]
    fn an_empty_or_weak_key_is_refused_in_every_shipped_scheme() {
        let weak_hex = hex::encode([[1].as_slice(), &[0; 31]].concat());
        for scheme in config::scheme::shipped() {
            for secret in ["", " ", "whsec_", ":", "hook:", ":password"] {
                let result = keyrings(&scheme.name, &[secret]);
                let is_basic = scheme.rows[0].signature.algorithm == Algorithm::Basic;
                // A colon is a text like any other where the secret is no pair.
                assert!(secret.contains(':') && !is_basic || result.is_err(), "{scheme:?} {secret:?}");
            }
            if scheme.rows[0].signature.algorithm == Algorithm::Ed25519 {
                assert!(keyrings(&scheme.name, &[&weak_hex]).is_err(), "{scheme:?}");
                assert!(keyrings(&scheme.name, &[&hex::encode([7; 31])]).is_err(), "{scheme:?}");
            }
        }
    }

    #[test]
    fn damaged_secrets_are_refused_and_not_shown() {
        for secret in ["whsec_not base64!", "whpk_not base64!", "whsec_AAECAwQFBgcI*"] {
            assert!(refused("standard-webhooks", secret).contains("is not base64"), "{secret}");
            if !secret.starts_with("whpk") {
                assert!(refused("scalekit", secret).contains("is not base64"), "{secret}");
            }
        }
        assert!(refused("standard-webhooks", "correct horse").contains("`whsec_`"));
        assert!(refused("standard-webhooks", "whsk_AAECAwQFBgcI").contains("private"));
    }

    #[test]
    fn a_placeholder_is_refused_in_every_scheme_and_not_shown() {
        for scheme in ["standard-webhooks", "scalekit-documented", "scalekit"] {
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
        assert!(refused("standard-webhooks", "whsec_AAEC-_8").contains("for URLs"));
    }

    #[test]
    fn a_public_key_is_a_point_of_large_order() {
        let short = format!("whpk_{}", BASE64.encode([7; 31]));
        let small_order = format!("whpk_{}", BASE64.encode([[1].as_slice(), &[0; 31]].concat()));
        for secret in [short, small_order] {
            assert!(refused("standard-webhooks", &secret).contains("ed25519"), "{secret}");
        }
    }

    #[test]
    fn a_public_key_never_becomes_a_shared_one() {
        let public = "whpk_A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=";
        let keyrings_of = |scheme| keyrings(scheme, &[public]);
        for keyring in keyrings_of("scalekit").unwrap() {
            assert!(keyring.shared.is_empty(), "{}", keyring.plan.name());
        }
        assert!(refused("scalekit-documented", public).contains("public key"));
    }

    #[test]
    fn a_secret_serves_in_each_scheme_that_can_read_it() {
        let keyrings = keyrings("scalekit", &["whsec_AAEC", "correct horse"]).unwrap();
        let counts: Vec<_> = keyrings.iter().map(|k| (&**k.plan.name(), k.shared.len())).collect();
        assert_eq!(counts, [("standard-webhooks", 1), ("scalekit-documented", 2)]);
    }

    #[test]
    fn padding_and_prefix_are_optional() {
        for secret in ["whsec_AAECAw==", "whsec_AAECAw", "AAECAw==", "AAECAw"] {
            let keyrings = keyrings("standard-webhooks", &[secret]).unwrap();
            assert_eq!(keyrings[0].shared.len(), 1, "{secret}");
        }
    }
}
