//! Decides who may sign up or be invited: by the domain of the mail address, and by the seats that are left.
//!
//! | trigger | decision |
//! | --- | --- |
//! | `PRE_SIGNUP` | ALLOW with a membership and its roles, and one seat is reserved; DENY if the domain is unknown or no seat is left |
//! | `PRE_USER_INVITATION` | the same for the organization that invites, without a membership: the invitation has one |
//!
//! ```toml
//! [[interceptor]]
//! name = "signup"
//! path = "/interceptors/signup"
//! secrets = [{ env = "INTERCEPTOR_SECRET" }]
//! triggers = ["PRE_SIGNUP", "PRE_USER_INVITATION"]
//! plugin = "signup-policy"
//!
//! [plugin.signup-policy.grants]
//! database = "app"
//!
//! [plugin.signup-policy.config]      # optional
//! unknown_domain = "deny"            # or "allow": people of other domains sign up into an organization of their own
//! ```
//!
//! The tables are in `migrations/`; you fill `signup_domains` and `signup_seats`. The seat and the answer are one
//! transaction: nobody is allowed without a seat in the table, and a request that comes again takes no second one. A
//! person who signs up again after an interrupted sign-up keeps the seat.

mod policy;

posthouse_sdk::interceptor!(policy::SignupPolicy);

#[cfg(test)]
mod tests;
