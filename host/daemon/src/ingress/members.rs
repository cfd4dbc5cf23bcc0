//! Reads the members of a body that a row names, in one pass.
//!
//! It skips everything else unparsed, so the depth and the numbers of the rest do no harm. If an object on the path
//! to a member repeats a name of that path, the body is ambiguous: two readers may choose different members.

use std::{borrow::Cow, fmt};

use posthouse_model::json::{self, JsonStr};
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// The members that a row names, as a tree.
#[derive(Default)]
pub(super) struct Wanted {
    root: Node,
    many: usize,
}

#[derive(Default)]
struct Node {
    /// The number of the member, if it is wanted itself.
    number: Option<usize>,
    below: Vec<(String, Node)>,
}

impl Wanted {
    /// Adds a member by its steps, and returns its number.
    pub(super) fn add(&mut self, steps: &[String]) -> usize {
        let mut node = &mut self.root;
        for step in steps {
            let at = match node.below.iter().position(|(name, _)| name == step) {
                Some(at) => at,
                None => {
                    node.below.push((step.clone(), Node::default()));
                    node.below.len() - 1
                }
            };
            node = &mut node.below[at].1;
        }
        *node.number.get_or_insert_with(|| {
            self.many += 1;
            self.many - 1
        })
    }

    /// Whether nothing is wanted.
    pub(super) fn is_empty(&self) -> bool {
        self.many == 0
    }

    /// Reads the members of this text.
    ///
    /// # Errors
    /// The text is not JSON.
    pub(super) fn read<'a>(&self, text: &'a str) -> Result<Found<'a>, serde_json::Error> {
        let mut found = Found { values: vec![None; self.many], repeated: None };
        if let Some(number) = self.root.number {
            found.values[number] = Some(text);
        }
        // Only an element that was parsed already is wanted whole.
        if self.root.number.is_none() || !self.root.below.is_empty() {
            read_below(&self.root, text, &mut found)?;
        }
        Ok(found)
    }
}

/// The most elements of an array that are read, each for an event.
pub(super) const MAX_ELEMENTS: usize = 1000;

/// The JSON of each element of an array. None if the text is no array, or has more than [`MAX_ELEMENTS`].
pub(super) fn elements(array: &str) -> Option<Vec<&str>> {
    struct Elements;
    impl<'de> Visitor<'de> for Elements {
        type Value = Vec<&'de str>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "an array of at most {MAX_ELEMENTS} elements")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut elements = Vec::new();
            while let Some(element) = seq.next_element::<&RawValue>()? {
                if elements.len() == MAX_ELEMENTS {
                    return Err(A::Error::invalid_length(MAX_ELEMENTS + 1, &self));
                }
                elements.push(element.get());
            }
            Ok(elements)
        }
    }
    let mut reader = serde_json::Deserializer::from_str(array);
    let elements = reader.deserialize_seq(Elements).ok()?;
    reader.end().ok().map(|()| elements)
}

/// The members that were found.
pub(super) struct Found<'a> {
    /// Their JSON, by number.
    values: Vec<Option<&'a str>>,
    /// A name that an object repeats on the path to one of them.
    pub(super) repeated: Option<String>,
}

impl<'a> Found<'a> {
    /// The JSON of a member.
    pub(super) fn json(&self, number: usize) -> Option<&'a str> {
        self.values.get(number).copied().flatten()
    }

    /// The text of a member: a string that is not empty, or a number as it is written.
    pub(super) fn text(&self, number: usize) -> Option<Cow<'a, str>> {
        json::scalar(self.json(number)?)
    }
}

/// Reads all of `text`, and the members below this node.
fn read_below<'a>(node: &Node, text: &'a str, found: &mut Found<'a>) -> Result<(), serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_str(text);
    Below { node, found }.deserialize(&mut reader)?;
    reader.end()
}

struct Below<'n, 'f, 'a> {
    node: &'n Node,
    found: &'f mut Found<'a>,
}

