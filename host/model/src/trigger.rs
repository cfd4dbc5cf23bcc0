//! Triggers: what an interceptor is asked about. A sender names the trigger of each request.

use std::fmt;

use serde::{Serialize, Serializer};

use super::{EventType, InvalidName};

/// A set of triggers. A trigger is a name such as `PRE_SIGNUP`, with the letters of an [`EventType`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Triggers {
    all: bool,
    named: Vec<EventType>,
}

impl Triggers {
    /// Reads a list. `*` means all triggers.
    ///
    /// # Errors
    /// [`InvalidName`] for a text that is neither `*` nor a name.
    pub fn new<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, InvalidName> {
        let mut triggers = Self::default();
        for text in texts {
            if text == "*" {
                triggers.all = true;
                continue;
            }
            let name = EventType::new(text)?;
            if !triggers.named.contains(&name) {
                triggers.named.push(name);
            }
        }
        Ok(triggers)
    }

    /// Whether the trigger is in the set.
    pub fn contains(&self, trigger: &EventType) -> bool {
        self.all || self.named.contains(trigger)
    }

    /// Whether the set contains no trigger.
    pub fn is_empty(&self) -> bool {
        !self.all && self.named.is_empty()
    }

    /// The triggers of this set that `other` does not contain; `*` for all, if only this set contains all.
    pub fn beyond(&self, other: &Self) -> Vec<&str> {
        let named = self.named.iter().filter(|name| !other.contains(name)).map(EventType::as_str);
        (self.all && !other.all).then_some("*").into_iter().chain(named).collect()
    }

    /// The texts of the set, as [`Self::new`] reads them.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.all.then_some("*").into_iter().chain(self.named.iter().map(EventType::as_str))
    }
}

impl fmt::Display for Triggers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.texts().collect::<Vec<_>>().join(", "))
    }
}

impl Serialize for Triggers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.texts())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn triggers(texts: &[&str]) -> Triggers {
        Triggers::new(texts.iter().copied()).unwrap()
    }

    #[test]
    fn a_set_contains_what_it_names_and_all_if_it_says_so() {
        let signup = EventType::new("PRE_SIGNUP").unwrap();
        let session = EventType::new("PRE_SESSION_CREATION").unwrap();
        assert!(triggers(&["PRE_SIGNUP"]).contains(&signup));
        assert!(!triggers(&["PRE_SIGNUP"]).contains(&session));
        assert!(triggers(&["*"]).contains(&session));
        assert!(triggers(&[]).is_empty() && !triggers(&["*"]).is_empty());
        assert!(Triggers::new(["PRE SIGNUP"]).is_err() && Triggers::new([""]).is_err());
    }

    #[test]
    fn a_set_says_what_another_lacks() {
        let (wanted, few) = (triggers(&["A", "B", "A"]), triggers(&["B"]));
        assert_eq!(wanted.beyond(&few), ["A"]);
        assert_eq!(wanted.to_string(), "A, B");
        assert!(wanted.beyond(&triggers(&["*"])).is_empty());
        assert_eq!(triggers(&["*", "A"]).beyond(&wanted), ["*"]);
    }
}
