//! The database as `mailbox` uses it: a view that reads, a transaction that also writes.

use super::error::Result;
use rusqlite::{Connection, OptionalExtension, Params, Row, types::FromSql};
use std::ops::{ControlFlow, Deref};

/// Reads the database. Statements are prepared once per connection.
#[derive(Debug, Clone, Copy)]
pub struct View<'c>(&'c Connection);

impl<'c> View<'c> {
    pub(super) fn new(connection: &'c Connection) -> Self {
        Self(connection)
    }

    /// The first row, if there is one.
    pub fn one<T>(
        &self,
        sql: &str,
        values: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>> {
        Ok(self.0.prepare_cached(sql)?.query_row(values, read).optional()?)
    }

    /// Every row.
    pub fn all<T>(&self, sql: &str, values: impl Params, read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>) -> Result<Vec<T>> {
        Ok(self.0.prepare_cached(sql)?.query_map(values, read)?.collect::<rusqlite::Result<_>>()?)
    }

    /// The first column of the only row.
    pub fn get<T: FromSql>(&self, sql: &str, values: impl Params) -> Result<T> {
        Ok(self.0.prepare_cached(sql)?.query_row(values, |row| row.get(0))?)
    }

    /// Row after row, until `visit` breaks.
    pub fn walk(
        &self,
        sql: &str,
        values: impl Params,
        mut visit: impl FnMut(&Row<'_>) -> rusqlite::Result<ControlFlow<()>>,
    ) -> Result<()> {
        let mut statement = self.0.prepare_cached(sql)?;
        let mut rows = statement.query(values)?;
        while let Some(row) = rows.next()? {
            if visit(row)?.is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// A transaction on the writing thread. Its changes are kept if the job succeeds and the commit does.
#[derive(Debug)]
pub struct Tx<'c>(View<'c>);

impl<'c> Tx<'c> {
    pub(super) fn new(connection: &'c Connection) -> Self {
        Self(View::new(connection))
    }

    /// Runs a statement; returns the number of rows changed.
    pub fn run(&self, sql: &str, values: impl Params) -> Result<usize> {
        Ok(self.0.0.prepare_cached(sql)?.execute(values)?)
    }
}

impl<'c> Deref for Tx<'c> {
    type Target = View<'c>;

    fn deref(&self) -> &View<'c> {
        &self.0
    }
}
