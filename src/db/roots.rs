//! Finds the tables of a database without its schema: a table begins at a page to which no other page points, and the rows show which
//! table it is.
//!
//! Source: SQLite, "Database File Format", 1.5, 1.6 and 2.1.

use super::{header::PAGE, schema};
use std::{collections::BTreeMap, fs::File, io, os::unix::fs::FileExt, path::Path};

/// The first byte of a page that lists other pages, and of one that has rows or keys: of a table, and of an index.
const TABLE: (u8, u8) = (5, 13);
const INDEX: (u8, u8) = (2, 10);
/// Where the header of the file names the first page of the list of free pages.
const FREE: usize = 32;
/// More pages between a root and a row than any file has.
const DEEPEST: u32 = 20;

/// The page where each table begins.
pub(super) type Roots = BTreeMap<String, u32>;

/// The tables that the pages of a database show.
pub(super) struct Found {
    /// Those with rows.
    pub roots: Roots,
    /// The pages where the others begin. They show no more of a table that has no rows.
    empty: Vec<u32>,
}

/// Finds the tables of the database at `path`, without its log. If several pages fit a table, it takes the one that `claimed` names, or
/// else one that lists others.
pub(super) fn find(path: &Path, claimed: &Roots) -> io::Result<Found> {
    let file = Pages::open(path)?;
    let is_free = file.free()?;
    let mut is_listed = vec![false; file.count as usize + 1];
    let mut begins = Vec::new();
    for number in (2..=file.count).filter(|number| !is_free[*number as usize]) {
        let page = file.read(number)?;
        begins.extend(page.is(TABLE).then_some((number, page.0[0])));
        if page.is(TABLE) || page.is(INDEX) {
            page.children().filter(|child| *child <= file.count).for_each(|child| is_listed[child as usize] = true);
        }
    }
    begins.retain(|(number, _)| !is_listed[*number as usize]);
    begins.sort_by_key(|(_, kind)| *kind != TABLE.0);
    let mut found = Found { roots: Roots::new(), empty: Vec::new() };
    for (number, _) in begins {
        match file.rows(number)? {
            Rows::Of(table) if claimed.get(table) == Some(&number) => _ = found.roots.insert(table.to_owned(), number),
            Rows::Of(table) => _ = found.roots.entry(table.to_owned()).or_insert(number),
            Rows::None => found.empty.push(number),
            Rows::Unknown => {}
        }
    }
    Ok(found)
}

impl Found {
    /// Whether the pages agree that `table` begins at page `root`.
    pub(super) fn can_be(&self, table: &str, root: u32) -> bool {
        self.roots.get(table).map_or_else(|| self.empty.contains(&root), |found| *found == root)
    }

    /// Where each of these tables begins, as far as there is a page for it. One that shows no rows gets any empty page.
    pub(super) fn all(mut self, tables: &[&str]) -> Roots {
        for table in tables {
            if !self.roots.contains_key(*table)
                && let Some(empty) = self.empty.pop()
            {
                self.roots.insert((*table).to_owned(), empty);
            }
        }
        self.roots
    }
}

