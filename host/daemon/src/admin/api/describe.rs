//! The OpenAPI document: the descriptions of all routes, with the parts that they share. It is generated from
//! the handlers and their types, so there is no route without a description.

use std::sync::LazyLock;

use axum::{http::header, response::IntoResponse};
use bytes::Bytes;
use utoipa::{
    IntoResponses as _,
    openapi::{
        Components, Info, License, OpenApi, RefOr, Schema, SecurityRequirement, Server, Type,
        path::{Operation, PathItem},
        schema::SchemaType,
        security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};
use utoipa_axum::router::OpenApiRouter;

use super::{refusals::Guarded, schemas::EventPattern};

use crate::admin::{
    Admin, Since,
    error::{ApiError, ErrorBody},
};

/// The text of the document.
static DOCUMENT: LazyLock<serde_json::Result<Bytes>> =
    LazyLock::new(|| document().to_pretty_json().map(Bytes::from));

/// The OpenAPI description of the admin API
#[utoipa::path(
    get,
    path = "/v1/openapi.json",
    operation_id = "getDescription",
    responses((status = 200, description = "An OpenAPI 3.1 document.", body = Object)),
)]
pub(super) async fn openapi() -> Result<impl IntoResponse, ApiError> {
    match &*DOCUMENT {
        Ok(text) => Ok(([(header::CONTENT_TYPE, "application/json")], text.clone())),
        Err(error) => Err(ApiError::internal(error)),
    }
}

/// The whole document.
fn document() -> OpenApi {
    let mut document = OpenApi::builder()
        .info(
            Info::builder()
                .title("posthouse, admin API")
                .version("1")
                .description(Some(
                    "What an operator can see and do. Every request except `GET /healthz` and `GET /readyz` \
                     needs the token of `[admin]`, or a session that began with it. Times are in RFC 3339.",
                ))
                .license(Some(License::builder().name("Apache-2.0").identifier(Some("Apache-2.0")).build())),
        )
        .servers(Some([Server::new("http://127.0.0.1:8401")]))
        .security(Some(
            ["token", "session"].map(|scheme| SecurityRequirement::new(scheme, Vec::<String>::new())),
        ))
        .components(Some(components()))
        .build();
    document.merge(part(super::guarded(), |operation| {
        for (status, response) in Guarded::responses() {
            operation.responses.responses.entry(status).or_insert(response);
        }
    }));
    document.merge(part(super::open(), |operation| operation.security = Some(Vec::new())));
    for schema in document.components.iter_mut().flat_map(|components| components.schemas.values_mut()) {
        require_nullable(schema);
    }
    document
}

/// The description of some routes, with a change to each operation.
fn part(routes: OpenApiRouter<Admin>, change: impl Fn(&mut Operation)) -> OpenApi {
    let mut part = routes.into_openapi();
    for item in part.paths.paths.values_mut() {
        let PathItem { get, post, .. } = item;
        get.iter_mut().chain(post).for_each(|operation| {
            // No route has tags.
            operation.tags = None;
            change(operation);
        });
    }
    part
}

/// Requires the members that may be null, because an answer has them with the value null. A member that may be
/// missing is `nullable = false`.
fn require_nullable(schema: &mut RefOr<Schema>) {
    match schema {
        RefOr::T(Schema::Object(object)) => {
            let nullable = object.properties.iter().filter(|(_, member)| may_be_null(member));
            object.required.extend(nullable.map(|(name, _)| name.clone()));
        }
        RefOr::T(Schema::AllOf(parts)) => parts.items.iter_mut().for_each(require_nullable),
        _ => {}
    }
}

fn may_be_null(member: &RefOr<Schema>) -> bool {
    let types = match member {
        RefOr::T(Schema::Object(object)) => &object.schema_type,
        RefOr::T(Schema::Array(array)) => &array.schema_type,
        RefOr::T(Schema::OneOf(one_of)) => return one_of.items.iter().any(may_be_null),
        _ => return false,
    };
    match types {
        SchemaType::Type(only) => *only == Type::Null,
        SchemaType::Array(several) => several.contains(&Type::Null),
        SchemaType::AnyValue => false,
    }
}

/// The parts to which several routes refer: how to authenticate, and the schemas that no body contains.
fn components() -> Components {
    let session = "Set by a login on the dashboard. Its name ends with the port. A request that changes \
                   something also needs the Origin of the listener.";
    Components::builder()
        .schema_from::<ErrorBody>()
        .schema_from::<EventPattern>()
        .schema_from::<Since>()
        .security_scheme(
            "token",
            SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build()),
        )
        .security_scheme(
            "session",
            SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::with_description("posthouse-8401", session))),
        )
        .build()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    fn described() -> Value {
        serde_json::to_value(document()).unwrap()
    }

    fn operations(document: &Value) -> Vec<(String, Value)> {
        let paths = document["paths"].as_object().unwrap().iter();
        let methods = paths.flat_map(|(path, methods)| {
            let methods = methods.as_object().unwrap().iter();
            methods.map(move |(method, operation)| (format!("{method} {path}"), operation.clone()))
        });
        methods.collect()
    }

    #[test]
    fn every_operation_says_what_it_does_and_how_it_refuses() {
        let document = described();
        let operations = operations(&document);
        assert_eq!(operations.len(), 35);
        for (name, operation) in &operations {
            let open = ["get /healthz", "get /readyz"].contains(&name.as_str());
            assert_eq!(operation["responses"].get("401").is_none(), open, "{name}");
            assert_eq!(operation["security"].is_array(), open, "{name}");
            assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{name}");
            assert!(operation["responses"].get("200").is_some(), "{name}");
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                assert!(parameter["description"].is_string(), "{name}: {parameter}");
            }
        }
        let ids: BTreeSet<_> =
            operations.iter().map(|(_, operation)| operation["operationId"].to_string()).collect();
        assert_eq!(ids.len(), operations.len(), "{ids:?}");
    }

    #[test]
    fn every_reference_leads_to_a_schema_and_every_schema_is_used() {
        fn references(value: &Value, found: &mut BTreeSet<String>) {
            match value {
                Value::Object(members) => {
                    if let Some(Value::String(reference)) = members.get("$ref") {
                        found.insert(reference.trim_start_matches("#/components/schemas/").to_owned());
                    }
                    members.values().for_each(|member| references(member, found));
                }
                Value::Array(items) => items.iter().for_each(|item| references(item, found)),
                _ => {}
            }
        }
        let document = described();
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        let schemas = document["components"]["schemas"].as_object().unwrap();
        assert_eq!(found, schemas.keys().cloned().collect());
        for (name, schema) in schemas {
            for (member, schema) in schema["properties"].as_object().into_iter().flatten() {
                // The description of a member that may be null is beside the reference.
                let schema = schema.get("oneOf").map_or(schema, |one_of| &one_of[0]);
                assert!(schema["description"].is_string(), "{name}.{member} has no doc comment: {schema}");
            }
        }
    }
}
