//! Finds the object that an event is about, and reads its members tolerantly.

use serde_json::error::Category;

use super::{
    Malformed,
    json::{Object, Text, elements},
};
use crate::Event;

/// An object that an event can be about.
pub(super) trait Entity: Sized {
    /// Members of `data` that may contain the object.
    const MEMBERS: &'static [&'static str];
    /// The event types, or their prefixes, whose `data` is the object itself.
    const WHOLE: &'static [&'static str];

    /// Reads the object.
    fn read(node: &Node<'_>) -> Result<Self, Malformed>;
}

/// Reads the object that an event is about.
pub(super) fn read<T: Entity>(event: &Event) -> Result<T, Malformed> {
    let data = Object::read(&event.data).map_err(|error| match error.classify() {
        Category::Data => Malformed::new(event, "its `data` is not an object".to_owned()),
        _ => Malformed::new(event, format!("`data`: {error}")),
    })?;
    let whole = Node { event, path: "data".to_owned(), members: data.clone(), data };
    match T::MEMBERS.iter().find_map(|member| whole.child(member)) {
        Some(part) => T::read(&part),
        None if T::WHOLE.iter().any(|family| event.event_type.starts_with(family)) => T::read(&whole),
        None => Err(event.missing(&format!("data.{}", T::MEMBERS.first().unwrap_or(&"id")))),
    }
}

/// An object in an event, and its path.
pub(super) struct Node<'a> {
    pub(super) event: &'a Event,
    path: String,
    members: Object<'a>,
    data: Object<'a>,
}

impl<'a> Node<'a> {
    /// The object in this member.
    pub(super) fn child(&self, member: &str) -> Option<Node<'a>> {
        let members = self.members.object(member)?;
        let path = format!("{}.{member}", self.path);
        Some(Node { event: self.event, path, members, data: self.data.clone() })
    }

    /// The object in this member, or in the member of `data` with the same name.
    pub(super) fn child_or_sibling(&self, member: &str) -> Option<Node<'a>> {
        self.child(member).or_else(|| {
            let members = self.data.object(member)?;
            let path = format!("data.{member}");
            Some(Node { event: self.event, path, members, data: self.data.clone() })
        })
    }

    /// The text of the first of these members that has one. A dot descends into an object.
    pub(super) fn text(&self, names: &[&str]) -> Option<String> {
        names.iter().find_map(|name| Text::of(self.value(name)?)).map(|text| text.text)
    }

    /// The same for an id.
    ///
    /// # Errors
    /// The id contains an invalid character: two such ids could become equal.
    pub(super) fn id(&self, names: &[&str]) -> Result<Option<String>, Malformed> {
        let found = names.iter().find_map(|name| Some((name, Text::of(self.value(name)?)?)));
        match found {
            Some((name, Text { mended: true, .. })) => {
                let problem = "contains U+0000 or half of a surrogate pair, which an id never does";
                Err(Malformed::new(self.event, format!("its `{}.{name}` {problem}", self.path)))
            }
            found => Ok(found.map(|(_, text)| text.text)),
        }
    }

    /// The id in the first of these members that has a text.
    pub(super) fn need(&self, names: &[&str]) -> Result<String, Malformed> {
        self.id(names)?.ok_or_else(|| {
            let name = names.first().unwrap_or(&"id");
            self.event.missing(&format!("{}.{name}", self.path))
        })
    }

    /// The value of the first of these members that is true or false.
    pub(super) fn flag(&self, names: &[&str]) -> Option<bool> {
        names.iter().find_map(|name| match self.value(name)? {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        })
    }

    /// The texts of an array: its texts, or the member of each of its objects that `names` lists.
    pub(super) fn texts(&self, member: &str, names: &[&str]) -> Vec<String> {
        let named = |item: &str| {
            let item = Object::read(item).ok()?;
            names.iter().find_map(|name| Text::of(item.get(name)?))
        };
        let items = self.value(member).map(elements).unwrap_or_default();
        items
            .into_iter()
            .filter_map(|item| Text::of(item).or_else(|| named(item)))
            .map(|text| text.text)
            .collect()
    }

    fn value(&self, name: &str) -> Option<&'a str> {
        let mut steps = name.split('.');
        let first = self.members.get(steps.next()?)?;
        steps.try_fold(first, |value, step| Object::read(value).ok()?.get(step))
    }
}