/// Whether tables and indexes begin where a new database has them.
pub(super) fn has_those_of_a_new_one(path: &Path) -> io::Result<bool> {
    let file = Pages::open(path)?;
    for &(number, is_table) in schema::roots().map_err(io::Error::other)? {
        if number > file.count || !file.read(number)?.is(if is_table { TABLE } else { INDEX }) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The table whose rows a page shows.
enum Rows {
    Of(&'static str),
    None,
    Unknown,
}

struct Pages {
    file: File,
    count: u32,
}

impl Pages {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let count = u32::try_from(file.metadata()?.len() / PAGE).map_err(io::Error::other)?;
        Ok(Self { file, count })
    }

    fn read(&self, number: u32) -> io::Result<Page> {
        let mut page = Page([0; PAGE as usize]);
        self.file.read_exact_at(&mut page.0, u64::from(number - 1) * PAGE)?;
        Ok(page)
    }

    /// The pages in the list of free ones. They keep their old rows.
    fn free(&self) -> io::Result<Vec<bool>> {
        let mut free = vec![false; self.count as usize + 1];
        let mut next = if self.count == 0 { 0 } else { self.read(1)?.number(FREE) };
        while (2..=self.count).contains(&next) && !free[next as usize] {
            free[next as usize] = true;
            let page = self.read(next)?;
            let leaves = (0..page.number(4) as usize).map_while(|leaf| page.get(8 + 4 * leaf)).map(u32::from_be_bytes);
            leaves.filter(|leaf| *leaf <= self.count).for_each(|leaf| free[leaf as usize] = true);
            next = page.number(0);
        }
        Ok(free)
    }

    fn rows(&self, root: u32) -> io::Result<Rows> {
        let mut number = root;
        for _ in 0..DEEPEST {
            let page = self.read(number)?;
            if page.0[0] == TABLE.1 {
                return Ok(page.rows());
            }
            match page.children().next() {
                Some(child) if page.is(TABLE) && (2..=self.count).contains(&child) => number = child,
                _ => break,
            }
        }
        Ok(Rows::Unknown)
    }
}

struct Page([u8; PAGE as usize]);

impl Page {
    fn is(&self, (listing, leaf): (u8, u8)) -> bool {
        self.0[0] == listing || self.0[0] == leaf
    }

    fn get<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.0.get(at..at + N)?.try_into().ok()
    }

    fn number(&self, at: usize) -> u32 {
        self.get(at).map_or(0, u32::from_be_bytes)
    }

    /// Where the entries of the page are.
    fn entries(&self) -> impl Iterator<Item = usize> {
        let is_leaf = self.0[0] == TABLE.1 || self.0[0] == INDEX.1;
        let (count, first) = (self.get(3).map_or(0, u16::from_be_bytes), if is_leaf { 8 } else { 12 });
        (0..usize::from(count)).map_while(move |entry| self.get(first + 2 * entry)).map(|at| u16::from_be_bytes(at).into())
    }

    /// The pages that it lists.
    fn children(&self) -> impl Iterator<Item = u32> {
        let is_listing = self.0[0] == TABLE.0 || self.0[0] == INDEX.0;
        let entries = self.entries().filter(move |_| is_listing).map(|at| self.number(at));
        entries.chain(is_listing.then(|| self.number(8)))
    }

    /// The table whose rows this leaf has.
    fn rows(&self) -> Rows {
        let mut entries = self.entries().peekable();
        if entries.peek().is_none() {
            return Rows::None;
        }
        entries.find_map(|at| table(&self.types(at)?)).map_or(Rows::Unknown, Rows::Of)
    }

    /// The types of a row's values.
    fn types(&self, at: usize) -> Option<Vec<u64>> {
        let (_, at) = self.varint(at)?; // the length of the row
        let (_, at) = self.varint(at)?; // its number
        let (length, mut next) = self.varint(at)?;
        let end = at.checked_add(usize::try_from(length).ok()?)?;
        let mut types = Vec::new();
        while next < end {
            let (kind, after) = self.varint(next)?;
            types.push(kind);
            next = after;
        }
        (next == end).then_some(types)
    }

    /// A number of one to nine bytes, and where it ends.
    fn varint(&self, at: usize) -> Option<(u64, usize)> {
        let mut number = 0;
        for (index, byte) in self.0.get(at..)?.iter().take(9).enumerate() {
            if index == 8 {
                return Some((number << 8 | u64::from(*byte), at + 9));
            }
            number = number << 7 | u64::from(byte & 0x7f);
            if byte & 0x80 == 0 {
                return Some((number, at + index + 1));
            }
        }
        None
    }
}

/// The table, ours or the legacy broker's, that has rows with values of these types. A row's own number is stored as a null.
fn table(types: &[u64]) -> Option<&'static str> {
    let is_text = |kind: u64| kind >= 13 && kind % 2 == 1;
    let is_tag = |kind: &u64| *kind == 13 + 2 * 6;
    Some(match (types.len(), *types.first()?) {
        (2, first) if is_text(first) => "sqlite_sequence",
        (3, first) if is_text(first) => "session",
        (6, 0) => "messages",
        (8, first) if is_text(first) => "peers",
        (9.., 0) if is_tag(&types[1]) => "message",
        (9.., first) if is_text(first) => "peer",
        _ => return None,
    })
}
