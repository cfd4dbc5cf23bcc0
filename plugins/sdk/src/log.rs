//! Log lines of the delivery: `posthouse events show` prints them.
//!
//! [`info!`](crate::info) and the other macros accept the arguments of `format!`.

pub use crate::bindings::posthouse::plugin::log::Level;

/// Writes one line.
pub fn write(level: Level, message: &str) {
    crate::host::log::write(level, message);
}

/// Logs panics, because the trap alone only says where they were.
#[cfg(target_family = "wasm")]
#[doc(hidden)]
pub fn panics() {
    std::panic::set_hook(Box::new(|panic| write(Level::Error, &panic.to_string())));
}

/// Logs at level trace: every step.
#[macro_export]
macro_rules! trace {
    ($($message:tt)+) => { $crate::log::write($crate::log::Level::Trace, &::std::format!($($message)+)) };
}

/// Logs at level debug: details that help to find a bug.
#[macro_export]
macro_rules! debug {
    ($($message:tt)+) => { $crate::log::write($crate::log::Level::Debug, &::std::format!($($message)+)) };
}

/// Logs at level info: things worth knowing.
#[macro_export]
macro_rules! info {
    ($($message:tt)+) => { $crate::log::write($crate::log::Level::Info, &::std::format!($($message)+)) };
}

/// Logs at level warn: things worth a look.
#[macro_export]
macro_rules! warn {
    ($($message:tt)+) => { $crate::log::write($crate::log::Level::Warn, &::std::format!($($message)+)) };
}

/// Logs at level error: things that went wrong.
#[macro_export]
macro_rules! error {
    ($($message:tt)+) => { $crate::log::write($crate::log::Level::Error, &::std::format!($($message)+)) };
}
