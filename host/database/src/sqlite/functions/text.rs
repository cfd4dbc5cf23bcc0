//! `instr`, `replace`, `trim` and `unhex`: the same results as SQLite's own, in linear time.
//!
//! SQLite's `instr` and `replace` compare the whole needle at every position. Its `trim` and `unhex` search
//! their whole second argument for each character of the first. Two arguments of two megabytes took minutes.

use std::collections::{HashMap, HashSet};

use memchr::memmem;
use rusqlite::Error;

use super::{
    super::control::Work,
    utf8::{self, is_continuation},
};

/// The position of `needle` in `haystack`, counted from 1: in characters of a text, in bytes of a blob. 0 if it
/// is not there.
pub(super) fn instr(work: &Work<'_>, haystack: &[u8], needle: &[u8], is_text: bool) -> Result<i64, Error> {
    work.on(haystack.len() + needle.len())?;
    let at = match needle.first() {
        None => return Ok(1),
        // SQLite goes from character to character, and such a byte begins a character only at the start.
        Some(&first) if is_text && is_continuation(first) => haystack.starts_with(needle).then_some(0),
        Some(_) => memmem::find(haystack, needle),
    };
    let Some(at) = at else { return Ok(0) };
    let steps = if is_text {
        haystack[..=at].iter().skip(1).filter(|byte| !is_continuation(**byte)).count()
    } else {
        at
    };
    Ok(i64::try_from(steps).unwrap_or(i64::MAX).saturating_add(1))
}

/// `text` with each `old` replaced by `new`.
pub(super) fn replace(work: &Work<'_>, text: &[u8], old: &[u8], new: &[u8]) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    let mut copied = 0;
    for at in memmem::find_iter(text, old) {
        work.on(at - copied + new.len())?;
        work.check_length(out.len() + (at - copied) + new.len())?;
        out.extend_from_slice(&text[copied..at]);
        out.extend_from_slice(new);
        copied = at + old.len();
    }
    work.on(text.len() - copied)?;
    out.extend_from_slice(&text[copied..]);
    Ok(out)
}

/// The side at which `trim` works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
    Both,
}

/// `text` without the characters of `set` at its ends.
pub(super) fn trim<'a>(work: &Work<'_>, text: &'a [u8], set: &[u8], side: Side) -> Result<&'a [u8], Error> {
    let set = Characters::of(work, set)?;
    let mut rest = text;
    if side != Side::Right {
        while let Some(length) = set.at_start(work, rest)? {
            rest = &rest[length..];
        }
    }
    if side != Side::Left {
        while let Some(length) = set.at_end(work, rest)? {
            rest = &rest[..rest.len() - length];
        }
    }
    Ok(rest)
}

/// Characters with their positions in the set: SQLite takes the first one that fits.
struct Characters<'a> {
    places: HashMap<&'a [u8], usize>,
    longest: usize,
}

impl<'a> Characters<'a> {
    fn of(work: &Work<'_>, set: &'a [u8]) -> Result<Self, Error> {
        let mut characters = Self { places: HashMap::new(), longest: 0 };
        let mut rest = utf8::until_nul(set);
        while !rest.is_empty() {
            let (character, after) = rest.split_at(utf8::length(rest));
            work.on(character.len())?;
            let place = characters.places.len();
            characters.places.entry(character).or_insert(place);
            characters.longest = characters.longest.max(character.len());
            rest = after;
        }
        Ok(characters)
    }

    /// The length of the character that `text` starts with, in bytes. The first byte of a character also fits
    /// alone, or with some of the bytes after it. That is not UTF-8, but a text may contain it.
    fn at_start(&self, work: &Work<'_>, text: &[u8]) -> Result<Option<usize>, Error> {
        let most = utf8::length(text).min(self.longest);
        work.on(most)?;
        let fitting = (1..=most).filter_map(|length| self.place(work, &text[..length]).transpose());
        first(fitting)
    }

    /// The length of the character that `text` ends with, in bytes: its last byte, or all bytes from the start
    /// of a character.
    fn at_end(&self, work: &Work<'_>, text: &[u8]) -> Result<Option<usize>, Error> {
        let end = &text[text.len().saturating_sub(self.longest)..];
        let tail = end.iter().rev().take_while(|byte| is_continuation(**byte)).count();
        work.on(tail)?;
        let begins = end.len().checked_sub(tail + 1).filter(|at| tail > 0 && end[*at] >= 0xc0);
        let lengths = [(!text.is_empty()).then_some(1), begins.map(|_| tail + 1)];
        let places = lengths.into_iter().flatten();
        let fitting = places.filter_map(|length| self.place(work, &text[text.len() - length..]).transpose());
        first(fitting)
    }

    /// The position of a character in the set, and its length.
    fn place(&self, work: &Work<'_>, character: &[u8]) -> Result<Option<(usize, usize)>, Error> {
        work.on(character.len())?;
        Ok(self.places.get(character).map(|place| (*place, character.len())))
    }
}

/// The length of the character with the first position.
fn first(fitting: impl Iterator<Item = Result<(usize, usize), Error>>) -> Result<Option<usize>, Error> {
    let mut first: Option<(usize, usize)> = None;
    for fits in fitting {
        let fits = fits?;
        if first.is_none_or(|first| fits < first) {
            first = Some(fits);
        }
    }
    Ok(first.map(|(_, length)| length))
}

/// The bytes that `hex` contains in hexadecimal, with characters of `pass` between them. None if it contains
/// anything else.
pub(super) fn unhex(work: &Work<'_>, hex: &[u8], pass: &[u8]) -> Result<Option<Vec<u8>>, Error> {
    let mut passes = HashSet::new();
    let mut rest = pass;
    while !rest.is_empty() {
        let before = rest.len();
        passes.insert(utf8::read(&mut rest));
        work.on(before - rest.len())?;
    }
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut out = Vec::new();
    let mut rest = utf8::until_nul(hex);
    while let Some(first) = rest.first() {
        let Some(high) = digit(first) else {
            let before = rest.len();
            if !passes.contains(&utf8::read(&mut rest)) {
                return Ok(None);
            }
            work.on(before - rest.len())?;
            continue;
        };
        let Some(low) = rest.get(1).and_then(digit) else { return Ok(None) };
        out.push(high << 4 | low);
        rest = &rest[2..];
        work.on(2)?;
    }
    Ok(Some(out))
}
