//! Reads a TOML table field by field and collects every fault with its TOML path, instead of stopping at the first.

use std::cell::RefCell;
use std::fmt;
use std::str::FromStr;

use toml::{Table, Value};

/// One thing wrong in a profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// File and TOML path, such as `siris.toml: disk.slot-size`.
    pub path: String,
    /// What is wrong with it.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.what)
    }
}

/// Where faults of one reading are gathered.
#[derive(Debug, Default)]
pub(super) struct Faults(RefCell<Vec<Fault>>);

impl Faults {
    pub(super) fn add(&self, path: impl Into<String>, what: impl Into<String>) {
        self.0.borrow_mut().push(Fault { path: path.into(), what: what.into() });
    }

    /// Whether a fault is known for this TOML path, in whichever file.
    pub(super) fn has(&self, path: &str) -> bool {
        self.0.borrow().iter().any(|fault| fault.path.ends_with(&format!(": {path}")))
    }

    pub(super) fn into_inner(self) -> Vec<Fault> {
        self.0.into_inner()
    }
}

/// A table being taken apart; what [`Section::finish`] finds left over is unknown.
pub(super) struct Section<'a> {
    path: String,
    table: Table,
    known: Vec<&'static str>,
    faults: &'a Faults,
}

impl<'a> Section<'a> {
    pub(super) fn new(path: String, table: Table, faults: &'a Faults) -> Self {
        Section { path, table, known: Vec::new(), faults }
    }

    pub(super) fn path_of(&self, key: &str) -> String {
        if self.path.ends_with(": ") { format!("{}{key}", self.path) } else { format!("{}.{key}", self.path) }
    }

    fn take(&mut self, key: &'static str) -> Option<Value> {
        self.known.push(key);
        self.table.remove(key)
    }

    fn wrong_type(&self, key: &str, want: &str, value: &Value) {
        self.faults.add(self.path_of(key), format!("expected {want}, found {} `{value}`", value.type_str()));
    }

    pub(super) fn string(&mut self, key: &'static str) -> Option<String> {
        match self.take(key)? {
            Value::String(text) => Some(text),
            other => {
                self.wrong_type(key, "a string", &other);
                None
            }
        }
    }

    pub(super) fn parsed<T: FromStr<Err: fmt::Display>>(&mut self, key: &'static str) -> Option<T> {
        let text = self.string(key)?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.faults.add(self.path_of(key), format!("`{text}`: {error}"));
                None
            }
        }
    }

    pub(super) fn integer(&mut self, key: &'static str) -> Option<i64> {
        match self.take(key)? {
            Value::Integer(number) => Some(number),
            other => {
                self.wrong_type(key, "an integer", &other);
                None
            }
        }
    }

    pub(super) fn list(&mut self, key: &'static str) -> Vec<String> {
        let items = match self.take(key) {
            None => return Vec::new(),
            Some(Value::Array(items)) => items,
            Some(other) => {
                self.wrong_type(key, "a list of strings", &other);
                return Vec::new();
            }
        };
        let mut texts = Vec::with_capacity(items.len());
        for (n, item) in items.into_iter().enumerate() {
            match item {
                Value::String(text) => texts.push(text),
                other => self.wrong_type(&format!("{key}[{n}]"), "a string", &other),
            }
        }
        texts
    }

    pub(super) fn section(&mut self, key: &'static str) -> Section<'a> {
        let path = self.path_of(key);
        let table = match self.take(key) {
            None => Table::new(),
            Some(Value::Table(table)) => table,
            Some(other) => {
                self.wrong_type(key, "a table", &other);
                Table::new()
            }
        };
        Section::new(path, table, self.faults)
    }

    pub(super) fn finish(self) {
        for key in self.table.keys() {
            let path = self.path_of(key);
            self.faults.add(path, format!("unknown field (known here: {})", self.known.join(", ")));
        }
    }
}
