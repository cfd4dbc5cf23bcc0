//! Masks all hidden values of an event in a text, in one pass.
//!
//! An event may have thousands of hidden values, and a log line thousands of characters. A search for each
//! value takes time proportional to the product of the two. The automaton of Aho and Corasick takes the sum
//! of their lengths.
//!
//! The crate `aho-corasick` was tried: each of its states lists every value that ends there. If values end in
//! one another, that takes the square of their lengths, in memory too. Only the longest value matters here.

use std::collections::HashMap;

use super::redact::REDACTED;

/// Searches for values, ignoring the case of ASCII letters. Built once for an event. It takes some 60 bytes
/// of memory for each byte of a value.
#[derive(Debug, Clone)]
pub struct Masker {
    /// The next state, by a state and a byte. State 0 is the start.
    ways: HashMap<(u32, u8), u32>,
    /// The properties of each state.
    states: Vec<State>,
    /// The bytes that begin a value.
    begin: [bool; 256],
}

/// A state: the bytes read so far are the beginning of a value.
#[derive(Debug, Clone, Copy, Default)]
struct State {
    /// The state of the longest suffix that is the beginning of a value, too.
    shorter: u32,
    /// The length in bytes of the longest value that ends here; 0 if none does.
    ends: u32,
}

impl Masker {
    /// A masker for these values. None if there are no values.
    pub fn new<S: AsRef<str>>(values: impl IntoIterator<Item = S>) -> Option<Self> {
        let mut masker = Self { ways: HashMap::new(), states: vec![State::default()], begin: [false; 256] };
        for value in values {
            masker.add(value.as_ref().as_bytes())?;
        }
        if masker.states.len() == 1 {
            return None;
        }
        masker.link();
        Some(masker)
    }

    /// Adds the states of a value. None if the states can't be numbered: that takes four gigabytes of values.
    fn add(&mut self, value: &[u8]) -> Option<()> {
        let mut state = 0;
        for byte in value.iter().map(u8::to_ascii_lowercase) {
            let new = u32::try_from(self.states.len()).ok()?;
            state = *self.ways.entry((state, byte)).or_insert(new);
            if state == new {
                self.states.push(State::default());
            }
        }
        if let Some(first) = value.first() {
            self.begin[usize::from(first.to_ascii_lowercase())] = true;
            self.states[state as usize].ends = u32::try_from(value.len()).ok()?;
        }
        Some(())
    }

    /// Computes the state to continue from if a byte leads no further. Shorter states are computed first.
    fn link(&mut self) {
        let mut from: Vec<(u32, u8, u32)> =
            self.ways.iter().map(|(&(state, byte), &next)| (state, byte, next)).collect();
        // By depth, which is not stored: each state has a higher number than the one before it.
        let mut depth = vec![0_u32; self.states.len()];
        from.sort_unstable_by_key(|&(_, _, next)| next);
        for &(state, _, next) in &from {
            depth[next as usize] = depth[state as usize] + 1;
        }
        from.sort_by_key(|&(_, _, next)| depth[next as usize]);
        for (state, byte, next) in from {
            let shorter = if state == 0 { 0 } else { self.next(self.states[state as usize].shorter, byte) };
            let ends = self.states[shorter as usize].ends;
            let next = &mut self.states[next as usize];
            next.shorter = shorter;
            next.ends = next.ends.max(ends);
        }
    }

    /// The state after one more byte.
    fn next(&self, mut state: u32, byte: u8) -> u32 {
        loop {
            if state == 0 && !self.begin[usize::from(byte)] {
                return 0;
            }
            if let Some(&next) = self.ways.get(&(state, byte)) {
                return next;
            }
            if state == 0 {
                return 0;
            }
            state = self.states[state as usize].shorter;
        }
    }

