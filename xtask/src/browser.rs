//! Installs the programs for the browser tests: Debian's Chromium, a Node.js, and a driver from npm.

use std::env;

use crate::{
    npm,
    shell::{Result, has},
    toolchain::install,
};

/// Installs what is missing.
pub fn install_all() -> Result {
    if !has("chromium") && env::var_os("CHROMIUM").is_none() {
        install(&["chromium"])?;
    }
    npm::packages("browser", "the driver for the browser")
}
