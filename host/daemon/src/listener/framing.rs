//! Message framing by RFC 9112, read strictly.
//!
//! hyper accepts some requests that RFC 9112 wants refused, and hides others: it drops a `Content-Length`
//! beside a `Transfer-Encoding`. If a proxy in front reads such a request differently, the two see two
//! different requests on one connection. So posthouse checks each head here before hyper sees it, and refuses
//! every ambiguous one.
//!
//! The functions are pure: they take bytes and return a verdict. [`super::gate`] calls them.

use httparse::{EMPTY_HEADER, Error as ParseError, Request, Status};

/// The largest request head in bytes, including leading empty lines. A larger one gets 431.
pub(super) const MAX_HEAD: usize = 16 * 1024;
/// The most header lines, as in hyper. A request with more gets 431.
const MAX_LINES: usize = 100;
/// The most bytes in all chunk extensions and trailers of one body.
const MAX_CHUNK_EXTRAS: usize = 16 * 1024;

/// Why a request is refused before it reaches its handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Violation {
    /// The request is not HTTP/1, or its framing is ambiguous.
    Malformed,
    /// The head exceeds a limit.
    HeadTooLarge,
    /// The request has a transfer coding besides `chunked`.
    UnknownCoding,
}

/// Where a message ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Framing {
    /// After this many more bytes of body.
    Length(u64),
    /// After the last chunk.
    Chunked(Chunks),
}

/// Checks the head at the beginning of `bytes`. Returns its length and the framing of its body, or `None` if
/// the head is incomplete. `searched` is the number of bytes that an earlier call has seen.
pub(super) fn head(bytes: &[u8], searched: usize) -> Result<Option<(usize, Framing)>, Violation> {
    let first = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(bytes.len());
    let Some(length) = end_of_head(bytes, searched.saturating_sub(3).max(first)) else {
        return if bytes.len() > MAX_HEAD { Err(Violation::HeadTooLarge) } else { Ok(None) };
    };
    if length > MAX_HEAD {
        return Err(Violation::HeadTooLarge);
    }
    let mut lines = [EMPTY_HEADER; MAX_LINES];
    let mut request = Request::new(&mut lines);
    match request.parse(&bytes[..length]) {
        Ok(Status::Complete(parsed)) if parsed == length => Ok(Some((length, checked(&request)?))),
        // The two parsers disagree on the end of the head, so a proxy may, too.
        Ok(_) => Err(Violation::Malformed),
        Err(ParseError::TooManyHeaders) => Err(Violation::HeadTooLarge),
        Err(_) => Err(Violation::Malformed),
    }
}

/// The position after the empty line that ends the head.
fn end_of_head(bytes: &[u8], from: usize) -> Option<usize> {
    memchr::memchr_iter(b'\n', &bytes[from..]).find_map(|at| match &bytes[from + at + 1..] {
        [b'\n', ..] => Some(from + at + 2),
        [b'\r', b'\n', ..] => Some(from + at + 3),
        _ => None,
    })
}

/// The framing of a head whose lines are well-formed.
fn checked(request: &Request<'_, '_>) -> Result<Framing, Violation> {
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version) else {
        return Err(Violation::Malformed);
    };
    if !is_target(method, target) {
        return Err(Violation::Malformed);
    }
    let values = |name: &'static str| {
        let lines = request.headers.iter();
        lines.filter(move |line| line.name.eq_ignore_ascii_case(name)).map(|line| line.value)
    };
    let is_1_1 = minor == 1;
    check_host(values("host"), is_1_1)?;
    let mut codings = values("transfer-encoding").peekable();
    let mut lengths = values("content-length");
    match (codings.peek().is_some(), lengths.next()) {
        // RFC 9112, 6.1 and 6.3: two lengths, or a coding that HTTP/1.0 does not have.
        (true, Some(_)) => Err(Violation::Malformed),
        (true, None) if !is_1_1 => Err(Violation::Malformed),
        (true, None) => check_codings(codings).map(|()| Framing::Chunked(Chunks::default())),
        (false, None) => Ok(Framing::Length(0)),
        (false, Some(length)) => match lengths.next() {
            None => number(length, 10).map(Framing::Length),
            Some(_) => Err(Violation::Malformed),
        },
    }
}

/// RFC 9112, 3.2: whether the target has a form that its method allows.
fn is_target(method: &str, target: &str) -> bool {
    if target.contains('#') || !target.is_ascii() {
        return false;
    }
    match method {
        "CONNECT" => !target.starts_with('/'),
        "OPTIONS" if target == "*" => true,
        _ => target.starts_with('/') || is_absolute(target),
    }
}

/// Whether the target is `http://host…` or `https://host…`.
fn is_absolute(target: &str) -> bool {
    let Some((scheme, rest)) = target.split_once("://") else { return false };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known))
        && !authority.is_empty()
        && is_host(authority.as_bytes())
}

