//! The refusals of the API, as the description lists them. Each handler lists its own. The router adds those of
//! the guard in front of it.

use std::collections::BTreeMap;

use utoipa::{
    IntoResponses, ToSchema,
    openapi::{Content, Ref, RefOr, Response},
};

use crate::admin::error::ErrorBody;

/// Defines sets of refusals, each with its statuses.
macro_rules! refusals {
    ($($(#[$doc:meta])+ $name:ident { $($status:literal: $description:literal,)+ })+) => {$(
        $(#[$doc])+
        pub(super) enum $name {}

        impl IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<Response>> {
                [$(($status, $description)),+].map(refusal).into()
            }
        }
    )+};
}

refusals! {
    /// The guard's, for every route that needs the token.
    Guarded {
        "401": "The token is missing or wrong.",
        "403": "The request comes from a page of another origin.",
        "421": "The Host header names another host.",
        "503": "The store does not answer or accepts nothing more, too many requests run, or the answer took \
                more than 30 s.",
    }

    /// The path or the query can't be read, or holds a value that is out of range.
    BadRequest { "400": "The request is invalid. The error says what is allowed.", }

    /// The body can't be read, or has the wrong members.
    BadBody {
        "400": "The request is invalid. The error says what is allowed.",
        "413": "The body is larger than 64 KiB.",
        "415": "The Content-Type is not JSON.",
        "422": "The body is JSON of another form. The error says where.",
    }

    /// The record that the request names does not exist.
    NotFound { "404": "There is no such record. The error names the nearest, if there is one.", }

    /// A name in a filter does not exist.
    UnknownName { "404": "A name in the filter is unknown. The error names the nearest.", }

    /// The state of the record forbids the action.
    Conflict { "409": "The current state does not allow this. The error says why.", }
}

fn refusal((status, description): (&str, &str)) -> (String, RefOr<Response>) {
    let body = Ref::from_schema_name(ErrorBody::name());
    let response = Response::builder()
        .description(description)
        .content("application/json", Content::builder().schema(Some(body)).build())
        .build();
    (status.to_owned(), response.into())
}
