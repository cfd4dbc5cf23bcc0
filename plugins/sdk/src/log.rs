//! Lines tied to the delivery: `posthouse events show` prints them.
//!
//! [`info!`](crate::info) and its sisters take what `format!` takes.

pub use crate::bindings::posthouse::plugin::log::Level;

/// Writes one line.
pub fn write(level: Level, message: &str) {
    crate::host::log::write(level, message);
}

/// Logs panics, of which the trap alone says only where they were.
#[cfg(target_family = "wasm")]
#[doc(hidden)]
pub fn panics() {
    std::panic::set_hook(Box::new(|panic| write(Level::Error, &panic.to_string())));
}

/// Logs every step.
#[macro_export]
macro_rules! trace {
    ($($message:tt)+) => { $crate::log::write($crate::log::Level::Trace, &::std::format!($($message)+)) };
}

/// Logs what helps to find a defect.
#[macro_export]
macro_rules! debug {
    ($($message:tt)+) => { $crate::log::write($crate::log::Level::Debug, &::std::format!($($message)+)) };
}

/// Logs what is worth knowing.
#[macro_export]
macro_rules! info {
    ($($message:tt)+) => { $crate::log::write($crate::log::Level::Info, &::std::format!($($message)+)) };
}

/// Logs what is worth a look.
#[macro_export]
macro_rules! warn {
    ($($message:tt)+) => { $crate::log::write($crate::log::Level::Warn, &::std::format!($($message)+)) };
}

/// Logs what went wrong.
#[macro_export]
macro_rules! error {
    ($($message:tt)+) => { $crate::log::write($crate::log::Level::Error, &::std::format!($($message)+)) };
}