/// RFC 9112, 3.2: exactly one `Host` in HTTP/1.1, at most one before, and well-formed.
fn check_host<'a>(mut values: impl Iterator<Item = &'a [u8]>, needed: bool) -> Result<(), Violation> {
    match (values.next(), values.next()) {
        (Some(host), None) if is_host(host) => Ok(()),
        (None, _) if !needed => Ok(()),
        _ => Err(Violation::Malformed),
    }
}

/// `uri-host [ ":" port ]` of RFC 3986: an address in brackets, or a name or IPv4 address, which may be empty.
fn is_host(value: &[u8]) -> bool {
    let (host, port) = match value {
        [b'[', rest @ ..] => {
            let Some(end) = memchr::memchr(b']', rest) else { return false };
            let inside = std::str::from_utf8(&rest[..end]);
            if !inside.is_ok_and(|inside| inside.parse::<std::net::Ipv6Addr>().is_ok()) {
                return false;
            }
            (&b""[..], &rest[end + 1..])
        }
        _ => value.split_at(memchr::memchr(b':', value).unwrap_or(value.len())),
    };
    let name = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(byte);
    host.iter().all(name)
        && match port {
            [] => true,
            [b':', digits @ ..] => digits.iter().all(u8::is_ascii_digit),
            _ => false,
        }
}

/// RFC 9112, 6.1: `chunked` once and at the end. Any coding before it is unknown.
fn check_codings<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Result<(), Violation> {
    let codings: Vec<_> = lines
        .flat_map(|line| line.split(|&byte| byte == b','))
        .map(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"chunked"))
        .collect();
    match codings.as_slice() {
        [true] => Ok(()),
        [before @ .., true] if !before.contains(&true) => Err(Violation::UnknownCoding),
        _ => Err(Violation::Malformed),
    }
}

/// Parses digits and nothing else.
fn number(text: &[u8], base: u32) -> Result<u64, Violation> {
    let text = text.trim_ascii();
    let digits = text.iter().all(|&byte| char::from(byte).is_digit(base));
    let text = std::str::from_utf8(text).ok().filter(|text| digits && !text.is_empty());
    text.and_then(|text| u64::from_str_radix(text, base).ok()).ok_or(Violation::Malformed)
}

impl Framing {
    /// Consumes the part of this message at the front of `bytes`. Returns its length, and whether the message
    /// is complete.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<(usize, bool), Violation> {
        match self {
            Self::Length(left) => {
                let here = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= here as u64;
                Ok((here, *left == 0))
            }
            Self::Chunked(chunks) => chunks.take(bytes),
        }
    }
}

/// Reads a chunked body to its end (RFC 9112, 7.1) without keeping any of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Chunks {
    at: At,
    /// The size of the current chunk while its line is read, then the rest of its data.
    size: u64,
    /// The bytes of extensions and trailers so far.
    extras: usize,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum At {
    /// Before the first digit of a size.
    #[default]
    Size,
    Digits,
    Extension,
    SizeEnd,
    Data,
    DataEnd,
    DataEndLf,
    /// At the beginning of a line of the trailers. The last line is empty.
    Trailer,
    InTrailer,
    TrailerEnd,
    LastLf,
}

impl Chunks {
    fn take(&mut self, bytes: &[u8]) -> Result<(usize, bool), Violation> {
        let mut taken = 0;
        while let Some(&byte) = bytes.get(taken) {
            if self.at == At::Data {
                let here = usize::try_from(self.size).unwrap_or(usize::MAX).min(bytes.len() - taken);
                taken += here;
                self.size -= here as u64;
                if self.size == 0 {
                    self.at = At::DataEnd;
                }
                continue;
            }
            taken += 1;
            if self.step(byte)? {
                return Ok((taken, true));
            }
        }
        Ok((taken, false))
    }

    /// Consumes one byte that is not data. Returns whether it was the last byte of the body.
    fn step(&mut self, byte: u8) -> Result<bool, Violation> {
        self.at = match (self.at, byte) {
            (At::Size | At::Digits, digit) if digit.is_ascii_hexdigit() => {
                let digit = char::from(digit).to_digit(16).map_or(0, u64::from);
                let size = self.size.checked_mul(16).and_then(|size| size.checked_add(digit));
                self.size = size.ok_or(Violation::Malformed)?;
                At::Digits
            }
            (At::Digits | At::Extension, b'\r') => At::SizeEnd,
            (At::Digits, b';' | b' ' | b'\t') => self.extra(At::Extension)?,
            (At::Extension, byte) if byte == b'\t' || !byte.is_ascii_control() => {
                self.extra(At::Extension)?
            }
            (At::SizeEnd, b'\n') if self.size == 0 => At::Trailer,
            (At::SizeEnd, b'\n') => At::Data,
            (At::DataEnd, b'\r') => At::DataEndLf,
            (At::DataEndLf, b'\n') => At::Size,
            (At::Trailer, b'\r') => At::LastLf,
            (At::LastLf, b'\n') => return Ok(true),
            (At::InTrailer, b'\r') => At::TrailerEnd,
            (At::TrailerEnd, b'\n') => At::Trailer,
            (At::Trailer | At::InTrailer, byte) if byte == b'\t' || !byte.is_ascii_control() => {
                self.extra(At::InTrailer)?
            }
            _ => return Err(Violation::Malformed),
        };
        Ok(false)
    }

