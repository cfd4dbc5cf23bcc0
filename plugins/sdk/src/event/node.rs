//! Finds the object that an event is about, and reads its members tolerantly.

use serde_json::{Map, Value};

use super::Malformed;
use crate::Event;

/// What an event can be about.
pub(super) trait Entity: Sized {
    /// Members of `data` that hold it.
    const MEMBERS: &'static [&'static str];
    /// The event types, or the beginnings of them, of which `data` itself is it.
    const WHOLE: &'static [&'static str];

    /// Reads it.
    fn read(node: &Node<'_>) -> Result<Self, Malformed>;
}

/// Reads what an event is about.
pub(super) fn read<T: Entity>(event: &Event) -> Result<T, Malformed> {
    let data: Value = event.json()?;
    let Some(members) = data.as_object() else {
        return Err(Malformed::new(event, "its `data` is no object".to_owned()));
    };
    let whole = Node { event, path: "data".to_owned(), members, data: members };
    match T::MEMBERS.iter().find_map(|member| whole.child(member)) {
        Some(part) => T::read(&part),
        None if T::WHOLE.iter().any(|family| event.event_type.starts_with(family)) => T::read(&whole),
        None => Err(event.missing(&format!("data.{}", T::MEMBERS.first().unwrap_or(&"id")))),
    }
}

/// An object inside of an event, and where it stands.
pub(super) struct Node<'a> {
    pub(super) event: &'a Event,
    path: String,
    members: &'a Map<String, Value>,
    data: &'a Map<String, Value>,
}

impl<'a> Node<'a> {
    /// The object in this member.
    pub(super) fn child(&self, member: &str) -> Option<Node<'a>> {
        let members = self.members.get(member)?.as_object()?;
        Some(Node { event: self.event, path: format!("{}.{member}", self.path), members, data: self.data })
    }

    /// The object in this member, or else in the member of `data` of the same name.
    pub(super) fn child_or_sibling(&self, member: &str) -> Option<Node<'a>> {
        self.child(member).or_else(|| {
            let members = self.data.get(member)?.as_object()?;
            Some(Node { event: self.event, path: format!("data.{member}"), members, data: self.data })
        })
    }

    /// The first of these members that has any text. A dot leads into an object.
    pub(super) fn text(&self, names: &[&str]) -> Option<String> {
        names.iter().find_map(|name| text_of(self.value(name)?))
    }

    /// The first of these members that has any text.
    pub(super) fn need(&self, names: &[&str]) -> Result<String, Malformed> {
        self.text(names).ok_or_else(|| {
            let name = names.first().unwrap_or(&"id");
            self.event.missing(&format!("{}.{name}", self.path))
        })
    }

    /// The first of these members that is true or false.
    pub(super) fn flag(&self, names: &[&str]) -> Option<bool> {
        names.iter().find_map(|name| self.value(name)?.as_bool())
    }

    /// The texts of an array: those it holds, or one of `names` in each object it holds.
    pub(super) fn texts(&self, member: &str, names: &[&str]) -> Vec<String> {
        let items = self.value(member).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let named = |item: &Value| names.iter().find_map(|name| text_of(item.get(name)?));
        items.iter().filter_map(|item| text_of(item).or_else(|| named(item))).collect()
    }

    fn value(&self, name: &str) -> Option<&'a Value> {
        let mut steps = name.split('.');
        let first = self.members.get(steps.next()?)?;
        steps.try_fold(first, |value, step| value.get(step))
    }
}

/// Text that is not empty, or a number as text.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}
