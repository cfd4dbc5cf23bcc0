//! A trace context: the trace that a piece of work belongs to, and the span that is the parent of the next.
//!
//! In requests it is the header `traceparent` of W3C Trace Context. In the store it is 25 bytes beside the
//! event, written only if the trace is recorded. posthouse does not propagate `tracestate`: a vendor's entry
//! may be longer than the event.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Env;

/// The header's name, in lower case.
pub const TRACEPARENT: &str = "traceparent";

/// Characters of a `traceparent` of version 00.
const LENGTH: usize = 55;
/// The flag of a trace that is recorded.
const SAMPLED: u8 = 1;
/// The flags that are passed on: whether the trace is recorded, and whether its id is random.
const KNOWN_FLAGS: u8 = 0b11;

/// A trace, and a span in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext {
    /// The trace's id, never all zero.
    pub trace: [u8; 16],
    /// The span's id, never all zero.
    pub span: [u8; 8],
    /// The trace flags.
    pub flags: u8,
}

impl TraceContext {
    /// The first span of a new trace, which is recorded.
    pub fn root(env: &Env) -> Self {
        Self { trace: random(env), span: random(env), flags: KNOWN_FLAGS }
    }

    /// Another span of the same trace.
    #[must_use]
    pub fn child(&self, env: &Env) -> Self {
        Self { span: random(env), ..*self }
    }

    /// Whether the trace is recorded.
    pub fn sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The trace's id, in hexadecimal.
    pub fn trace_id(&self) -> String {
        hex::encode(self.trace)
    }

    /// Reads a `traceparent`. None if it is not valid. Of an unknown version, the parts that version 00 has
    /// are read, as the specification requires.
    pub fn parse(header: &str) -> Option<Self> {
        let bytes = header.as_bytes();
        let ends = match bytes.get(..2)? {
            b"ff" => false,
            b"00" => bytes.len() == LENGTH,
            _ => bytes.len() == LENGTH || bytes.get(LENGTH) == Some(&b'-'),
        };
        let dashes = [2, 35, 52].iter().all(|at| bytes.get(*at) == Some(&b'-'));
        if !ends || !dashes || bytes[..LENGTH].iter().any(u8::is_ascii_uppercase) {
            return None;
        }
        let mut version = [0; 1];
        let (mut trace, mut span, mut flags) = ([0; 16], [0; 8], [0; 1]);
        hex::decode_to_slice(&bytes[..2], &mut version).ok()?;
        hex::decode_to_slice(&bytes[3..35], &mut trace).ok()?;
        hex::decode_to_slice(&bytes[36..52], &mut span).ok()?;
        hex::decode_to_slice(&bytes[53..LENGTH], &mut flags).ok()?;
        (trace != [0; 16] && span != [0; 8]).then_some(Self { trace, span, flags: flags[0] & KNOWN_FLAGS })
    }

    /// The form in which the store keeps it.
    pub fn to_bytes(&self) -> [u8; 25] {
        let mut bytes = [0; 25];
        bytes[..16].copy_from_slice(&self.trace);
        bytes[16..24].copy_from_slice(&self.span);
        bytes[24] = self.flags;
        bytes
    }

    /// Reads the form in the store. None if it is something else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (trace, rest) = bytes.split_first_chunk()?;
        let (span, rest) = rest.split_first_chunk()?;
        let &[flags] = rest else { return None };
        (*trace != [0; 16] && *span != [0; 8]).then_some(Self { trace: *trace, span: *span, flags })
    }
}

/// A request that a guest made, for the trace of its attempt.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// Its span, which the other side has received.
    pub context: TraceContext,
    /// When it began.
    pub started_at: Timestamp,
    /// When its response was complete, or the request failed.
    pub ended_at: Timestamp,
    /// The method.
    pub method: String,
    /// The URL with its query, which must not be shown.
    pub url: String,
    /// The status, or the kind of failure in one word.
    pub result: Result<u16, &'static str>,
}

fn random<const N: usize>(env: &Env) -> [u8; N] {
    let mut bytes = [0; N];
    env.fill(&mut bytes);
    // An id of all zeros is invalid.
    bytes[N - 1] |= u8::from(bytes == [0; N]);
    bytes
}

/// Writes it as a `traceparent`.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", hex::encode(self.trace), hex::encode(self.span), self.flags)
    }
}

impl Serialize for TraceContext {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TraceContext {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("no trace context"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example in the specification.
    const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_comes_back_as_it_went() {
        let context = TraceContext::parse(GIVEN).unwrap();
        assert!(context.sampled());
        assert_eq!(context.to_string(), GIVEN);
        assert_eq!(context.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(TraceContext::from_bytes(&context.to_bytes()), Some(context));
        let text = serde_json::to_string(&context).unwrap();
        assert_eq!(serde_json::from_str::<TraceContext>(&text).unwrap(), context);
        assert!(!TraceContext::parse(&GIVEN.replace("-01", "-00")).unwrap().sampled());
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        let later = GIVEN.replacen("00", "cc", 1);
        let flags = |text: &str| TraceContext::parse(text).map(|context| context.flags);
        assert_eq!(flags(&later), Some(1));
        assert_eq!(flags(&format!("{later}-what-comes")), Some(1));
        assert_eq!(flags(&format!("{later}.what-comes")), None);
        assert_eq!(
            flags(&GIVEN.replace("-01", "-fd")),
            Some(1),
            "flags that are not known are not passed on"
        );
    }

    #[test]
    fn what_is_no_traceparent_is_none() {
        for odd in [
            "",
            "00",
            "00-",
            &GIVEN[..54],
            &format!("{GIVEN}-"),
            &format!("{GIVEN} "),
            &GIVEN.to_uppercase(),
            &GIVEN.replacen("00", "ff", 1),
            &GIVEN.replacen("00", "0g", 1),
            &GIVEN.replace('-', "_"),
            &GIVEN.replace("4bf92f3577b34da6a3ce929d0e0e4736", "00000000000000000000000000000000"),
            &GIVEN.replace("00f067aa0ba902b7", "0000000000000000"),
            "00-4bf92f3577b34da6a3ce929d0e0e473ü-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceContext::parse(odd), None, "{odd}");
        }
        assert_eq!(TraceContext::from_bytes(&[1; 24]), None);
        assert_eq!(TraceContext::from_bytes(&[0; 25]), None);
    }
}
