//! How bodies usually change between their sender and a file. `posthouse verify` uses this to find the one
//! change under which a signature is valid.
//!
//! A signature covers bytes. Editors, shells, proxies and programs that read and write JSON keep the meaning
//! and change the bytes.

use std::{borrow::Cow, io::Read as _};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use posthouse_model::json::{Token, Tokens};

/// A compressed body is decompressed to this many bytes at most.
const MOST: u64 = 64 << 20;
/// The size, in bytes, above which only the ends of a body are tried. Each other change rewrites all of it, which
/// takes long.
const LARGE: usize = 4 << 20;

/// A body that the sender may have signed.
pub(super) struct Original {
    pub(super) bytes: Vec<u8>,
    /// The change since it was signed, for a hint.
    pub(super) what: Cow<'static, str>,
}

/// The compression of a body by its first bytes, or none if they match no format. Brotli has no magic number.
pub(super) fn compression(body: &[u8]) -> Option<&'static str> {
    match body {
        [0x1f, 0x8b, ..] => Some("gzip"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some("zstd"),
        // zlib: a window size, and a header that is a multiple of 31. No JSON text begins with `x` and these
        // bytes.
        [0x78, second, ..] if (0x7800 + u16::from(*second)).is_multiple_of(31) => Some("deflate"),
        _ => None,
    }
}

/// The original bodies that may have become this one, the likeliest first.
pub(super) fn originals(body: &[u8]) -> Vec<Original> {
    let mut originals = Vec::new();
    let mut add = |bytes: Option<Vec<u8>>, what: &'static str| {
        originals.extend(bytes.map(|bytes| Original { bytes, what: what.into() }));
    };
    add(unpacked(body), "unpacked: the body is compressed here, and its sender signed it as it was before");
    ends(body, &mut add);
    if body.len() <= LARGE {
        whole(body, &mut add);
        if let Ok(text) = std::str::from_utf8(body) {
            for (layout, what) in LAYOUTS {
                let written = written(text, layout);
                add(Some(written.clone().into_bytes()), what);
                add(Some(format!("{written}\n").into_bytes()), what);
            }
        }
    }
    originals.retain(|original| original.bytes != body);
    originals
}

fn unpacked(body: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    match compression(body)? {
        "gzip" => MultiGzDecoder::new(body).take(MOST).read_to_end(&mut bytes).ok()?,
        "deflate" => ZlibDecoder::new(body).take(MOST).read_to_end(&mut bytes).ok()?,
        _ => return None,
    };
    Some(bytes)
}

type Add<'a> = dyn FnMut(Option<Vec<u8>>, &'static str) + 'a;

/// Undoes changes at the ends of a body.
fn ends(body: &[u8], add: &mut Add<'_>) {
    let without = "without the line break at its end";
    for ending in [&b"\r\n"[..], b"\n"] {
        add(body.strip_suffix(ending).map(<[u8]>::to_vec), without);
        add(Some([body, ending].concat()), "with one more line break at its end");
    }
    add(Some(body.trim_ascii().to_vec()), "without the white space around it");
    let mark = b"\xef\xbb\xbf";
    let bare = body.strip_prefix(mark);
    add(bare.map(<[u8]>::to_vec), "without the byte order mark at its beginning");
    add(
        bare.map(|bare| bare.trim_ascii_end().to_vec()),
        "without the byte order mark and the white space around it",
    );
    add(Some([mark, body].concat()), "with a byte order mark at its beginning");
}

/// Undoes changes that affect all of a body.
fn whole(body: &[u8], add: &mut Add<'_>) {
    let to_unix = replaced(body, b"\r\n", b"\n");
    add(Some(replaced(&to_unix, b"\n", b"\r\n")), "with Windows line ends (CRLF) in place of LF");
    add(Some(replaced(&to_unix, b"\n", b"")), "without its line breaks, as `curl -d @FILE` sends it");
    add(Some(to_unix), "with line ends of Unix (LF) in place of CRLF");
    let wide = |unit: fn([u8; 2]) -> u16, mark: [u8; 2]| {
        let units: Vec<_> = body.strip_prefix(&mark)?.as_chunks().0.iter().map(|pair| unit(*pair)).collect();
        String::from_utf16(&units).ok()
    };
    let text = wide(u16::from_le_bytes, [0xff, 0xfe]).or_else(|| wide(u16::from_be_bytes, [0xfe, 0xff]));
    let what = "as UTF-8: this is UTF-16, as PowerShell writes files";
    add(text.as_deref().map(|text| text.as_bytes().to_vec()), what);
    add(text.map(|text| text.trim_end().as_bytes().to_vec()), what);
    let unwrapped = STANDARD.decode(body.trim_ascii()).ok();
    add(unwrapped, "decoded: this is base64, as some gateways hand bodies on");
    let quoted = serde_json::from_slice::<String>(body).ok();
    add(quoted.map(String::into_bytes), "unquoted: this is a JSON string that holds the body");
}

