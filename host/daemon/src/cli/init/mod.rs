//! `posthouse init [DIR]`: writes a first config.toml with everything that it needs to pass
//! `posthouse check`, and prints the next steps.
//!
//! It asks nothing and overwrites nothing. Only the sender knows the signing secret, so it uses a random one:
//! the daemon starts, `posthouse send` works, and no stranger can sign.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, ErrorKind, Write as _},
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use posthouse_model::{
    SourceName,
    config::{
        Loaded, ProcessEnvironment, Scheme, Secrets,
        scheme::{Algorithm, KeyEncoding, Row, shipped},
    },
};

use super::{CliError, table};

use crate::daemon;

/// The first config.toml, with `{…}` in place of the arguments.
const TEMPLATE: &str = include_str!("config.toml");
/// The folder of the secrets.
const SECRETS: &str = "secrets";
/// The folder of the plugins.
const PLUGINS: &str = "plugins";

/// The arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The folder to write to; it is created if missing. By default the folder of `--config`.
    dir: Option<PathBuf>,
    /// The name of the first source.
    #[arg(long, value_parser = SourceName::new)]
    name: Option<SourceName>,
    /// How the source signs; `posthouse senders` lists the schemes.
    #[arg(long, default_value = "scalekit", value_parser = schemes(), hide_possible_values = true)]
    scheme: String,
    /// The path of its webhooks. [default: /webhooks/NAME]
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// The address of the listener for webhooks.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8400")]
    listen: SocketAddr,
    /// The address of the admin listener.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8401")]
    admin_listen: SocketAddr,
}

/// The schemes that accept the random secret, and need nothing else in config.toml.
fn schemes() -> clap::builder::PossibleValuesParser {
    let takes_any_text = |row: &Arc<Row>| {
        let algorithm = row.signature.algorithm;
        !algorithm.is_public() && algorithm != Algorithm::Basic && row.key.encoding != KeyEncoding::Hex
    };
    let fits = |scheme: &&Arc<Scheme>| !scheme.signs_url() && scheme.rows.iter().all(takes_any_text);
    shipped().iter().filter(fits).map(|scheme| scheme.as_str()).collect::<Vec<_>>().into()
}

/// Writes the files and prints the next steps.
///
/// # Errors
/// [`CliError::Failure`] if there is a configuration already, or a file can't be written. [`CliError::Usage`]
/// if config.toml can't contain an argument.
pub fn run(args: Args, config: &Path) -> Result<ExitCode, CliError> {
    let file = match &args.dir {
        Some(dir) => dir.join("config.toml"),
        None => config.to_owned(),
    };
    let new = New::of(args);
    let text = new.config();
    if let Err(error) = Loaded::parse(&text, &file, &ProcessEnvironment, Secrets::OfAdmin) {
        return Err(CliError::Usage(error.to_string()));
    }
    if file.symlink_metadata().is_ok() {
        return Err(there_already(&file));
    }
    let dir = folder(&file);
    make_folder(&dir.join(PLUGINS), 0o755)?;
    make_folder(&dir.join(SECRETS), 0o700)?;
    let secret = dir.join(new.secret_file());
    let made_secret = match write_new(&secret, 0o600, &(secret_text() + "\n")) {
        Ok(()) => true,
        // The secret is from an earlier run: it may be the sender's by now.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => false,
        Err(error) => return Err(unwritable(&secret, &error)),
    };
    // config.toml is the last file, so that an interrupted run can be repeated.
    match write_new(&file, 0o644, &text) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(there_already(&file)),
        Err(error) => return Err(unwritable(&file, &error)),
    }
    table::print(&new.next_steps(&file, made_secret))
}

/// The values to be written.
struct New {
    name: String,
    scheme: String,
    path: String,
    listen: SocketAddr,
    admin: SocketAddr,
}

impl New {
    fn of(args: Args) -> Self {
        let name = match args.name {
            Some(name) => String::from(name),
            None if args.scheme == "standard-webhooks" => "webhooks".to_owned(),
            None if args.scheme == "scalekit-documented" => "scalekit".to_owned(),
            None => args.scheme.clone(),
        };
        let path = args.path.unwrap_or_else(|| format!("/webhooks/{name}"));
        Self { name, scheme: args.scheme, path, listen: args.listen, admin: args.admin_listen }
    }

    fn secret_file(&self) -> String {
        format!("{SECRETS}/{}", self.name)
    }

    fn config(&self) -> String {
        let values = [
            ("listen", self.listen.to_string()),
            ("admin", self.admin.to_string()),
            ("name", self.name.clone()),
            ("path", self.path.clone()),
            ("scheme", self.scheme.clone()),
            ("secret", self.secret_file()),
        ];
        values.into_iter().fold(TEMPLATE.to_owned(), |text, (key, value)| {
            text.replace(&format!("{{{key}}}"), &toml::Value::String(value).to_string())
        })
    }

