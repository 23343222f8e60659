//! The records as plain data, to be kept elsewhere and taken back by this release, the one before or a later one.

use std::collections::BTreeMap;

use rusqlite::types::{Value as Sql, ValueRef};
use serde_json::Value;

use super::{Store, StoreError};

/// What is kept, in the order in which it can be taken back. SQLite's own table of numbers that were given is part of it: none is
/// given twice.
const TABLES: [&str; 5] = ["machines", "peers", "vectors", "settings", "sqlite_sequence"];

/// Rows by table, each with its columns by name.
pub type Dump = BTreeMap<String, Vec<BTreeMap<String, Value>>>;

impl Store {
    /// All rows.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn dump(&self) -> Result<Dump, StoreError> {
        let mut dump = Dump::new();
        for table in TABLES {
            // A table that is not there yet has no rows.
            if !self.columns(table)?.is_empty() {
                dump.insert(table.to_owned(), self.table(table).map_err(|error| self.fault(error))?);
            }
        }
        Ok(dump)
    }

    /// Takes rows back, all of them or none. Tables and columns that this release does not know are left out.
    ///
    /// # Errors
    /// When there are rows already, or they cannot be written.
    pub fn take_back(&mut self, dump: &Dump) -> Result<(), StoreError> {
        if !self.machines()?.is_empty() || !self.peers()?.is_empty() || !self.vectors()?.is_empty() {
            return Err(StoreError::Exists("a record of machines or vectors".to_owned()));
        }
        let mut inserts = Vec::new();
        for table in TABLES {
            let known = self.columns(table)?;
            for row in dump.get(table).into_iter().flatten() {
                let row: Vec<(&String, &Value)> = row.iter().filter(|(name, _)| known.contains(name)).collect();
                // Names of columns are this database's own.
                let names = row.iter().map(|(name, _)| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
                let places = vec!["?"; row.len()].join(", ");
                let values: Vec<Sql> = row.iter().map(|(_, value)| sql(value)).collect();
                inserts.push((format!("INSERT INTO {table} ({names}) VALUES ({places})"), values));
            }
        }
        let all = |store: &mut Self| -> rusqlite::Result<()> {
            let step = store.connection.transaction()?;
            // Its rows come from the rows of others, and are replaced by those that were kept.
            for (sql, values) in inserts {
                if sql.starts_with("INSERT INTO sqlite_sequence") {
                    step.execute("DELETE FROM sqlite_sequence", [])?;
                }
                step.execute(&sql, rusqlite::params_from_iter(values))?;
            }
            step.commit()
        };
        all(self).map_err(|error| self.fault(error))
    }

    fn columns(&self, table: &str) -> Result<Vec<String>, StoreError> {
        let names = || -> rusqlite::Result<Vec<String>> {
            let mut statement = self.connection.prepare("SELECT name FROM pragma_table_info(?)")?;
            statement.query_map([table], |row| row.get(0))?.collect()
        };
        names().map_err(|error| self.fault(error))
    }

    fn table(&self, table: &str) -> rusqlite::Result<Vec<BTreeMap<String, Value>>> {
        let mut statement = self.connection.prepare(&format!("SELECT * FROM {table}"))?;
        let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
        let row = |row: &rusqlite::Row<'_>| {
            names.iter().enumerate().map(|(n, name)| Ok((name.clone(), json(row.get_ref(n)?)))).collect()
        };
        statement.query_map([], row)?.collect()
    }
}

/// The columns are numbers and texts.
fn json(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Integer(number) => number.into(),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned().into(),
        ValueRef::Real(number) => number.into(),
        ValueRef::Null | ValueRef::Blob(_) => Value::Null,
    }
}

fn sql(value: &Value) -> Sql {
    match value {
        Value::Number(number) => number.as_i64().map_or(Sql::Null, Sql::Integer),
        Value::String(text) => Sql::Text(text.clone()),
        Value::Bool(bool) => Sql::Integer((*bool).into()),
        _ => Sql::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{machine, root, vector};
    use super::*;

    #[test]
    fn what_was_kept_comes_back_and_no_number_is_given_twice() {
        let (_dir, old) = root();
        let store = Store::open(&old).unwrap();
        store.add_machine(&machine("m")).unwrap();
        let first = store.add_vector(&vector("m", "x")).unwrap();
        let gone = store.add_vector(&vector("m", "y")).unwrap();
        store.remove_vector(gone).unwrap();
        store.set_at_once(3).unwrap();
        // By way of text, as it is kept.
        let mut dump: Dump = serde_json::from_str(&serde_json::to_string(&store.dump().unwrap()).unwrap()).unwrap();
        // And as a later release may have written it.
        dump.get_mut("vectors").unwrap()[0].insert("colour".to_owned(), "green".into());
        dump.insert("restores".to_owned(), vec![BTreeMap::from([("id".to_owned(), 1.into())])]);

        let (_dir, new) = root();
        let mut taken = Store::open(&new).unwrap();
        taken.take_back(&dump).unwrap();
        assert_eq!(taken.machines().unwrap(), store.machines().unwrap());
        assert_eq!(taken.vectors().unwrap(), store.vectors().unwrap());
        assert_eq!(taken.vectors().unwrap()[0].number, first);
        assert_eq!(taken.at_once().unwrap(), Some(3));
        assert!(taken.add_vector(&vector("m", "z")).unwrap() > gone);
        assert!(matches!(taken.take_back(&dump), Err(StoreError::Exists(_))), "over what is there");
    }
}