fn replaced(body: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut replaced = Vec::with_capacity(body.len());
    let mut rest = body;
    while let Some(at) = rest.windows(from.len()).position(|part| part == from) {
        replaced.extend_from_slice(&rest[..at]);
        replaced.extend_from_slice(to);
        rest = &rest[at + from.len()..];
    }
    replaced.extend_from_slice(rest);
    replaced
}

/// A way in which programs write JSON.
#[derive(Clone, Copy)]
struct Layout {
    /// Whether a blank follows each comma and colon, on one line.
    blank: bool,
    /// If set: one member or element a line, with this indentation for each level.
    indent: Option<&'static str>,
    escapes: Escapes,
}

/// The characters of a string that are escaped without need.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Escapes {
    /// Unchanged.
    Kept,
    /// No character.
    Least,
    /// Every character outside ASCII, and `/`, as PHP does.
    Php,
    /// Every character outside ASCII, as Python does.
    Python,
    /// `<`, `>`, `&`, U+2028 and U+2029, as Go does.
    Go,
}

const fn one_line(blank: bool, escapes: Escapes) -> Layout {
    Layout { blank, indent: None, escapes }
}

const fn lines(indent: &'static str, escapes: Escapes) -> Layout {
    Layout { blank: false, indent: Some(indent), escapes }
}

/// The layouts to try. Members keep their order, because a lost order cannot be reconstructed.
const LAYOUTS: [(Layout, &str); 13] = [
    (one_line(false, Escapes::Kept), "written on one line without blanks; something has laid it out"),
    (
        one_line(true, Escapes::Kept),
        "written on one line with blanks after `,` and `:`; something read the JSON and wrote it again",
    ),
    (lines("  ", Escapes::Kept), "indented by two blanks; something read the JSON and wrote it again"),
    (lines("    ", Escapes::Kept), "indented by four blanks; something read the JSON and wrote it again"),
    (lines("\t", Escapes::Kept), "indented by tabs; something read the JSON and wrote it again"),
    (one_line(false, Escapes::Least), "with no needless escapes; something read the JSON and wrote it again"),
    (
        one_line(false, Escapes::Python),
        "with `\\u…` for all beyond ASCII; something read the JSON and wrote it again",
    ),
    (one_line(true, Escapes::Python), "as Python writes JSON; something read it and wrote it again"),
    (
        one_line(true, Escapes::Least),
        "with blanks after `,` and `:` and no needless escapes; something read the JSON and wrote it again",
    ),
    (one_line(false, Escapes::Php), "as PHP writes JSON; something read it and wrote it again"),
    (one_line(false, Escapes::Go), "as Go writes JSON; something read it and wrote it again"),
    (
        lines("  ", Escapes::Least),
        "indented by two blanks with no needless escapes; something read the JSON and wrote it again",
    ),
    (
        lines("  ", Escapes::Python),
        "indented by two blanks with `\\u…` for all beyond ASCII; something read the JSON and wrote it again",
    ),
];

/// Writes the tokens of a JSON text in this layout.
fn written(json: &str, layout: Layout) -> String {
    let mut written = String::with_capacity(json.len() + json.len() / 4);
    let mut depth = 0usize;
    let mut tokens = Tokens::of(json).map(|(_, token)| token).peekable();
    let line = |written: &mut String, depth: usize| {
        if let Some(indent) = layout.indent {
            written.push('\n');
            // A limit; no program nests its output as deep.
            (0..depth.min(64)).for_each(|_| written.push_str(indent));
        }
    };
    while let Some(token) = tokens.next() {
        match token {
            Token::Open(bracket) => {
                written.push_str(bracket);
                if let Some(Token::Close(bracket)) = tokens.peek() {
                    written.push_str(bracket);
                    tokens.next();
                } else {
                    depth += 1;
                    line(&mut written, depth);
                }
            }
            Token::Close(bracket) => {
                depth = depth.saturating_sub(1);
                line(&mut written, depth);
                written.push_str(bracket);
            }
            Token::Comma => {
                written.push_str(if layout.blank { ", " } else { "," });
                line(&mut written, depth);
            }
            Token::Colon => {
                written.push_str(if layout.blank || layout.indent.is_some() { ": " } else { ":" })
            }
            Token::String(text) => written.push_str(&escaped(text, layout.escapes)),
            Token::Other(text) => written.push_str(text),
        }
    }
    written
}

