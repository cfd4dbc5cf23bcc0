//! Masks by form: addresses and numbers by which a person can be reached, wherever they are from.
//!
//! A masked value can reach a plugin's words by another way than the current event: the plugin kept it, in
//! its keys or its rows, from an earlier event. posthouse can't search for such a value, because it does not
//! remember it. It can search for its form: a mail address, or a telephone number with its country code.

use super::REDACTED;

/// Masks every mail address and every international telephone number in a text.
pub(super) fn mask_reachable(text: &mut String) {
    if !text.contains(['@', '+']) && !text.contains("%40") {
        return;
    }
    let (mut masked, mut kept, mut from) = (String::with_capacity(text.len()), 0, 0);
    while let Some(found) = next(text, from, kept) {
        match found {
            Found::Reachable(start, end) => {
                masked.push_str(&text[kept..start]);
                masked.push_str(REDACTED);
                (kept, from) = (end, end);
            }
            Found::Nothing(end) => from = end,
        }
    }
    masked.push_str(&text[kept..]);
    *text = masked;
}

/// The most bytes before an `@` that are looked at. RFC 5321 allows 64, and URLs write a byte as three.
const LONGEST_LOCAL: usize = 256;

enum Found {
    /// An address or a number, from the first byte to the second.
    Reachable(usize, usize),
    /// Nothing up to this byte.
    Nothing(usize),
}

/// The next sign of an address or a number at `from` or later. The address or number begins at `floor` or
/// later.
fn next(text: &str, from: usize, floor: usize) -> Option<Found> {
    let at = from + text[from..].find(['@', '+', '%'])?;
    let sign = match &text[at..] {
        rest if rest.starts_with('@') => 1,
        rest if rest.starts_with("%40") => 3,
        rest if rest.starts_with('+') => {
            return Some(match number(&text[at + 1..]) {
                Some(length) if !text[..at].ends_with(|before: char| before.is_ascii_alphanumeric()) => {
                    Found::Reachable(at, at + 1 + length)
                }
                _ => Found::Nothing(at + 1),
            });
        }
        _ => return Some(Found::Nothing(at + 1)),
    };
    let near = at.saturating_sub(LONGEST_LOCAL).max(floor);
    let before = &text[text.ceil_char_boundary(near)..at];
    let start = at - before.len() + quoted(before).unwrap_or_else(|| before.trim_end_matches(is_local).len());
    let after = &text[at + sign..];
    let domain = &after[..after.len() - after.trim_start_matches(is_domain).len()];
    let domain = domain.trim_end_matches(['.', '-', '_']);
    let end = at + sign + domain.len();
    Some(if start < at && !domain.is_empty() {
        Found::Reachable(start, end)
    } else {
        Found::Nothing(at + sign)
    })
}

/// The start of the quotes at the end of a text, if an address can begin with their content.
fn quoted(text: &str) -> Option<usize> {
    let text = text.strip_suffix('"')?;
    let start = text.rfind('"')?;
    text[start + 1..].chars().any(is_local).then_some(start)
}

/// Whether an address may have this letter before its `@`, without quotes.
fn is_local(letter: char) -> bool {
    letter.is_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(letter)
}

/// Whether an address may have this letter after its `@`, in a name or an address in brackets.
fn is_domain(letter: char) -> bool {
    letter.is_alphanumeric() || ".-_".contains(letter)
}

/// The length in bytes of a telephone number after its `+`: 8 to 15 digits, which blanks, dots, hyphens and
/// parentheses may divide.
fn number(text: &str) -> Option<usize> {
    let divides = |letter: char| " -.()".contains(letter);
    let all = &text[..text.len()
        - text.trim_start_matches(|letter: char| letter.is_ascii_digit() || divides(letter)).len()];
    let all = all.trim_end_matches(divides);
    let digits = all.chars().filter(char::is_ascii_digit).count();
    ((8..=15).contains(&digits) && all.starts_with(|first: char| first.is_ascii_digit())).then_some(all.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn masked(text: &str) -> String {
        let mut text = text.to_owned();
        mask_reachable(&mut text);
        text
    }

    #[test]
    fn what_a_person_can_be_reached_by_is_masked_and_nothing_else() {
        for (text, expected) in [
            ("mail to ada@example.com.", "mail to [redacted]."),
            ("<Ada.Lovelace+x@mail.example.com>, b@c", "<[redacted]>, [redacted]"),
            ("\"ada lovelace\"@example.com is quoted", "[redacted] is quoted"),
            ("{\"to\":\"ada@example.com\"}", "{\"to\":\"[redacted]\"}"),
            ("PUT /users/ada%40example.com failed", "PUT [redacted] failed"),
            ("zoë@müller.example", "[redacted]"),
            ("set user:ada@example.com", "set user:[redacted]"),
            ("550 5.1.1 <ada@example.com>: no such user", "550 5.1.1 <[redacted]>: no such user"),
            ("call +44 1632 960-961 now", "call [redacted] now"),
            ("+441632960961", "[redacted]"),
            (
                "1+1234567890 is a sum, +5 a step, +0000 an offset",
                "1+1234567890 is a sum, +5 a step, +0000 an offset",
            ),
            ("at 12:00 @ noon, @decorator, a@", "at 12:00 @ noon, @decorator, a@"),
            ("100% of usr_1, 50%40", "100% of usr_1, 50%40"),
            (r#"{"a":"b","@type":"c"}"#, r#"{"a":"b","@type":"c"}"#),
            ("nothing", "nothing"),
        ] {
            assert_eq!(masked(text), expected, "{text}");
        }
        let many = "a@b.c ".repeat(20_000);
        assert_eq!(masked(&many), "[redacted] ".repeat(20_000));
        assert_eq!(masked(&"@".repeat(100_000)).len(), 100_000);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[a@+%40\"é. -]{0,60}", any: String) {
            let _ = (masked(&text), masked(&any));
        }
    }
}
