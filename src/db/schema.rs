//! The schema, defined by its migrations.

use super::legacy;
use rusqlite::Connection;
use rusqlite_migration::{M, Migrations};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{LazyLock, OnceLock},
};

/// **Only append**: a database written by any earlier version must open.
static MIGRATIONS: LazyLock<Migrations<'static>> = LazyLock::new(|| {
    Migrations::new(vec![
        M::up_with_hook(include_str!("migrations/0001-mailboxes.sql"), |tx| Ok(legacy::import(tx)?)),
        M::up(include_str!("migrations/0002-inbox.sql")),
        M::up(include_str!("migrations/0003-holder.sql")),
        M::up(include_str!("migrations/0004-sessions.sql")),
        M::up(include_str!("migrations/0005-agents.sql")),
        M::up(include_str!("migrations/0006-threads.sql")),
        M::up(include_str!("migrations/0007-containers.sql")),
        M::up(include_str!("migrations/0008-expired.sql")),
        M::up(include_str!("migrations/0009-gateway.sql")),
    ])
});

/// The number of migrations, and so the schema version of a database that this build has opened.
pub(super) const SCHEMA: i64 = 9;

/// Migrates a database to our schema version; on failure it stays unchanged.
pub(super) fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    migrate_to(connection, SCHEMA)
}

fn migrate_to(connection: &mut Connection, version: i64) -> rusqlite::Result<()> {
    let version = usize::try_from(version).unwrap_or_default();
    MIGRATIONS.to_version(connection, version).map_err(|error| match error {
        rusqlite_migration::Error::RusqliteError { err, .. } => err,
        other => rusqlite::Error::ToSqlConversionFailure(other.into()),
    })
}

/// The tables of our schema.
pub(super) const TABLES: [&str; 3] = ["peer", "session", "message"];

/// The schema version that a database claims.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// A new database.
struct Fresh {
    shape: BTreeSet<String>,
    roots: Vec<(u32, bool)>,
    names: BTreeSet<String>,
    /// Of each version and table.
    columns: BTreeMap<(i64, &'static str), Vec<Column>>,
    image: Vec<u8>,
}

/// A column's name, type, default, and whether it is the first of the primary key.
pub(super) type Column = (String, String, Option<String>, bool);

fn fresh() -> rusqlite::Result<&'static Fresh> {
    static FRESH: OnceLock<Fresh> = OnceLock::new();
    if let Some(fresh) = FRESH.get() {
        return Ok(fresh);
    }
    let (mut memory, mut columns_of) = (Connection::open_in_memory()?, BTreeMap::new());
    for version in 1..=SCHEMA {
        migrate_to(&mut memory, version)?;
        for table in TABLES {
            columns_of.insert((version, table), columns(&memory, table)?);
        }
    }
    let mut roots = memory.prepare("SELECT rootpage, type = 'table' FROM sqlite_schema WHERE rootpage > 1")?;
    let roots = roots.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<rusqlite::Result<_>>()?;
    let image = memory.serialize("main")?.to_vec();
    let fresh = Fresh { shape: shape(&memory)?, roots, names: names(&memory)?, columns: columns_of, image };
    Ok(FRESH.get_or_init(|| fresh))
}

/// The columns of tables and indexes that the database lacks, each as `table.column`.
pub(super) fn missing(connection: &Connection) -> rusqlite::Result<BTreeSet<String>> {
    Ok(&fresh()?.shape - &shape(connection)?)
}

/// The pages where a new database has its tables and indexes, each with whether it is a table.
pub(super) fn roots() -> rusqlite::Result<&'static [(u32, bool)]> {
    Ok(&fresh()?.roots)
}

/// The bytes of a new database.
pub(super) fn image() -> rusqlite::Result<&'static [u8]> {
    Ok(&fresh()?.image)
}

/// Whether it has at least half of the names of our tables and indexes.
pub(super) fn is_ours(connection: &Connection) -> rusqlite::Result<bool> {
    let sql = "SELECT count(*) >= 4 FROM sqlite_schema WHERE name IN ('peer', 'session', 'message', 'message_key',
               'message_waiting', 'message_fresh', 'message_offered', 'message_expiry')";
    connection.query_row(sql, [], |row| row.get(0))
}

/// Whether all that it has of a schema is in ours, as if the rest could not be found.
pub(super) fn is_part(connection: &Connection) -> rusqlite::Result<bool> {
    Ok(names(connection)?.is_subset(&fresh()?.names))
}

/// Whether a table of ours has the columns of the database's version.
pub(super) fn fits(connection: &Connection, table: &'static str) -> rusqlite::Result<bool> {
    Ok(fresh()?.columns.get(&(version(connection)?, table)) == Some(&columns(connection, table)?))
}

/// The columns of a table.
///
/// # Errors
/// Also if a name is no valid UTF-8.
pub(super) fn columns(connection: &Connection, table: &str) -> rusqlite::Result<Vec<Column>> {
    let mut select = connection.prepare("SELECT name, type, dflt_value, pk = 1 FROM pragma_table_info(?1)")?;
    select.query_map([table], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?.collect()
}

/// The names of all tables and indexes.
fn names(connection: &Connection) -> rusqlite::Result<BTreeSet<String>> {
    connection.prepare("SELECT name FROM sqlite_schema")?.query_map([], |row| row.get(0))?.collect()
}

fn shape(connection: &Connection) -> rusqlite::Result<BTreeSet<String>> {
    let sql = "SELECT thing.name || '.' || ifnull(column.name, '') FROM sqlite_schema AS thing, pragma_table_info(thing.name) AS column";
    connection.prepare(sql)?.query_map([], |row| row.get(0))?.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_migrations_are_sound_and_counted() {
        MIGRATIONS.validate().unwrap();
        let mut connection = Connection::open_in_memory().unwrap();
        MIGRATIONS.to_latest(&mut connection).unwrap();
        assert_eq!(version(&connection), Ok(SCHEMA));
        assert!(missing(&connection).unwrap().is_empty());
    }
}
