//! The three programs in their folder: the new ones unpacked beside them, tried, and put in their place together.
//!
//! Promises: until all new programs are there and the first of them has run, nothing of the old ones changes; a failure on
//! the way puts the old ones back; a program is replaced by one `rename`, so that it never is missing or half written.
//! Locks: `flock` on the folder, so that two updates do not mix their programs.

use super::release;
use crate::cli::{
    call::{Call, quoted},
    exit::Failure,
};
use rustix::fs::FlockOperation;
use self_update::{ArchiveKind, Compression, Extract};
use std::{
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};
use tempfile::TempDir;

/// What to do when it cannot be helped.
pub const REINSTALL: &str = "install claude-peers anew, as its README says";
/// The programs of a release; this one last, so that an update that was cut off is made good by the next.
const PROGRAMS: [&str; 3] = ["claude-peersd", "claude-peers-mcp", "claude-peers"];
/// How the name of a workshop begins.
const WORKSHOP: &str = ".claude-peers-update-";
/// How long the new program may take to tell its version.
const PATIENCE: Duration = Duration::from_secs(10);

/// The folder that the programs lie in, with room beside them to work.
pub struct Folder {
    path: PathBuf,
    /// Beside the programs, as `rename` does not leave a file system.
    workshop: TempDir,
    _lock: fs::File,
}

impl Folder {
    /// The folder of `program`, of which only this update will make a change.
    ///
    /// # Errors
    /// If it cannot be written to, another update is at work, or a program in it is no plain file.
    pub fn of(program: &Path) -> Result<Self, Failure> {
        let path = program.parent().unwrap_or(Path::new("/")).to_owned();
        for file in PROGRAMS.map(|name| path.join(name)) {
            if fs::symlink_metadata(&file).is_ok_and(|found| !found.is_file()) {
                let what = format!("{} is not a plain file", file.display());
                return Err(Failure::local(what, "update what it points to, or remove it and try again"));
            }
        }
        let workshop = tempfile::Builder::new().prefix(WORKSHOP).tempdir_in(&path);
        let workshop = workshop.map_err(|e| {
            let command = quoted(&program.to_string_lossy()).into_owned();
            let help = format!("update as somebody who may write there, such as with `sudo {command} update`");
            Failure::local(format!("the programs in {} cannot be replaced: {}", path.display(), e.kind()), help)
        })?;
        let lock = fs::File::open(&path).map_err(|e| failed("opening", &path, &e))?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|e| {
            Failure::local(
                format!("locking {}: {e}", path.display()),
                "another update may be at work: let it finish, then try again",
            )
        })?;
        Ok(Self { path, workshop, _lock: lock })
    }

    /// Where to put what is downloaded; it vanishes with the update.
    pub fn workshop(&self) -> &Path {
        self.workshop.path()
    }

    fn staged(&self) -> PathBuf {
        self.workshop.path().join("new")
    }

    fn kept(&self) -> PathBuf {
        self.workshop.path().join("old")
    }

    /// Takes the programs, and nothing else, out of `archive`.
    ///
    /// # Errors
    /// If one is missing there or is no plain file.
    pub fn unpack(&self, archive: &Path) -> Result<(), Failure> {
        let wrong = |name: &str, why: String| {
            let what = format!("{} holds no usable {name}: {why}", archive.file_name().unwrap_or_default().display());
            Failure::local(what, "nothing was changed; whoever made the release should hear of it")
        };
        let staged = self.staged();
        fs::create_dir(&staged).map_err(|e| failed("making", &staged, &e))?;
        for name in PROGRAMS {
            let mut extract = Extract::from_source(archive);
            extract.archive(ArchiveKind::Tar(Some(Compression::Gz)));
            extract.extract_file(&staged, name).map_err(|e| wrong(name, release::words(&e)))?;
            let path = staged.join(name);
            let found = fs::symlink_metadata(&path).map_err(|e| wrong(name, e.to_string()))?;
            if !found.is_file() || found.nlink() != 1 {
                return Err(wrong(name, "it is not a plain file".to_owned()));
            }
            let settled = fs::set_permissions(&path, fs::Permissions::from_mode(0o755));
            settled.and_then(|()| fs::File::open(&path)?.sync_all()).map_err(|e| failed("writing", &path, &e))?;
        }
        Ok(())
    }

    /// Has each new program tell its version: it runs on this machine and is what it is said to be.
    ///
    /// # Errors
    /// If one does not, or is another version.
    pub async fn try_out(&self, version: &str) -> Result<(), Failure> {
        for name in PROGRAMS {
            let wrong = |why: String| {
                let help = "nothing was changed; whoever made the release should hear of it";
                Failure::local(format!("the new {name} is not usable here: {why}"), help)
            };
            let call = Call::new(name, self.staged().join(name), ["--version"], PATIENCE);
            let said = call.run().await.map_err(|e| wrong(e.to_string()))?;
            if said.trim() != format!("{name} {version}") {
                return Err(wrong(format!("it says {:?}, not version {version}", said.trim())));
            }
        }
        Ok(())
    }

    /// Puts the new programs in the place of the old ones; says where they are.
    ///
    /// # Errors
    /// If one cannot be replaced; then the old ones are back.
    pub fn replace(&mut self) -> Result<Vec<PathBuf>, Failure> {
        let (new, old) = (self.staged(), self.kept());
        fs::create_dir(&old).map_err(|e| failed("making", &old, &e))?;
        for name in PROGRAMS {
            match fs::copy(self.path.join(name), old.join(name)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed("keeping", &self.path.join(name), &e)),
                _ => {}
            }
        }
        for (at, name) in PROGRAMS.into_iter().enumerate() {
            let place = self.path.join(name);
            if let Err(e) = fs::rename(new.join(name), &place) {
                let failure = failed("replacing", &place, &e);
                return Err(self.put_back(&PROGRAMS[..at]).err().unwrap_or(failure));
            }
        }
        self.clear_up();
        // Only a loss of power now could bring the old names back.
        let settled = fs::File::open(&self.path).and_then(|folder| folder.sync_all());
        settled
            .map_err(|e| Failure::local(format!("the programs are replaced, but syncing their folder failed: {e}"), REINSTALL))?;
        Ok(PROGRAMS.map(|name| self.path.join(name)).to_vec())
    }

    /// Removes what updates that were cut off have left beside the programs; it has served its purpose.
    fn clear_up(&self) {
        let others = fs::read_dir(&self.path).into_iter().flatten().filter_map(|entry| entry.ok().map(|entry| entry.path()));
        let left = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(WORKSHOP));
        for path in others.filter(left).filter(|path| path != self.workshop.path()) {
            // What cannot be removed is clutter and no reason to fail.
            drop(fs::remove_dir_all(path));
        }
    }

    /// Puts back the old programs of these names.
    fn put_back(&mut self, names: &[&str]) -> Result<(), Failure> {
        for name in names {
            let (kept, place) = (self.kept().join(name), self.path.join(name));
            let back = if kept.exists() { fs::rename(&kept, &place) } else { fs::remove_file(&place) };
            if let Err(e) = back {
                self.workshop.disable_cleanup(true);
                let what = format!("the update failed half way, and putting {} back failed: {e}", place.display());
                let help = format!("the old programs are in {}: move them back by hand", self.kept().display());
                return Err(Failure::local(what, help));
            }
        }
        Ok(())
    }
}

