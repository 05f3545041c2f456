//! Compares the schema of a damaged database with its pages. If they disagree, the database gets the schema of a new one, with its
//! tables where the pages show them.

use super::{
    connect::lenient_reader,
    header,
    legacy::{self, LEGACY_TABLES},
    roots::{self, Found, Roots},
    schema::{self, TABLES},
};
use rusqlite::Connection;
use std::{fs::OpenOptions, io, os::unix::fs::FileExt, path::Path};

/// SQLite's table of the numbers that were assigned last.
const NUMBERS: &str = "sqlite_sequence";

/// A page that was cut off from a table becomes a table of its own, named `table~page`.
const CUT_OFF: &str = "
    INSERT INTO sqlite_schema (type, name, tbl_name, rootpage, sql)
    SELECT type, name || '~' || ?2, name || '~' || ?2, ?2, 'CREATE TABLE \"' || name || '~' || ?2 || '\"' || substr(sql, instr(sql, '('))
    FROM sqlite_schema WHERE name = ?1";

/// What a database shows of its tables.
pub(super) struct Survey {
    /// Where the schema says that they and their indexes begin.
    claimed: Roots,
    /// Whether all of the schema can be read.
    is_readable: bool,
    found: Found,
    owner: Option<Owner>,
}

/// Whose tables they are.
#[derive(Clone, Copy)]
enum Owner {
    Us,
    Legacy,
}

impl Survey {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let mut claimed = Roots::new();
        let is_readable = read_schema(path, &mut claimed).is_ok();
        let found = roots::find(path, &claimed)?;
        // A page that is claimed for something else is no evidence: damage can make a row look like one of ours.
        let is_claimed = |page: u32| claimed.values().any(|root| *root == page);
        let has = |table: &str| claimed.contains_key(table) || found.shown(table, &claimed).is_some_and(|page| !is_claimed(page));
        let owner = if TABLES.into_iter().any(has) || roots::has_those_of_a_new_one(path)? {
            Some(Owner::Us)
        } else {
            LEGACY_TABLES.iter().any(|(table, ..)| has(table)).then_some(Owner::Legacy)
        };
        Ok(Self { claimed, is_readable, found, owner })
    }

    /// Whether there are tables with rows where the schema says, and none elsewhere. A damaged schema may lack some.
    pub(super) fn is_confirmed(&self) -> bool {
        let tables = self.owner.map(Owner::tables).unwrap_or_default();
        let claimed = tables.iter().filter_map(|table| Some((*table, self.claimed.get(*table)?)));
        let mut shown = claimed.filter_map(|(table, root)| Some((root, self.found.shown(table, &self.claimed)?))).peekable();
        shown.peek().is_some() && shown.all(|(root, page)| *root == page)
    }

    /// Whether the schema has all tables, with the columns of its version, and no page shows that they are elsewhere.
    pub(super) fn is_whole(&self, path: &Path) -> bool {
        let Some(owner) = self.owner else { return true };
        let Ok(connection) = lenient_reader(path) else { return false };
        let tables = owner.tables();
        let roots = self.found.roots(&tables, &self.claimed);
        self.is_readable
            && tables.iter().all(|table| self.cut_off(path, table).is_empty())
            && tables.iter().all(|table| {
                let is_there = self.claimed.get(*table).is_some_and(|root| roots.get(*table) == Some(root));
                is_there && (*table == NUMBERS || self.fits(&connection, table).unwrap_or(false))
            })
    }

    /// The pages that were cut off from `table` in the database at `path`. If damage makes the list of free pages
    /// look empty, the free pages look the same, and their old rows come back. Only finished messages are ever deleted from our tables, so
    /// that is better than to lose a row. The legacy broker may have deleted any; its pages count only if the table is damaged. SQLite's own
    /// table has too few rows for it.
    fn cut_off(&self, path: &Path, table: &str) -> Vec<u32> {
        let check = format!("PRAGMA quick_check('{table}')");
        let is_sound = || {
            let fault = lenient_reader(path).and_then(|database| database.query_row(&check, [], |row| row.get::<_, String>(0)));
            fault.is_ok_and(|fault| fault == "ok")
        };
        let pages = self.found.cut_off(table, &self.claimed);
        let is_free = || matches!(self.owner, Some(Owner::Legacy)) && is_sound();
        if table == NUMBERS || pages.is_empty() || is_free() { Vec::new() } else { pages }
    }

    fn fits(&self, connection: &Connection, table: &'static str) -> rusqlite::Result<bool> {
        match LEGACY_TABLES.into_iter().find(|(legacy, ..)| *legacy == table) {
            Some(legacy) => legacy::fits(connection, legacy, self.found.shown(table, &self.claimed).is_some()),
            None => schema::fits(connection, table),
        }
    }

    /// Gives the database at `path` the schema of a new one, with its tables where they were found. Its indexes are not needed to
    /// read rows.
    pub(super) fn lend_schema(self, path: &Path) -> io::Result<()> {
        let Some(owner) = self.owner else { return Ok(()) };
        let image = owner.image().map_err(io::Error::other)?;
        let tables = owner.tables();
        let cut_off = tables.iter().flat_map(|table| self.cut_off(path, table).into_iter().map(move |page| (*table, page)));
        let cut_off: Vec<(&str, u32)> = cut_off.collect();
        OpenOptions::new().write(true).open(path)?.write_all_at(&header::first_page(&image, path)?, 0)?;
        let lend = || {
            let connection = Connection::open(path)?;
            let roots = self.found.roots(&tables, &self.claimed);
            connection.execute_batch("PRAGMA writable_schema = on; PRAGMA journal_mode = off; PRAGMA synchronous = off")?;
            connection.execute("DELETE FROM sqlite_schema WHERE type = 'index'", [])?;
            for table in &tables {
                match roots.get(*table) {
                    Some(root) => connection.execute("UPDATE sqlite_schema SET rootpage = ?2 WHERE name = ?1", (table, root))?,
                    None => connection.execute("DELETE FROM sqlite_schema WHERE name = ?1", [table])?,
                };
            }
            for page in cut_off {
                connection.execute(CUT_OFF, page)?;
            }
            Ok::<_, rusqlite::Error>(())
        };
        lend().map_err(io::Error::other)
    }
}

impl Owner {
    fn tables(self) -> Vec<&'static str> {
        let tables = match self {
            Self::Us => TABLES.to_vec(),
            Self::Legacy => LEGACY_TABLES.map(|(table, ..)| table).to_vec(),
        };
        tables.into_iter().chain([NUMBERS]).collect()
    }

    /// A new database of this owner.
    fn image(self) -> rusqlite::Result<Vec<u8>> {
        match self {
            Self::Us => schema::image().map(<[u8]>::to_vec),
            Self::Legacy => legacy::image(),
        }
    }
}

/// Reads where the schema says that each table and index begins, as far as it can be read.
fn read_schema(path: &Path, claimed: &mut Roots) -> rusqlite::Result<()> {
    let connection = lenient_reader(path)?;
    let mut select = connection.prepare("SELECT name, rootpage FROM sqlite_schema")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        claimed.insert(row.get(0)?, row.get(1)?);
    }
    Ok(())
}
