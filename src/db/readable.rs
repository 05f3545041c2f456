//! Makes the rows of a damaged database readable. A damaged header or schema is mended in a copy: what belongs there is known.

use super::{
    connect::{is_filled, remove_files, side_files, wal},
    error::is_passing,
    header,
    survey::Survey,
};
use rusqlite::{Connection, ffi};
use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::Path,
};

/// The file to read the rows of the database at `path` from: itself, or the new file `copy`.
pub(super) fn readable<'a>(path: &'a Path, copy: &'a Path) -> io::Result<&'a Path> {
    let mended = header::mend(path)?;
    let has_log = is_filled(&wal(path));
    let mut readable = path;
    if has_log || mended.is_some() {
        copy_files(path, copy)?;
        readable = copy;
    }
    if let Some((header, _)) = mended {
        overwrite(copy, &header)?;
    }
    if has_log {
        merge_log(copy)?;
    }
    let survey = Survey::of(readable)?;
    if mended.is_some_and(|(_, has_another_size)| has_another_size) && !survey.is_confirmed() {
        remove_files(copy)?;
        return Ok(path);
    }
    if survey.is_whole(readable) {
        return Ok(readable);
    }
    if readable == path {
        copy_files(path, copy)?;
    }
    survey.lend_schema(copy)?;
    Ok(copy)
}

fn copy_files(path: &Path, copy: &Path) -> io::Result<()> {
    fs::copy(path, copy)?;
    if wal(path).exists() {
        fs::copy(wal(path), wal(copy))?;
    }
    Ok(())
}

fn overwrite(file: &Path, beginning: &[u8]) -> io::Result<()> {
    OpenOptions::new().write(true).open(file)?.write_all_at(beginning, 0)
}

/// Copies the pages of the log into the database at `path`, as far as they are sound.
#[expect(unsafe_code, reason = "the statement for it needs a readable schema")]
fn merge_log(path: &Path) -> io::Result<()> {
    let connection = Connection::open(path).map_err(io::Error::other)?;
    // This opens the log. The schema may be unreadable; the log does not need it.
    let read = connection.pragma_update(None, "writable_schema", true);
    let read = read.and_then(|()| connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())));
    let (mode, unused) = (ffi::SQLITE_CHECKPOINT_TRUNCATE, std::ptr::null_mut());
    // SAFETY: the connection is open, the name is static, and the counts may be null.
    let code = unsafe { ffi::sqlite3_wal_checkpoint_v2(connection.handle(), c"main".as_ptr(), mode, unused, unused) };
    let merged = Err(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None));
    if let Some(error) = [read, merged].into_iter().filter_map(Result::err).find(is_passing) {
        return Err(io::Error::other(error));
    }
    drop(connection);
    side_files(path).iter().filter(|file| file.exists()).try_for_each(fs::remove_file)
}

#[cfg(test)]
mod tests {
    use crate::db::{
        Extent, OpenError,
        connect::{wal, writer},
        legacy::LEGACY_TABLES,
        open,
    };
    use rusqlite::Connection;
    use std::{fs, path::Path};

    const ROWS: &str = "
        INSERT INTO peer (id, name, cwd, registered_at, last_seen) VALUES ('ada', 'Ada', '/a', 1, 2), ('eve', 'Eve', '/e', 3, 4);
        INSERT INTO session VALUES ('session', 'ada', 1);
        INSERT INTO message (tag, from_peer, to_peer, text, key, sent_at, expires_at, state, waiting)
            VALUES ('abcdef', 'ada', 'eve', 'one', 'key', 5, 9e12, 0, 1), ('bcdefg', 'eve', 'ada', 'two', NULL, 6, 9e12, 2, 0)";
    const LEGACY_ROWS: &str = "INSERT INTO peers VALUES ('ada', 7, '/a', NULL, NULL, 'works', '', '');
        INSERT INTO messages VALUES (1, 'eve', 'ada', 'first', '', 0)";
    const FIRST: &str = concat!(include_str!("migrations/0001-mailboxes.sql"), "; PRAGMA user_version = 1;");

