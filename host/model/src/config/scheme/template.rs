//! Reads texts with places in braces: `v0:{timestamp}:{body}`, `{json:/type}.{json:/action}`.

use http::HeaderName;

use super::{Encoding, MAX_DEPTH, MAX_PIECES, Part, Piece, Place, ReplyPart, Text};

/// The longest name or text, in bytes.
const LONGEST: usize = 256;

/// A part of a text, before its name is understood.
enum Raw<'a> {
    Literal(&'a str),
    Braces(&'a str),
}

/// Splits a text at its braces.
fn raw(text: &str) -> Result<Vec<Raw<'_>>, String> {
    if text.len() > LONGEST {
        return Err(format!("is longer than {LONGEST} bytes"));
    }
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        if let Some(within) = rest.strip_prefix('{') {
            let (name, after) = within.split_once('}').ok_or("has a `{` without its `}`")?;
            parts.push(Raw::Braces(name));
            rest = after;
        } else {
            let end = rest.find('{').unwrap_or(rest.len());
            parts.push(Raw::Literal(&rest[..end]));
            rest = &rest[end..];
        }
    }
    match parts.len() {
        0 => Err("is empty".to_owned()),
        1..=MAX_PIECES => Ok(parts),
        more => Err(format!("has {more} parts; the limit is {MAX_PIECES}")),
    }
}

/// A signed text.
///
/// # Errors
/// The problem, as the end of a sentence.
pub(super) fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    let piece = |part: Raw<'_>| {
        Ok(match part {
            Raw::Literal(text) => Piece::Literal(text.to_owned()),
            Raw::Braces("body") => Piece::Body,
            Raw::Braces("timestamp") => Piece::Timestamp,
            Raw::Braces("url") => Piece::Url,
            Raw::Braces("url-unescaped") => Piece::UrlUnescaped,
            Raw::Braces("path") => Piece::Path,
            Raw::Braces("method") => Piece::Method,
            Raw::Braces("key") => Piece::Key,
            Raw::Braces("form") => Piece::Form,
            Raw::Braces("crc32") => Piece::Crc32,
            Raw::Braces("sns") => Piece::Sns,
            Raw::Braces(name) => match name.strip_prefix("headers:") {
                Some(header) => Piece::Headers(header_name(header)?),
                None => Piece::Place(place(name)?),
            },
        })
    };
    raw(text)?.into_iter().map(piece).collect()
}

/// A text of an event's member.
///
/// # Errors
/// The problem, as the end of a sentence.
pub(super) fn text(text: &str) -> Result<Text, String> {
    let part = |part: Raw<'_>| match part {
        Raw::Literal(text) => Ok(Part::Literal(text.to_owned())),
        Raw::Braces(name) => match place(name)? {
            Place::Entry(_) | Place::Claim(_) => {
                Err("names a part of the signature, which is no part of an event".to_owned())
            }
            place => Ok(Part::Place(place)),
        },
    };
    raw(text)?.into_iter().map(part).collect()
}

/// A text of an answer to a handshake.
///
/// # Errors
/// The problem, as the end of a sentence.
pub(super) fn reply(text: &str) -> Result<Vec<ReplyPart>, String> {
    let part = |part: Raw<'_>| match part {
        Raw::Literal(text) => Ok(ReplyPart::Literal(text.to_owned())),
        Raw::Braces(name) => {
            match (name.strip_prefix("hmac-sha256-hex:"), name.strip_prefix("hmac-sha256-base64:")) {
                (Some(name), _) => {
                    place_of_handshake(name).map(|place| ReplyPart::Hmac(Encoding::Hex, place))
                }
                (_, Some(name)) => {
                    place_of_handshake(name).map(|place| ReplyPart::Hmac(Encoding::Base64, place))
                }
                (None, None) => place_of_handshake(name).map(ReplyPart::Place),
            }
        }
    };
    raw(text)?.into_iter().map(part).collect()
}

