//! Why a signature does not hold, and the bounds beyond which nobody looks.

/// The most entries of a signature header; a sender that rotates its keys sends two.
pub(super) const MAX_ENTRIES: usize = 64;
/// The most of them that are tried with public keys, which cost a pass over the body each.
pub(super) const MAX_ED25519: usize = 8;
/// The longest header of a signature, in bytes: room for the entries allowed.
pub(super) const MAX_HEADER: usize = 8 * 1024;

/// Why a signature does not hold. Each has a label for counters and a sentence for people; neither
/// shows a secret, a signature or a part of the body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is nothing to verify.
    #[error("the request carries none of the headers of this source's scheme")]
    Unsigned,
    /// Two families of headers are there; they could be two requests in one.
    #[error("`{0}` and `{1}` are both signed headers; a request may carry those of one sender only")]
    Ambiguous(&'static str, &'static str),
    /// One of a family's headers, or `t` in it, is not there.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// One of them is there twice.
    #[error("`{0}` is there more than once")]
    Repeated(&'static str),
    /// One of them is longer than any sender makes it.
    #[error("`{0}` is longer than {MAX_HEADER} bytes")]
    TooLong(&'static str),
    /// One of them is not text.
    #[error("`{0}` is not UTF-8")]
    NotText(&'static str),
    /// An id that makes the signed text ambiguous.
    #[error("`{0}` is empty or holds a dot")]
    BadId(&'static str),
    /// Not `[1-9][0-9]*`, or not a number of this age.
    #[error("`{0}` is not a time in Unix seconds: digits only, no leading zero")]
    BadTimestamp(&'static str),
    /// A replay, or clocks that differ.
    #[error("the timestamp is {age} s old; the tolerance is {tolerance} s")]
    Stale {
        /// How old, in seconds.
        age: u64,
        /// What the source allows, in seconds.
        tolerance: u64,
    },
    /// Clocks that differ.
    #[error("the timestamp is {ahead} s in the future; the tolerance is {tolerance} s")]
    Future {
        /// How far ahead, in seconds.
        ahead: u64,
        /// What the source allows, in seconds.
        tolerance: u64,
    },
    /// More entries than any sender makes.
    #[error("there are too many signatures; {MAX_ENTRIES} are read, and {MAX_ED25519} of public keys")]
    TooMany,
    /// No entry is of a known version and well-formed.
    #[error("`{0}` holds no well-formed signature of a version that the scheme knows")]
    NoneUsable(&'static str),
    /// The signatures are of others, or of other bytes.
    #[error("no signature fits: it was made with another secret, or over other bytes")]
    Mismatch,
}

impl Refusal {
    /// Its name in the ledger and the metrics; it never changes.
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
