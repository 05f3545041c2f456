//! Damaged databases. An input names a database and what is damaged in it: most bytes of a whole file would never be read.

use super::{
    connect::{wal, writer},
    error::OpenError,
    header,
    legacy::LEGACY_TABLES,
    open::{Extent, open},
};
use rusqlite::{Connection, config::DbConfig};
use std::{
    fs,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

const ROWS: &str = "
    INSERT INTO peer (id, name, cwd, registered_at, last_seen) VALUES ('ada', 'Ada', '/srv/a', 1, 2), ('eve', 'Eve', '/srv/e', 3, 4);
    INSERT INTO message (tag, from_peer, to_peer, text, key, sent_at, expires_at, state, waiting)
        VALUES ('abcdef', 'ada', 'eve', 'first', 'a key', 5, 9e12, 0, 1), ('bcdefg', 'eve', 'ada', 'second', NULL, 6, 9e12, 2, 0);";
const LEGACY_ROWS: &str = "
    INSERT INTO peers VALUES ('ada', 7, '/srv/a', NULL, NULL, 'works', '2026-05-16T12:36:00.000Z', '2026-05-16T12:36:00.000Z');
    INSERT INTO messages VALUES (1, 'eve', 'ada', 'first', '2026-05-16T12:36:00.000Z', 0);";

/// How many rows the tables of several pages have.
const MANY: i64 = 40;
pub(super) const MANY_ROWS: &str = "
    INSERT INTO peer (id, name, cwd, registered_at, last_seen)
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40)
        SELECT 'peer-' || i, 'Ada', hex(zeroblob(150)), 1, 2 FROM n;
    INSERT INTO session SELECT id, id, 3 FROM peer;
    INSERT INTO message (tag, from_peer, to_peer, text, sent_at, expires_at)
        SELECT substr('bcdfghjkmnpq', 1 + rowid % 6, 6), id, 'ada', hex(zeroblob(400)), 5, 9e12 FROM peer;";

const PAGE: usize = header::PAGE as usize;
/// Little tells the legacy broker's database from one of another program.
const LEGACY_AT: usize = 3;

thread_local! {
    static SOUND: [Files; 4] = sound();
    static LARGE: (Files, Vec<i64>) = large();
}

/// A database and its log.
#[derive(Clone)]
struct Files {
    bytes: Vec<u8>,
    /// Where the log begins.
    log: usize,
    /// The places that can be damaged. Much of a database is zeros that nothing reads.
    places: Vec<usize>,
}

/// A file with any contents is opened, salvaged or refused untouched. One damaged place never makes our database
/// another program's, and what was opened opens again without one.
pub fn salvage(data: &[u8]) {
    let (files, is_ours, least) = input(data);
    holds(&files, is_ours, least);
}

/// Tables of several pages, some of which are damaged, overwritten by another page, or swapped. What the search for their rows meets
/// there, it ends, and one page costs its own rows at most.
pub fn pages(data: &[u8]) {
    let (mut files, sound, cells) = LARGE.with(|(files, cells)| (files.clone(), files.clone(), cells.clone()));
    let (changes, _) = data.as_chunks::<5>();
    for [kind, page, other, place @ ..] in changes {
        let start = |page: &u8| usize::from(*page) % cells.len() * PAGE;
        let (page, from) = (start(page), start(other));
        match kind % 4 {
            0 => files.bytes.copy_within(from..from + PAGE, page),
            1 => files.bytes[page..page + PAGE].fill(*other),
            2 => files.bytes[page + usize::from(u16::from_le_bytes(*place)) % PAGE] = *other,
            _ => {
                let kept = files.bytes[page..page + PAGE].to_vec();
                files.bytes.copy_within(from..from + PAGE, page);
                files.bytes[from..from + PAGE].copy_from_slice(&kept);
            }
        }
    }
    let least = match files.damaged_pages(&sound).as_deref() {
        Some([]) => MANY,
        Some([page]) if *page > 0 => MANY - cells[*page],
        _ => 0,
    };
    holds(&files, changes.len() <= 1, [least, if least > 0 { MANY } else { 0 }]);
}

