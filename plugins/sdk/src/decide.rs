//! Deciding: whether somebody may sign up, get a session, be invited, while the sender waits.
//!
//! ```
//! use posthouse_sdk::{Manifest, decide::{Decision, Interceptor, Request, Unsure}};
//!
//! struct NoStrangers;
//!
//! impl Interceptor for NoStrangers {
//!     fn manifest() -> Manifest {
//!         Manifest::new("lets only example.com sign up").decides(["PRE_SIGNUP"])
//!     }
//!
//!     fn decide(request: Request) -> Result<Decision, Unsure> {
//!         Ok(match request.domain() {
//!             Some(domain) if domain == "example.com" => Decision::allow(),
//!             _ => Decision::deny("only people of example.com may sign up"),
//!         })
//!     }
//! }
//!
//! posthouse_sdk::interceptor!(NoStrangers);
//! ```
//!
//! What `decide` stages takes effect if, and only if, it returns a decision, before the sender gets the answer. If it
//! returns [`Unsure`], traps or takes too long, everything is dropped, and the sender gets what the operator chose with
//! `on_failure`.

use serde::{Serialize, de::DeserializeOwned};

pub use crate::bindings::deciding::exports::posthouse::plugin::interceptor::{
    Decision, Failure as Unsure, Grant, Membership, Organization, Refusal, Request,
};
use crate::{Failure, Manifest, config, http, kv, outbox, sql};

/// A plugin that decides. It may be a [`crate::Plugin`] too.
pub trait Interceptor {
    /// Describes the plugin. If the type is a [`crate::Plugin`] too, return that one's manifest with
    /// [`Manifest::decides`].
    fn manifest() -> Manifest;

    /// Decides about one request.
    ///
    /// # Errors
    /// [`Unsure`] drops everything that was staged, and the operator's `on_failure` answers.
    fn decide(request: Request) -> Result<Decision, Unsure>;
}

/// Exports this type as the interceptor of this crate, which must be a `cdylib`.
#[macro_export]
macro_rules! interceptor {
    ($interceptor:ty) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            struct ExportedInterceptor;

            impl $crate::bindings::deciding::exports::posthouse::plugin::interceptor::Guest for ExportedInterceptor {
                fn describe() -> $crate::Manifest {
                    $crate::log::panics();
                    <$interceptor as $crate::decide::Interceptor>::manifest()
                }

                fn decide(
                    request: $crate::decide::Request,
                ) -> Result<$crate::decide::Decision, $crate::decide::Unsure> {
                    $crate::log::panics();
                    <$interceptor as $crate::decide::Interceptor>::decide(request)
                }
            }

    $crate::bindings::deciding::export_interceptor!(ExportedInterceptor with_types_in $crate::bindings::deciding);
        };

        #[cfg(not(target_family = "wasm"))]
        const _: fn() -> $crate::Manifest = <$interceptor as $crate::decide::Interceptor>::manifest;
    };
}

impl Request {
    /// The domain of the mail address, in lower case. None if there is no address with one.
    pub fn domain(&self) -> Option<String> {
        let (_, domain) = self.email.as_deref()?.rsplit_once('@')?;
        (!domain.is_empty()).then(|| domain.to_lowercase())
    }

    /// Returns `data` as the plugin's own type.
    ///
    /// # Errors
    /// [`Unsure`] if it is something else.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Unsure> {
        serde_json::from_str(&self.data)
            .map_err(|error| Unsure::because(format!("`data` of request `{}`: {error}", self.id)))
    }
}

impl Decision {
    /// It may go on.
    pub fn allow() -> Self {
        Self::Allow(Grant { claims: None, membership: None })
    }

    /// It may go on, and the members of this value become claims of the token. The value must be an object.
    ///
    /// # Errors
    /// [`Unsure`] if it can't be written as JSON.
    pub fn with_claims(claims: &impl Serialize) -> Result<Self, Unsure> {
        let claims = serde_json::to_string(claims)
            .map_err(|error| Unsure::because(format!("the claims can't be written as JSON: {error}")))?;
        Ok(Self::Allow(Grant { claims: Some(claims), membership: None }))
    }

    /// It may go on, and the new user becomes a member of this organization.
    pub fn with_membership(organization: Organization, roles: Vec<String>) -> Self {
        Self::Allow(Grant { claims: None, membership: Some(Membership { organization, roles }) })
    }

    /// It may not, and the person reads this message of at most 500 characters.
    pub fn deny(message: impl Into<String>) -> Self {
        Self::Deny(Refusal { message: Some(message.into()), code: None })
    }

    /// Adds a code for programs, of at most 50 characters, to a refusal.
    pub fn code(mut self, code: impl Into<String>) -> Self {
        if let Self::Deny(refusal) = &mut self {
            refusal.code = Some(code.into());
        }
        self
    }
}

impl Unsure {
    /// There is no decision, for this reason.
    pub fn because(reason: impl Into<String>) -> Self {
        Self::Unsure(reason.into())
    }

    /// The reason.
    pub fn reason(&self) -> &str {
        let Self::Unsure(reason) = self;
        reason
    }
}

macro_rules! unsure {
    ($($error:ty),+) => {
        $(impl From<$error> for Unsure {
            fn from(error: $error) -> Self {
                Self::because(error.to_string())
            }
        })+
    };
}

unsure!(config::Error, http::Error, kv::Error, outbox::Error, sql::Error);

impl From<Failure> for Unsure {
    fn from(failure: Failure) -> Self {
        Self::because(failure.reason())
    }
}

impl Manifest {
    /// Adds triggers that the plugin decides about: `PRE_SIGNUP`, or `*` for all.
    pub fn decides<'a>(mut self, triggers: impl IntoIterator<Item = &'a str>) -> Self {
        self.intercepts.extend(triggers.into_iter().map(str::to_owned));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        kv,
        testing::{Host, question},
    };

    struct Counting;

    impl Interceptor for Counting {
        fn manifest() -> Manifest {
            Manifest::new("counts").decides(["*"])
        }

        fn decide(request: Request) -> Result<Decision, Unsure> {
            kv::increment("asked", 1)?;
            match request.domain().as_deref() {
                Some("example.com") => Ok(Decision::allow()),
                Some(_) => Ok(Decision::deny("no").code("domain")),
                None => Err(Unsure::because("no address")),
            }
        }
    }

    #[test]
    fn a_decision_keeps_what_was_staged_and_no_decision_does_not() {
        let mut host = Host::new();
        let ada = question("PRE_SIGNUP", Some("Ada@Example.COM"));
        assert_eq!(host.decide::<Counting>(ada), Ok(Decision::allow()));
        let eve = question("PRE_SIGNUP", Some("eve@example.org"));
        assert_eq!(host.decide::<Counting>(eve), Ok(Decision::deny("no").code("domain")));
        let nobody = host.decide::<Counting>(question("PRE_SIGNUP", None));
        assert_eq!(nobody.unwrap_err().reason(), "no address");
        assert_eq!(host.text("asked").as_deref(), Some("2"));
        assert_eq!(Counting::manifest().intercepts, ["*"]);
    }

    #[test]
    fn claims_are_json() {
        let Ok(Decision::Allow(grant)) = Decision::with_claims(&serde_json::json!({ "tier": "pro" })) else {
            panic!()
        };
        assert_eq!(grant.claims.as_deref(), Some(r#"{"tier":"pro"}"#));
    }
}
