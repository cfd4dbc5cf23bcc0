//! The tests of the daemon's behaviours, one module for each, in one binary that is linked once.
//!
//! The documents cite a test by its module and its function: `contract` is `tests/contract.rs`. nextest runs
//! each test in a separate process; `cargo nextest run contract::` runs one behaviour.

mod admin;
mod admin_api;
mod backup;
mod bad_input;
mod breaker;
mod catch_up;
#[cfg(feature = "fault-points")]
mod clock;
mod command_line;
mod components;
mod config_errors;
mod contract;
mod crash;
#[cfg(feature = "fault-points")]
mod crash_effects;
mod crowded;
mod dashboard;
mod disk_full;
mod doctor;
mod emit;
mod fetch;
mod fetch_http2;
mod fetched;
mod floods;
mod forward;
mod handled;
mod headers;
mod health;
mod history;
mod hostile;
#[cfg(feature = "fault-points")]
mod interceptor_signatures;
mod interceptors;
mod interceptors_crash;
mod languages;
mod libraries;
mod limits;
mod logs;
mod metrics;
mod newest;
#[cfg(feature = "fault-points")]
mod odd_markers;
mod old_plugins;
mod old_stores;
mod operator;
mod order;
mod packaging;
mod postgres_tls;
mod promises;
mod reconfigure;
mod reload;
mod replay_many;
mod requests;
mod seats;
mod secrecy;
mod senders;
mod service;
mod shipped_config;
mod shutdown;
mod signatures;
mod smtp;
mod sql;
mod start_up;
mod store_files;
mod stubborn;
#[cfg(feature = "fault-points")]
mod stuck;
mod telemetry;
mod use_cases;

/// A file that is not listed here would never be compiled and could never fail.
#[test]
fn every_file_beside_this_one_is_a_module() {
    let folder = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests"));
    let listed = include_str!("main.rs");
    let entries = std::fs::read_dir(folder).unwrap();
    let files = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let forgotten: Vec<String> = files
        .filter_map(|file| file.strip_suffix(".rs").map(str::to_owned))
        .filter(|name| name != "main" && !listed.lines().any(|line| line == format!("mod {name};")))
        .collect();
    assert_eq!(forgotten, Vec::<String>::new(), "not listed in tests/main.rs");
}
