//! The three programs in their folder. The new ones are unpacked beside them, tried out, and put in place together.
//!
//! Nothing old changes until all new programs have run. A failure puts the old ones back. One `rename` replaces a program, so that it
//! is never missing or half written. `flock` on the folder keeps two updates apart.

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

pub const REINSTALL: &str = "install claude-peers again, as its README says";
/// This program comes last, so that the next update completes one that was cut off.
const PROGRAMS: [&str; 3] = ["claude-peersd", "claude-peers-mcp", "claude-peers"];
const WORKSHOP: &str = ".claude-peers-update-";
const PATIENCE: Duration = Duration::from_secs(10);
const TELL_THE_MAKER: &str = "nothing was changed; please tell the people who made the release";

pub struct Folder {
    path: PathBuf,
    /// Beside the programs, as `rename` stays in one file system.
    workshop: TempDir,
    _lock: fs::File,
}

impl Folder {
    /// Locks the folder of `program`.
    pub fn of(program: &Path) -> Result<Self, Problem> {
        let path = program.parent().unwrap_or(Path::new("/")).to_owned();
        let not_plain = |file: &PathBuf| fs::symlink_metadata(file).is_ok_and(|found| !found.is_file());
        if let Some(file) = PROGRAMS.map(|name| path.join(name)).iter().find(|file| not_plain(file)) {
            let what = format!("{} is not a plain file", file.display());
            return Err(Problem::new(what, "update what it points to, or remove it and try again"));
        }
        let workshop = tempfile::Builder::new().prefix(WORKSHOP).tempdir_in(&path).map_err(|e| {
            let command = quoted(&program.to_string_lossy()).into_owned();
            let help = format!("update with the right to write there, such as `sudo {command} update`");
            Problem::new(format!("the programs in {} cannot be replaced: {}", path.display(), e.kind()), help)
        })?;
        let lock = fs::File::open(&path).map_err(|e| failed("opening", &path, &e))?;
        let help = "another update may be running: let it finish, then try again";
        let locked = rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive);
        locked.map_err(|e| Problem::io("locking", &path, &e.into(), help))?;
        Ok(Self { path, workshop, _lock: lock })
    }

    /// For downloads; removed after the update.
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

    /// Has each new program print its version, which shows that it runs here and is the right one.
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

    /// Replaces the programs, or adds missing ones; returns their paths.
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
        // A power loss before this could bring the old names back.
        let synced = fs::File::open(&self.path).and_then(|folder| folder.sync_all());
        synced
            .map_err(|e| Problem::new(format!("the programs are replaced, but syncing their folder failed: {e}"), REINSTALL))?;
        Ok(PROGRAMS.map(|name| self.path.join(name)).to_vec())
    }

    /// Removes what interrupted updates have left.
    fn clear_up(&self) {
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(WORKSHOP) && entry.path() != self.workshop.path() {
                drop(fs::remove_dir_all(entry.path())); // clutter is no reason to fail
            }
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
    Problem::io(doing, path, e, "nothing was changed; correct that, then try again")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of old programs, and an update to new ones under way.
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
    fn all_programs_are_replaced_or_none() {
        let (place, mut update) = folder(&PROGRAMS[1..], &PROGRAMS);
        // Left by an update that was killed.
        fs::create_dir_all(place.path().join(".claude-peers-update-Xy12/new")).expect("made");
        assert_eq!(update.replace().expect("replaced").len(), 3);
        drop(update);
        assert!(holds(&place, &PROGRAMS, "new"));

        let (place, mut update) = folder(&PROGRAMS[1..], &PROGRAMS[..2]);
        let error = update.replace().expect_err("the last one is missing").to_string();
        assert!(error.contains("replacing") && error.contains("nothing was changed"), "{error}");
        drop(update);
        assert!(holds(&place, &PROGRAMS[1..], "old"));
    }

    #[test]
    fn a_second_update_or_a_link_is_refused() {
        let (place, update) = folder(&PROGRAMS[1..], &PROGRAMS);
        let error = || Folder::of(&place.path().join("claude-peers")).map(drop).expect_err("refused").to_string();
        assert!(error().contains("another update"), "{}", error());
        drop(update);
        std::os::unix::fs::symlink("/elsewhere/claude-peersd", place.path().join("claude-peersd")).expect("linked");
        assert!(error().contains("claude-peersd is not a plain file"), "{}", error());
    }
}
