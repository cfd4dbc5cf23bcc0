//! Counts the seats that each organization takes, and tells billing when the count changes.
//!
//! | event | what happens |
//! | --- | --- |
//! | `membership.created`, `membership.updated`, `user.organization_membership_created`, `…_updated` | the user takes a seat in the organization, if none is taken yet |
//! | `membership.deleted`, `user.organization_membership_deleted` | the user's seat is free again |
//!
//! When the count of an organization changes, billing gets the new one, and `seat.changed` is emitted where
//! that is granted.
//!
//! ```toml
//! [plugin.seat-billing.grants]
//! database = "app"
//! http = ["https://billing.example.com"]       # needed for billing_url alone
//! emit = ["seat.changed"]                      # may be left out: then nobody hears of it
//!
//! [plugin.seat-billing.config]                 # may be left out
//! billing_url = "https://billing.example.com/v1/seats"
//! ```
//!
//! The counts are exact whatever comes when: a seat is a row for the user and the organization, which holds
//! what the newest event says; only an event that changes that row changes the count, in the same
//! transaction. Two attempts that count for one organization at once end as if one came after the other:
//! the second runs again.
//!
//! Billing gets `PUT <billing_url>/<organization>` with the count, by the outbox, at least once and under one
//! `Idempotency-Key`. Two such requests may arrive in another order than they were sent: `change` in each
//! grows by one with every change of the organization's count, so that the greatest one holds.
//!
//! The tables are in `migrations/`.

mod seats;

posthouse_sdk::plugin!(seats::SeatBilling);

#[cfg(test)]
mod tests;
