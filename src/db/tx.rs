//! The database as `mailbox` sees it: a view for reading, and a transaction that also writes.

use super::error::{Fault, Result};
use rusqlite::{CachedStatement, Connection, OptionalExtension, Params, Row, types::FromSql};
use std::{
    cell::RefCell,
    ops::{ControlFlow, Deref},
};

/// The first fault that a job ran into, even if the job handled the error.
pub(super) type Met = RefCell<Option<Fault>>;

/// Reads the database. Statements are prepared once per connection.
#[derive(Debug, Clone, Copy)]
pub struct View<'c> {
    connection: &'c Connection,
    met: &'c Met,
}

impl<'c> View<'c> {
    pub(super) fn new(connection: &'c Connection, met: &'c Met) -> Self {
        Self { connection, met }
    }

    fn run<T>(&self, sql: &str, work: impl FnOnce(&mut CachedStatement<'c>) -> rusqlite::Result<T>) -> Result<T> {
        let result = self.connection.prepare_cached(sql).and_then(|mut statement| work(&mut statement));
        if let Some(fault) = result.as_ref().err().and_then(Fault::of) {
            self.met.borrow_mut().get_or_insert(fault);
        }
        Ok(result?)
    }

    /// The first row, if there is one.
    pub fn one<T>(
        &self,
        sql: &str,
        values: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>> {
        self.run(sql, |statement| statement.query_row(values, read).optional())
    }

    /// Every row.
    pub fn all<T>(&self, sql: &str, values: impl Params, read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>) -> Result<Vec<T>> {
        self.run(sql, |statement| statement.query_map(values, read)?.collect())
    }

    /// The first column of the only row.
    pub fn get<T: FromSql>(&self, sql: &str, values: impl Params) -> Result<T> {
        self.run(sql, |statement| statement.query_row(values, |row| row.get(0)))
    }

    /// Visits row after row until `visit` breaks.
    pub fn walk(
        &self,
        sql: &str,
        values: impl Params,
        mut visit: impl FnMut(&Row<'_>) -> rusqlite::Result<ControlFlow<()>>,
    ) -> Result<()> {
        self.run(sql, |statement| {
            let mut rows = statement.query(values)?;
            while let Some(row) = rows.next()? {
                if visit(row)?.is_break() {
                    break;
                }
            }
            Ok(())
        })
    }
}

/// A transaction on the writing thread. Its changes are kept if both the job and the commit succeed.
#[derive(Debug)]
pub struct Tx<'c>(View<'c>);

impl<'c> Tx<'c> {
    pub(super) fn new(connection: &'c Connection, met: &'c Met) -> Self {
        Self(View::new(connection, met))
    }

    /// Runs a statement; returns the number of rows changed.
    pub fn run(&self, sql: &str, values: impl Params) -> Result<usize> {
        self.0.run(sql, |statement| statement.execute(values))
    }

    /// The number of the row that was inserted last.
    pub fn last_id(&self) -> i64 {
        self.0.connection.last_insert_rowid()
    }
}

impl<'c> Deref for Tx<'c> {
    type Target = View<'c>;

    fn deref(&self) -> &View<'c> {
        &self.0
    }
}