    fn next_steps(&self, file: &Path, made_secret: bool) -> String {
        let Self { path, listen, admin, scheme, .. } = self;
        let dir = folder(file);
        let secret = dir.join(self.secret_file());
        let (file, secret, plugins, state) =
            (shown(file), shown(&secret), shown(&dir.join(PLUGINS)), shown(&dir.join("data/admin-token")));
        let wrote_secret =
            if made_secret { "a random secret for now" } else { "existed already, and was kept" };
        let config =
            if file == "config.toml" { String::new() } else { format!(" --config {}", quoted(&file)) };
        let place = match Scheme::named(scheme) {
            Some(scheme) if !scheme.has_envelope() => scheme.about.setup.clone().unwrap_or_default(),
            _ if scheme == "standard-webhooks" => {
                "The sender's page for webhooks shows it, often as `Signing secret`; it begins with whsec_."
                    .to_owned()
            }
            _ => "Scalekit shows it in its dashboard, Settings > Webhooks, as `Signing Secret`.".to_owned(),
        };
        let send = match Scheme::named(scheme).is_some_and(|scheme| scheme.has_envelope()) {
            true => "send user.created".to_owned(),
            false => format!("senders show {scheme}"),
        };
        format!(
            "wrote {file}\n\
             wrote {secret} ({wrote_secret})\n\
             created {plugins}/\n\
             \n\
             Next steps\n\
             \n\
             1. Try it: run these in two terminals.\n\
             \n\
             \x20      posthouse{config} check\n\
             \x20      posthouse{config} serve\n\
             \n\
             \x20      posthouse{config} {send}\n\
             \x20      posthouse{config} events\n\
             \n\
             \x20  The dashboard is http://{admin}; its token is in {state} once the daemon runs.\n\
             \n\
             2. At the sender, add an endpoint with the URL\n\
             \n\
             \x20      https://YOUR-HOST{path}\n\
             \n\
             \x20  and let YOUR-HOST forward it to http://{listen}{path}.\n\
             \n\
             3. Put the signing secret of that endpoint into {secret}, then restart the daemon.\n\
             \x20  {place}\n\
             \n\
             4. Put plugins (.wasm files) into {plugins}/; `posthouse{config} plugins` shows the state of each.\n"
        )
    }
}

/// A random secret in the form of Standard Webhooks, which every scheme accepts.
fn secret_text() -> String {
    let mut bytes = [0; 32];
    daemon::env().fill(&mut bytes);
    format!("whsec_{}", BASE64_STANDARD.encode(bytes))
}

fn folder(file: &Path) -> &Path {
    file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new(""))
}

fn make_folder(dir: &Path, mode: u32) -> Result<(), CliError> {
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(parent).map_err(|error| unwritable(parent, &error))?;
    }
    match DirBuilder::new().mode(mode).create(dir) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists || !dir.is_dir() => {
            Err(unwritable(dir, &error))
        }
        _ => Ok(()),
    }
}

fn write_new(path: &Path, mode: u32, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn there_already(file: &Path) -> CliError {
    CliError::Failure(format!(
        "`{}` exists already, and `posthouse init` overwrites nothing; name another folder, or move the file away",
        shown(file)
    ))
}

fn unwritable(path: &Path, error: &io::Error) -> CliError {
    CliError::Failure(format!("`{}` can't be written: {error}", shown(path)))
}

fn shown(path: &Path) -> String {
    table::clean(&path.display().to_string())
}

/// A path, quoted for a shell.
fn quoted(path: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '/' | '.' | '-' | '_');
    if path.chars().all(plain) { path.to_owned() } else { format!("'{}'", path.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(name: &str, path: &str) -> New {
        New {
            name: name.to_owned(),
            scheme: "scalekit".to_owned(),
            path: path.to_owned(),
            listen: "127.0.0.1:8400".parse().unwrap(),
            admin: "127.0.0.1:8401".parse().unwrap(),
        }
    }

    #[test]
    fn no_argument_can_break_out_of_its_place() {
        let odd = new("a", "/x\"\n[plugin.y]\n#\\");
        let text = odd.config();
        assert!(text.parse::<toml::Table>().unwrap().get("plugin").is_none(), "{text}");
        assert!(!text.contains("{path}") && !text.contains("{secret}"), "{text}");
        let read = |new: New| {
            Loaded::parse(&new.config(), Path::new("config.toml"), &ProcessEnvironment, Secrets::OfAdmin)
        };
        assert!(read(odd).is_err() && read(new("a", "/x")).is_ok());
    }

    #[test]
    fn no_two_secrets_are_the_same() {
        let (one, other) = (secret_text(), secret_text());
        assert!(one.starts_with("whsec_") && one.len() == 50 && one != other);
    }

    #[test]
    fn a_path_is_quoted_for_the_shell_where_it_must_be() {
        assert_eq!(quoted("hooks/config.toml"), "hooks/config.toml");
        assert_eq!(quoted("my hooks/it's"), "'my hooks/it'\\''s'");
    }
}
