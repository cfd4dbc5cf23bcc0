//! The defaults of config.toml. The shipped config.toml shows each of these values, and a test keeps the two
//! equal.
//!
//! Paths are relative here. Loading prepends the folder of config.toml.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use super::{
    Admin, Breaker, Compile, Http, Limits, Log, LogFormat, MailTarget, MailTransport, PluginSettings,
    Plugins, Retry, Server, Store, Telemetry,
};
use crate::Grants;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

const fn days(days: u64) -> Duration {
    Duration::from_hours(24 * days)
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8400)),
            max_body: MIB as u64,
            max_requests: 1024,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            trusted_proxies: Vec::new(),
            shutdown_timeout: Duration::from_secs(10),
        }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 8401)), token: None, hosts: Vec::new() }
    }
}

impl Default for Store {
    fn default() -> Self {
        Self {
            path: "data/posthouse.db".into(),
            state: None,
            retention: days(30),
            max_backlog: 1_000_000,
            min_free: 256 * MIB as u64,
            max_size: None,
        }
    }
}

/// The back-off of the outbox: 10 s after the first attempt, doubling up to an hour, for a day in all. If a
/// mail server or an API is down for a night, nothing is lost.
const OUTBOX_RETRY: Retry = Retry {
    attempts: 33,
    base: Duration::from_secs(10),
    factor: 2.0,
    max: Duration::from_hours(1),
    jitter: 0.2,
};

impl Default for MailTransport {
    fn default() -> Self {
        Self { target: MailTarget::Folder("data/mail".into()), retry: OUTBOX_RETRY }
    }
}

impl Default for Http {
    fn default() -> Self {
        Self {
            ca: None,
            nameservers: Vec::new(),
            timeout: Duration::from_secs(30),
            retry: OUTBOX_RETRY,
            retry_after: Duration::from_hours(1),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::Human }
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self { otlp: None, header: BTreeMap::new(), sample: 1.0, service_name: "posthouse".into() }
    }
}

impl Default for Plugins {
    fn default() -> Self {
        Self {
            dir: "plugins".into(),
            rescan: Duration::from_secs(2),
            instances: 64,
            compile: Compile::default(),
            defaults: PluginSettings::default(),
        }
    }
}

/// Compiling CPython takes some 20 s.
impl Default for Compile {
    fn default() -> Self {
        Self { memory: None, time: Duration::from_mins(2) }
    }
}

impl Default for PluginSettings {
    fn default() -> Self {
        Self {
            component: None,
            events: None,
            concurrency: 8,
            reuse: 1,
            rate: None,
            retry: Retry::default(),
            breaker: Breaker::default(),
            limits: Limits::default(),
            order_by: None,
            grants: Grants::default(),
            config: BTreeMap::new(),
        }
    }
}

/// Ten deliveries that fail in a row are rarely an accident. In an outage with an event every few seconds, only
/// these ten are lost.
impl Default for Breaker {
    fn default() -> Self {
        Self { failures: 10, pause: Duration::from_secs(30), max_pause: Duration::from_mins(10) }
    }
}

/// The back-off of Scalekit's page: at 0 s, 2 s, 4 s and 8 s.
impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 4,
            base: Duration::from_secs(2),
            factor: 2.0,
            max: Duration::from_hours(1),
            jitter: 0.2,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            time: Duration::from_secs(8),
            memory: 64 * MIB,
            log_lines: 1000,
            log_line: 8 * KIB,
            reason: 4 * KIB,
            kv_key: 512,
            kv_value: 256 * KIB,
            kv_total: 64 * MIB as u64,
            http_fetches: 100,
            http_time: Duration::from_secs(5),
            http_request: MIB,
            http_response: MIB,
            http_headers: 16 * KIB,
            staged_items: 1000,
            staged_bytes: 4 * MIB,
            sql_rows: 10_000,
            sql_bytes: 4 * MIB,
            hostcall: 4 * MIB,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leaves_is_tried_for_a_day() {
        let Retry { attempts, base, factor, max, .. } = OUTBOX_RETRY;
        let waits = (1..attempts).map(|n| {
            let wait = base.as_secs_f64() * factor.powi(i32::try_from(n).unwrap() - 1);
            wait.min(max.as_secs_f64())
        });
        let hours = waits.sum::<f64>() / 3600.0;
        assert!((24.0..25.0).contains(&hours), "{hours} h");
    }
}
