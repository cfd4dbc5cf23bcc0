//! A table of config.toml while it is read. It hands out its keys one by one, and a key that no code reads is
//! unknown. So the code that reads a section is the only list of its keys.
//!
//! Readers collect problems instead of stopping. After a problem a reader reports it, keeps the default and
//! continues, and the operator sees all problems at once.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    Environment, Finding, Secrets,
    diagnose::{listed, nearest, shown},
    files::Led,
};

/// The file being read: the inputs of its readers, and their findings.
pub(super) struct Document<'a> {
    pub(super) text: &'a str,
    /// The path by which the file was named.
    pub(super) path: &'a Path,
    /// The folder that relative paths start from.
    pub(super) dir: PathBuf,
    pub(super) environment: &'a dyn Environment,
    pub(super) secrets: Secrets,
    problems: RefCell<Vec<(usize, String)>>,
    warnings: RefCell<Vec<(usize, String)>>,
    literals: RefCell<Vec<usize>>,
    keys: RefCell<BTreeSet<String>>,
    led: RefCell<Vec<Led>>,
}

impl<'a> Document<'a> {
    pub(super) fn new(
        text: &'a str,
        path: &'a Path,
        environment: &'a dyn Environment,
        secrets: Secrets,
    ) -> Self {
        Self {
            text,
            path,
            dir: path.parent().map(PathBuf::from).unwrap_or_default(),
            environment,
            secrets,
            problems: RefCell::default(),
            warnings: RefCell::default(),
            literals: RefCell::default(),
            keys: RefCell::default(),
            led: RefCell::default(),
        }
    }

    /// Records that a value names a file or folder that the daemon writes to.
    pub(super) fn leads(&self, value: &Value<'_>, path: &Path) {
        let finding = Finding::at(self.path, self.text, value.at(), String::new());
        self.led.borrow_mut().push(Led { key: value.key.clone(), finding, path: path.to_owned() });
    }

    pub(super) fn led(&self) -> Vec<Led> {
        self.led.borrow().clone()
    }

    /// Records a problem at this byte.
    pub(super) fn problem(&self, at: usize, message: impl Into<String>) {
        self.problems.borrow_mut().push((at, message.into()));
    }

    /// Records a warning at this byte.
    pub(super) fn warn(&self, at: usize, message: impl Into<String>) {
        self.warnings.borrow_mut().push((at, message.into()));
    }

    /// Records a literal secret in the file, at this byte.
    pub(super) fn literal_secret(&self, at: usize) {
        self.literals.borrow_mut().push(at);
    }

    /// The position of the first literal secret in the file.
    pub(super) fn first_literal_secret(&self) -> Option<usize> {
        self.literals.borrow().iter().min().copied()
    }

    pub(super) fn problems(&self) -> Vec<Finding> {
        self.findings(&self.problems)
    }

    pub(super) fn warnings(&self) -> Vec<Finding> {
        self.findings(&self.warnings)
    }

    /// Every key that a reader asked for, whether the file contains it or not.
    pub(super) fn keys(&self) -> BTreeSet<String> {
        self.keys.borrow().clone()
    }

    /// The file, line and column of a byte, as in an error.
    pub(super) fn place(&self, at: usize) -> String {
        let Finding { file, line, column, .. } = Finding::at(self.path, self.text, at, String::new());
        format!("{}:{line}:{column}", file.display())
    }

    /// The line of a byte.
    pub(super) fn line(&self, at: usize) -> usize {
        Finding::at(self.path, self.text, at, String::new()).line
    }

    fn findings(&self, gathered: &RefCell<Vec<(usize, String)>>) -> Vec<Finding> {
        let mut gathered = gathered.borrow().clone();
        gathered.sort_by_key(|(at, _)| *at);
        gathered.into_iter().map(|(at, message)| Finding::at(self.path, self.text, at, message)).collect()
    }
}

/// Why a value was not accepted.
pub(super) enum Fault {
    /// It is wrong, at this byte.
    Wrong(usize, String),
    /// It is a secret that this command does not need, so it was not read.
    Unread,
}

/// One value, and its name in messages.
pub(super) struct Value<'a> {
    pub(super) document: &'a Document<'a>,
    /// The dotted key: `server.listen`.
    pub(super) key: String,
    node: &'a Spanned<DeValue<'a>>,
}

impl<'a> Value<'a> {
    pub(super) fn get(&self) -> &'a DeValue<'a> {
        self.node.get_ref()
    }

    /// The byte at which it begins.
    pub(super) fn at(&self) -> usize {
        self.node.span().start
    }

    /// A fault of this value: "`server.listen` " and `message`.
    pub(super) fn fault(&self, message: impl std::fmt::Display) -> Fault {
        Fault::Wrong(self.at(), format!("`{}` {message}", self.key))
    }

