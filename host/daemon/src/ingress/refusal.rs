//! Why a signature is invalid, and the limits of what is checked.

/// The most entries in a signature header. A sender that rotates its keys sends two.
pub(super) const MAX_ENTRIES: usize = 64;
/// The most of them that are checked with public keys. Each check reads the whole body.
pub(super) const MAX_ED25519: usize = 8;
/// The longest header of a signature, in bytes: room for the allowed entries.
pub(super) const MAX_HEADER: usize = 8 * 1024;

/// Why a signature is invalid. Each reason has a label for counters and a sentence for people. Neither shows a
/// secret, a signature or a part of the body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The request has none of the scheme's headers.
    #[error("the request carries none of the headers of this source's scheme")]
    Unsigned,
    /// The request has two families of headers, and could mean two things.
    #[error("`{0}` and `{1}` are both signed headers; a request may carry those of one sender only")]
    Ambiguous(&'static str, &'static str),
    /// A header of the family is missing, or the entry `t` in it.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// A header of the family is present twice.
    #[error("`{0}` is there more than once")]
    Repeated(&'static str),
    /// A header of the family is longer than any sender makes it.
    #[error("`{0}` is longer than {MAX_HEADER} bytes")]
    TooLong(&'static str),
    /// A header of the family is not text.
    #[error("`{0}` is not UTF-8")]
    NotText(&'static str),
    /// The id makes the signed text ambiguous.
    #[error("`{0}` is empty or holds a dot")]
    BadId(&'static str),
    /// The time does not match `[1-9][0-9]*`, or is too large for a time.
    #[error("`{0}` is not a time in Unix seconds: digits only, no leading zero")]
    BadTimestamp(&'static str),
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
    NoneUsable(&'static str),
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
            Self::BadTimestamp(_) => "bad-timestamp",
            Self::Stale { .. } => "stale-timestamp",
            Self::Future { .. } => "future-timestamp",
            Self::TooMany => "too-many-signatures",
            Self::NoneUsable(_) => "no-usable-signature",
            Self::Mismatch => "signature-mismatch",
        }
    }
}
