//! Reads `HEAD` in a repository that keeps its refs in git's reftable format, documented by git.
//!
//! Refs are kept in a stack of tables. `tables.list` names the tables, the newest last. A table sorts its refs by name, so `HEAD`
//! is near the start of its first block.

use super::files;
use std::{
    io::{self, Read},
    path::Path,
};

/// Largest list of tables, in bytes. Git merges tables, so the list stays short.
const MAX_LIST: u64 = 64 * 1024;
/// Most bytes read of a table: its header and the start of its first block.
const START: u64 = 16 * 1024;
/// How often the list is read again if git has just merged the tables in it.
const TRIES: usize = 3;

/// The ref that `HEAD` points to, such as `refs/heads/main`; none if `HEAD` is detached or unreadable.
pub fn head(folder: &Path) -> Option<String> {
    (0..TRIES).find_map(|_| newest(folder).ok()).flatten()
}

fn newest(folder: &Path) -> io::Result<Option<String>> {
    let list = files::read_own(&folder.join("tables.list"), MAX_LIST)?;
    for name in String::from_utf8_lossy(&list).lines().rev() {
        let mut table = Vec::new();
        files::open_own(&folder.join(name))?.take(START).read_to_end(&mut table)?;
        if let Some(head) = head_in(&table) {
            return Ok(head);
        }
    }
    Ok(None)
}

/// The table's entry for `HEAD`, if it has one: its target, or none if `HEAD` is detached.
fn head_in(table: &[u8]) -> Option<Option<String>> {
    let (mut refs, hash) = first_block(table)?;
    let mut name: Vec<u8> = Vec::new();
    loop {
        name.truncate(refs.varint()?); // the prefix shared with the previous name
        let (length, kind) = refs.varint().map(|word| (word >> 3, word & 7))?;
        name.extend(refs.take(length)?);
        refs.varint()?; // the update index
        let value = match kind {
            0 => &[],
            1 => refs.take(hash)?,
            2 => refs.take(2 * hash)?,
            _ => {
                let length = refs.varint()?;
                refs.take(length)?
            }
        };
        if name == b"HEAD" {
            return Some((kind == 3).then(|| String::from_utf8_lossy(value).into_owned()));
        }
    }
}

/// The refs in the first block of a table, and the length of a hash.
fn first_block(table: &[u8]) -> Option<(Bytes<'_>, usize)> {
    let mut rest = Bytes(table.strip_prefix(b"REFT")?);
    let version = rest.number(1)?;
    rest.take(3 + 8 + 8)?; // size of a block, range of updates
    let hash = if version == 2 && rest.take(4)? == b"s256" { 32 } else { 20 };
    let (kind, end) = (rest.take(1)?, rest.number(3)?); // the block's end, counted from the start of the table
    let begin = table.len() - rest.0.len();
    // The block ends with its restart points, three bytes each, and their count.
    let places = table.get(end.checked_sub(2)?..end).and_then(|count| Bytes(count).number(2));
    let end = places.map_or(table.len(), |places| end.saturating_sub(2 + 3 * places));
    (kind == b"r").then_some((Bytes(table.get(begin..end)?), hash))
}

/// The unread rest.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// A big-endian number of this many bytes.
    fn number(&mut self, bytes: usize) -> Option<usize> {
        Some(self.take(bytes)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    /// A variable-length number with seven bits per byte, encoded like the offsets in git's packs.
    fn varint(&mut self) -> Option<usize> {
        let mut number = 0_usize;
        loop {
            let byte = self.number(1)?;
            number |= byte & 0x7f;
            if byte < 0x80 {
                return Some(number);
            }
            number = number.checked_add(1)?.checked_mul(0x80)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::head_in;
    use proptest::{collection::vec, prelude::*};

    proptest! {
        #[test]
        fn broken_tables_are_read_in_bounds(block in vec(any::<u8>(), 0..64), version in 1_u8..3, end in 0_u8..128) {
            let id: &[u8] = if version == 2 { b"s256" } else { b"" };
            let header = [b"REFT", &[version][..], &[0; 19], id, b"r", &[0, 0, end]];
            head_in(&[&header.concat()[..], &block].concat());
        }
    }
}