    /// Masks each part of the text that belongs to a value. Values that overlap are masked as one, so that no
    /// part of either remains.
    pub fn mask(&self, text: &mut String) {
        let places = self.places(text.as_bytes());
        if places.is_empty() {
            return;
        }
        let mut masked = String::with_capacity(text.len());
        let mut copied = 0;
        for (from, to) in places {
            masked.push_str(&text[copied..from]);
            masked.push_str(REDACTED);
            copied = to;
        }
        masked.push_str(&text[copied..]);
        *text = masked;
    }

    /// The ranges of values, in order and without overlaps.
    fn places(&self, text: &[u8]) -> Vec<(usize, usize)> {
        let mut places: Vec<(usize, usize)> = Vec::new();
        let mut state = 0;
        for (at, byte) in text.iter().enumerate() {
            state = self.next(state, byte.to_ascii_lowercase());
            let length = self.states[state as usize].ends as usize;
            if length == 0 {
                continue;
            }
            let mut from = at + 1 - length;
            while let Some(&(begins, ends)) = places.last()
                && ends > from
            {
                from = from.min(begins);
                places.pop();
            }
            places.push((from, at + 1));
        }
        places
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

    use super::*;

    fn masked(values: &[&str], text: &str) -> String {
        let mut text = text.to_owned();
        if let Some(masker) = Masker::new(values) {
            masker.mask(&mut text);
        }
        text
    }

    #[test]
    fn values_that_hold_or_overlap_each_other_leave_nothing_behind() {
        let values = ["ada@example.com", "example", "com pany", "Ärger"];
        assert_eq!(masked(&values, "to ADA@Example.com, from example"), "to [redacted], from [redacted]");
        assert_eq!(masked(&values, "ada@example.com pany x"), "[redacted] x");
        assert_eq!(masked(&values, "exampleexample"), "[redacted][redacted]");
        assert_eq!(masked(&values, "Ärger, but not ärger"), "[redacted], but not ärger");
        assert_eq!(masked(&[], "as it is"), "as it is");
        assert_eq!(masked(&["", "x"], "as it is"), "as it is");
    }

    /// Masks one value after the other.
    fn slowly(values: &[String], text: &str) -> String {
        let mut hidden = vec![false; text.len()];
        for value in values {
            for at in 0..text.len() {
                if text[at..].starts_with(value.as_str()) {
                    hidden[at..at + value.len()].fill(true);
                }
            }
        }
        text.char_indices().filter(|(at, _)| !hidden[*at]).map(|(_, sign)| sign).collect()
    }

    #[test]
    fn one_pass_hides_what_a_search_for_each_value_would() {
        let seed = posthouse_harness::seed();
        let mut random = StdRng::seed_from_u64(seed);
        for _ in 0..500 {
            let mut word = |most| -> String {
                (0..random.random_range(1..most))
                    .map(|_| char::from(random.random_range(b'a'..b'd')))
                    .collect()
            };
            let values: Vec<_> = (0..8).map(|_| word(6)).collect();
            let text = word(60);
            let mut masked = text.clone();
            Masker::new(&values).unwrap().mask(&mut masked);
            assert_eq!(
                masked.replace(REDACTED, ""),
                slowly(&values, &text),
                "{values:?} in {text}, seed {seed}"
            );
        }
    }

    #[test]
    fn many_values_in_a_long_text_take_one_pass_and_not_one_for_each() {
        // One pass for each value takes some 10^10 bytes, which is minutes. A single pass takes a moment,
        // even on a busy machine.
        let values: Vec<_> = (0..10_000).map(|number| format!("user{number}@example.com")).collect();
        // Adds values that end in one another, with a longer one that ends in all of them.
        let lengths = (4..500).chain([50_000]);
        let nested: Vec<_> = lengths.map(|length| "x".repeat(length)).collect();
        let mut text = "nobody, user9999@example.com ".repeat(30_000) + &"x".repeat(100_000);
        let began = std::time::Instant::now();
        Masker::new(values.iter().chain(&nested)).unwrap().mask(&mut text);
        assert_eq!(text.matches(REDACTED).count(), 30_001);
        assert!(began.elapsed() < std::time::Duration::from_secs(60), "{:?}", began.elapsed());
    }
}
