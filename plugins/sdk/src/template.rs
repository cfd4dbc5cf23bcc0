//! Text with placeholders, for templates in config.toml: `Hello {first_name|there},`.
//!
//! A placeholder is a name in braces (`a-z` and `_`). A text after `|` is the default. Any other brace is
//! literal, so that CSS needs no escaping. Values are never parsed as templates.

use std::fmt;

/// How to escape a value in the text. Values are from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Escape {
    /// No escaping: plain text.
    Text,
    /// Control characters become spaces, because a subject must be one line.
    Line,
    /// `& < > " '` become character references: HTML.
    Html,
}

impl Escape {
    /// Returns the escaped value.
    pub fn apply(self, value: &str) -> String {
        match self {
            Self::Text => value.to_owned(),
            Self::Line => value.replace(char::is_control, " "),
            Self::Html => {
                let mut escaped = String::with_capacity(value.len());
                for character in value.chars() {
                    match character {
                        '&' => escaped.push_str("&amp;"),
                        '<' => escaped.push_str("&lt;"),
                        '>' => escaped.push_str("&gt;"),
                        '"' => escaped.push_str("&quot;"),
                        '\'' => escaped.push_str("&#39;"),
                        other => escaped.push(other),
                    }
                }
                escaped
            }
        }
    }
}

/// Fills in the placeholders of `template`. `values` lists all valid names.
///
/// # Errors
/// [`Unknown`] if the template has another name.
pub fn fill(template: &str, escape: Escape, values: &[(&str, Option<&str>)]) -> Result<String, Unknown> {
    let mut text = String::with_capacity(template.len() + 64);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        text.push_str(before);
        let Some((name, otherwise, after_it)) = placeholder(after) else {
            text.push('{');
            rest = after;
            continue;
        };
        let Some((_, value)) = values.iter().find(|(known, _)| *known == name) else {
            return Err(Unknown {
                name: name.to_owned(),
                known: values.iter().map(|(known, _)| format!("{{{known}}}")).collect(),
            });
        };
        match value {
            Some(value) => text.push_str(&escape.apply(value)),
            None => text.push_str(otherwise),
        }
        rest = after_it;
    }
    text.push_str(rest);
    Ok(text)
}

/// Splits a text of the form `name|otherwise}rest`.
fn placeholder(text: &str) -> Option<(&str, &str, &str)> {
    let (inner, rest) = text.split_once('}')?;
    let (name, otherwise) = inner.split_once('|').unwrap_or((inner, ""));
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    (is_name && !otherwise.contains('{')).then_some((name, otherwise, rest))
}

/// A template has an unknown placeholder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown {
    name: String,
    known: Vec<String>,
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no placeholder `{{{}}}`; there are {}", self.name, self.known.join(" "))
    }
}

impl std::error::Error for Unknown {}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: [(&str, Option<&str>); 3] =
        [("name", Some("Ada <b>\n{team}")), ("team", Some("R&D")), ("none", None)];

    #[test]
    fn placeholders_are_filled_and_other_braces_stay() {
        for (template, escape, filled) in [
            ("", Escape::Text, ""),
            ("no braces", Escape::Text, "no braces"),
            ("{name}!", Escape::Text, "Ada <b>\n{team}!"),
            ("{name}", Escape::Line, "Ada <b> {team}"),
            ("<i>{name}</i>", Escape::Html, "<i>Ada &lt;b&gt;\n{team}</i>"),
            ("{team} {team}", Escape::Html, "R&amp;D R&amp;D"),
            ("[{none}] {none|friend}", Escape::Text, "[] friend"),
            ("{team|friend}", Escape::Text, "R&D"),
            ("p { color: red } {} {", Escape::Html, "p { color: red } {} {"),
            ("{{team}}", Escape::Text, "{R&D}"),
            ("{none|{team}}", Escape::Text, "{none|R&D}"),
        ] {
            assert_eq!(fill(template, escape, &VALUES).unwrap(), filled, "{template}");
        }
    }

    #[test]
    fn an_unknown_placeholder_is_named() {
        let error = fill("Hello {nmae}", Escape::Text, &VALUES).unwrap_err();
        assert_eq!(error.to_string(), "there is no placeholder `{nmae}`; there are {name} {team} {none}");
    }

    #[test]
    fn quotes_cannot_end_an_attribute() {
        assert_eq!(Escape::Html.apply(r#"" onload='x'"#), "&quot; onload=&#39;x&#39;");
    }
}
