//! The three programs in their folder: the new ones unpacked beside them, tried, and put in their place together.
//!
//! Promises: until all new programs are there and the first of them has run, nothing of the old ones changes; a failure on
//! the way puts the old ones back; a program is replaced by one `rename`, so that it never is missing or half written.
//! Locks: `flock` on the folder, so that two updates do not mix their programs.

use super::release;
use crate::{
    console::exit::Problem,
    platform::call::{Call, quoted},
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

pub const REINSTALL: &str = "install claude-peers anew, as its README says";
/// The programs of a release; this one last, so that an update that was cut off is made good by the next.
const PROGRAMS: [&str; 3] = ["claude-peersd", "claude-peers-mcp", "claude-peers"];
const WORKSHOP: &str = ".claude-peers-update-";
const PATIENCE: Duration = Duration::from_secs(10);
const TELL_THE_MAKER: &str = "nothing was changed; whoever made the release should hear of it";

/// The folder that the programs lie in, with room beside them to work.
pub struct Folder {
    path: PathBuf,
    /// Beside the programs, as `rename` does not leave a file system.
    workshop: TempDir,
    _lock: fs::File,
}

impl Folder {
    /// The folder of `program`, of which only this update will make a change.
    pub fn of(program: &Path) -> Result<Self, Problem> {
        let path = program.parent().unwrap_or(Path::new("/")).to_owned();
        let not_plain = |file: &PathBuf| fs::symlink_metadata(file).is_ok_and(|found| !found.is_file());
        if let Some(file) = PROGRAMS.map(|name| path.join(name)).iter().find(|file| not_plain(file)) {
            let what = format!("{} is not a plain file", file.display());
            return Err(Problem::new(what, "update what it points to, or remove it and try again"));
        }
        let workshop = tempfile::Builder::new().prefix(WORKSHOP).tempdir_in(&path).map_err(|e| {
            let command = quoted(&program.to_string_lossy()).into_owned();
            let help = format!("update as somebody who may write there, such as with `sudo {command} update`");
            Problem::new(format!("the programs in {} cannot be replaced: {}", path.display(), e.kind()), help)
        })?;
        let lock = fs::File::open(&path).map_err(|e| failed("opening", &path, &e))?;
        let help = "another update may be at work: let it finish, then try again";
        let locked = rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive);
        locked.map_err(|e| Problem::io("locking", &path, &e.into(), help))?;
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

    pub fn unpack(&self, archive: &Path) -> Result<(), Problem> {
        let staged = self.staged();
        fs::create_dir(&staged).map_err(|e| failed("making", &staged, &e))?;
        for name in PROGRAMS {
            let wrong = |why: String| {
                let archive = archive.file_name().unwrap_or_default().display();
                Problem::new(format!("{archive} holds no usable {name}: {why}"), TELL_THE_MAKER)
            };
            let mut extract = Extract::from_source(archive);
            extract.archive(ArchiveKind::Tar(Some(Compression::Gz)));
            extract.extract_file(&staged, name).map_err(|e| wrong(release::words(&e)))?;
            let path = staged.join(name);
            let found = fs::symlink_metadata(&path).map_err(|e| wrong(e.to_string()))?;
            if !found.is_file() || found.nlink() != 1 {
                return Err(wrong("it is not a plain file".to_owned()));
            }
            let acknowledged = fs::set_permissions(&path, fs::Permissions::from_mode(0o755));
            acknowledged.and_then(|()| fs::File::open(&path)?.sync_all()).map_err(|e| failed("writing", &path, &e))?;
        }
        Ok(())
    }

    /// Has each new program tell its version: it runs on this machine and is what it is said to be.
    pub async fn try_out(&self, version: &str) -> Result<(), Problem> {
        for name in PROGRAMS {
            let wrong = |why| Problem::new(format!("the new {name} is not usable here: {why}"), TELL_THE_MAKER);
            let call = Call::new(name, self.staged().join(name), ["--version"], PATIENCE);
            let said = call.run().await.map_err(|e| wrong(e.to_string()))?;
            if said.trim() != format!("{name} {version}") {
                return Err(wrong(format!("it says {:?}, not version {version}", said.trim())));
            }
        }
        Ok(())
    }

    /// Puts the new programs in the place of the old ones, or of none; says where they are.
    pub fn replace(&mut self) -> Result<Vec<PathBuf>, Problem> {
        let (new, old) = (self.staged(), self.kept());
        fs::create_dir(&old).map_err(|e| failed("making", &old, &e))?;
        for name in PROGRAMS {
            let place = self.path.join(name);
            if let Err(e) = fs::copy(&place, old.join(name))
                && e.kind() != io::ErrorKind::NotFound
            {
                return Err(failed("keeping", &place, &e));
            }
        }
        for (at, name) in PROGRAMS.into_iter().enumerate() {
            let place = self.path.join(name);
            if let Err(e) = fs::rename(new.join(name), &place) {
                self.put_back(&PROGRAMS[..at])?;
                return Err(failed("replacing", &place, &e));
            }
        }
        self.clear_up();
        // Only a loss of power now could bring the old names back.
        let synced = fs::File::open(&self.path).and_then(|folder| folder.sync_all());
        synced
            .map_err(|e| Problem::new(format!("the programs are replaced, but syncing their folder failed: {e}"), REINSTALL))?;
        Ok(PROGRAMS.map(|name| self.path.join(name)).to_vec())
    }

    /// Removes what updates that were cut off have left beside the programs; it has served its purpose.
    fn clear_up(&self) {
        let others = fs::read_dir(&self.path).into_iter().flatten().flatten().map(|entry| entry.path());
        let left = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(WORKSHOP));
        for path in others.filter(left).filter(|path| path != self.workshop.path()) {
            // What cannot be removed is clutter and no reason to fail.
            drop(fs::remove_dir_all(path));
        }
    }

    fn put_back(&mut self, names: &[&str]) -> Result<(), Problem> {
        for name in names {
            let (kept, place) = (self.kept().join(name), self.path.join(name));
            let back = if kept.exists() { fs::rename(&kept, &place) } else { fs::remove_file(&place) };
            if let Err(e) = back {
                self.workshop.disable_cleanup(true);
                let what = format!("the update failed half way, and putting {} back failed: {e}", place.display());
                let help = format!("the old programs are in {}: move them back by hand", self.kept().display());
                return Err(Problem::new(what, help));
            }
        }
        Ok(())
    }
}