/// Opens the files twice. The two tables have at least so many rows.
fn holds(files: &Files, is_ours: bool, least: [i64; 2]) {
    let folder = folder();
    let path = folder.path().join("peers.db");
    files.write(&path);
    match open(&path, Extent::Whole) {
        Ok(opened) => {
            let count = |table| opened.store.glance(|view| view.get(&format!("SELECT count(*) FROM {table}"), [])).unwrap();
            let mut rows: [i64; 2] = ["peer", "message"].map(count);
            rows.sort_unstable();
            assert!(rows.iter().zip(least).all(|(found, least)| *found >= least), "{rows:?}: {:?}", opened.notices);
            opened.store.close();
            let kept = if opened.notices.is_empty() { None } else { set_aside(folder.path()) };
            let (_, given) = files.bytes[..files.log].split_at_checked(100).unwrap_or_default();
            assert!(kept.is_none_or(|kept| kept.get(100..).unwrap_or_default() == given), "the damaged database is kept");
            let again = open(&path, Extent::Whole).unwrap();
            assert_eq!(again.notices, [""; 0], "what was opened is sound");
            again.store.close();
        }
        Err(refused @ (OpenError::Foreign { .. } | OpenError::TooNew { .. })) => {
            assert_eq!(fs::read(&path).unwrap(), files.bytes[..files.log], "left untouched");
            let is_foreign = matches!(refused, OpenError::Foreign { .. });
            assert!(!is_foreign || !is_ours, "{refused}");
        }
        Err(error) => panic!("{error}"),
    }
}

/// The files that the input names; whether they are clearly ours, because one run of bytes is damaged at most; how many rows their two
/// tables have at least: all if only the schema is damaged, and those of one table if only another page is.
fn input(data: &[u8]) -> (Files, bool, [i64; 2]) {
    let (which, mut rest) = data.split_first().map_or((0, data), |(which, rest)| (usize::from(*which), rest));
    let Some(mut files) = SOUND.with(|sound| sound.get(which % 5).cloned()) else {
        return (Files::new(rest.to_vec(), Vec::new()), false, [0, 0]);
    };
    let (mut damages, mut cuts) = (0, 0);
    let sound = files.clone();
    while let [low, high, length, bytes @ ..] = rest {
        let (new, after) = bytes.split_at(usize::from(length % 9).min(bytes.len()));
        files.damage(u16::from_le_bytes([*low, *high]).into(), new);
        (rest, damages, cuts) = (after, damages + 1, cuts + u32::from(new.is_empty()));
    }
    let is_legacy = which % 5 == LEGACY_AT;
    let rows = if is_legacy { 1 } else { 2 };
    let least = match files.damaged_pages(&sound).as_deref() {
        Some([] | [0]) if damages <= 1 => [rows, rows],
        Some([page]) if *page > 0 => [0, rows],
        _ => [0, 0],
    };
    (files, !is_legacy && damages <= 1 && cuts == 0, least)
}

impl Files {
    fn new(mut bytes: Vec<u8>, log: Vec<u8>) -> Self {
        let length = bytes.len();
        bytes.extend(log);
        // The log differs between runs, its length does not.
        let places = (0..bytes.len()).filter(|place| *place >= length || bytes[*place] != 0).collect();
        Self { bytes, log: length, places }
    }

    /// Puts `new` over the bytes at a place, or cuts the file there.
    fn damage(&mut self, place: usize, new: &[u8]) {
        let from = self.places[place % self.places.len()];
        let end = if from < self.log { self.log } else { self.bytes.len() };
        if new.is_empty() && from < self.log {
            self.bytes.drain(from..end);
            self.log = from;
        } else if new.is_empty() {
            self.bytes.truncate(from);
        } else if let Some(bytes) = self.bytes.get_mut(from..end.min(from + new.len())) {
            bytes.copy_from_slice(&new[..bytes.len()]);
        }
    }