    /// The fault of a value that is not of the `wanted` type, such as "a size such as \"1MiB\"".
    pub(super) fn mistyped(&self, wanted: &str) -> Fault {
        let article = if matches!(self.get(), DeValue::Integer(_) | DeValue::Array(_)) { "an" } else { "a" };
        self.fault(format_args!("is {article} {}; write {wanted}", self.get().type_str()))
    }

    /// The values of an array.
    pub(super) fn items(&self) -> Option<impl Iterator<Item = Value<'a>>> {
        let items = self.get().as_array()?;
        Some(items.iter().map(|node| Value { document: self.document, key: self.key.clone(), node }))
    }

    /// The value as a table.
    ///
    /// # Errors
    /// The value is of another type.
    pub(super) fn table(&self) -> Result<Table<'a>, Fault> {
        match self.get().as_table() {
            Some(entries) => Ok(Table::new(self.document, self.key.clone(), self.at(), entries)),
            None => Err(self.mistyped("a table")),
        }
    }

    /// The result of `parse`; a fault is recorded as a problem.
    pub(super) fn parsed<T>(&self, parse: impl FnOnce(&Self) -> Result<T, Fault>) -> Option<T> {
        match parse(self) {
            Ok(parsed) => Some(parsed),
            Err(Fault::Unread) => None,
            Err(Fault::Wrong(at, message)) => {
                self.document.problem(at, message);
                None
            }
        }
    }
}

/// A table that hands out its keys.
pub(super) struct Table<'a> {
    pub(super) document: &'a Document<'a>,
    /// Its dotted key; empty at the top.
    name: String,
    at: usize,
    entries: &'a DeTable<'a>,
    asked: Vec<&'static str>,
}

impl<'a> Table<'a> {
    pub(super) fn new(document: &'a Document<'a>, name: String, at: usize, entries: &'a DeTable<'a>) -> Self {
        Self { document, name, at, entries, asked: Vec::new() }
    }

    /// The value of a key, if it is present.
    pub(super) fn value(&mut self, key: &'static str) -> Option<Value<'a>> {
        self.asked.push(key);
        let path = self.path(key);
        self.document.keys.borrow_mut().insert(path.clone());
        let node = self.entries.get(key)?;
        Some(Value { document: self.document, key: path, node })
    }

    /// Reads a key into `field`. The field stays unchanged if the key is absent or wrong.
    pub(super) fn read<T>(
        &mut self,
        key: &'static str,
        field: &mut T,
        parse: impl FnOnce(&Value<'a>) -> Result<T, Fault>,
    ) {
        if let Some(parsed) = self.optional(key, parse) {
            *field = parsed;
        }
    }

    /// Reads a key without a default.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&Value<'a>) -> Result<T, Fault>,
    ) -> Option<T> {
        self.value(key)?.parsed(parse)
    }

    /// Reads a required key. `example` is a value for the error.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        example: &str,
        parse: impl FnOnce(&Value<'a>) -> Result<T, Fault>,
    ) -> Option<T> {
        match self.value(key) {
            Some(value) => value.parsed(parse),
            None => {
                self.document
                    .problem(self.at, format!("`{}` is missing; write {key} = {example}", self.path(key)));
                None
            }
        }
    }

    /// Reads a table within this one, and reports its unknown keys.
    pub(super) fn table(&mut self, key: &'static str, read: impl FnOnce(&mut Table<'a>)) {
        if let Some(mut table) = self.optional(key, Value::table) {
            read(&mut table);
            table.finish();
        }
    }

    /// The entries of a table whose keys are names that the operator chooses.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'a str, Value<'a>)> {
        let (document, entries, name) = (self.document, self.entries, self.name.clone());
        entries.iter().map(move |(key, node)| {
            let key: &'a str = key.get_ref();
            (key, Value { document, key: format!("{name}.{}", shown(key)), node })
        })
    }

    /// Whether the table has this key.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// The byte at which a key's value begins, or the table if the key is absent.
    pub(super) fn at(&self, key: &str) -> usize {
        self.entries.get(key).map_or(self.at, |node| node.span().start)
    }

    /// Reports every key that no code has asked for.
    pub(super) fn finish(self) {
        for key in self.entries.keys().filter(|key| !self.asked.contains(&key.get_ref().as_ref())) {
            let within = if self.name.is_empty() { "here".to_owned() } else { format!("in `{}`", self.name) };
            let way_out = match nearest(key.get_ref(), self.asked.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the keys {within} are {}", listed(&self.asked)),
            };
            let message = format!("unknown key `{}` {within}; {way_out}", shown(key.get_ref()));
            self.document.problem(key.span().start, message);
        }
    }

    /// The dotted key of one of its keys.
    pub(super) fn path(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }
}