    fn extra(&mut self, next: At) -> Result<At, Violation> {
        self.extras += 1;
        if self.extras > MAX_CHUNK_EXTRAS { Err(Violation::HeadTooLarge) } else { Ok(next) }
    }
}

impl Violation {
    /// The label in the ledger and the metrics. It never changes.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed-request",
            Self::HeadTooLarge => "header-too-large",
            Self::UnknownCoding => "unknown-transfer-coding",
        }
    }

    /// The complete answer.
    pub(super) fn answer(self) -> &'static [u8] {
        match self {
            Self::Malformed => {
                b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: application/json\r\n\
                  content-length: 29\r\n\r\n{\"error\":\"Malformed request\"}"
            }
            Self::HeadTooLarge => {
                b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n\
                  content-type: application/json\r\ncontent-length: 28\r\n\r\n{\"error\":\"Header too large\"}"
            }
            Self::UnknownCoding => {
                b"HTTP/1.1 501 Not Implemented\r\nconnection: close\r\ncontent-type: application/json\r\n\
                  content-length: 35\r\n\r\n{\"error\":\"Unknown transfer coding\"}"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn framing(lines: &str) -> Result<Framing, Violation> {
        let text = format!("POST /x HTTP/1.1\r\n{lines}\r\n");
        head(text.as_bytes(), 0).map(|head| head.expect("a whole head").1)
    }

    #[test]
    fn a_head_is_found_however_it_is_cut() {
        let text = b"\r\n\nPOST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc";
        let length = text.len() - 3;
        for cut in 0..length {
            assert_eq!(head(&text[..cut], 0), Ok(None), "{cut}");
            assert_eq!(head(text, cut), Ok(Some((length, Framing::Length(3)))), "{cut}");
        }
        assert_eq!(head(&b"\r\n".repeat(MAX_HEAD), 0), Err(Violation::HeadTooLarge));
    }

    #[test]
    fn a_length_is_one_number_and_nothing_beside_it() {
        assert_eq!(framing("host: x\r\n"), Ok(Framing::Length(0)));
        assert_eq!(framing("host: x\r\ncontent-length: 12\r\n"), Ok(Framing::Length(12)));
        for value in ["", "+1", "-1", "1,1", "1, 2", "0x1", "1e3", "18446744073709551616"] {
            let lines = format!("host: x\r\ncontent-length: {value}\r\n");
            assert_eq!(framing(&lines), Err(Violation::Malformed), "{value:?}");
        }
    }

    #[test]
    fn a_host_has_its_syntax() {
        for host in ["", "a", "a:80", "a.b-c.example:8401", "127.0.0.1:1", "[::1]", "[::1]:80", "a:"] {
            assert!(is_host(host.as_bytes()), "{host:?}");
        }
        for host in ["a b", "a/b", "u@a", "a:b", "a:1:2", "[::1", "::1", "[a]", "[::1]x", "a?b", "a#b", "ä"]
        {
            assert!(!is_host(host.as_bytes()), "{host:?}");
        }
    }

    #[test]
    fn the_answers_are_well_formed() {
        for violation in [Violation::Malformed, Violation::HeadTooLarge, Violation::UnknownCoding] {
            let answer = std::str::from_utf8(violation.answer()).expect("text");
            let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
            assert!(head.ends_with(&format!("content-length: {}", body.len())), "{head}");
            serde_json::from_str::<serde_json::Value>(body).expect("JSON");
        }
    }

    proptest! {
        #[test]
        fn chunks_end_where_they_end_however_they_are_cut(
            sizes in prop::collection::vec(1usize..300, 0..6),
            cuts in prop::collection::vec(1usize..50, 1..20),
        ) {
            let mut body: Vec<u8> =
                sizes.iter().flat_map(|&size| format!("{size:X};a=\"b\"\r\n{}\r\n", "x".repeat(size)).into_bytes()).collect();
            body.extend(b"000\r\nx-trailer: y\r\n\r\n");
            let whole = body.len();
            body.extend(b"GET / HTTP/1.1\r\n");
            let (mut chunks, mut at, mut ended) = (Chunks::default(), 0, false);
            for cut in cuts.iter().cycle() {
                let next = (at + cut).min(body.len());
                let (taken, end) = chunks.take(&body[at..next]).expect("well-formed");
                at += taken;
                if end { ended = true; break }
                prop_assert_eq!(at, next);
            }
            prop_assert!(ended);
            prop_assert_eq!(at, whole);
        }
    }
}
