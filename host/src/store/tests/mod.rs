//! What a store promises, said to its handle alone: a second engine has to pass the same.

mod accepting;
mod backing_up;
mod durable;
mod emitting;
mod failing;
mod finding;
mod keys;
mod lanes;
mod ledger;
mod listing;
mod mailing;
mod measure;
mod metering;
mod opening;
mod ordering;
mod replaying;
mod revisions;
mod size;
mod support;
mod turns;
