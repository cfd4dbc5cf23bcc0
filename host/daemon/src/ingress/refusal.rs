//! Why a signature is invalid, and the limits of what is checked.

use std::sync::Arc;

/// The most entries in a signature header. A sender that rotates its keys sends two.
pub(super) const MAX_ENTRIES: usize = 64;
/// The most of them that are checked with public keys. Such a check costs more than the rest of a request, so this is
/// what makes a refused request cost at most twice an accepted one.
pub(super) const MAX_ED25519: usize = 2;
/// The most headers that a signature may list.
pub(super) const MAX_LISTED: usize = 64;
/// The longest header of a signature, in bytes: room for the allowed entries.
pub(super) const MAX_HEADER: usize = 8 * 1024;

/// The shortest key that a sender may bring, in characters.
pub(super) const MIN_KEY: usize = 16;

/// Why a signature is invalid. Each reason has a label for counters and a sentence for people. Neither shows a
/// secret, a signature or a part of the body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The request has none of the scheme's headers.
    #[error("the request carries none of the headers of this source's scheme")]
    Unsigned,
    /// The request has two families of headers, and could mean two things.
    #[error("`{0}` and `{1}` are both signed headers; a request may carry those of one sender only")]
    Ambiguous(Arc<str>, Arc<str>),
    /// A header of the family is missing, or an entry in it, or a member of the body.
    #[error("`{0}` is missing")]
    Missing(Arc<str>),
    /// One of these is present twice.
    #[error("`{0}` is there more than once")]
    Repeated(Arc<str>),
    /// A header of the family is longer than any sender makes it.
    #[error("`{0}` is longer than {MAX_HEADER} bytes")]
    TooLong(Arc<str>),
    /// A header of the family is not text.
    #[error("`{0}` is not UTF-8")]
    NotText(Arc<str>),
    /// A signed part makes the signed text ambiguous.
    #[error("`{0}` is empty, or contains the separator that follows it in the signed text")]
    BadId(Arc<str>),
    /// The time has not the form that the scheme says, or is too large for a time.
    #[error("`{0}` is not a time in {1}")]
    BadTimestamp(Arc<str>, &'static str),
    /// The list of signed headers is not complete, or names something else.
    #[error("`{0}` does not list itself and the time, or lists a header twice, or too many")]
    BadList(Arc<str>),
    /// A member of the body decides, and the body is not JSON.
    #[error("`{0}` can't be read: the body is not JSON")]
    Unreadable(Arc<str>),
    /// The body is a form with more fields than any sender makes.
    #[error("the form has too many fields")]
    TooManyFields,
    /// The signed text covers a hash of the body, and the body has another.
    #[error("`{0}` is not the hash of the body")]
    OtherBody(Arc<str>),
    /// The signature is a JWT, and this text is none, or one of another algorithm.
    #[error("`{0}` holds no JWT of the scheme's algorithm")]
    BadToken(Arc<str>),
    /// The JWT says that it has expired.
    #[error("the JWT has expired")]
    Expired,
    /// A place has not the text that the scheme requires.
    #[error("`{0}` is not what the scheme requires")]
    Unmet(Arc<str>),
    /// The scheme does not allow this URL to be fetched.
    #[error("`{0}` holds no URL that the scheme allows to fetch")]
    BadUrl(Arc<str>),
    /// The signature needs a published key, and it was not fetched.
    #[error("the public key for scheme `{0}` was not fetched")]
    Unfetched(Arc<str>),
    /// The body can't be decrypted.
    #[error("the body is encrypted with another key")]
    Sealed,
    /// The request is a replay, or the clocks differ.
    #[error("the timestamp is {age} s old; the tolerance is {tolerance} s")]
    Stale {
        /// The age, in seconds.
        age: u64,
        /// The source's tolerance, in seconds.
        tolerance: u64,
    },
    /// The clocks differ.
    #[error("the timestamp is {ahead} s in the future; the tolerance is {tolerance} s")]
    Future {
        /// The distance into the future, in seconds.
        ahead: u64,
        /// The source's tolerance, in seconds.
        tolerance: u64,
    },
    /// The header has more entries than any sender makes.
    #[error("there are too many signatures; {MAX_ENTRIES} are read, and {MAX_ED25519} of public keys")]
    TooMany,
    /// No entry is well-formed and of a known version.
    #[error("`{0}` holds no well-formed signature of a version that the scheme knows")]
    NoneUsable(Arc<str>),
    /// The sender has not brought its key yet.
    #[error(
        "the source has no key yet; run `posthouse senders learn` with its name, and make the webhook then"
    )]
    NoKey,
    /// The request brings a key, and no operator awaits one.
    #[error(
        "the request brings a key, and the source has one already or awaits none; `posthouse senders learn` with \
         its name lets it await one"
    )]
    KeyNotAwaited,
    /// The request brings a text that can't be a key.
    #[error(
        "the request brings a key that is shorter than {MIN_KEY} characters, no visible ASCII, or a placeholder"
    )]
    UnfitKey,
    /// The signatures were made with other keys, or over other bytes.
    #[error("no signature fits: it was made with another secret, or over other bytes")]
    Mismatch,
}

impl Refusal {
    /// The label in the ledger and the metrics. It never changes.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Unsigned => "unsigned",
            Self::Ambiguous(..) => "ambiguous-headers",
            Self::Missing(_) => "missing-header",
            Self::Repeated(_) => "repeated-header",
            Self::TooLong(_) => "header-too-long",
            Self::NotText(_) => "header-not-text",
            Self::BadId(_) => "bad-id",
            Self::BadTimestamp(..) => "bad-timestamp",
            Self::BadList(_) => "bad-header-list",
            Self::Unreadable(_) => "body-not-json",
            Self::TooManyFields => "body-too-many-fields",
            Self::OtherBody(_) => "signature-mismatch",
            Self::BadToken(_) => "bad-token",
            Self::Expired => "expired-token",
            Self::Unmet(_) => "requirement-unmet",
            Self::BadUrl(_) => "url-not-allowed",
            Self::Unfetched(_) => "key-not-fetched",
            Self::Sealed => "signature-mismatch",
            Self::Stale { .. } => "stale-timestamp",
            Self::Future { .. } => "future-timestamp",
            Self::TooMany => "too-many-signatures",
            Self::NoneUsable(_) => "no-usable-signature",
            Self::NoKey => "no-key",
            Self::KeyNotAwaited => "key-not-awaited",
            Self::UnfitKey => "key-unfit",
            Self::Mismatch => "signature-mismatch",
        }
    }
}