/// Writes a JSON string with these escapes. Returns it unchanged if it is not valid text.
fn escaped(token: &str, escapes: Escapes) -> Cow<'_, str> {
    if escapes == Escapes::Kept {
        return Cow::Borrowed(token);
    }
    let Ok(text) = serde_json::from_str::<String>(token) else { return Cow::Borrowed(token) };
    let Ok(least) = serde_json::to_string(&text) else { return Cow::Borrowed(token) };
    let escape = |letter: char| match escapes {
        Escapes::Kept | Escapes::Least => false,
        Escapes::Php | Escapes::Python => !letter.is_ascii(),
        Escapes::Go => "<>&\u{2028}\u{2029}".contains(letter),
    };
    let mut escaped = String::with_capacity(least.len());
    for letter in least.chars() {
        if escape(letter) {
            letter
                .encode_utf16(&mut [0; 2])
                .iter()
                .for_each(|unit| escaped.push_str(&format!("\\u{unit:04x}")));
        } else if letter == '/' && escapes == Escapes::Php {
            escaped.push_str("\\/");
        } else {
            escaped.push(letter);
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// The change by which the first body became the second, if [`originals`] finds it.
    fn becomes(signed: &[u8], here: &[u8]) -> Option<String> {
        originals(here)
            .into_iter()
            .find(|original| original.bytes == signed)
            .map(|found| found.what.into_owned())
    }

    fn gzip(body: &[u8]) -> Vec<u8> {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        writer.write_all(body).unwrap();
        writer.finish().unwrap()
    }

    #[test]
    fn the_usual_alterations_are_undone() {
        let json = r#"{"id":"evt_1","n":[1.50,{}],"name":"Zoë </b>"}"#;
        let wide = |text: &str| {
            [vec![0xff, 0xfe], text.encode_utf16().flat_map(u16::to_le_bytes).collect()].concat()
        };
        for (signed, here, what) in [
            (json, gzip(json.as_bytes()), "unpacked"),
            (json, format!("{json}\n").into(), "line break"),
            (json, format!(" {json}\r\n\r\n").into(), "white space"),
            (json, format!("\u{feff}{json}\r\n").into(), "byte order mark"),
            ("{\n\"a\":1}", "{\r\n\"a\":1}".into(), "LF"),
            ("{\r\n\"a\":1}\r\n", "{\n\"a\":1}\n".into(), "CRLF"),
            ("{\"a\": 1}", "{\n\"a\": 1}\n".into(), "curl"),
            (json, wide(json), "PowerShell"),
            (json, STANDARD.encode(json).into(), "base64"),
            (json, serde_json::to_vec(json).unwrap(), "JSON string"),
            (
                json,
                "{\n  \"id\": \"evt_1\",\n  \"n\": [\n    1.50,\n    {}\n  ],\n  \"name\": \"Zoë </b>\"\n}\n"
                    .into(),
                "one line",
            ),
            ("{\n  \"a\": [],\n  \"b\": 2\n}\n", r#"{"a":[],"b":2}"#.into(), "two blanks"),
            ("{\n\t\"a\": 1\n}", r#"{"a":1}"#.into(), "tabs"),
            (r#"{"a": 1, "b": ["x", {}]}"#, r#"{"a":1,"b":["x",{}]}"#.into(), "blanks after"),
            (r#"{"a": "Zo\u00eb \ud83d\ude80"}"#, r#"{"a":"Zoë 🚀"}"#.into(), "Python"),
            (r#"{"a":"Zo\u00eb <\/b>"}"#, r#"{"a":"Zoë </b>"}"#.into(), "PHP"),
            (r#"{"a":"Zoë \u003c/b\u003e"}"#, r#"{"a":"Zoë </b>"}"#.into(), "Go"),
            (r#"{"a":"Zoë </b>"}"#, r#"{"a": "Zo\u00eb <\/b>"}"#.into(), "needless"),
        ] {
            let found = becomes(signed.as_bytes(), &here);
            assert!(found.as_ref().is_some_and(|found| found.contains(what)), "{signed} {what}: {found:?}");
        }
        assert_eq!(becomes(br#"{"b":1,"a":1}"#, br#"{"a":1,"b":1}"#), None);
    }

    #[test]
    fn compressed_bodies_are_known_by_how_they_begin() {
        let mut deflate = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        deflate.write_all(b"{}").unwrap();
        assert_eq!(compression(&gzip(b"{}")), Some("gzip"));
        assert_eq!(compression(&deflate.finish().unwrap()), Some("deflate"));
        assert_eq!(compression(b"\x28\xb5\x2f\xfd\x04"), Some("zstd"));
        for body in [&b""[..], b"{", b"x", b"\x1f", b"xy", b"[1]"] {
            assert_eq!(compression(body), None);
        }
    }

    #[test]
    fn nothing_makes_it_panic() {
        for body in
            [&b""[..], b"\xff\xfe", b"\xff\xfea", b"\x1f\x8b", b"\x78\x9c", b"\"", b"]]", b"{\"a", b"\xff"]
        {
            let _ = originals(body);
        }
        let deep = "[".repeat(20_000);
        assert!(originals(deep.as_bytes()).len() > 5);
    }
}
