//! The first bytes of a database. Most of them are the same in all our databases, so damage there is found and costs no row.
//!
//! Source: SQLite, "Database File Format", 1.3.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

/// The header, and the page's own as far as its number of entries.
const LENGTH: usize = 105;
/// The size of a page of our databases.
pub(super) const PAGE: u64 = 4096;
/// Where bytes are the same in each database, and which: the magic text and the page size; the payload fractions; no automatic vacuum;
/// no incremental one.
const FIXED: [(usize, &[u8]); 4] =
    [(0, b"SQLite format 3\0\x10\0"), (21, &[64, 32, 32]), (52, &[0, 0, 0, 0]), (64, &[0, 0, 0, 0])];
/// How many bytes at the end of each page are not used: 0 in our databases, and 12 in those that Apple's SQLite has created.
const RESERVED: usize = 20;
const BY_APPLE: u8 = 12;
/// The same, once there is a table, and 0 before that: the format of the schema; UTF-8.
const CHOSEN: [(usize, [u8; 4]); 2] = [(44, [0, 0, 0, 4]), (56, [0, 0, 0, 1])];
/// The number of entries on the first page: 0 as long as there is no table.
const ENTRIES: std::ops::Range<usize> = 103..105;
/// Where the first page says where its first gap is, and where its entries start.
const GAP: usize = 101;
const START: usize = 105;
/// How the file is to be written and read: twice 1 with a rollback journal, twice 2 with a log.
const MODES: std::ops::Range<usize> = 18..20;
/// The number of pages. With 0 there, SQLite counts them itself.
const PAGES: std::ops::Range<usize> = 28..32;

/// Whether bytes that never change have changed. An empty file has none, and one with pages of another size may be a legacy database.
pub(super) fn is_damaged(path: &Path) -> io::Result<bool> {
    Ok(read(path)?.is_some_and(|(found, _)| !has_another_size(&found) && mended(found) != found))
}

/// The mended header of a database with pages of our size, and whether another size was given; `None` if there is nothing to mend.
pub(super) fn mend(path: &Path) -> io::Result<Option<([u8; LENGTH], bool)>> {
    let Some((found, pages)) = read(path)? else { return Ok(None) };
    let mut header = mended(found);
    if found[PAGES] != pages.to_be_bytes()[4..] {
        header[PAGES].fill(0);
    }
    Ok((header != found).then_some((header, has_another_size(&found))))
}

/// The first page of the new database `image`, for the file at `path`: SQLite counts its pages itself, and the unused bytes at the end
/// of each page stay unused.
pub(super) fn first_page(image: &[u8], path: &Path) -> io::Result<Vec<u8>> {
    let mut page = image[..PAGE as usize].to_vec();
    page[PAGES].fill(0);
    let by_apple = read(path)?.is_some_and(|(found, _)| found[RESERVED] == BY_APPLE);
    if by_apple {
        page[RESERVED] = BY_APPLE;
        move_entries(&mut page, BY_APPLE.into());
    }
    Ok(page)
}

/// Moves the entries of the first page away from its end.
fn move_entries(page: &mut [u8], by: u16) {
    let number = |page: &[u8], at: usize| u16::from_be_bytes([page[at], page[at + 1]]);
    let lower = |page: &mut [u8], at: usize| {
        let moved = number(page, at) - by;
        page[at..at + 2].copy_from_slice(&moved.to_be_bytes());
        usize::from(moved)
    };
    let start = usize::from(number(page, START));
    page.copy_within(start.., start - usize::from(by));
    lower(page, START);
    (0..usize::from(number(page, ENTRIES.start))).for_each(|entry| _ = lower(page, LENGTH + 3 + 2 * entry));
    let mut free = GAP;
    while number(page, free) != 0 {
        free = lower(page, free);
    }
}

/// The header, and the number of pages of our size; `None` for an empty file, for which SQLite takes one byte, too. It takes the bytes
/// that a short file lacks for zeros.
fn read(path: &Path) -> io::Result<Option<([u8; LENGTH], u64)>> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let (mut header, mut found) = ([0; LENGTH], Vec::new());
    file.take(LENGTH as u64).read_to_end(&mut found)?;
    header[..found.len()].copy_from_slice(&found);
    Ok((length > 1).then_some((header, length / PAGE)))
}

