//! The files that setup writes. Each is written whole or not at all, carries our mark, and never replaces a file that is not ours.
//!
//! The mark is a comment in the first lines with a fingerprint of the rest, which shows whether somebody has changed the file.

use super::{place::Place, step::Step};
use crate::console::exit::Problem;
use sha2::{Digest, Sha256};
use std::{
    fs::{self, DirBuilder, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

const MARK: &str = "Written by `claude-peers setup`, removed by `claude-peers setup --undo`; fingerprint ";
/// The same for XML, where two hyphens in a row would end the comment.
const XML_MARK: &str = "Written by `claude-peers setup`, which also takes it back; fingerprint ";
/// XML files begin with declarations; the mark follows.
const MARK_WITHIN: usize = 4;

#[derive(Debug, Clone)]
pub struct Draft {
    pub path: PathBuf,
    content: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// No file, or the link to `/dev/null` that masks a unit.
    Nothing,
    /// The very content of the draft.
    Same,
    /// An earlier version of ours.
    Ours,
    /// A file of ours that somebody has changed.
    Changed,
    Foreign,
}

impl Draft {
    /// A file whose comments begin with `#`.
    pub fn text(path: PathBuf, content: &str) -> Self {
        let mark = format!("# {MARK}{}\n", fingerprint(content.as_bytes()));
        Self { path, content: (mark + content).into_bytes() }
    }

    /// An XML file whose declarations have lines of their own.
    pub fn xml(path: PathBuf, content: &[u8]) -> Self {
        let mark = format!("<!-- {XML_MARK}{} -->\n", fingerprint(content));
        let lines = content.split_inclusive(|byte| *byte == b'\n');
        let head = lines.take_while(|line| line.starts_with(b"<?") || line.starts_with(b"<!"));
        let at = head.map(<[u8]>::len).sum::<usize>();
        Self { path, content: [&content[..at], mark.as_bytes(), &content[at..]].concat() }
    }

    fn found(&self) -> Result<Found, Problem> {
        match self::found(&self.path)? {
            Found::Ours if fs::read(&self.path).is_ok_and(|content| content == self.content) => Ok(Found::Same),
            other => Ok(other),
        }
    }
}

/// A change to files of ours.
#[derive(Default)]
pub struct Change {
    pub write: Vec<Draft>,
    pub remove: Vec<PathBuf>,
    /// A failed step for each file that is not ours to change.
    pub in_the_way: Vec<Step>,
}

impl Change {
    /// Adds a file that should be as drafted, or should not be.
    pub fn add(&mut self, draft: Draft, wanted: bool) -> Result<(), Problem> {
        match (wanted, draft.found()?) {
            (true, Found::Nothing | Found::Ours) => self.write.push(draft),
            (false, Found::Same | Found::Ours) => self.remove.push(draft.path),
            (true, Found::Same) | (false, Found::Nothing) => {}
            (_, found) => self.in_the_way.push(Step::failed(kept(&draft.path, found))),
        }
        Ok(())
    }

    pub fn count(&self) -> usize {
        self.write.len() + self.remove.len()
    }

    pub fn make(&self, place: &Place) -> Result<(), Problem> {
        for Draft { path, content } in &self.write {
            write(path, content, 0o755, Permissions::from_mode(0o644))?;
        }
        self.remove.iter().try_for_each(|path| remove(path, place.base(path)))
    }
}

fn kept(path: &Path, found: Found) -> Problem {
    let whose = if found == Found::Changed { "was changed after setup wrote it" } else { "is not a file of setup's" };
    let help = "keep what you need of it elsewhere (a unit has drop-ins), move it away and run this again";
    Problem::new(format!("{} {whose}, and is left as it is", path.display()), help)
}

/// Writes a file whole or not at all; `folder_mode` is for folders that it makes.
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

/// Looks at the file at `path`.
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

/// The fingerprint in the mark, and the content without the mark.
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

/// Removes a file, and the folders above it that this leaves empty, up to `base`.
pub fn remove(path: &Path, base: &Path) -> Result<(), Problem> {
    if let Err(e) = fs::remove_file(path)
        && e.kind() != io::ErrorKind::NotFound
    {
        return Err(Problem::io("removing", path, &e, "remove it by hand"));
    }
    let mut folders = path.ancestors().skip(1).take_while(|folder| *folder != base && folder.starts_with(base));
    // A folder that is not empty cannot be removed.
    while folders.next().is_some_and(|folder| fs::remove_dir(folder).is_ok()) {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_is_ours_until_somebody_changes_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = Place { bin: PathBuf::new(), package: None, home: folder.path().to_owned() };
        let path = folder.path().join("a/b/file");
        let xml = |content: &str| Draft::xml(path.clone(), content.as_bytes());
        for (old, new) in [
            (Draft::text(path.clone(), "[Unit]\n"), Draft::text(path.clone(), "[Socket]\n")),
            (xml("<?xml version=\"1.0\"?>\n<!DOCTYPE plist>\n<plist/>\n"), xml("<?xml?>\n<x/>\n")),
        ] {
            let write = |draft: &Draft| {
                let mut change = Change::default();
                change.add(draft.clone(), true).and_then(|()| change.make(&place)).expect("written");
            };
            assert_eq!(new.found(), Ok(Found::Nothing));
            write(&old);
            assert_eq!((old.found(), new.found(), found(&path)), (Ok(Found::Same), Ok(Found::Ours), Ok(Found::Ours)));
            write(&new);
            let content = fs::read_to_string(&path).expect("read");
            assert_eq!((new.found(), content.matches("; fingerprint ").count()), (Ok(Found::Same), 1));
            assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o644);
            for (changed, is) in [(content.replace('[', "[X-") + "\n", Found::Changed), ("[Unit]\n".into(), Found::Foreign)] {
                fs::write(&path, changed).expect("changed");
                assert_eq!(new.found(), Ok(is));
            }
            remove(&path, folder.path()).expect("removed");
            assert!(!folder.path().join("a").exists());
        }
        for (target, is) in [("/dev/null", Found::Nothing), ("/etc/passwd", Found::Foreign)] {
            let link = folder.path().join(target.replace('/', "-"));
            std::os::unix::fs::symlink(target, &link).expect("linked");
            assert_eq!(found(&link), Ok(is));
        }
    }
}
