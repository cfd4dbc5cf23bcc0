//! Counts the seats of each organization, and notifies billing when the count changes.
//!
//! | event | what happens |
//! | --- | --- |
//! | `membership.created`, `membership.updated`, `user.organization_membership_created`, `…_updated` | the user takes a seat in the organization, unless the user has one |
//! | `membership.deleted`, `user.organization_membership_deleted` | the user's seat is free again |
//!
//! When the count of an organization changes, billing gets the new count. The plugin also emits `seat.changed`
//! if that is granted.
//!
//! ```toml
//! [plugin.seat-billing.grants]
//! database = "app"
//! http = ["https://billing.example.com"]       # needed for billing_url only
//! emit = ["seat.changed"]                      # optional: without it the event is not emitted
//!
//! [plugin.seat-billing.config]                 # optional
//! billing_url = "https://billing.example.com/v1/seats"
//! ```
//!
//! The counts are exact in whatever order events arrive. A seat is a row for the user and the organization,
//! with the values of the newest event. Only an event that changes that row changes the count, in the same
//! transaction. Two concurrent attempts for one organization have the same result as two in sequence: the
//! second runs again.
//!
//! Billing gets `PUT <billing_url>/<organization>` with the count, by the outbox, at least once and with one
//! `Idempotency-Key`. Two such requests may arrive in another order than they were sent. `change` in each
//! grows by one with every change of the organization's count, so the request with the greatest is current.
//!
//! The tables are in `migrations/`.

mod seats;

posthouse_sdk::plugin!(seats::SeatBilling);

#[cfg(test)]
mod tests;
