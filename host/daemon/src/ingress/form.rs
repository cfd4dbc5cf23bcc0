//! Forms: `application/x-www-form-urlencoded`, as bodies and as queries.

use std::borrow::Cow;

use http::{HeaderMap, header::CONTENT_TYPE};
use serde_json::{Map, Value};
use url::form_urlencoded;

/// The most fields of a form.
const MAX_FIELDS: usize = 1000;

/// A field: its name and its value, decoded.
pub(super) type Field<'a> = (Cow<'a, str>, Cow<'a, str>);

/// The form has too many fields.
pub(super) struct TooManyFields;

/// Whether the header says that the body is a form.
pub(super) fn is_form(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(http::HeaderValue::as_bytes).unwrap_or_default();
    let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default();
    kind.trim_ascii().eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
}

/// The fields of a form, in its order.
///
/// # Errors
/// [`TooManyFields`].
pub(super) fn fields(form: &[u8]) -> Result<Vec<Field<'_>>, TooManyFields> {
    let fields: Vec<_> = form_urlencoded::parse(form).take(MAX_FIELDS + 1).collect();
    if fields.len() > MAX_FIELDS { Err(TooManyFields) } else { Ok(fields) }
}

/// The values of the fields with this name.
pub(super) fn values<'f, 'a>(fields: &'f [Field<'a>], name: &str) -> impl Iterator<Item = &'f Cow<'a, str>> {
    fields.iter().filter(move |(of, _)| of == name).map(|(_, value)| value)
}

/// A form as the JSON of an event: an object of its fields. The values of a name that is repeated are an array.
pub(super) fn to_json(fields: &[Field<'_>]) -> String {
    let mut object = Map::new();
    for (name, value) in fields {
        let value = Value::from(value.as_ref());
        match object.get_mut(name.as_ref()) {
            None => drop(object.insert(name.to_string(), value)),
            Some(Value::Array(values)) => values.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
        }
    }
    Value::Object(object).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_becomes_an_object() {
        let fields = fields(b"a=1&b=x+y%26&b=&c&b=%C3%AB").unwrap_or_default();
        assert_eq!(to_json(&fields), r#"{"a":"1","b":["x y&","","ë"],"c":""}"#);
        assert_eq!(values(&fields, "b").count(), 3);
    }

    #[test]
    fn fields_are_bounded() {
        assert!(fields("a&".repeat(1000).as_bytes()).is_ok());
        assert!(fields("a&".repeat(1001).as_bytes()).is_err());
    }

    #[test]
    fn the_header_says_whether_it_is_a_form() {
        for (value, expected) in [
            ("application/x-www-form-urlencoded", true),
            ("Application/X-WWW-Form-Urlencoded; charset=utf-8", true),
            ("application/json", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, value.parse().unwrap());
            assert_eq!(is_form(&headers), expected, "{value}");
        }
    }
}