    /// The pages that differ from those of the sound files; `None` if the length or the log does.
    fn damaged_pages(&self, sound: &Self) -> Option<Vec<usize>> {
        let ((database, log), (pages, sound)) = (self.bytes.split_at(self.log), sound.bytes.split_at(sound.log));
        let is_damaged = |number: &usize| database.chunks(PAGE).nth(*number) != pages.chunks(PAGE).nth(*number);
        (database.len() == pages.len() && log == sound).then(|| (0..pages.len() / PAGE).filter(is_damaged).collect())
    }

    fn write(&self, path: &Path) {
        let (database, log) = self.bytes.split_at(self.log);
        fs::write(path, database).unwrap();
        if !log.is_empty() {
            fs::write(wal(path), log).unwrap();
        }
    }
}

/// Ours, ours with rows in the log, ours of the first version, the legacy broker's.
fn sound() -> [Files; 4] {
    let folder = folder();
    let (ours, logged) = (folder.path().join("ours"), folder.path().join("logged"));
    open(&ours, Extent::Whole).unwrap().store.close();
    open(&logged, Extent::Whole).unwrap().store.close();
    let connection = Connection::open(&ours).unwrap();
    connection.execute_batch(ROWS).unwrap();
    connection.close().unwrap();
    writer(&logged).unwrap().execute_batch(ROWS).unwrap(); // leaves the log
    let first = format!("{}; {ROWS} PRAGMA user_version = 1", include_str!("migrations/0001-mailboxes.sql"));
    let legacy = format!("{}; {}; {LEGACY_ROWS}", LEGACY_TABLES[0].1, LEGACY_TABLES[1].1);
    [read(&ours), read(&logged), fresh(&folder.path().join("first"), &first), fresh(&folder.path().join("legacy"), &legacy)]
}

/// Ours with tables of several pages, and how many rows each page has.
fn large() -> (Files, Vec<i64>) {
    let folder = folder();
    let path = folder.path().join("large");
    open(&path, Extent::Whole).unwrap().store.close();
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch(MANY_ROWS).unwrap();
    let sql = "SELECT pageno, ncell FROM dbstat WHERE pagetype = 'leaf' AND name IN ('peer', 'session', 'message')";
    let pages = connection.query_row("PRAGMA page_count", [], |row| row.get::<_, u32>(0)).unwrap();
    let mut cells = vec![0; pages as usize];
    let mut select = connection.prepare(sql).unwrap();
    let leaves = select.query_map([], |row| Ok((row.get::<_, u32>(0)?, row.get(1)?))).unwrap();
    leaves.map(Result::unwrap).for_each(|(page, rows)| cells[page as usize - 1] = rows);
    drop(select);
    connection.close().unwrap();
    (read(&path), cells)
}

fn fresh(path: &Path, sql: &str) -> Files {
    let connection = Connection::open(path).unwrap();
    connection.pragma_update(None, "journal_mode", "wal").unwrap();
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).unwrap();
    connection.execute_batch(sql).unwrap();
    connection.close().unwrap();
    read(path)
}

/// A folder in memory, where the system has one.
fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn read(path: &Path) -> Files {
    Files::new(fs::read(path).unwrap(), fs::read(wal(path)).unwrap_or_default())
}

/// The database that a salvage has set aside.
fn set_aside(folder: &Path) -> Option<Vec<u8>> {
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let mut kept =
        files.filter(|path: &PathBuf| path.to_string_lossy().contains(".damaged-") && !path.to_string_lossy().contains("-wal"));
    kept.find(|path| !path.to_string_lossy().ends_with("-shm")).map(|path| fs::read(path).unwrap())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_that_once_failed_hold() {
        for (target, name) in [(salvage as fn(&[u8]), "salvage"), (pages, "pages")] {
            let inputs = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
            let mut tried = 0;
            for input in fs::read_dir(&inputs).unwrap() {
                let path = input.unwrap().path();
                println!("{}", path.display()); // the last one is the one that fails
                target(&fs::read(path).unwrap());
                tried += 1;
            }
            assert!(tried > 0, "{} has inputs", inputs.display());
        }
    }
}
