//! Finds the tables of a database without its schema: a table begins at a page to which no other page points, and its rows show which
//! table it is. A damaged page or row is no evidence against the schema.
//!
//! Source: SQLite, "Database File Format", 1.5, 1.6 and 2.1.

use super::{header::PAGE, schema};
use std::{collections::BTreeMap, fs::File, io, os::unix::fs::FileExt, path::Path};

/// The first byte of a page that lists other pages, and of one that has rows or keys: of a table, and of an index.
const TABLE: (u8, u8) = (5, 13);
const INDEX: (u8, u8) = (2, 10);
/// Where the header of the file names the first page of the list of free pages, and then their number.
const FREE: usize = 32;
/// Where the first page begins, after that header.
const BEGINNING: usize = 100;
/// How many entries fit into a page: each has at least four bytes, and its place two.
const MOST_ENTRIES: u16 = (PAGE as u16 - 8) / 6;
/// How many pages of a table are looked at, at most.
const MOST: usize = 64;

/// The page where each table begins.
pub(super) type Roots = BTreeMap<String, u32>;

/// What the pages of a database show of its tables.
pub(super) struct Found {
    /// The pages where tables can begin, each with the rows that are there.
    begins: BTreeMap<u32, Rows>,
    /// Whether all free pages are known, which keep old rows.
    knows_free: bool,
}

/// The rows that begin at a page.
#[derive(Default)]
struct Rows {
    /// How many look like rows of which table. Damage can make a row look like one of another table.
    like: BTreeMap<&'static str, usize>,
    is_empty: bool,
}

/// Finds the pages where tables can begin in the database at `path`, without its log. Damage may hide what a page is. A damaged list of
/// free pages may name pages that the schema claims; these are not free.
pub(super) fn find(path: &Path, claimed: &Roots) -> io::Result<Found> {
    let file = Pages::open(path)?;
    let (mut is_free, knows_free) = file.free()?;
    for page in claimed.values().filter(|page| !knows_free && **page <= file.count) {
        is_free[*page as usize] = false;
    }
    let mut is_listed = vec![false; file.count as usize + 1];
    let (mut begins, mut is_table, mut by_indexes) = (Vec::new(), is_listed.clone(), Vec::new());
    for number in (2..=file.count).filter(|number| !is_free[*number as usize]) {
        let page = file.read(number)?;
        let children = page.children().filter(|child| page.is_readable() && *child <= file.count);
        if page.is(TABLE) {
            children.for_each(|child| is_listed[child as usize] = true);
        } else if page.is(INDEX) {
            by_indexes.extend(children);
        }
        is_table[number as usize] = page.is(TABLE);
        begins.extend((!page.is(INDEX)).then_some(number));
    }
    // No index lists a page of a table: damage has made a page of that table look like one of an index.
    by_indexes.into_iter().filter(|child| !is_table[*child as usize]).for_each(|child| is_listed[child as usize] = true);
    begins.retain(|number| !is_listed[*number as usize]);
    let begins = begins.into_iter().map(|number| Ok((number, file.rows(number)?))).collect::<io::Result<_>>()?;
    Ok(Found { begins, knows_free })
}

impl Found {
    /// Where the pages show that `table` begins: where the schema says, if any of its rows are there, or else at the first page with
    /// mostly its rows.
    pub(super) fn shown(&self, table: &str, claimed: &Roots) -> Option<u32> {
        let claim = claimed.get(table).filter(|root| self.begins.get(root).is_some_and(|rows| rows.like.contains_key(table)));
        claim.or_else(|| self.begins.iter().find(|(_, rows)| rows.table() == Some(table)).map(|(page, _)| page)).copied()
    }

    /// Whether there are rows of any table.
    pub(super) fn has_rows(&self) -> bool {
        self.begins.values().any(|rows| !rows.like.is_empty())
    }

