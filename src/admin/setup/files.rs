//! The files that setup writes. Each is written atomically, carries our mark, and never replaces a foreign file.
//!
//! The mark is a comment in the first lines with a fingerprint of the rest, which reveals later changes.

use super::step::Step;
use crate::{admin::place::Place, console::Failure, platform::files::resolve};
use sha2::{Digest, Sha256};
use std::{
    fs::{self, DirBuilder, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

const MARK: &str = "# Written by `claude-peers setup`, removed by `claude-peers setup --undo`; fingerprint ";
/// In XML two hyphens in a row would end the comment.
const XML_MARK: &str = "<!-- Written by `claude-peers setup`, which also takes it back; fingerprint ";
const JS_MARK: &str = "// Written by `claude-peers setup`, removed by `claude-peers setup --undo`; fingerprint ";
/// XML files begin with declarations; the mark follows.
const MARK_WITHIN: usize = 4;

pub struct Draft {
    pub path: PathBuf,
    content: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// No file, or the link to `/dev/null` that masks a unit.
    Nothing,
    Ours,
    /// One of our files, which somebody has changed.
    Changed,
    Foreign,
}

impl Draft {
    /// A file whose comments begin with `#`.
    pub fn text(path: PathBuf, content: &str) -> Self {
        Self { path, content: format!("{MARK}{}\n{content}", fingerprint(content)) }
    }

    /// A JavaScript file.
    pub fn script(path: PathBuf, content: &str) -> Self {
        Self { path, content: format!("{JS_MARK}{}\n{content}", fingerprint(content)) }
    }

    /// An XML file whose declarations have lines of their own.
    pub fn xml(path: PathBuf, content: &str) -> Self {
        let is_declaration = |line: &&str| line.starts_with("<?") || line.starts_with("<!DOCTYPE");
        let (head, body) = content.split_at(content.split_inclusive('\n').take_while(is_declaration).map(str::len).sum());
        Self { path, content: format!("{head}{XML_MARK}{} -->\n{body}", fingerprint(content)) }
    }
}

/// A change to our files.
#[derive(Default)]
pub struct Change {
    pub write: Vec<Draft>,
    pub remove: Vec<PathBuf>,
    /// A failed step for each file that is not ours to change.
    pub in_the_way: Vec<Step>,
}

impl Change {
    /// Adds files that should be as drafted, or should not be.
    pub fn add(&mut self, drafts: impl IntoIterator<Item = Draft>, wanted: bool) -> Result<(), Failure> {
        for draft in drafts {
            match (found(&draft.path)?, wanted) {
                (Found::Changed, _) => self.in_the_way.push(kept(&draft.path, "was changed after setup wrote it")),
                (Found::Foreign, _) => self.in_the_way.push(kept(&draft.path, "was not written by setup")),
                (Found::Ours, false) => self.remove.push(draft.path),
                (Found::Nothing, false) => {}
                (Found::Ours, true) if fs::read_to_string(&draft.path).is_ok_and(|content| content == draft.content) => {}
                (Found::Nothing | Found::Ours, true) => self.write.push(draft),
            }
        }
        Ok(())
    }

    pub fn count(&self) -> usize {
        self.write.len() + self.remove.len()
    }

    pub fn make(&self, place: &Place) -> Result<(), Failure> {
        for Draft { path, content } in &self.write {
            write(path, content, 0o755, Permissions::from_mode(0o644))?;
        }
        self.remove.iter().try_for_each(|path| remove(path, place.base(path)))
    }
}

fn kept(path: &Path, whose: &str) -> Step {
    let help = "keep what you need of it elsewhere (a unit has drop-ins), move it away and run this again";
    Step::failed(Failure::local(format!("{} {whose}, and is left as it is", path.display()), help))
}

/// Writes a file whole or not at all; `folder_mode` is for folders that it makes.
pub fn write(path: &Path, content: &str, folder_mode: u32, rights: Permissions) -> Result<(), Failure> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let write = || -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(folder_mode).create(folder)?;
        let mut file = tempfile::Builder::new().prefix(".claude-peers-").tempfile_in(folder)?;
        file.write_all(content.as_bytes())?;
        file.as_file().set_permissions(rights)?;
        file.as_file().sync_all()?;
        file.persist(path).map(drop).map_err(|error| error.error)
    };
    write().map_err(|e| Failure::io("writing", path, &e, "make room or give yourself the right to write there"))
}

/// Looks at the file at `path`.
pub fn found(path: &Path) -> Result<Found, Failure> {
    let unreadable = |e| Failure::io("reading", path, &e, "give yourself the right to read it, or move it away");
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(e) => return Err(unreadable(e)),
        Ok(meta) if meta.is_symlink() && fs::read_link(path).is_ok_and(|target| target == Path::new("/dev/null")) => {
            return Ok(Found::Nothing);
        }
        Ok(meta) if !meta.is_file() => return Ok(Found::Foreign),
        Ok(_) => {}
    }
    let content = fs::read(path).map_err(unreadable)?;
    Ok(match without_mark(&String::from_utf8_lossy(&content)) {
        None => Found::Foreign,
        Some((mark, rest)) if mark == fingerprint(&rest) => Found::Ours,
        Some(_) => Found::Changed,
    })
}

/// The fingerprint in the mark, and the content without the mark.
fn without_mark(content: &str) -> Option<(&str, String)> {
    let mut lines = content.split_inclusive('\n').take(MARK_WITHIN);
    let (line, mark) =
        lines.find_map(|line| Some((line, [MARK, XML_MARK, JS_MARK].iter().find_map(|mark| line.strip_prefix(mark))?)))?;
    Some((mark.split_whitespace().next()?, content.replacen(line, "", 1)))
}

fn fingerprint(content: &str) -> String {
    Sha256::digest(content).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Removes a file, and the folders above it that this leaves empty, up to `base`.
pub fn remove(path: &Path, base: &Path) -> Result<(), Failure> {
    if let Err(e) = fs::remove_file(path)
        && e.kind() != io::ErrorKind::NotFound
    {
        return Err(Failure::io("removing", path, &e, "remove it by hand"));
    }
    let mut folders = path.ancestors().skip(1).take_while(|folder| *folder != base && folder.starts_with(base));
    // A folder that is not empty cannot be removed.
    while folders.next().is_some_and(|folder| fs::remove_dir(folder).is_ok()) {}
    Ok(())
}

/// Removes a file of the user's. A link to it stays, and so does the folder that the link names.
pub fn remove_theirs(path: &Path, base: &Path) -> Result<(), Failure> {
    if path.is_symlink() {
        let target = target(path)?;
        return remove(&target, &target);
    }
    remove(path, base)
}

/// Writes a file of the user's through links, and keeps its mode.
pub fn write_theirs(path: &Path, text: &str) -> Result<(), Failure> {
    let target = target(path)?;
    let rights = fs::metadata(&target).map_or_else(|_| Permissions::from_mode(0o600), |meta| meta.permissions());
    write(&target, text, 0o700, rights)
}

/// The file itself, behind all links.
fn target(path: &Path) -> Result<PathBuf, Failure> {
    resolve(path).map_err(|error| Failure::io("writing", path, &error, "correct or remove the link, then run this again"))
}
