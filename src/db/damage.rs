//! Finds damage in a database.

use super::{
    error::damage,
    peers,
    schema::{self, SCHEMA, TABLES},
};
use crate::wire::MessageId;
use rusqlite::{Connection, Row, types::ValueRef};

/// How many faults are listed; more would add little.
const MOST_FAULTS: u32 = 5;

/// Reads the rows that the broker needs at start, so that it finds damage before any client waits. The time does not grow with the
/// history.
pub(super) fn probe(connection: &Connection) -> rusqlite::Result<()> {
    for sql in [
        "SELECT count(text) FROM message WHERE waiting = 1",
        "SELECT count(text) FROM (SELECT text FROM message ORDER BY seq DESC LIMIT 100)",
    ] {
        connection.query_row(sql, [], |row| row.get::<_, i64>(0))?;
    }
    // Of the sessions it reads the index, as the broker's first query does.
    match unreadable(connection, "peer", "*")? + unreadable(connection, "session", "session_id, peer")? {
        0 => Ok(()),
        rows => Err(damage(format!("{rows} rows of peers and sessions cannot be read"))),
    }
}

/// The first faults of the database. Reads the whole file.
pub(super) fn faults(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut faults: Vec<String> = Vec::new();
    connection.pragma(None, "integrity_check", MOST_FAULTS, |row| {
        faults.push(row.get(0)?);
        Ok(())
    })?;
    faults.retain(|fault| fault != "ok");
    if schema::version(connection)? == SCHEMA {
        faults.extend(schema::missing(connection)?.first().map(|first| format!("{first} is missing")));
        for table in TABLES {
            let rows = unreadable(connection, table, "*")?;
            faults.extend((rows > 0).then(|| format!("{rows} rows of table {table} cannot be read")));
        }
    }
    Ok(faults)
}

fn unreadable(connection: &Connection, from: &str, what: &str) -> rusqlite::Result<u32> {
    schema::columns(connection, from)?; // rows are read by the names of their columns, which must be text
    let mut select = connection.prepare(&format!("SELECT {what} FROM {from}"))?;
    let columns = select.column_count();
    let (mut rows, mut count) = (select.query([])?, 0);
    while let Some(row) = rows.next()? {
        let is_text = |column| !matches!(row.get_ref(column), Ok(ValueRef::Text(text)) if str::from_utf8(text).is_err());
        count += u32::from(!((0..columns).all(is_text) && is_readable(from, row)));
    }
    Ok(count)
}

/// Whether the broker can use a row whose texts are valid UTF-8.
pub(super) fn is_readable(table: &str, row: &Row<'_>) -> bool {
    let message = || Some((row.get("seq").ok()?, row.get::<_, String>("tag").ok()?, row.get::<_, u32>("handed").ok()?));
    match table {
        "session" => ["session_id", "peer"].into_iter().all(|column| row.get::<_, String>(column).is_ok()),
        "peer" => peers::is_readable(row),
        _ => message().is_some_and(|(seq, tag, _)| MessageId::new(seq, tag).is_ok()),
    }
}

#[cfg(test)]
mod tests {
    use super::unreadable;
    use rusqlite::Connection;

    /// SQLite checks the type of a column only when it writes, so a damaged row can have another.
    #[test]
    fn session_that_is_no_text_is_found() {
        let connection = Connection::open_in_memory().unwrap();
        let rows =
            "CREATE TABLE session (session_id, peer); INSERT INTO session VALUES ('one', 'ada'), (2, 'ada'), ('three', NULL)";
        connection.execute_batch(rows).unwrap();
        assert_eq!(unreadable(&connection, "session", "session_id, peer"), Ok(2));
    }
}
