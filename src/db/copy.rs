//! Copies the readable rows of a damaged database into a new one.

use super::{
    connect::{lenient_reader, size},
    damage::is_readable,
    error::is_passing,
    header::PAGE,
    legacy::{self, LEGACY_TABLES},
    schema::{self, TABLES, migrate},
};
use crate::{platform::random, wire::MessageId};
use rusqlite::{
    Connection, ErrorCode, OptionalExtension, Statement, params_from_iter,
    types::{Value, ValueRef},
};
use std::{
    collections::{BTreeSet, VecDeque},
    fs::OpenOptions,
    ops::Range,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

/// The number of consecutive reads that find no row, for each page of the database, after which the rest of a table counts as lost. A
/// page that cannot be read costs a few reads for each of its rows.
const PATIENCE: u64 = 64;
/// The numbers that rows can have; any other is damaged.
const NUMBERS: Range<i64> = 0..1 << 53;
/// The highest row number to search for if the damaged table does not say.
const FAR: i64 = 1 << 20;

/// The result of copying a table.
pub(super) struct Copied {
    pub name: &'static str,
    pub rows: u64,
    /// An upper bound: row numbers that were assigned but not found.
    pub lost: u64,
}

/// Creates the database `new` for this user alone, with these contents.
fn create(new: &Path, contents: &[u8]) -> rusqlite::Result<Connection> {
    let written =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(new).and_then(|file| file.write_all_at(contents, 0));
    written.map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    let connection = Connection::open(new)?;
    connection.execute_batch("PRAGMA journal_mode = memory; PRAGMA synchronous = off")?; // one fsync at the end is enough
    Ok(connection)
}

/// Copies every readable table into the database `new`, which it creates; none if the schema cannot be read.
pub(super) fn copy_all(path: &Path, new: &Path) -> rusqlite::Result<(Connection, Vec<Copied>)> {
    let created = |damaged: &Connection, table: &str| {
        let sql = "SELECT CAST(sql AS BLOB) FROM sqlite_schema WHERE type = 'table' AND name = ?1";
        damaged.query_row(sql, [table], |row| row.get::<_, Vec<u8>>(0)).optional()
    };
    let damaged = match lenient_reader(path).and_then(|damaged| created(&damaged, "peer").map(|_| damaged)) {
        Ok(damaged) => damaged,
        // What this attempt cannot read, the next may.
        Err(error) if is_passing(&error) => return Err(error),
        Err(_) => return Ok((create(new, schema::image()?)?, Vec::new())),
    };
    damaged.execute_batch("BEGIN")?; // or each attempt locks the file
    let patience = PATIENCE * (1 + size(path) / PAGE);
    let (text, mut copied) = (|table| created(&damaged, table).ok().flatten(), Vec::new());
    if TABLES.into_iter().any(|table| text(table).is_some()) {
        let new = create(new, schema::image()?)?;
        for table in TABLES {
            copied.push(copy(&damaged, &new, table, patience)?);
        }
        return Ok((new, copied));
    }
    let mut new = create(new, b"")?;
    if LEGACY_TABLES.iter().any(|(table, ..)| text(table).is_some()) {
        for (table, usual, columns) in LEGACY_TABLES {
            // The text may be damaged, too, and create another table.
            let attempt = new.unchecked_transaction()?;
            let sql = text(table).map(|sql| String::from_utf8_lossy(&sql).into_owned());
            if sql.is_some_and(|sql| attempt.execute(&sql, []).is_ok()) && legacy::has_all(&attempt, table, columns)? {
                attempt.commit()?;
            } else {
                attempt.rollback()?;
                new.execute(usual, [])?;
            }
            copied.push(copy(&damaged, &new, table, patience)?);
        }
    }
    migrate(&mut new)?;
    Ok((new, copied))
}

/// Copies the rows of a table, and of the pages that were cut off from it. `patience` is how many attempts in a row may find no row
/// before the rest counts as lost.
fn copy(damaged: &Connection, new: &Connection, name: &'static str, patience: u64) -> rusqlite::Result<Copied> {
    let mut copied = Copied { name, rows: 0, lost: 0 };
    let number =
        |sql: &str| damaged.query_row(sql, [], |row| row.get::<_, i64>(0)).ok().filter(|number| NUMBERS.contains(number));
    let given = number(&format!("SELECT seq FROM sqlite_sequence WHERE name = '{name}'"));
    // If the table does not tell its last row, the index of its key may.
    let newest = number(&format!("SELECT max(rowid) FROM {name}"))
        .or_else(|| number(&format!("SELECT max(rowid) FROM {name} INDEXED BY sqlite_autoindex_{name}_1")))
        .max(given)
        .unwrap_or(FAR);
    // The index of its key may know of rows that the table does not show.
    let keys = number(&format!("SELECT count(*) FROM {name} INDEXED BY sqlite_autoindex_{name}_1"));
    let together = new.unchecked_transaction()?;
    search(damaged, new, name, &mut copied, newest, patience)?;
    let pages = match cut_off(damaged, name) {
        Err(error) if is_passing(&error) => return Err(error),
        pages => pages.unwrap_or_default(), // a schema that cannot be read names none
    };
    for page in pages {
        let (mut rows, newest) = (Copied { name, rows: 0, lost: 0 }, number(&format!("SELECT max(rowid) FROM \"{page}\"")));
        search(damaged, new, &page, &mut rows, newest.unwrap_or(FAR), patience)?;
        // They are among those that the table lacks.
        copied.lost = copied.lost.saturating_sub(rows.rows) + rows.lost;
        copied.rows += rows.rows;
    }
    // The broker may be unable to use a row that SQLite can read.
    if TABLES.contains(&name) {
        let mut select = new.prepare(&format!("SELECT *, rowid AS place FROM {name}"))?;
        let (mut rows, mut odd) = (select.query([])?, Vec::new());
        while let Some(row) = rows.next()? {
            odd.extend((!is_readable(name, row)).then(|| row.get::<_, i64>("place")).transpose()?);
        }
        for rowid in odd {
            new.execute(&format!("DELETE FROM {name} WHERE rowid = ?1"), [rowid])?;
            (copied.rows, copied.lost) = (copied.rows - 1, copied.lost + 1);
        }
    }
    let keys = keys.and_then(|keys| u64::try_from(keys).ok()).unwrap_or_default();
    copied.lost = copied.lost.max(keys.saturating_sub(copied.rows));
    // A row number is never assigned twice. Damage may have taken this rule from a legacy table.
    if let Some(given) = given
        && new.table_exists(None::<&str>, "sqlite_sequence")?
    {
        let known = new.execute("UPDATE sqlite_sequence SET seq = max(seq, ?1) WHERE name = ?2", (given, name))?;
        if known == 0 {
            new.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?2, ?1)", (given, name))?;
        }
    }
    together.commit()?;
    Ok(copied)
}