    /// How many peers, sessions and messages a database has after its next start.
    fn rows(path: &Path) -> [i64; 3] {
        let opened = open(path, Extent::Whole).unwrap();
        let count = |table| opened.store.glance(|view| view.get(&format!("SELECT count(*) FROM {table}"), [])).unwrap();
        let rows = ["peer", "session", "message"].map(count);
        opened.store.close();
        rows
    }

    /// A new database; one of the first version; one that has been migrated from it.
    #[test]
    fn no_byte_of_the_schema_costs_a_row() {
        let folder = tempfile::tempdir().unwrap();
        let [path, new, first, migrated] = ["peers.db", "new", "first", "migrated"].map(|name| folder.path().join(name));
        rows(&new);
        Connection::open(&new).unwrap().execute_batch(ROWS).unwrap();
        Connection::open(&first).unwrap().execute_batch(&format!("{FIRST}{ROWS}")).unwrap();
        fs::copy(&first, &migrated).unwrap();
        rows(&migrated);
        for database in [new, first, migrated] {
            let sound = fs::read(database).unwrap();
            for at in (100..4096).step_by(31).filter(|at| sound[*at] != 0) {
                let mut bytes = sound.clone();
                bytes[at] ^= [1, 0x20, 0x80, 0xff][at % 4];
                fs::write(&path, bytes).unwrap();
                assert_eq!((rows(&path), rows(&path)), ([2, 1, 2], [2, 1, 2]), "byte {at}");
            }
        }
    }

