//! The schemas of types from other crates, and of bodies that have several forms.
//!
//! A field of such a type says `#[schema(value_type = …)]` with a type from here. The lists of words are those
//! of the other crate, so that a new word is in the description at once.

use std::marker::PhantomData;

use posthouse_model as model;
use serde_json::json;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        OneOf, Ref, RefOr, Schema,
        schema::{AdditionalProperties, Object, ObjectBuilder, SchemaType, Type},
    },
};

use crate::admin::Since;

/// Defines a schema type for each type of another crate.
macro_rules! schemas {
    ($($(#[doc = $doc:literal])+ $name:ident: $schema:expr;)+) => {$(
        $(#[doc = $doc])+
        pub(super) enum $name {}

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                let text = [$($doc.trim()),+].join(" ");
                $schema.description(Some(text)).build().into()
            }
        }

        impl ToSchema for $name {}
    )+};
}

schemas! {
    /// The id of a delivery.
    DeliveryId: text("^dlv_[0-9]+$", ["dlv_7"]);

    /// The state of a delivery: `ready` to run, `leased` by an attempt, `waiting` for a retry or for the
    /// deliveries before it, `held` because its plugin is, `done`, or `dead` after its last attempt.
    DeliveryState: words(model::DeliveryState::ALL.map(model::DeliveryState::as_str));

    /// How an event arrived: `webhook`, `derived` from another event by a plugin, or `catch-up`, if its sender was asked
    /// for what was missed.
    EventOrigin: words(model::EventOrigin::ALL.map(model::EventOrigin::as_str));
    /// The state of a decision: `running`, `decided` by the plugin, or `fallback` if posthouse answered in its place.
    DecisionState: words(model::DecisionState::ALL.map(model::DecisionState::as_str));

    /// What a plugin decided.
    DecisionWord: words(["ALLOW", "DENY"]);

    /// Why the sender did not get a decision of the plugin.
    Fallback: words(model::Fallback::ALL.map(model::Fallback::as_str));

    /// The state of an outbox item: `ready` to be sent, `leased` while it is sent, `waiting` for a retry,
    /// `sent`, or `dead` after its last try.
    OutboxState: words(model::OutboxState::ALL.map(model::OutboxState::as_str));

    /// The state of a plugin's circuit breaker: `closed`, `open` while the plugin is paused automatically, or
    /// `half-open` while one delivery tries whether it works again.
    BreakerState: words(model::BreakerState::ALL.map(model::BreakerState::as_str));

    /// Why the deliveries of a plugin are held. `detail` depends on the reason.
    HeldReason: ObjectBuilder::new()
        .property("reason", words(model::HeldReason::WORDS).description(Some("The reason.")))
        .property(
            "detail",
            ObjectBuilder::new()
                .schema_type(SchemaType::AnyValue)
                .description(Some("The error, the missing grants, or the state of the breaker.")),
        )
        .required("reason");

    /// Selects event types: one by name, all below a prefix, or all (`*`).
    EventPattern: text(
        r"^([a-z]{1,20}(\.[a-z]{1,20}){0,3}(\.\*)?|\*)$",
        ["user.created", "user.*"],
    );

    /// The name of a source.
    SourceName: text("^[A-Za-z0-9_:-]{1,64}$", ["scalekit"]);

    /// An event type.
    EventType: text(r"^[a-z]{1,20}(\.[a-z_]{1,20}){1,3}$", ["user.created"]);

    /// The sender's id of an event.
    EventId: text("^[A-Za-z0-9_-]{1,60}$", ["evt_7"]);
}

impl PartialSchema for Since {
    fn schema() -> RefOr<Schema> {
        let pattern = concat!(
            "^([1-9][0-9]{0,3}(s|m|h|d)|today|yesterday",
            "|2[0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])",
            "([T ]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9])?Z?)?)$",
        );
        text(pattern, ["24h", "yesterday", "2026-11-30", "2026-11-30 14:00", "2026-03-01T12:00:00Z"])
            .description(Some(
                "A time: how long ago (`2h`, `7d`), `today`, `yesterday`, a date, a date with a time, RFC 3339, \
                 or seconds since 1970. It is in UTC if it has no zone. The pattern matches the usual forms only.",
            ))
            .build()
            .into()
    }
}

impl ToSchema for Since {}

/// A text of this form.
fn text<const N: usize>(pattern: &str, examples: [&str; N]) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some(pattern))
        .examples(examples.map(|text| json!(text)))
}

/// One of these words.
fn words<const N: usize>(words: [&'static str; N]) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words))
}

/// Either of two bodies.
pub(super) struct Either<A, B>(PhantomData<(A, B)>);

impl<A: ToSchema, B: ToSchema> PartialSchema for Either<A, B> {
    fn schema() -> RefOr<Schema> {
        let [a, b] = [A::name(), B::name()].map(Ref::from_schema_name);
        OneOf::builder().item(a).item(b).into()
    }
}

impl<A: ToSchema, B: ToSchema> ToSchema for Either<A, B> {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.extend([(A::name().into(), A::schema()), (B::name().into(), B::schema())]);
    }
}

/// One form of a body that may have several.
pub(super) struct Form {
    /// The request in words.
    pub(super) what: &'static str,
    /// The member that it must have. If it is a flag, it must be true.
    pub(super) needs: &'static str,
    /// The members that it may have.
    pub(super) takes: &'static [&'static str],
}

/// The schema of a body that must have one of these forms. `T` describes the members of all forms.
pub(super) fn forms<T: PartialSchema>(forms: &[Form]) -> RefOr<Schema> {
    let RefOr::T(Schema::Object(whole)) = T::schema() else { return T::schema() };
    let one_of = forms.iter().fold(OneOf::builder(), |one_of, form| {
        let mut object = Object::new();
        object.description = Some(form.what.to_owned());
        object.required = vec![form.needs.to_owned()];
        object.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(false)));
        for (name, member) in &whole.properties {
            let mut member = member.clone();
            if name == form.needs {
                if let RefOr::T(Schema::Object(flag)) = &mut member
                    && flag.schema_type == SchemaType::Type(Type::Boolean)
                {
                    flag.enum_values = Some(vec![json!(true)]);
                }
            } else if !form.takes.contains(&name.as_str()) {
                continue;
            }
            object.properties.insert(name.clone(), member);
        }
        one_of.item(object)
    });
    one_of.description(whole.description).into()
}
