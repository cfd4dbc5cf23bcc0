//! Open files: how many connections the limit leaves room for.
//!
//! Connections that come in must not take the descriptors that the rest of the daemon needs: without one for a
//! database or for a plugin's request, an event would be taken in that can't be handled. So the rest comes
//! first, at the most that config.toml lets it use, and webhooks have what is left.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

use crate::{
    admin,
    config::{Config, DatabaseTarget},
    ingress::Ingress,
    store::Store,
};

/// The store's connections and logs, listeners, watchers, standard streams, children that compile.
const BASE: usize = 160;
/// Mail and requests of the outbox that are on their way at once, with look-ups of names.
const OUTBOX: usize = 160;
/// Database, write-ahead log and index of one SQLite connection.
const FILES_OF_SQLITE: usize = 3;
/// Webhooks get so many connections, however low the limit is.
const LEAST: usize = 16;
/// Of so many files one may be a connection of the admin listener.
const ADMIN_SHARE: usize = 4;

/// Raises the limit of this process to what the system allows it, and returns that. The usual soft limit of
/// 1,024 is for programs that call `select`.
pub(super) fn raise_limit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    if let Err(error) = &raised {
        warn!(%error, "the limit of open files stays as it is");
    }
    let allowed = if raised.is_ok() { limit.maximum } else { limit.current };
    allowed.map_or(usize::MAX, |allowed| usize::try_from(allowed).unwrap_or(usize::MAX))
}

/// How many connections each listener may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Connections {
    pub(super) webhooks: usize,
    pub(super) admin: usize,
}

/// What may be open with so many files.
pub(super) fn connections(config: &Config, limit: usize) -> Connections {
    let admin = (limit / ADMIN_SHARE).clamp(*admin::CONNECTIONS.start(), *admin::CONNECTIONS.end());
    let wanted = Ingress::<Store>::connections_wanted(&config.server);
    let rest = admin + rest(config);
    let webhooks = wanted.min(limit.saturating_sub(rest).max(LEAST));
    if webhooks < wanted {
        warn!(
            limit,
            wanted,
            connections = webhooks,
            "the limit of open files leaves fewer connections for webhooks than `max_requests` asks for; raise \
             it (`LimitNOFILE` of the unit) above {}",
            rest + wanted
        );
    }
    Connections { webhooks, admin }
}

/// What everything but the two listeners may have open at once.
fn rest(config: &Config) -> usize {
    let databases = config.databases.values().map(|database| {
        let each = match database.target {
            DatabaseTarget::Sqlite(_) => FILES_OF_SQLITE,
            DatabaseTarget::Postgres(_) => 1,
        };
        each * database.pool
    });
    // An instance has one request under way.
    let fetches = config.plugins.instances as usize;
    BASE + OUTBOX + fetches + databases.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Loaded, ProcessEnvironment, Secrets};

    #[test]
    fn webhooks_have_what_is_left_and_never_nothing() {
        let config = Loaded::parse(
            "[databases.app]\nurl = \"sqlite:app.db\"",
            Path::new("config.toml"),
            &ProcessEnvironment,
            Secrets::All,
        );
        let config = config.expect("a configuration").config;
        let rest = rest(&config);
        for (limit, webhooks, admin) in [
            (usize::MAX, 4096, 512),
            (rest + 512 + 4096, 4096, 512),
            (1024, 1024 - 256 - rest, 256),
            (rest, LEAST, 128),
            (0, LEAST, 128),
        ] {
            assert_eq!(connections(&config, limit), Connections { webhooks, admin }, "{limit}");
        }
    }
}