    /// Where each of these tables begins, as far as there is a page for it. One that shows no rows is where the schema says, unless
    /// other rows are there, or else at any empty page.
    pub(super) fn roots(&self, tables: &[&str], claimed: &Roots) -> Roots {
        let empty = self.begins.iter().find(|(_, rows)| rows.is_empty).map(|(page, _)| *page);
        let shows_no_other = |root: &&u32| self.begins.get(root).is_some_and(|rows| rows.like.is_empty());
        let root = |table: &str| {
            let claim = || claimed.get(table).filter(shows_no_other).copied();
            self.shown(table, claimed).or_else(claim).or(empty)
        };
        tables.iter().filter_map(|table| Some(((*table).to_owned(), root(table)?))).collect()
    }

    /// The other pages with rows of `table`, which damage has cut off from it.
    pub(super) fn cut_off(&self, table: &str, claimed: &Roots) -> Vec<u32> {
        let root = self.shown(table, claimed);
        let pages = self.begins.iter().filter(|(_, rows)| self.knows_free && rows.table() == Some(table));
        pages.map(|(page, _)| *page).filter(|page| Some(*page) != root).collect()
    }
}

impl Rows {
    /// The table that most of them look like.
    fn table(&self) -> Option<&'static str> {
        self.like.iter().max_by_key(|(_, count)| **count).map(|(table, _)| *table)
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

    /// The pages in the list of free ones, and whether these are all.
    fn free(&self) -> io::Result<(Vec<bool>, bool)> {
        let mut free = vec![false; self.count as usize + 1];
        let first = if self.count == 0 { Page([0; PAGE as usize]) } else { self.read(1)? };
        let mut next = first.number(FREE);
        while (2..=self.count).contains(&next) && !free[next as usize] {
            free[next as usize] = true;
            let page = self.read(next)?;
            let leaves = (0..page.number(4) as usize).map_while(|leaf| page.get(8 + 4 * leaf)).map(u32::from_be_bytes);
            leaves.filter(|leaf| *leaf <= self.count).for_each(|leaf| free[leaf as usize] = true);
            next = page.number(0);
        }
        let count = free.iter().filter(|is_free| **is_free).count();
        let is_page = [TABLE.0, TABLE.1].contains(&first.0[BEGINNING]); // all zeros would be an empty list
        let is_whole = is_page && first.number(FREE + 4) as usize == count;
        Ok((free, is_whole))
    }

    /// The rows that begin at page `root`. A page that cannot be read hides no others.
    fn rows(&self, root: u32) -> io::Result<Rows> {
        let (mut rows, mut pages) = (Rows::default(), vec![root]);
        for _ in 0..MOST {
            let Some(number) = pages.pop() else { break };
            let page = self.read(number)?;
            if page.0[0] == TABLE.1 {
                page.entries()
                    .filter_map(|at| table(&page.types(at)?))
                    .for_each(|table| *rows.like.entry(table).or_default() += 1);
                rows.is_empty = number == root && page.entries().next().is_none();
            } else if page.is(TABLE) {
                let children: Vec<u32> = page.children().filter(|child| (2..=self.count).contains(child)).collect();
                pages.extend(children.into_iter().rev());
            }
        }
        Ok(rows)
    }
}

struct Page([u8; PAGE as usize]);

impl Page {
    fn is(&self, (listing, leaf): (u8, u8)) -> bool {
        self.0[0] == listing || self.0[0] == leaf
    }

    /// Whether SQLite reads what it lists. It refuses a page that lists one page alone, or more than fit.
    fn is_readable(&self) -> bool {
        (1..=MOST_ENTRIES).contains(&self.get(3).map_or(0, u16::from_be_bytes))
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
        (5, first) if is_text(first) => "sqlite_schema",
        (6, 0) => "messages",
        (8, first) if is_text(first) => "peers",
        (9.., 0) if is_tag(&types[1]) => "message",
        (9.., first) if is_text(first) => "peer",
        _ => return None,
    })
}
