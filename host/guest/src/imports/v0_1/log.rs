//! `log` of the package.

use posthouse_model::LogLevel;

use super::bindings::posthouse::plugin::log;
use crate::imports::{call::HostCall, state::HostState};

impl log::Host for HostState {
    fn write(&mut self, level: log::Level, message: String) -> wasmtime::Result<()> {
        let level = match level {
            log::Level::Trace => LogLevel::Trace,
            log::Level::Debug => LogLevel::Debug,
            log::Level::Info => LogLevel::Info,
            log::Level::Warn => LogLevel::Warn,
            log::Level::Error => LogLevel::Error,
        };
        self.call_now(HostCall::LogWrite { level, message })?;
        Ok(())
    }
}
