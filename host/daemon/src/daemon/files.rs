//! Open files: how many connections the limit of open files allows.
//!
//! Connections must not use up the descriptors that the rest of the daemon needs. Without one for a database or
//! a plugin's request, the daemon would accept events that it cannot handle. So it first reserves the most that
//! config.toml allows the rest to use, and gives webhooks what remains.

use posthouse_model::config::{Config, DatabaseTarget};
use posthouse_store::Store;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

use crate::{admin, ingress::Ingress};

/// Descriptors of the store's connections and logs, listeners, watchers, standard streams, compiling children.
const BASE: usize = 160;
/// Descriptors of mails and requests that the outbox sends at once, and of their name lookups.
const OUTBOX: usize = 160;
/// The database, write-ahead log and index of one SQLite connection.
const FILES_OF_SQLITE: usize = 3;
/// Webhooks get at least this many connections, however low the limit is.
const LEAST: usize = 16;
/// One file in this many may be a connection of the admin listener.
const ADMIN_SHARE: usize = 4;

/// Raises this process's limit of open files as far as the system allows, and returns the new limit. The usual
/// soft limit of 1,024 is for programs that call `select`.
pub(super) fn raise_limit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    if let Err(error) = &raised {
        warn!(%error, "could not raise the limit of open files");
    }
    let allowed = if raised.is_ok() { limit.maximum } else { limit.current };
    allowed.map_or(usize::MAX, |allowed| usize::try_from(allowed).unwrap_or(usize::MAX))
}

/// The maximum number of connections of each listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Connections {
    pub(super) webhooks: usize,
    pub(super) admin: usize,
}

/// The numbers of connections for this limit of open files.
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
            "the limit of open files leaves fewer connections for webhooks than `max_requests` needs; raise \
             it (`LimitNOFILE` of the unit) above {}",
            rest + wanted
        );
    }
    Connections { webhooks, admin }
}

/// The maximum number of files that everything except the two listeners may have open at once.
fn rest(config: &Config) -> usize {
    let databases = config.databases.values().map(|database| {
        let each = match database.target {
            DatabaseTarget::Sqlite(_) => FILES_OF_SQLITE,
            DatabaseTarget::Postgres(_) => 1,
        };
        each * database.pool
    });
    // Each instance has at most one active request.
    let fetches = config.plugins.instances as usize;
    BASE + OUTBOX + fetches + databases.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use posthouse_model::config::{Loaded, ProcessEnvironment, Secrets};

    use super::*;

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