/// The tables of the pages that were cut off from a table.
fn cut_off(damaged: &Connection, name: &str) -> rusqlite::Result<Vec<String>> {
    let mut select = damaged.prepare("SELECT name FROM sqlite_schema WHERE name GLOB ?1 || '~*'")?;
    select.query_map([name], |row| row.get(0))?.collect()
}

/// Copies all readable rows of `source`, the newest of which has the number `newest`. Reads the table from both ends as far as the
/// damage; without bounds, because a damaged number would end the search there. Then looks for each number that was not seen: reads
/// the gaps from both ends, and splits what stays unreadable again and again, until only damaged rows are left.
fn search(
    damaged: &Connection,
    new: &Connection,
    source: &str,
    copied: &mut Copied,
    newest: i64,
    patience: u64,
) -> rusqlite::Result<()> {
    let name = copied.name;
    let select = |bounds: &str, order: &str| {
        damaged.prepare(&format!("SELECT rowid, * FROM \"{source}\" {bounds} ORDER BY rowid {order}"))
    };
    let both = |bounds: &str| Ok((select(bounds, "ASC")?, select(bounds, "DESC")?));
    let (mut whole, mut part) = match both("").and_then(|whole| Ok((whole, both("WHERE rowid BETWEEN ?1 AND ?2")?))) {
        Ok(all) => all,
        Err(error) if is_passing(&error) => return Err(error),
        Err(_) => {
            copied.lost = count(0, newest);
            return Ok(());
        }
    };
    // The order of the columns is the same in all versions; their names may be damaged.
    let mut columns = columns(new, name)?;
    columns.truncate(whole.0.column_count() - 1);
    let values = vec!["?"; columns.len()].join(", ");
    let insert = new.prepare(&format!("INSERT INTO {name} ({}) VALUES ({values})", columns.join(", ")))?;
    let mut rows = Rows { columns, insert, seen: BTreeSet::new(), copied: 0, refused: 0 };
    let mut missing = 0;
    if let Some(last) = rows.copy(&mut whole.0, &[], -1)?
        && let Some(first) = rows.copy(&mut whole.1, &[], newest + 1)?
    {
        let (mut parts, mut fruitless, mut unreadable) = (VecDeque::from(rows.gaps(0, newest)), 0, 0);
        while let Some((from, to)) = parts.pop_front() {
            let seen = rows.seen.len();
            // A page that belongs elsewhere can end a read early. It does not end the one from the other side.
            let mut is_damaged = rows.copy(&mut part.0, &[from, to], from)?.is_some();
            is_damaged |= !rows.gaps(from, to).is_empty() && rows.copy(&mut part.1, &[from, to], to)?.is_some();
            // Each round sees a new number or splits a part, so the search ends, whatever the table shows.
            let is_fruitful = rows.seen.len() > seen;
            fruitless = if is_fruitful { 0 } else { fruitless + u64::from(is_damaged) * 2 };
            match is_damaged {
                true if is_fruitful => parts.extend(rows.gaps(from, to)),
                true if from < to && fruitless < patience => parts.extend(pieces(from, to)),
                true => unreadable += count(from, to),
                false => {}
            }
        }
        // A damaged number can hide rows without an error.
        let hidden = rows.gaps(last + 1, first - 1).into_iter().map(|(from, to)| count(from, to)).sum();
        missing = unreadable.max(hidden);
    }
    copied.rows += rows.copied;
    copied.lost += missing + rows.refused;
    Ok(())
}