fn failed(doing: &str, path: &Path, e: &io::Error) -> Problem {
    Problem::io(doing, path, e, "nothing was changed; mend that, then try again")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with these programs in it, and an update to others under way.
    fn folder(installed: &[&str], new: &[&str]) -> (TempDir, Folder) {
        let place = tempfile::tempdir().expect("a folder");
        let write = |folder: &Path, names: &[&str], text: &str| {
            names.iter().for_each(|name| fs::write(folder.join(name), text).expect("written"));
        };
        write(place.path(), installed, "old");
        let folder = Folder::of(&place.path().join("claude-peers")).expect("writable");
        fs::create_dir(folder.staged()).expect("made");
        write(&folder.staged(), new, "new");
        (place, folder)
    }

    /// Whether there are these programs, with this text, and nothing else.
    fn holds(place: &TempDir, names: &[&str], text: &str) -> bool {
        let is = |name: &&str| fs::read_to_string(place.path().join(name)).is_ok_and(|found| found == text);
        names.iter().all(is) && fs::read_dir(place.path()).expect("the folder").count() == names.len()
    }

    #[test]
    fn all_three_are_replaced_and_one_that_was_missing_is_added() {
        let (place, mut folder) = folder(&PROGRAMS[1..], &PROGRAMS);
        // An update that was killed has left this.
        fs::create_dir_all(place.path().join(".claude-peers-update-Xy12/new")).expect("made");
        assert_eq!(folder.replace().expect("replaced").len(), 3);
        drop(folder);
        assert!(holds(&place, &PROGRAMS, "new"));
    }

    #[test]
    fn a_failure_half_way_puts_the_old_ones_back() {
        let (place, mut folder) = folder(&PROGRAMS[1..], &PROGRAMS[..2]);
        let error = folder.replace().expect_err("the last one is missing").to_string();
        assert!(error.contains("replacing") && error.contains("nothing was changed"), "{error}");
        drop(folder);
        assert!(holds(&place, &PROGRAMS[1..], "old"));
    }

    #[test]
    fn one_update_at_a_time_and_none_of_what_is_no_plain_file() {
        let (place, folder) = folder(&PROGRAMS[1..], &PROGRAMS);
        let of = || Folder::of(&place.path().join("claude-peers")).map(drop);
        let error = of().expect_err("locked").to_string();
        assert!(error.contains("another update"), "{error}");
        drop(folder);
        of().expect("free again");
        std::os::unix::fs::symlink("/elsewhere/claude-peersd", place.path().join("claude-peersd")).expect("linked");
        let error = of().expect_err("refused").to_string();
        assert!(error.contains("claude-peersd is not a plain file"), "{error}");
    }
}
