//! Logs requests for a path of no source.
//!
//! The cause is a misspelt URL, or a stranger who tries paths. The operator sees the path, cut and escaped, and
//! the source with the nearest path. The query is never logged, because it may contain a token.

use std::net::IpAddr;

use http::Method;
use posthouse_model::config::{nearest, shown};

use super::handler::Routes;

/// The longest path that is compared with the paths of sources, in bytes.
const LONGEST: usize = 256;

/// Logs a request for a path of no source.
pub(super) fn log(method: &Method, path: &str, peer: IpAddr, routes: &Routes, held_back: u64) {
    let (method, path) =
        (shown(method.as_str()), Some(path).filter(|path| path.len() <= LONGEST).ok_or(path));
    let near = path.ok().and_then(|path| nearest(path, routes.keys().map(String::as_str)));
    let path = shown(path.unwrap_or_else(|path| path));
    match near.and_then(|near| routes.get_key_value(near)) {
        Some((near, route)) => tracing::info!(
            method,
            path,
            %peer,
            held_back,
            "no source has this path; did the sender mean `{near}` of the source `{}`?",
            route.source
        ),
        None => tracing::info!(method, path, %peer, held_back, "no source has this path"),
    }
}