/// Whether it gives another valid size of a page.
fn has_another_size(header: &[u8; LENGTH]) -> bool {
    let size = u16::from_be_bytes([header[16], header[17]]);
    u64::from(size) != PAGE && (size == 1 || size >= 512 && size.is_power_of_two())
}

fn mended(mut header: [u8; LENGTH]) -> [u8; LENGTH] {
    for (at, bytes) in FIXED {
        header[at..at + bytes.len()].copy_from_slice(bytes);
    }
    for (at, bytes) in CHOSEN {
        if header[ENTRIES] != [0; 2] || header[at..at + 4] != [0; 4] {
            header[at..at + 4].copy_from_slice(&bytes);
        }
    }
    if header[RESERVED] != BY_APPLE {
        header[RESERVED] = 0;
    }
    if !matches!(header[MODES], [1, 1] | [2, 2]) {
        header[MODES].fill(2);
    }
    header
}

#[cfg(test)]
mod tests {
    use super::PAGE;
    use crate::db::{Extent, OpenError, open, schema::SCHEMA};
    use rusqlite::Connection;
    use std::{fs, path::Path};

    const FILL: &str = "INSERT INTO session WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
                        SELECT 'session ' || i, 'peer', i FROM n";

    fn sessions(path: &Path) -> i64 {
        let opened = open(path, Extent::Whole).unwrap();
        let count = opened.store.glance(|view| view.get("SELECT count(*) FROM session", [])).unwrap();
        opened.store.close();
        count
    }

