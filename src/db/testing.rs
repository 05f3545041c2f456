//! A database for unit tests.

use super::{Tx, schema};
use rusqlite::Connection;

/// An empty database in memory.
pub fn memory() -> Connection {
    let mut connection = Connection::open_in_memory().unwrap();
    schema::migrate(&mut connection).unwrap();
    connection
}

/// A transaction that is neither committed nor undone.
pub fn tx(connection: &Connection) -> Tx<'_> {
    Tx::new(connection, Box::leak(Box::default()))
}