/// Splits a part into pieces, each twice as long as the one before: the next readable row may be near, and the end of the part
/// far beyond the last row.
fn pieces(from: i64, to: i64) -> impl Iterator<Item = (i64, i64)> {
    let starts = (0..i64::BITS - 1).map_while(move |power| from.checked_add((1 << power) - 1).filter(|start| *start <= to));
    starts.map(move |start| (start, to.min(start + (start - from))))
}

fn count(from: i64, to: i64) -> u64 {
    u64::try_from(to - from + 1).unwrap_or_default()
}

/// The rows of a damaged table on their way into the new one.
struct Rows<'new> {
    columns: Vec<String>,
    insert: Statement<'new>,
    /// The numbers of all rows that were read. A page that belongs elsewhere shows its rows anywhere, also a second time.
    seen: BTreeSet<i64>,
    copied: u64,
    refused: u64,
}

impl Rows<'_> {
    /// Reads rows as far as the damage, and inserts them. Returns the number of the last one, or `before` if there is none; `None` if
    /// there is no damage.
    fn copy(&mut self, select: &mut Statement<'_>, bounds: &[i64], before: i64) -> rusqlite::Result<Option<i64>> {
        let mut at = before;
        let mut rows = select.query(params_from_iter(bounds))?;
        loop {
            let row = match rows.next() {
                Ok(Some(row)) => row,
                Ok(None) => return Ok(None),
                Err(_) => return Ok(Some(at)),
            };
            let read = || {
                let values = self.columns.iter().enumerate().map(|(index, name)| Ok(mended(name, row.get_ref(index + 1)?)));
                Ok::<_, rusqlite::Error>((row.get(0)?, values.collect::<rusqlite::Result<Vec<_>>>()?))
            };
            let Ok((number, values)) = read() else { return Ok(Some(at)) };
            at = if NUMBERS.contains(&number) { number } else { at };
            self.insert(number, values)?;
        }
    }

    fn insert(&mut self, number: i64, values: Vec<Value>) -> rusqlite::Result<()> {
        let is_new = self.seen.insert(number);
        let inserted = if NUMBERS.contains(&number) { self.insert.execute(params_from_iter(values)) } else { Ok(0) };
        match inserted {
            Ok(1) => self.copied += 1,
            Ok(_) => self.refused += u64::from(is_new),
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
                self.refused += u64::from(is_new);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The numbers between these two that were not seen, as parts from one to another.
    fn gaps(&self, from: i64, to: i64) -> Vec<(i64, i64)> {
        let seen = if from <= to { self.seen.range(from..=to) } else { Default::default() };
        let (mut gaps, mut next) = (Vec::new(), from);
        for number in seen.copied().chain([to + 1]) {
            if next < number {
                gaps.push((next, number - 1));
            }
            next = number + 1;
        }
        gaps
    }
}

fn columns(new: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let mut select = new.prepare_cached("SELECT name FROM pragma_table_info(?1)")?;
    select.query_map([table], |row| row.get(0))?.collect()
}

/// Turns a value into one that the broker can read: damage may affect only a few letters.
fn mended(column: &str, value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Text(text) => match String::from_utf8_lossy(text).into_owned() {
            tag if column == "tag" && MessageId::new(1, tag.clone()).is_err() => random::message_tag().into(),
            text => text.into(),
        },
        ValueRef::Integer(number) if column == "handed" => number.clamp(0, u32::MAX.into()).into(),
        other => other.try_into().unwrap_or(Value::Null),
    }
}

