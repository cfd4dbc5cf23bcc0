//! Plugins written in JavaScript and Python load as their tools make them, and do what Rust ones do.
