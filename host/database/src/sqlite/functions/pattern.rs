//! `LIKE` and `GLOB`: the same results as SQLite's own, with checks of the deadline.
//!
//! For each character of the text, matching may take as long as the pattern, as in SQLite. So the longest
//! pattern over the longest text takes many seconds. Here it ends at the deadline.

use rusqlite::Error;

use super::{super::control::Work, utf8};

/// The rules of `LIKE` or of `GLOB`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// `%` or `*`; 0 if it is the escape character.
    pub(super) all: u32,
    /// `_` or `?`; 0 if it is the escape character.
    pub(super) one: u32,
    /// Whether `[` begins a set.
    pub(super) sets: bool,
    /// Whether ASCII letters match in either case.
    pub(super) any_case: bool,
    /// The escape character, or `[`; 0 if there is none.
    pub(super) other: u32,
}

pub(super) const LIKE: Rules =
    Rules { all: '%' as u32, one: '_' as u32, sets: false, any_case: true, other: 0 };
pub(super) const GLOB: Rules =
    Rules { all: '*' as u32, one: '?' as u32, sets: true, any_case: false, other: '[' as u32 };

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Yes,
    No,
    /// No, and no other position of the text matches: everything after the last wildcard for any characters was
    /// tried.
    Never,
}

/// Whether the text matches the pattern.
pub(super) fn matches(work: &Work<'_>, rules: Rules, pattern: &[u8], text: &[u8]) -> Result<bool, Error> {
    let (pattern, text) = (utf8::until_nul(pattern), utf8::until_nul(text));
    Ok(compare(work, rules, pattern, text)? == Found::Yes)
}

fn compare(work: &Work<'_>, rules: Rules, mut pattern: &[u8], mut text: &[u8]) -> Result<Found, Error> {
    let mut escaped = None;
    loop {
        work.on(1)?;
        let c = utf8::read(&mut pattern);
        if c == 0 {
            return Ok(if text.is_empty() { Found::Yes } else { Found::No });
        }
        if c == rules.all {
            return search(work, rules, pattern, text);
        }
        let mut wanted = c;
        if c == rules.other {
            if rules.sets {
                if !in_set(work, &mut pattern, &mut text)? {
                    return Ok(Found::No);
                }
                continue;
            }
            wanted = utf8::read(&mut pattern);
            if wanted == 0 {
                return Ok(Found::No);
            }
            escaped = Some(pattern.len());
        }
        let found = utf8::read(&mut text);
        let equal = wanted == found
            || (rules.any_case && wanted < 0x80 && found < 0x80 && lower(wanted) == lower(found));
        let any = wanted == rules.one && escaped != Some(pattern.len()) && found != 0;
        if !equal && !any {
            return Ok(Found::No);
        }
    }
}

/// Matches the part after a wildcard for any characters.
fn search(work: &Work<'_>, rules: Rules, mut pattern: &[u8], mut text: &[u8]) -> Result<Found, Error> {
    let mut before = pattern;
    let mut c = utf8::read(&mut pattern);
    while c == rules.all || (c == rules.one && rules.one != 0) {
        work.on(1)?;
        if c == rules.one && utf8::read(&mut text) == 0 {
            return Ok(Found::Never);
        }
        before = pattern;
        c = utf8::read(&mut pattern);
    }
    if c == 0 {
        return Ok(Found::Yes);
    }
    if c == rules.other {
        if rules.sets {
            while !text.is_empty() {
                work.on(1)?;
                match compare(work, rules, before, text)? {
                    Found::No => text = &text[utf8::length(text)..],
                    found => return Ok(found),
                }
            }
            return Ok(Found::Never);
        }
        c = utf8::read(&mut pattern);
        if c == 0 {
            return Ok(Found::Never);
        }
    }
    while let Some(at) = find(work, rules, c, text)? {
        text = &text[at..];
        match compare(work, rules, pattern, text)? {
            Found::No => {}
            found => return Ok(found),
        }
    }
    Ok(Found::Never)
}

/// The position after the next such character.
fn find(work: &Work<'_>, rules: Rules, c: u32, text: &[u8]) -> Result<Option<usize>, Error> {
    if let Ok(byte) = u8::try_from(c)
        && byte.is_ascii()
    {
        let at = if rules.any_case {
            memchr::memchr2(byte.to_ascii_lowercase(), byte.to_ascii_uppercase(), text)
        } else {
            memchr::memchr(byte, text)
        };
        work.on(at.unwrap_or(text.len()))?;
        return Ok(at.map(|at| at + 1));
    }
    let mut rest = text;
    while !rest.is_empty() {
        let before = rest.len();
        let found = utf8::read(&mut rest) == c;
        work.on(before - rest.len())?;
        if found {
            return Ok(Some(text.len() - rest.len()));
        }
    }
    Ok(None)
}

/// Whether the next character is in the set, or not in a set that begins with `^`.
fn in_set(work: &Work<'_>, pattern: &mut &[u8], text: &mut &[u8]) -> Result<bool, Error> {
    let c = utf8::read(text);
    if c == 0 {
        return Ok(false);
    }
    let (mut seen, mut invert, mut prior) = (false, false, 0);
    let mut next = utf8::read(pattern);
    if next == '^' as u32 {
        invert = true;
        next = utf8::read(pattern);
    }
    if next == ']' as u32 {
        seen = c == next;
        next = utf8::read(pattern);
    }
    while next != 0 && next != ']' as u32 {
        work.on(1)?;
        if next == '-' as u32 && !matches!(pattern.first(), None | Some(b']')) && prior > 0 {
            next = utf8::read(pattern);
            seen |= (prior..=next).contains(&c);
            prior = 0;
        } else {
            seen |= c == next;
            prior = next;
        }
        next = utf8::read(pattern);
    }
    Ok(next != 0 && seen != invert)
}

fn lower(c: u32) -> u32 {
    u8::try_from(c).map_or(c, |byte| u32::from(byte.to_ascii_lowercase()))
}
