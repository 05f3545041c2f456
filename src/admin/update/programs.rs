//! The three programs in their folder. New ones are unpacked beside them, tried out, and installed together.
//!
//! The old programs stay until all new ones have run. A failure restores the old ones. Each program is replaced with one
//! `rename`, so it is never missing or half written. `flock` on the folder prevents two updates at once.

use super::release;
use crate::{
    admin::place::PROGRAMS,
    console::Failure,
    platform::call::{Call, quoted},
};
use rustix::fs::FlockOperation;
use self_update::{ArchiveKind, Compression, Extract};
use std::{
    fs::{self, File},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};
use tempfile::TempDir;

pub const REINSTALL: &str = "install claude-peers again, as its README says";
const WORKSHOP: &str = ".claude-peers-update-";
const PATIENCE: Duration = Duration::from_secs(10);
const TELL_THE_MAKER: &str = "nothing was changed; please tell the people who made the release";

pub struct Folder {
    path: PathBuf,
    /// Beside the programs, because `rename` works only within one file system. Removed after the update.
    workshop: TempDir,
    /// The new programs and copies of the old ones, in the workshop.
    new: PathBuf,
    old: PathBuf,
    _lock: File,
}

impl Folder {
    /// Locks the folder of `program`.
    pub fn of(program: &Path) -> Result<Self, Failure> {
        let path = program.parent().unwrap_or(Path::new("/")).to_owned();
        let not_plain = |file: &PathBuf| fs::symlink_metadata(file).is_ok_and(|found| !found.is_file());
        if let Some(file) = PROGRAMS.map(|name| path.join(name)).iter().find(|file| not_plain(file)) {
            let what = format!("{} is not a plain file", file.display());
            return Err(Failure::local(what, "update what it points to, or remove it and try again"));
        }
        let workshop = tempfile::Builder::new().prefix(WORKSHOP).tempdir_in(&path).map_err(|e| {
            let command = quoted(&program.to_string_lossy()).into_owned();
            let help = format!("update with the right to write there, such as `sudo {command} update`");
            Failure::local(format!("the programs in {} cannot be replaced: {}", path.display(), e.kind()), help)
        })?;
        let lock = File::open(&path).map_err(|e| failed("opening", &path, &e))?;
        let help = "another update may be running: let it finish, then try again";
        let locked = rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive);
        locked.map_err(|e| Failure::io("locking", &path, &e.into(), help))?;
        let [new, old] = ["new", "old"].map(|name| workshop.path().join(name));
        for folder in [&new, &old] {
            fs::create_dir(folder).map_err(|e| failed("making", folder, &e))?;
        }
        Ok(Self { path, workshop, new, old, _lock: lock })
    }

    /// For downloads.
    pub fn workshop(&self) -> &Path {
        self.workshop.path()
    }

    pub fn unpack(&self, archive: &Path) -> Result<(), Failure> {
        for name in PROGRAMS {
            let wrong = |why: String| {
                let archive = archive.file_name().unwrap_or_default().display();
                Failure::local(format!("{archive} holds no usable {name}: {why}"), TELL_THE_MAKER)
            };
            let mut extract = Extract::from_source(archive);
            extract.archive(ArchiveKind::Tar(Some(Compression::Gz)));
            extract.extract_file(&self.new, name).map_err(|e| wrong(release::words(&e)))?;
            let path = self.new.join(name);
            let found = fs::symlink_metadata(&path).map_err(|e| wrong(e.to_string()))?;
            if !found.is_file() || found.nlink() != 1 {
                return Err(wrong("it is not a plain file".to_owned()));
            }
            let written = fs::set_permissions(&path, fs::Permissions::from_mode(0o755));
            written.and_then(|()| File::open(&path)?.sync_all()).map_err(|e| failed("writing", &path, &e))?;
        }
        Ok(())
    }

    /// Makes each new program print its version, which shows that it runs here and is the right one.
    pub async fn try_out(&self, version: &str) -> Result<(), Failure> {
        for name in PROGRAMS {
            let wrong = |why| Failure::local(format!("the new {name} is not usable here: {why}"), TELL_THE_MAKER);
            let call = Call::new(name, self.new.join(name), ["--version"], PATIENCE);
            let said = call.run().await.map_err(|e| wrong(e.to_string()))?;
            if said.trim() != format!("{name} {version}") {
                return Err(wrong(format!("it says {:?}, not version {version}", said.trim())));
            }
        }
        Ok(())
    }

    /// Replaces the programs, or adds missing ones; returns their paths.
    pub fn replace(&mut self) -> Result<Vec<PathBuf>, Failure> {
        let places = PROGRAMS.map(|name| self.path.join(name));
        for (place, name) in places.iter().zip(PROGRAMS) {
            match fs::copy(place, self.old.join(name)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed("keeping", place, &e)),
                _ => {}
            }
        }
        for (at, place) in places.iter().enumerate() {
            if let Err(e) = fs::rename(self.new.join(PROGRAMS[at]), place) {
                places[..at].iter().zip(PROGRAMS).try_for_each(|(place, name)| self.put_back(place, name))?;
                return Err(failed("replacing", place, &e));
            }
        }
        self.clear_up();
        // A power loss before this sync could restore the old names.
        let synced = File::open(&self.path).and_then(|folder| folder.sync_all());
        let unsynced = |e| Failure::local(format!("the programs are replaced, but syncing their folder failed: {e}"), REINSTALL);
        synced.map(|()| places.to_vec()).map_err(unsynced)
    }

    /// Removes the files of interrupted updates.
    fn clear_up(&self) {
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(WORKSHOP) && entry.path() != self.workshop.path() {
                drop(fs::remove_dir_all(entry.path())); // clutter is no reason to fail
            }
        }
    }

    fn put_back(&mut self, place: &Path, name: &str) -> Result<(), Failure> {
        let kept = self.old.join(name);
        let back = if kept.exists() { fs::rename(&kept, place) } else { fs::remove_file(place) };
        back.map_err(|e| {
            self.workshop.disable_cleanup(true);
            let what = format!("the update failed half way, and putting {} back failed: {e}", place.display());
            Failure::local(what, format!("the old programs are in {}: move them back by hand", self.old.display()))
        })
    }
}

fn failed(doing: &str, path: &Path, e: &io::Error) -> Failure {
    Failure::io(doing, path, e, "nothing was changed; correct that, then try again")
}