    #[test]
    fn rows_in_the_log_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.db");
        rows(&path);
        writer(&path).unwrap().execute_batch(ROWS).unwrap(); // leaves the log
        let (sound, log) = (fs::read(&path).unwrap(), fs::read(wal(&path)).unwrap());
        let name = sound.windows(20).position(|text| text == b"CREATE TABLE message").unwrap() + 15;
        let damaged = |at: usize, byte: u8| [&sound[..at], &[byte], &sound[at + 1..]].concat();
        let (name, size) = (damaged(name, b'x'), damaged(16, 0x20));
        let short = [2_000, 2_864, 4_095].map(|length| &sound[..length]);
        for bytes in short.into_iter().chain([&name[..], &size, &size[..2_864]]) {
            fs::write(&path, bytes).unwrap();
            fs::write(wal(&path), &log).unwrap();
            assert_eq!((rows(&path), rows(&path)), ([2, 1, 2], [2, 1, 2]), "{} bytes", bytes.len());
        }
    }

    #[test]
    fn free_pages_show_no_rows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.db");
        rows(&path);
        let freed = "INSERT INTO session WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
                     SELECT 'session ' || i, 'peer', i FROM n; DELETE FROM session";
        Connection::open(&path).unwrap().execute_batch(freed).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        assert!(bytes.windows(11).any(|text| text == b"session 250"), "they keep their old rows");
        let name = bytes.windows(20).position(|text| text == b"CREATE TABLE message").unwrap();
        bytes[name + 15] = b'x';
        fs::write(&path, &bytes).unwrap();
        assert_eq!((rows(&path), rows(&path)), ([0, 0, 0], [0, 0, 0]));
        // Without the first page nothing shows which pages are free.
        let message = "INSERT INTO message (tag, from_peer, to_peer, text, sent_at, expires_at)
                       SELECT 'abcdef', 'ada', 'eve', hex(zeroblob(400)), 5, 6 FROM session; DELETE FROM message WHERE seq < 500";
        let freed = freed.replace("; DELETE", &format!("; {message}; DELETE"));
        Connection::open(&path).unwrap().execute_batch(&freed).unwrap();
        bytes = fs::read(&path).unwrap();
        bytes[..4096].fill(0);
        fs::write(&path, bytes).unwrap();
        assert_eq!(rows(&path)[2], 1);
    }

    #[test]
    fn page_that_is_listed_as_free_keeps_its_rows() {
        let folder = tempfile::tempdir().unwrap();
        let [path, new, first] = ["peers.db", "new", "first"].map(|name| folder.path().join(name));
        rows(&new);
        Connection::open(&new).unwrap().execute_batch(ROWS).unwrap();
        Connection::open(&first).unwrap().execute_batch(&format!("{FIRST}{ROWS}")).unwrap();
        for sound in [new, first].map(|database| fs::read(database).unwrap()) {
            for page in 1..=sound.len() as u32 / 4096 {
                // The header: how many pages there are, and the first one in the list.
                let bytes = [&sound[..28], &[0, 0, 0, 1], &page.to_be_bytes(), &sound[36..]].concat();
                fs::write(&path, bytes).unwrap();
                assert_eq!((rows(&path), rows(&path)), ([2, 1, 2], [2, 1, 2]), "page {page}");
            }
        }
    }

    #[test]
    fn no_number_of_a_page_costs_a_row() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.db");
        rows(&path);
        let legacy = LEGACY_TABLES.map(|(_, sql, _)| sql).join(";"); // the import leaves them
        Connection::open(&path).unwrap().execute_batch(&format!("{ROWS}; DELETE FROM session; {legacy}; {LEGACY_ROWS}")).unwrap();
        let sound = fs::read(&path).unwrap();
        for table in ["peer", "session", "message"] {
            for page in 0..=sound.len() / 4096 {
                fs::write(&path, &sound).unwrap();
                let change = "PRAGMA writable_schema = on; UPDATE sqlite_schema SET rootpage";
                let change = format!("{change} = {page} WHERE name = '{table}'");
                Connection::open(&path).unwrap().execute_batch(&change).unwrap();
                let opened = open(&path, Extent::Whole).unwrap();
                opened.store.close();
                assert!(!opened.notices.concat().contains("up to"), "{table} at page {page}: {:?}", opened.notices);
                assert_eq!(rows(&path), [2, 0, 2], "{table} at page {page}");
            }
        }
    }

    /// A table begins after pages of its own, or after free ones that keep rows like its own.
    #[test]
    fn pages_before_the_first_one_cost_no_row() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.db");
        let [(_, peers, _), (_, messages, _)] = LEGACY_TABLES;
        let (before, numbers) =
            (messages.replace("messages", "before"), "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n");
        let fill = |table: &str, rows: u32| {
            format!("INSERT INTO {table} {numbers} WHERE i < {rows}) SELECT i, 'eve', 'ada', hex(zeroblob(400)), '', 0 FROM n")
        };
        for (kept, lost) in [(100, "the number of its page"), (100, "that and its first rows"), (1, "the list of free pages")] {
            drop(fs::remove_file(&path));
            let (old, new) = (fill("before", 100), fill("messages", kept));
            let connection = Connection::open(&path).unwrap();
            connection.execute_batch(&format!("{before}; {old}; {peers}; {messages}; DROP TABLE before; {new}")).unwrap();
            let first = "SELECT pageno, ncell FROM dbstat WHERE name = 'messages' AND pagetype = 'leaf' ORDER BY path";
            let (first, cells): (u32, i64) = connection.query_row(first, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
            connection.close().unwrap();
            let mut bytes = fs::read(&path).unwrap();
            let text = bytes.windows(21).position(|text| text == b"CREATE TABLE messages").unwrap();
            let mut kept = i64::from(kept);
            match lost {
                "the list of free pages" => bytes[32..40].fill(0),
                "the number of its page" => bytes[text - 1] = 0,
                _ => {
                    bytes[text - 1] = 0;
                    bytes[(first as usize - 1) * 4096..][..8].fill(0xff);
                    kept -= cells;
                }
            }
            fs::write(&path, bytes).unwrap();
            assert_eq!((rows(&path), rows(&path)), ([0, 0, kept], [0, 0, kept]), "{lost}");
        }
    }

    /// Even without the first page.
    #[test]
    fn row_that_looks_like_one_of_another_table_costs_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.db");
        rows(&path);
        let third = "INSERT INTO peer (id, name, cwd, registered_at, last_seen) VALUES ('ivy', 'Ivy', '/i', 1, 2)";
        Connection::open(&path).unwrap().execute_batch(&format!("{ROWS}; {third}")).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        bytes[..4096].fill(0);
        let values = bytes.windows(6).position(|text| text == b"ivyIvy").unwrap();
        let types = (values - 60..values).find(|at| usize::from(bytes[*at]) == values - at).unwrap();
        bytes[types] = 4; // three columns, of which the first is a text
        fs::write(&path, bytes).unwrap();
        assert_eq!((rows(&path), rows(&path)), ([2, 1, 2], [2, 1, 2]));
    }

    #[test]
    fn another_legacy_table_keeps_its_columns() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.db");
        let tables = LEGACY_TABLES.map(|(_, sql, _)| sql.replace("from_id TEXT", "room TEXT, from_id TEXT")).join(";");
        let room = LEGACY_ROWS.replace("(1, 'eve'", "(1, 'room', 'eve'");
        Connection::open(&path).unwrap().execute_batch(&format!("{tables};{room}")).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        bytes[21] = 7; // in the header
        fs::write(&path, bytes).unwrap();
        assert_eq!((rows(&path), rows(&path)), ([1, 0, 1], [1, 0, 1]));
        let sql = "SELECT room || message.from_peer || message.text FROM message, messages";
        let text = Connection::open(&path).unwrap().query_row(sql, [], |row| row.get::<_, String>(0));
        assert_eq!(text.unwrap(), "roomevefirst");
    }

    /// Too many open files, for example: its rows would be lost.
    #[test]
    fn log_that_cannot_be_opened_is_not_taken_for_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.db");
        rows(&path);
        fs::create_dir(wal(&path)).unwrap();
        let error = super::merge_log(&path).unwrap_err().to_string();
        assert!(error.contains("unable to open database file"), "{error}");
    }

    /// The import would write into the wrong table.
    #[test]
    fn damaged_legacy_database_is_not_imported_before_it_is_salvaged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.db");
        let tables = LEGACY_TABLES.map(|(_, sql, _)| sql).join(";");
        Connection::open(&path).unwrap().execute_batch(&format!("{tables};{LEGACY_ROWS}")).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        let empty = [&bytes[..104], &[0, 7, 0], &bytes[107..]].concat();
        let numbers = bytes.windows(28).position(|text| text == b"CREATE TABLE sqlite_sequence").unwrap();
        assert_eq!(bytes[numbers - 1], 5, "where it begins");
        bytes[numbers - 1] = 4; // where the messages do
        for bytes in [bytes, empty] {
            fs::write(&path, bytes).unwrap();
            assert_eq!((rows(&path), rows(&path)), ([1, 0, 1], [1, 0, 1]));
        }
    }

    /// Little tells it from another program's database, so it may be refused.
    #[test]
    fn no_byte_of_a_legacy_schema_costs_a_row() {
        let folder = tempfile::tempdir().unwrap();
        let [path, legacy] = ["peers.db", "legacy"].map(|name| folder.path().join(name));
        let tables = LEGACY_TABLES.map(|(_, sql, _)| sql).join(";");
        Connection::open(&legacy).unwrap().execute_batch(&format!("{tables};{LEGACY_ROWS}")).unwrap();
        let sound = fs::read(legacy).unwrap();
        for at in (100..4096).step_by(31).filter(|at| sound[*at] != 0) {
            let mut bytes = sound.clone();
            bytes[at] ^= [1, 0x20, 0x80, 0xff][at % 4];
            fs::write(&path, &bytes).unwrap();
            match open(&path, Extent::UnderWay) {
                Err(OpenError::Foreign { .. }) => assert_eq!(fs::read(&path).unwrap(), bytes),
                opened => {
                    opened.unwrap().store.close();
                    assert_eq!(rows(&path), [1, 0, 1], "byte {at}");
                }
            }
        }
    }
}
