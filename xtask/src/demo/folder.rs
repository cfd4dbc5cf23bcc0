//! The demo's folder, `data/demo`: as shipped, except for the target of the plugins' requests.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
};

use crate::shell::{Doing as _, Error, Result, root, say};

/// The services that plugins of the shipped config.toml could send requests to, in lines that are commented
/// out.
const SERVICES: [&str; 4] = ["accounts", "analytics", "billing", "provision"];

/// Creates `data/demo` again, with the shipped settings, except that plugins send their requests to
/// `listener`. Returns the addresses for webhooks and for the operator.
pub(super) fn furnish(listener: &str) -> Result<[String; 2]> {
    let folder = folder();
    let lock = folder.join("data/posthouse.db.lock");
    if fs::File::open(&lock).is_ok_and(|lock| lock.try_lock().is_err()) {
        return Err(Error::new(format!("a demo runs in {} already; stop it first", shown(&folder))));
    }
    if folder.exists() {
        fs::remove_dir_all(&folder).doing(format_args!("clear {}", shown(&folder)))?;
    }
    let plugins = folder.join("plugins");
    fs::create_dir_all(&plugins).doing(format_args!("make {}", shown(&plugins)))?;
    for entry in fs::read_dir(root().join("plugins")).doing("read plugins")? {
        let path = entry.doing("read plugins")?.path();
        if path.extension().is_some_and(|extension| extension == "wasm") {
            let name = path.file_name().unwrap_or_default();
            fs::copy(&path, plugins.join(name)).doing(format_args!("copy {}", path.display()))?;
        }
    }
    // As shipped, unless its ports are in use.
    let mut config = fs::read_to_string(root().join("config.toml")).doing("read config.toml")?;
    let mut listeners = ["127.0.0.1:8400", "127.0.0.1:8401"].map(str::to_owned);
    for shipped in &mut listeners {
        if !config.contains(shipped.as_str()) {
            return Err(Error::new(format!(
                "config.toml does not listen on {shipped}, which this demo expects"
            )));
        }
        if TcpListener::bind(shipped.as_str()).is_err() {
            let free =
                TcpListener::bind("127.0.0.1:0").and_then(|one| one.local_addr()).doing("find a port")?;
            say(format_args!("{shipped} is in use; using {free} instead"));
            config = config.replace(shipped.as_str(), &free.to_string());
            *shipped = free.to_string();
        }
    }
    fs::write(folder.join("config.toml"), with_services(&config, listener))
        .doing("write data/demo/config.toml")?;
    Ok(listeners)
}

/// The settings with the lines for other services enabled, all of them at this address.
fn with_services(config: &str, listener: &str) -> String {
    let live = |line: &str| {
        let (service, url) = SERVICES.iter().find_map(|service| {
            let url = format!("https://{service}.example.com");
            line.contains(&url).then_some((service, url))
        })?;
        Some(line.trim_start_matches("# ").replace(&url, &format!("http://{listener}/{service}")))
    };
    config.lines().map(|line| live(line).unwrap_or_else(|| line.to_owned()) + "\n").collect()
}

/// The text of the first mail, if there is one.
pub(super) fn first_mail() -> Option<String> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder().join("data/mail")).ok()?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "eml"));
    files.sort();
    fs::read_to_string(files.first()?).ok()
}

pub(super) fn folder() -> PathBuf {
    root().join("data/demo")
}

/// A path as one would type it in the top folder.
pub(super) fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}
