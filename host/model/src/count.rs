//! Numbers with their nouns: `1 event`, `2 events`.

/// The number and its noun. `one` is the singular of a regular noun, such as `delivery`.
pub fn counted(count: u64, one: &str) -> String {
    format!("{count} {}", noun(count, one))
}

/// The noun alone, in the form that fits the number.
pub fn noun(count: u64, one: &str) -> String {
    if count == 1 {
        return one.to_owned();
    }
    match one.strip_suffix('y') {
        Some(stem) if !stem.ends_with(['a', 'e', 'o', 'u']) => format!("{stem}ies"),
        _ if one.ends_with(['s', 'x']) => format!("{one}es"),
        _ => format!("{one}s"),
    }
}

/// The verb for deliveries that were replayed with many others. It fits the number.
pub fn turn(count: u64) -> &'static str {
    if count == 1 { "waits for its turn" } else { "wait for their turn" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_is_singular() {
        for (count, one, said) in [
            (0, "request", "0 requests"),
            (1, "request", "1 request"),
            (2, "delivery", "2 deliveries"),
            (1, "delivery", "1 delivery"),
            (5, "day", "5 days"),
            (2, "mailbox", "2 mailboxes"),
            (2, "dead letter", "2 dead letters"),
        ] {
            assert_eq!(counted(count, one), said);
        }
    }
}