impl<'a> Below<'_, '_, 'a> {
    /// Records the JSON of the member with this position among those below.
    fn take(&mut self, at: usize, json: &'a str) {
        let node = &self.node.below[at].1;
        if let Some(number) = node.number {
            self.found.values[number] = Some(json);
        }
        if !node.below.is_empty() && matches!(json.as_bytes().first(), Some(b'{' | b'[')) {
            // The text is JSON: it has been read once.
            let _ = read_below(node, json, self.found);
        }
    }
}

impl<'de> DeserializeSeed<'de> for Below<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Below<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or an array")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let mut seen = vec![false; self.node.below.len()];
        while let Some(name) = map.next_key::<JsonStr<'de>>()? {
            let is_named = |(wanted, _): &(String, Node)| wanted.as_bytes() == name.as_bytes();
            match self.node.below.iter().position(is_named) {
                Some(at) => {
                    if std::mem::replace(&mut seen[at], true) {
                        self.found.repeated.get_or_insert_with(|| self.node.below[at].0.clone());
                    }
                    let value: &RawValue = map.next_value()?;
                    self.take(at, value.get());
                }
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        let mut index = 0usize;
        while let Some(value) = seq.next_element::<&RawValue>()? {
            let is_this = |(step, _): &(String, Node)| *step == index.to_string();
            if let Some(at) = self.node.below.iter().position(is_this) {
                self.take(at, value.get());
            }
            index += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(pointers: &[&str]) -> Wanted {
        let mut wanted = Wanted::default();
        for pointer in pointers {
            let steps: Vec<_> = pointer[1..].split('/').map(str::to_owned).collect();
            wanted.add(&steps);
        }
        wanted
    }

    fn texts(pointers: &[&str], body: &str) -> Vec<Option<String>> {
        let found = wanted(pointers).read(body).unwrap();
        (0..pointers.len()).map(|number| found.text(number).map(Cow::into_owned)).collect()
    }

    #[test]
    fn members_are_found_at_any_depth_and_within_arrays() {
        let body = r#"{"id":"evt","n":{"a":{"x":12},"b":[{"c":"no"},{"c":"yes"}]},"t":true,"e":""}"#;
        let found = texts(&["/id", "/n/a/x", "/n/b/1/c", "/n/b/2/c", "/t", "/e", "/none", "/n/a"], body);
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(found, [some("evt"), some("12"), some("yes"), None, None, None, None, None]);
        let same = wanted(&["/a", "/a/b"]);
        let found = same.read(r#"{"a":{"b":"x"}}"#).unwrap();
        assert_eq!((found.json(0), found.json(1)), (Some(r#"{"b":"x"}"#), Some(r#""x""#)));
    }

    #[test]
    fn a_name_that_is_repeated_on_the_way_is_reported_and_others_are_not() {
        let wanted = wanted(&["/a/b"]);
        let repeated = |body| wanted.read(body).unwrap().repeated;
        assert_eq!(repeated(r#"{"a":{"b":1},"a":{"b":2}}"#).as_deref(), Some("a"));
        assert_eq!(repeated(r#"{"a":{"b":1,"\u0062":2}}"#).as_deref(), Some("b"));
        assert_eq!(repeated(r#"{"a":{"b":1,"c":2,"c":3},"x":1,"x":2}"#), None);
    }

    #[test]
    fn depth_and_odd_members_do_no_harm_and_what_is_no_json_is_an_error() {
        let deep = format!("{}{}", "[".repeat(300_000), "]".repeat(300_000));
        assert_eq!(
            texts(&["/id"], &format!(r#"{{"x":{deep},"id":"e","\ud800":1e999}}"#)),
            [Some("e".into())]
        );
        assert_eq!(texts(&["/a/b"], &format!(r#"{{"a":{deep}}}"#)), [None]);
        for body in ["", "{", "{} {}", "x", "7", "\"a\""] {
            assert!(wanted(&["/id"]).read(body).is_err(), "{body}");
        }
    }
}