fn failed(doing: &str, path: &Path, e: &io::Error) -> Failure {
    Failure::local(format!("{doing} {}: {e}", path.display()), "nothing was changed; mend that, then try again")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with these programs in it, and an update to others under way.
    fn folder(installed: &[&str], new: &[&str]) -> (TempDir, Folder) {
        let place = tempfile::tempdir().expect("a folder");
        for name in installed {
            fs::write(place.path().join(name), "old").expect("written");
        }
        let folder = Folder::of(&place.path().join("claude-peers")).expect("writable");
        fs::create_dir(folder.staged()).expect("made");
        for name in new {
            fs::write(folder.staged().join(name), "new").expect("written");
        }
        (place, folder)
    }

    fn content(place: &TempDir) -> Vec<(String, String)> {
        let entries = fs::read_dir(place.path()).expect("the folder").map(|entry| entry.expect("an entry").path());
        let files = entries.filter(|path| path.is_file());
        let read = |path: PathBuf| {
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            (name, fs::read_to_string(path).expect("read"))
        };
        let mut content: Vec<_> = files.map(read).collect();
        content.sort();
        content
    }

    fn all(names: &[&str], text: &str) -> Vec<(String, String)> {
        let mut all: Vec<_> = names.iter().map(|name| ((*name).to_owned(), text.to_owned())).collect();
        all.sort();
        all
    }

    #[test]
    fn all_three_are_replaced_and_one_that_was_missing_is_added() {
        let (place, mut folder) = folder(&PROGRAMS[1..], &PROGRAMS);
        // An update that was killed has left this.
        fs::create_dir_all(place.path().join(".claude-peers-update-Xy12/new")).expect("made");
        assert_eq!(folder.replace().expect("replaced").len(), 3);
        drop(folder);
        assert_eq!(content(&place), all(&PROGRAMS, "new"));
        assert_eq!(fs::read_dir(place.path()).expect("the folder").count(), 3, "nothing else is left");
    }

    #[test]
    fn a_failure_half_way_puts_the_old_ones_back() {
        let (place, mut folder) = folder(&PROGRAMS[1..], &PROGRAMS[..2]);
        let error = folder.replace().expect_err("the last one is missing").to_string();
        assert!(error.contains("replacing") && error.contains("nothing was changed"), "{error}");
        drop(folder);
        assert_eq!(content(&place), all(&PROGRAMS[1..], "old"));
        assert_eq!(fs::read_dir(place.path()).expect("the folder").count(), 2, "nothing else is left");
    }

    #[test]
    fn one_update_at_a_time() {
        let (place, folder) = folder(&PROGRAMS, &PROGRAMS);
        let program = place.path().join("claude-peers");
        let error = Folder::of(&program).err().expect("locked").to_string();
        assert!(error.contains("another update"), "{error}");
        drop(folder);
        Folder::of(&program).map(drop).expect("free again");
    }

    #[test]
    fn a_link_in_a_programs_place_is_left_alone() {
        let place = tempfile::tempdir().expect("a folder");
        std::os::unix::fs::symlink("/elsewhere/claude-peersd", place.path().join("claude-peersd")).expect("linked");
        let error = Folder::of(&place.path().join("claude-peers")).err().expect("refused").to_string();
        assert!(error.contains("claude-peersd is not a plain file"), "{error}");
    }
}