/// A place.
///
/// # Errors
/// The problem, as the end of a sentence.
pub(super) fn place(text: &str) -> Result<Place, String> {
    let unknown = || {
        format!(
            "names `{}`, which is no place; `header:NAME`, `entry:LABEL`, `json:/POINTER`, `query:NAME`, \
             `form:NAME` and `claim:NAME` are",
            super::super::diagnose::shown(text)
        )
    };
    let (kind, name) = text.split_once(':').ok_or_else(unknown)?;
    let named = || match name {
        "" => Err(format!("names a {kind} without a name")),
        name => Ok(name.to_owned()),
    };
    match kind {
        "header" => Ok(Place::Header(header_name(name)?)),
        "entry" => Ok(Place::Entry(named()?)),
        "json" if name.is_empty() => Err("names the whole body".to_owned()),
        "json" => Ok(Place::Json(pointer(name)?)),
        "query" => Ok(Place::Query(named()?)),
        "form" => Ok(Place::Form(named()?)),
        "claim" => Ok(Place::Claim(named()?)),
        _ => Err(unknown()),
    }
}

/// A place that a handshake may name: it has no signature, and is no form.
///
/// # Errors
/// The problem, as the end of a sentence.
pub(super) fn place_of_handshake(text: &str) -> Result<Place, String> {
    match place(text)? {
        Place::Entry(_) | Place::Claim(_) => {
            Err("names a part of the signature, which a test of the URL has not".to_owned())
        }
        Place::Form(_) => Err("names a field of a form, and a test of the URL is none".to_owned()),
        place => Ok(place),
    }
}

/// The name of a header, in lower case. It may begin with `*`.
///
/// # Errors
/// The problem, as the end of a sentence.
pub(super) fn header_name(name: &str) -> Result<String, String> {
    let shown = super::super::diagnose::shown(name);
    let bare = name.strip_prefix('*').unwrap_or(name);
    if bare.chars().any(|letter| letter.is_ascii_uppercase()) {
        return Err(format!("names the header `{shown}`; write it in lower case"));
    }
    match HeaderName::from_bytes(bare.as_bytes()) {
        Ok(_) => Ok(name.to_owned()),
        Err(_) => Err(format!("names `{shown}`, which is no name of a header")),
    }
}

/// The steps of a JSON pointer by RFC 6901.
///
/// # Errors
/// The problem, as the end of a sentence.
pub(super) fn pointer(text: &str) -> Result<Vec<String>, String> {
    let shown = super::super::diagnose::shown(text);
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let steps = match text.strip_prefix('/') {
        Some(steps) => steps,
        None => return Err(format!("names `{shown}`, which is no JSON pointer; one looks like `/data/id`")),
    };
    let steps: Vec<String> =
        steps.split('/').map(|step| step.replace("~1", "/").replace("~0", "~")).collect();
    if steps.len() > MAX_DEPTH {
        return Err(format!("names a place {} deep; the limit is {MAX_DEPTH}", steps.len()));
    }
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_split_at_its_braces() {
        let found = pieces("v0:{timestamp}:{body}{header:x-id}").unwrap();
        assert_eq!(
            found,
            [
                Piece::Literal("v0:".into()),
                Piece::Timestamp,
                Piece::Literal(":".into()),
                Piece::Body,
                Piece::Place(Place::Header("x-id".into())),
            ]
        );
        assert_eq!(pieces("{headers:x-list}").unwrap(), [Piece::Headers("x-list".into())]);
        assert_eq!(pointer("/a~1b/~0/0").unwrap(), ["a/b", "~", "0"]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (template, told) in [
            ("", "is empty"),
            ("{body", "without its `}`"),
            ("{bdy}", "no place"),
            ("{header:X-Id}", "lower case"),
            ("{header:a b}", "no name of a header"),
            ("{json:id}", "no JSON pointer"),
            ("{query:}", "without a name"),
            (&"{body}".repeat(17), "17 parts"),
            (&format!("{{json:{}}}", "/a".repeat(17)), "17 deep"),
            (&"a".repeat(300), "longer than"),
        ] {
            let error = pieces(template).unwrap_err();
            assert!(error.contains(told), "{template}: {error}");
        }
        assert!(text("{entry:t}").unwrap_err().contains("part of the signature"));
        assert!(text("{body}").unwrap_err().contains("no place"));
    }
}
