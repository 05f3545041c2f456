//! Salvages a damaged database. Its readable rows are copied into a new database, which replaces it once it is complete and on
//! disk. A start that finds an incomplete one begins again with the unchanged damaged database. A start that finds a complete one
//! only finishes the replacement. The damaged database is kept under a dated name.

use super::{
    connect::{beside, reader, remove_files, side_files, sync_folder},
    copy::{Copied, copy_all},
    error::{OpenError, damage},
    lock::Lock,
    readable::readable,
};
use crate::platform::clock;
use rusqlite::Connection;
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

/// The suffix of a copy with a mended header or schema.
const MENDED: &str = ".mended";

/// Builds the new database beside the damaged one at `path`. On return it is complete and on disk.
pub(super) fn salvage(path: &Path, cause: &rusqlite::Error) -> Result<(), OpenError> {
    tracing::warn!(%cause, database = %path.display(), "the database is damaged ({cause}): salvaging what can be read");
    let unfinished = beside(path, ".salvaging");
    build(path, &unfinished, cause)
        .and_then(|()| File::open(&unfinished)?.sync_all())
        .and_then(|()| fs::rename(&unfinished, salvaged(path)))
        .and_then(|()| sync_folder(path))
        .map_err(|source| {
            // Frees the space now; the next attempt would remove them, too.
            drop((remove_files(&unfinished), remove_files(&beside(path, MENDED))));
            OpenError::Salvage { path: path.to_owned(), damage: cause.to_string(), source }
        })
}

/// The name of a complete new database. A file of this name is to replace the damaged one.
fn salvaged(path: &Path) -> PathBuf {
    beside(path, ".salvaged")
}

/// Puts a salvaged database in place, if there is one, and returns its lock. Continues where an earlier process was killed.
pub(super) fn finish(path: &Path) -> Result<Option<Lock>, OpenError> {
    let new = salvaged(path);
    let Some(lock) = Lock::take(&new, false)? else { return Ok(None) };
    let change = || {
        let aside: String = reader(&new)
            .and_then(|new| new.query_row("SELECT aside FROM salvage", [], |row| row.get(0)))
            .map_err(|error| io::Error::other(format!("{} is in the way: {error}", new.display())))?;
        set_aside(path, &path.with_file_name(aside))?;
        fs::rename(&new, path)?;
        sync_folder(path)
    };
    change().map_err(|source| OpenError::File { path: path.to_owned(), source })?;
    Ok(Some(lock))
}

/// An unused name for a damaged database, with the date.
pub(super) fn dated(path: &Path) -> PathBuf {
    let now = clock::now();
    let named = |milliseconds| {
        let date = now.plus(Duration::from_millis(milliseconds)).to_string();
        beside(path, &format!(".damaged-{}", date.chars().filter(char::is_ascii_alphanumeric).collect::<String>()))
    };
    (0..).map(named).find(|name| !name.exists()).unwrap_or_else(|| named(0))
}

/// Renames the side files, then the database.
pub(super) fn set_aside(path: &Path, aside: &Path) -> io::Result<()> {
    let from = side_files(path).into_iter().chain([path.to_owned()]);
    for (from, to) in from.zip(side_files(aside).into_iter().chain([aside.to_owned()])).filter(|(from, _)| from.exists()) {
        if to.exists() {
            return Err(io::Error::other(format!("{} is in the way", to.display())));
        }
        fs::rename(from, to)?;
    }
    sync_folder(path)
}

/// Removes the notice from a salvaged database and returns it.
pub(super) fn notice(connection: &Connection) -> rusqlite::Result<Option<String>> {
    if connection.prepare("SELECT 1 FROM sqlite_schema WHERE name = 'salvage'")?.exists([])? {
        let notice = connection.query_row("SELECT notice FROM salvage", [], |row| row.get(0))?;
        connection.execute_batch("DROP TABLE salvage")?;
        return Ok(notice);
    }
    Ok(None)
}

fn build(path: &Path, unfinished: &Path, cause: &rusqlite::Error) -> io::Result<()> {
    let copy = beside(path, MENDED);
    remove_files(unfinished)?;
    remove_files(&copy)?;
    let readable = readable(path, &copy)?;
    let (aside, (new, copied)) = (dated(path), copy_all(readable, unfinished).map_err(io::Error::other)?);
    remove_files(&copy)?;
    let words = |count: fn(&Copied) -> u64, tables: &[Copied]| {
        let tables =
            tables.iter().filter(|table| count(table) > 0).map(|table| format!("{} of table {}", count(table), table.name));
        Some(tables.collect::<Vec<_>>().join(", ")).filter(|words| !words.is_empty())
    };
    let saved = words(|table| table.rows, &copied).unwrap_or_else(|| "none".to_owned());
    let lost = match words(|table| table.lost, &copied) {
        _ if copied.is_empty() => "nothing of it could be read".to_owned(),
        Some(lost) => format!("up to {lost} could not be read and are missing"),
        None => "nothing is known to be missing".to_owned(),
    };
    let notice = format!(
        "the database was damaged ({cause}) and has been set aside as {}; recovered rows: {saved}; {lost}",
        aside.display()
    );
    tracing::warn!("{notice}");
    let name = aside.file_name().unwrap_or_default().to_string_lossy();
    let finish = || {
        new.execute("CREATE TABLE salvage (aside TEXT NOT NULL, notice TEXT NOT NULL) STRICT", [])?;
        new.execute("INSERT INTO salvage VALUES (?1, ?2)", [&*name, &notice])?;
        match new.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0))?.as_str() {
            "ok" => Ok(()),
            fault => Err(damage(fault.to_owned())),
        }
    };
    finish().map_err(io::Error::other)?;
    new.close().map_err(|(_, error)| io::Error::other(error))
}

