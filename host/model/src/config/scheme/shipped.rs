//! The schemes that posthouse ships: `senders.toml`, read once.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::Path,
    sync::{Arc, LazyLock},
};

use toml::de::DeTable;

use super::{Row, Scheme, read};
use crate::config::{
    Environment, Finding, Secrets,
    diagnose::{nearest, shown},
    table::{Document, Table},
};

/// The file, for its errors.
const FILE: &str = "senders.toml";
const TEXT: &str = include_str!("senders.toml");

/// The table has no secrets.
struct NoEnvironment;

impl Environment for NoEnvironment {
    fn variable(&self, _: &str) -> Option<OsString> {
        None
    }
}

/// The contents of senders.toml.
struct Shipped {
    schemes: Vec<Arc<Scheme>>,
    rows: BTreeMap<String, Arc<Row>>,
}

static SHIPPED: LazyLock<Shipped> = LazyLock::new(|| read_all().0);

/// Reads senders.toml. There are no findings, as a test checks.
fn read_all() -> (Shipped, Vec<Finding>) {
    let (root, errors) = DeTable::parse_recoverable(TEXT);
    let syntax = errors.into_iter().map(|error| {
        let at = error.span().map_or(0, |span| span.start);
        Finding::at(FILE, TEXT, at, error.message().to_owned())
    });
    let mut problems: Vec<_> = syntax.collect();
    let document = Document::new(TEXT, Path::new(FILE), &NoEnvironment, Secrets::OfAdmin);
    let root = Table::new(&document, "scheme".to_owned(), 0, root.get_ref());
    let schemes: Vec<_> = read::schemes(&root, &BTreeMap::new()).into_values().collect();
    problems.extend(document.problems());
    let of_its_own = |scheme: &&Arc<Scheme>| scheme.rows.len() == 1 && scheme.rows[0].name == scheme.name;
    let row = |scheme: &Arc<Scheme>| (scheme.name.to_string(), Arc::clone(&scheme.rows[0]));
    let rows = schemes.iter().filter(of_its_own).map(row).collect();
    (Shipped { schemes, rows }, problems)
}

/// Every shipped scheme, by name.
pub fn shipped() -> &'static [Arc<Scheme>] {
    &SHIPPED.schemes
}

/// Whether posthouse ships a scheme of this name.
pub fn is_shipped(name: &str) -> bool {
    shipped().iter().any(|scheme| &*scheme.name == name)
}

/// The rows of the shipped schemes, by name.
pub(super) fn rows() -> &'static BTreeMap<String, Arc<Row>> {
    &SHIPPED.rows
}

/// Whether a name is taken, if these rows are known. While the shipped table itself is read, none is.
pub(super) fn names(known: &BTreeMap<String, Arc<Row>>, name: &str) -> bool {
    !known.is_empty() && is_shipped(name)
}

/// The end of an error about a scheme that does not exist.
pub(in crate::config) fn suggestion(name: &str, own: &BTreeMap<String, Arc<Scheme>>) -> String {
    let all = own.keys().map(String::as_str).chain(shipped().iter().map(|scheme| &*scheme.name));
    let way_out = match nearest(name, all) {
        Some(near) => format!("did you mean `{near}`? "),
        None => String::new(),
    };
    format!(
        "is `{}`, which is no scheme; {way_out}`posthouse senders` lists them, and [scheme.NAME] adds one",
        shown(name)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_table_has_no_problem_and_explains_each_sender() {
        let (_, problems) = read_all();
        assert!(problems.is_empty(), "{problems:#?}");
        assert!(shipped().len() >= 30, "{:?}", shipped());
        for scheme in shipped() {
            let about = &scheme.about;
            assert!(about.title.is_some() && about.setup.is_some(), "{scheme:?}");
            assert!(about.page.as_ref().is_some_and(|page| page.starts_with("https://")), "{scheme:?}");
            let weak = scheme.rows.iter().any(|row| row.signature.algorithm.is_bearer());
            assert!(!weak || about.caution.is_some(), "{scheme:?}: what a token does not guard is said");
        }
    }
}
