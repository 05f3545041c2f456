//! The files that setup writes: whole or not at all, marked as ours, and never over something that is not.
//!
//! The mark is a comment in the file's first lines with a fingerprint of the rest: a file that somebody has changed is theirs.

use crate::console::exit::Problem;
use sha2::{Digest, Sha256};
use std::{
    fs::{self, DirBuilder, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

const MARK: &str = "Written by `claude-peers setup`, removed by `claude-peers setup --undo`; fingerprint ";
/// The same in XML, where two hyphens in a row would end the comment.
const XML_MARK: &str = "Written by `claude-peers setup`, which also takes it back; fingerprint ";
/// Marks stand in the first lines: an XML file begins with its declarations.
const MARK_WITHIN: usize = 4;

#[derive(Debug, Clone)]
pub struct Draft {
    pub path: PathBuf,
    content: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing, or a link to nothing by which systemd masks a unit.
    Nothing,
    /// Just what is to lie there.
    Same,
    /// An earlier file of ours, as we wrote it.
    Ours,
    /// A file of ours that somebody has changed.
    Changed,
    Foreign,
}

impl Found {
    /// Why it is left alone, if it is not as we wrote it.
    pub fn not_ours(self) -> Option<&'static str> {
        match self {
            Self::Changed => Some("is ours, but somebody has changed it"),
            Self::Foreign => Some("is not ours"),
            Self::Nothing | Self::Same | Self::Ours => None,
        }
    }
}

impl Draft {
    /// A file whose comments begin with `#`.
    pub fn text(path: PathBuf, content: &str) -> Self {
        let mark = format!("# {MARK}{}\n", fingerprint(content.as_bytes()));
        Self { path, content: (mark + content).into_bytes() }
    }

    /// An XML file with its declarations in lines of their own.
    pub fn xml(path: PathBuf, content: &[u8]) -> Self {
        let mark = format!("<!-- {XML_MARK}{} -->\n", fingerprint(content));
        let head =
            content.split_inclusive(|byte| *byte == b'\n').take_while(|line| line.starts_with(b"<?") || line.starts_with(b"<!"));
        let at = head.map(<[u8]>::len).sum::<usize>();
        Self { path, content: [&content[..at], mark.as_bytes(), &content[at..]].concat() }
    }

    pub fn found(&self) -> Result<Found, Problem> {
        match self::found(&self.path)? {
            Found::Ours if fs::read(&self.path).is_ok_and(|content| content == self.content) => Ok(Found::Same),
            other => Ok(other),
        }
    }

    pub fn write(&self) -> Result<(), Problem> {
        write(&self.path, &self.content, 0o755, Permissions::from_mode(0o644))
    }
}

/// Writes a file, whole or not at all; folders that are made for it have this mode.
pub fn write(path: &Path, content: &[u8], folder_mode: u32, rights: Permissions) -> Result<(), Problem> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let write = || -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(folder_mode).create(folder)?;
        let mut file = tempfile::Builder::new().prefix(".claude-peers-").tempfile_in(folder)?;
        file.write_all(content)?;
        file.as_file().set_permissions(rights)?;
        file.as_file().sync_all()?;
        file.persist(path).map(drop).map_err(|error| error.error)
    };
    write().map_err(|e| Problem::io("writing", path, &e, "make room or give yourself the right to write there"))
}

/// What lies at `path`, which may be a file of ours.
pub fn found(path: &Path) -> Result<Found, Problem> {
    let unreadable = |e| Problem::io("reading", path, &e, "give yourself the right to read it, or move it away");
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(e) => return Err(unreadable(e)),
        Ok(meta) if meta.is_symlink() => {
            let masks = fs::read_link(path).is_ok_and(|target| target == Path::new("/dev/null"));
            return Ok(if masks { Found::Nothing } else { Found::Foreign });
        }
        Ok(meta) if !meta.is_file() => return Ok(Found::Foreign),
        Ok(_) => {}
    }
    let content = fs::read(path).map_err(unreadable)?;
    Ok(match without_mark(&content) {
        None => Found::Foreign,
        Some((mark, rest)) if mark == fingerprint(&rest) => Found::Ours,
        Some(_) => Found::Changed,
    })
}

/// The fingerprint that the mark in `content` names, and the content without the mark.
fn without_mark(content: &[u8]) -> Option<(String, Vec<u8>)> {
    let mut at = 0;
    for line in content.split_inclusive(|byte| *byte == b'\n').take(MARK_WITHIN) {
        let text = std::str::from_utf8(line).unwrap_or_default();
        let comment = text.strip_prefix("# ").or_else(|| text.strip_prefix("<!-- "));
        if let Some(fingerprint) = comment.and_then(|text| text.strip_prefix(MARK).or_else(|| text.strip_prefix(XML_MARK))) {
            let fingerprint = fingerprint.split_whitespace().next()?.to_owned();
            return Some((fingerprint, [&content[..at], &content[at + line.len()..]].concat()));
        }
        at += line.len();
    }
    None
}

fn fingerprint(content: &[u8]) -> String {
    Sha256::digest(content).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Removes a file, and the folders above it that are empty then, up to `base`.
pub fn remove(path: &Path, base: &Path) -> Result<(), Problem> {
    if let Err(e) = fs::remove_file(path)
        && e.kind() != io::ErrorKind::NotFound
    {
        return Err(Problem::io("removing", path, &e, "remove it by hand"));
    }
    let mut folders = path.ancestors().skip(1).take_while(|folder| *folder != base && folder.starts_with(base));
    // The first folder that holds something else ends this.
    while folders.next().is_some_and(|folder| fs::remove_dir(folder).is_ok()) {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_ours_is_known_until_somebody_changes_it() {
        let place = tempfile::tempdir().expect("a folder");
        let xml = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!DOCTYPE plist>\n<plist/>\n";
        for (old, new) in [
            (Draft::text(place.path().join("a/b/unit"), "[Unit]\n"), Draft::text(place.path().join("a/b/unit"), "[Socket]\n")),
            (
                Draft::xml(place.path().join("a/b/plist"), xml.as_bytes()),
                Draft::xml(place.path().join("a/b/plist"), b"<?xml?>\n<x/>\n"),
            ),
        ] {
            assert_eq!(new.found(), Ok(Found::Nothing));
            old.write().expect("written");
            assert_eq!((old.found(), new.found(), found(&new.path)), (Ok(Found::Same), Ok(Found::Ours), Ok(Found::Ours)));
            new.write().expect("written");
            let content = fs::read_to_string(&new.path).expect("read");
            assert_eq!((new.found(), content.matches("; fingerprint ").count()), (Ok(Found::Same), 1));
            assert_eq!(fs::metadata(&new.path).expect("there").permissions().mode() & 0o777, 0o644);
            fs::write(&new.path, content.replace('[', "[X-") + "\n").expect("changed");
            assert_eq!(new.found(), Ok(Found::Changed));
            fs::write(&new.path, "[Unit]\n").expect("changed");
            assert_eq!(new.found(), Ok(Found::Foreign));
            remove(&new.path, place.path()).expect("removed");
            assert!(!place.path().join("a").exists());
        }
    }

    #[test]
    fn a_masked_unit_may_be_replaced_and_another_link_not() {
        let place = tempfile::tempdir().expect("a folder");
        let (masked, linked) = (place.path().join("masked"), place.path().join("linked"));
        std::os::unix::fs::symlink("/dev/null", &masked).expect("linked");
        std::os::unix::fs::symlink("/etc/passwd", &linked).expect("linked");
        assert_eq!((found(&masked), found(&linked)), (Ok(Found::Nothing), Ok(Found::Foreign)));
    }
}