#[cfg(test)]
mod tests {
    use crate::db::{Extent, fuzz::MANY_ROWS, open};
    use rusqlite::Connection;
    use std::{collections::BTreeSet, fs, path::Path};

    const LEGACY: &str = "CREATE TABLE peers (id TEXT PRIMARY KEY, cwd TEXT, pid INTEGER, tty TEXT, summary TEXT, registered_at TEXT,
                          last_seen TEXT);
                          CREATE TABLE messages (id INTEGER PRIMARY KEY, from_id TEXT, to_id TEXT, text TEXT, sent_at TEXT, delivered INTEGER)";

    /// How many notices and sessions a database has after its next start.
    fn opened(path: &Path) -> (usize, i64) {
        let opened = open(path, Extent::Whole).unwrap();
        let sessions = opened.store.glance(|view| view.get("SELECT count(*) FROM session", [])).unwrap();
        opened.store.close();
        (opened.notices.len(), sessions)
    }

    /// The pages of this kind that a table or index has, in its order, each with its number of entries.
    fn pages(path: &Path, thing: &str, kind: &str) -> Vec<(u32, i64)> {
        let database = Connection::open(path).unwrap();
        let mut pages =
            database.prepare("SELECT pageno, ncell FROM dbstat WHERE name = ?1 AND pagetype = ?2 ORDER BY path").unwrap();
        pages.query_map([thing, kind], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn damage_in_the_schema_stops_no_broker() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.db");
        opened(&path);
        let rows = "INSERT INTO session VALUES ('session', 'peer', 1); INSERT INTO sqlite_sequence VALUES ('message', 40)";
        Connection::open(&path).unwrap().execute_batch(rows).unwrap();
        let sound = fs::read(&path).unwrap();
        fs::write(&path, replaced(&sound, "seen_at", "seen_af")).unwrap();
        assert_eq!((opened(&path), opened(&path)), ((1, 1), (0, 1)), "the name of a column");
        let last = "SELECT seq FROM sqlite_sequence WHERE name = 'message'";
        let last = Connection::open(&path).unwrap().query_row(last, [], |row| row.get(0));
        assert_eq!(last, Ok(40), "no number is assigned twice, even if all messages are gone");
        // The number of entries in the schema, in the head of its page.
        for entries in 0..sound[104] {
            fs::write(&path, [&sound[..104], &[entries], &sound[105..]].concat()).unwrap();
            assert_eq!((opened(&path), opened(&path)), ((1, 1), (0, 1)), "{entries} entries");
        }

        let first = folder.path().join("first.db");
        let lax = include_str!("migrations/0001-mailboxes.sql").replace("seen_at    INTEGER NOT NULL", "seen_at    INTEGER");
        let rows = "INSERT INTO session VALUES ('one', 'peer', 1), ('two', 'peer', NULL); PRAGMA user_version = 1";
        Connection::open(&first).unwrap().execute_batch(&format!("{lax}; {rows}")).unwrap();
        assert_eq!((opened(&first), opened(&first)), ((1, 1), (0, 1)), "a value that a migration copies");
        let altered = folder.path().join("altered.db");
        let lax = include_str!("migrations/0001-mailboxes.sql").replace("cwd            TEXT NOT NULL", "cwd            TEXT");
        let rows = "INSERT INTO session VALUES ('one', 'peer', 1); PRAGMA user_version = 1; PRAGMA writable_schema = 1;
                    INSERT INTO peer (id, name, registered_at, last_seen) VALUES ('one', 'one', 1, 1);
                    UPDATE sqlite_schema SET sql = replace(sql, 'cwd            TEXT', 'cwd            TEXT NOT NULL')";
        Connection::open(&altered).unwrap().execute_batch(&format!("{lax}; {rows}")).unwrap();
        assert_eq!((opened(&altered), opened(&altered)), ((1, 1), (0, 1)), "a value that a migration checks");

        let legacy = folder.path().join("legacy.db");
        Connection::open(&legacy).unwrap().execute_batch(LEGACY).unwrap();
        let text = replaced(&fs::read(&legacy).unwrap(), "to_id TEXT", "to_id TEX(");
        fs::write(&legacy, text).unwrap();
        assert_eq!((opened(&legacy), opened(&legacy)), ((1, 0), (0, 0)), "the text of a legacy table");
    }

    /// Neither the table nor the index of its key tells where the last row is.
    #[test]
    fn rows_between_damaged_pages_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.db");
        opened(&path);
        let fill = "INSERT INTO session WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200)
                    SELECT i || hex(zeroblob(50)), 'peer', i FROM n";
        Connection::open(&path).unwrap().execute_batch(fill).unwrap();
        let (leaves, roots) = (pages(&path, "session", "leaf"), pages(&path, "sqlite_autoindex_session_1", "internal"));
        assert!(leaves.len() > 5 && roots.len() == 1, "{leaves:?} {roots:?}");
        let sound = fs::read(&path).unwrap();
        for first in [leaves[0], leaves[1]] {
            let (mut bytes, last) = (sound.clone(), leaves[leaves.len() - 1]);
            for (page, _) in [first, last].into_iter().chain(roots.clone()) {
                bytes[(page as usize - 1) * 4096..][..8].fill(0xff);
            }
            fs::write(&path, bytes).unwrap();
            assert_eq!(opened(&path), (1, 200 - first.1 - last.1));
        }
    }

    #[test]
    fn lost_page_costs_its_own_rows_at_most() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.db");
        opened(&path);
        Connection::open(&path).unwrap().execute_batch(MANY_ROWS).unwrap();
        let pages: Vec<(u32, String, String, i64)> = Connection::open(&path)
            .unwrap()
            .prepare("SELECT pageno, name, pagetype, ncell FROM dbstat WHERE pageno > 1")
            .unwrap()
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        let sound = fs::read(&path).unwrap();
        for (page, name, kind, cells) in &pages {
            // The last three are the number of entries, and the places of two: each becomes another row, with any number.
            let noises = [(0, &[0xff; 8][..]), (0, &[0; 4096]), (0, &[0xa5; 4096]), (3, &[0, 2]), (8, &[13]), (10, &[8])];
            for (at, noise) in noises {
                let mut bytes = sound.clone();
                bytes[(*page as usize - 1) * 4096 + at..][..noise.len()].copy_from_slice(noise);
                fs::write(&path, bytes).unwrap();
                let opened = open(&path, Extent::Whole).unwrap();
                opened.store.close();
                let notices = opened.notices.concat();
                for table in ["peer", "session", "message"] {
                    let sql = format!("SELECT count(*) FROM {table}");
                    let rows: i64 = Connection::open(&path).unwrap().query_row(&sql, [], |row| row.get(0)).unwrap();
                    let lost = if name == table && kind == "leaf" { *cells } else { 0 };
                    assert!((40 - lost..=40).contains(&rows), "{rows} rows of {table} without page {page} of {name}");
                    assert!(
                        rows == 40 || notices.contains("up to") || (at, table) == (3, "message"),
                        "{rows} rows of {table}: {notices}"
                    );
                }
            }
        }
    }

    /// A page that belongs elsewhere has rows of any number, also lower ones than the search asks for.
    #[test]
    fn misplaced_page_does_not_lead_the_search_in_circles() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.db");
        opened(&path);
        let fill = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60)
                    INSERT INTO message (tag, from_peer, to_peer, text, sent_at, expires_at)
                    SELECT 'bcdfgh', 'ada', 'eve', hex(zeroblob(400)), 5, 9e12 FROM n";
        Connection::open(&path).unwrap().execute_batch(fill).unwrap();
        let leaves = pages(&path, "message", "leaf");
        assert!(leaves.len() > 9, "{leaves:?}");
        let place = |leaf: usize| (leaves[leaf].0 as usize - 1) * 4096..leaves[leaf].0 as usize * 4096;
        let sound = fs::read(&path).unwrap();
        for (at, from) in (4..9).flat_map(|at| (0..leaves.len()).map(move |from| (at, from))) {
            let lost = BTreeSet::from([3, at, at + 1, 10]);
            let mut bytes = sound.clone();
            lost.iter().for_each(|leaf| bytes[place(*leaf)].fill(0));
            bytes[place(at)].copy_from_slice(&sound[place(from)]);
            fs::write(&path, bytes).unwrap();
            let opened = open(&path, Extent::Whole).unwrap();
            let rows = opened.store.glance(|view| view.get::<i64>("SELECT count(*) FROM message", [])).unwrap();
            opened.store.close();
            let least = 60 - lost.iter().map(|leaf| leaves[*leaf].1).sum::<i64>();
            assert!(rows >= least, "page {from} in place of {at}: {:?}", opened.notices);
        }
    }

    fn replaced(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        while let Some(at) = bytes.windows(from.len()).position(|part| part == from.as_bytes()) {
            bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        }
        bytes
    }
}