#[cfg(test)]
mod tests {
    use crate::db::{Extent, legacy::LEGACY_TABLES, open};
    use rusqlite::Connection;
    use std::fs;

    /// Too many open files, for example: the next start would find an empty database.
    #[test]
    fn database_that_cannot_be_opened_is_not_taken_for_empty() {
        let folder = tempfile::tempdir().unwrap();
        let new = folder.path().join("new.db");
        assert!(super::copy_all(folder.path(), &new).is_err() && !new.exists());
        let noise = folder.path().join("noise.db");
        fs::write(&noise, [0xa5; 8192]).unwrap();
        assert!(super::copy_all(&noise, &new).is_ok_and(|(_, copied)| copied.is_empty()), "that is damage");
    }

    #[test]
    fn damage_to_a_legacy_table_costs_no_message() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.db");
        let rows = "INSERT INTO peers VALUES ('ada', 7, '/', NULL, NULL, 'works', '', '');
                    INSERT INTO messages VALUES (1, 'eve', 'ada', 'first', '', 0)";
        let [(_, peers, _), (_, messages, _)] = LEGACY_TABLES;
        Connection::open(&path).unwrap().execute_batch(&format!("{peers}; {messages}; {rows}")).unwrap();
        let sound = fs::read(&path).unwrap();
        let damages: [&[(&[u8], &[u8])]; 5] = [
            &[(b"NOT NULL, git_root", b"NOxxxxxxx git_root")],
            &[(b"CREATE TABLE messages", b"CREATE TABLE message\x0c")],
            &[(b"sent_at", b"sent_af")],
            &[(b"sent_at", b"sent\x97at")],
            &[(b"AUTOINCREMENT", b"CHECK (1 = 1)"), (b"SQLite format", b"SQLite forma_")],
        ];
        for damage in damages {
            let mut bytes = sound.clone();
            for (from, to) in damage {
                let at = bytes.windows(from.len()).position(|part| part == *from).unwrap();
                bytes[at..at + to.len()].copy_from_slice(to);
            }
            fs::write(&path, bytes).unwrap();
            let copied = super::copy_all(&path, &folder.path().join(format!("{damage:?}")));
            assert!(copied.is_ok(), "also if the schema was not mended before");
            let opened = open(&path, Extent::Whole).unwrap();
            let sql = "SELECT max(text) || ' to ' || peer.id FROM message, peer WHERE to_peer = peer.id";
            let text = opened.store.glance(|view| view.get::<String>(sql, []));
            assert_eq!((text.unwrap().as_str(), opened.notices.len()), ("first to ada", 1), "{:?}", opened.notices);
            opened.store.close();
        }
    }
}