    #[test]
    fn pages_of_another_size_are_no_damage() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.db");
        Connection::open(&path)
            .unwrap()
            .execute_batch("PRAGMA page_size = 8192; CREATE TABLE extra (x); DROP TABLE extra")
            .unwrap();
        open(&path, Extent::Whole).unwrap().store.close();
        Connection::open(&path).unwrap().execute_batch(FILL).unwrap();
        let opened = open(&path, Extent::Whole).unwrap();
        assert_eq!(opened.notices, [""; 0]);
        opened.store.close();
        assert_eq!((sessions(&path), fs::read(&path).unwrap()[16]), (500, 0x20));
        for (change, kept) in [("", 500), ("DELETE FROM session WHERE seen_at > 2; VACUUM", 2)] {
            let connection = Connection::open(&path).unwrap();
            connection.execute_batch(change).unwrap();
            let index = "SELECT rootpage FROM sqlite_schema WHERE name = 'sqlite_autoindex_session_1'";
            let index: u32 = connection.query_row(index, [], |row| row.get(0)).unwrap();
            connection.close().unwrap();
            let mut bytes = fs::read(&path).unwrap();
            bytes[(index as usize - 1) * 8192..][..8].fill(0xff);
            fs::write(&path, bytes).unwrap();
            assert_eq!((sessions(&path), sessions(&path)), (kept, kept), "a damaged index");
        }
    }

    #[test]
    fn reserved_bytes_are_no_damage() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.db");
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE extra (x); DROP TABLE extra; VACUUM").unwrap();
        let mut empty = fs::read(&path).unwrap();
        assert_eq!((empty.len(), &empty[103..107]), (PAGE as usize, &[0, 0, 0x10, 0][..]), "no cells; where they begin");
        empty[20] = super::BY_APPLE;
        empty[105..107].copy_from_slice(&(4096_u16 - u16::from(super::BY_APPLE)).to_be_bytes());
        fs::write(&path, empty).unwrap();
        open(&path, Extent::Whole).unwrap().store.close();
        Connection::open(&path).unwrap().execute_batch(FILL).unwrap();
        let opened = open(&path, Extent::Whole).unwrap();
        assert_eq!(opened.notices, [""; 0]);
        opened.store.close();
        assert_eq!((sessions(&path), fs::read(&path).unwrap()[20]), (500, super::BY_APPLE));

        // Long rows depend on them, also under another schema.
        let long = "INSERT INTO message (tag, from_peer, to_peer, text, sent_at, expires_at)
                    VALUES ('abcdef', 'ada', 'eve', printf('%.*c', 9000, 'x') || 'end', 5, 6)";
        Connection::open(&path).unwrap().execute_batch(long).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        let name = bytes.windows(20).position(|text| text == b"CREATE TABLE message").unwrap();
        bytes[name + 15] = b'x';
        fs::write(&path, bytes).unwrap();
        let opened = open(&path, Extent::Whole).unwrap();
        let text: String = opened.store.glance(|view| view.get("SELECT text FROM message", [])).unwrap();
        assert_eq!((text.len(), text.ends_with("xend"), opened.notices.len()), (9003, true, 1));
        opened.store.close();
        assert_eq!(sessions(&path), 500);
    }

    #[test]
    fn lost_first_page_costs_no_row() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.db");
        open(&path, Extent::Whole).unwrap().store.close();
        Connection::open(&path).unwrap().execute_batch(FILL).unwrap();
        let sound = fs::read(&path).unwrap();
        for noise in [0, 0xa5] {
            fs::write(&path, [&[noise; PAGE as usize], &sound[PAGE as usize..]].concat()).unwrap();
            assert_eq!((sessions(&path), sessions(&path)), (500, 500), "{noise}");
        }
        // The first version had its tables elsewhere; its messages show whose they are.
        let first = concat!(include_str!("migrations/0001-mailboxes.sql"), "; PRAGMA user_version = 1;
            INSERT INTO message (tag, from_peer, to_peer, text, sent_at, expires_at) VALUES ('abcdef', 'ada', 'eve', 'text', 5, 6);
            INSERT INTO session VALUES ('session', 'peer', 1);");
        let old = folder.path().join("first.db");
        Connection::open(&old).unwrap().execute_batch(first).unwrap();
        let bytes = fs::read(&old).unwrap();
        for noise in [0, 0xa5] {
            fs::write(&old, [&[noise; PAGE as usize], &bytes[PAGE as usize..]].concat()).unwrap();
            assert_eq!((sessions(&old), sessions(&old)), (1, 1), "{noise}");
        }
        // Nothing else tells whose it is.
        Connection::open(folder.path().join("other.db"))
            .unwrap()
            .execute_batch(
                "CREATE TABLE other (id INTEGER PRIMARY KEY, a, b, c, d, e, f, g, h); CREATE TABLE more (x);
                 INSERT INTO other VALUES (NULL, 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h')",
            )
            .unwrap();
        let other = [vec![0; PAGE as usize], fs::read(folder.path().join("other.db")).unwrap().split_off(PAGE as usize)].concat();
        fs::write(&path, &other).unwrap();
        assert!(matches!(open(&path, Extent::Whole), Err(OpenError::Foreign { .. })));
        assert_eq!(fs::read(&path).unwrap(), other);
    }

    /// SQLite takes it for an older format and writes that at the next change of the schema.
    #[test]
    fn lost_format_is_found_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.db");
        let first = concat!(include_str!("migrations/0001-mailboxes.sql"), "; PRAGMA user_version = 1");
        Connection::open(&path).unwrap().execute_batch(first).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        bytes[44..48].fill(0);
        fs::write(&path, bytes).unwrap();
        for notices in [1, 0] {
            let opened = open(&path, Extent::Whole).unwrap();
            assert_eq!(opened.notices.len(), notices, "{:?}", opened.notices);
            opened.store.close();
        }
    }

    /// SQLite would write all texts in another encoding, and the next start would take that for damage.
    #[test]
    fn header_of_a_short_file_is_mended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.db");
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE extra (x); DROP TABLE extra; VACUUM").unwrap();
        let mut bytes = fs::read(&path).unwrap();
        bytes.truncate(3_000);
        bytes[59] = 3;
        fs::write(&path, bytes).unwrap();
        assert_eq!(sessions(&path), 0);
        Connection::open(&path).unwrap().execute_batch(FILL).unwrap();
        assert_eq!(sessions(&path), 500);
    }

    /// The version of the schema is left out above ours: a database with a newer one is refused.
    #[test]
    fn no_byte_of_the_header_costs_a_row() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.db");
        open(&path, Extent::Whole).unwrap().store.close();
        Connection::open(&path).unwrap().execute_batch(FILL).unwrap();
        let sound = fs::read(&path).unwrap();
        for at in 0..super::LENGTH {
            for byte in [1, 2, 3, 4, 5, 6, 7, 0x30, 0x80].map(|bits| sound[at] ^ bits) {
                let mut bytes = sound.clone();
                bytes[at] = byte;
                let version = i32::from_be_bytes(bytes[60..64].try_into().unwrap());
                if (i32::try_from(SCHEMA).unwrap() + 1..1_000).contains(&version) {
                    continue;
                }
                fs::write(&path, bytes).unwrap();
                assert_eq!(sessions(&path), 500, "byte {at} is {byte}");
                assert_eq!(sessions(&path), 500, "byte {at} was {byte}");
            }
        }
    }
}
