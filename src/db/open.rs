//! Opening the database: lock, permissions, damage, version, migrations.

use super::{
    damage, legacy,
    sqlite_file::{BUSY_TIMEOUT, CACHE_KIB, reader, side_files},
    store::Store,
};
use rusqlite::{Connection, OpenFlags};
use rusqlite_migration::{M, Migrations};
use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::LazyLock,
};

/// A WAL that grew past this during a burst is cut back at the next checkpoint, in bytes.
const WAL_LIMIT: i64 = 16 * 1024 * 1024;

/// The schema's history. **Only ever append**: a database written by any earlier version must open.
pub(super) static MIGRATIONS: LazyLock<Migrations<'static>> = LazyLock::new(|| {
    Migrations::new(vec![
        M::up_with_hook(include_str!("migrations/0001-mailboxes.sql"), |tx| Ok(legacy::import(tx)?)),
        M::up(include_str!("migrations/0002-inbox.sql")),
        M::up(include_str!("migrations/0003-holder.sql")),
        M::up(include_str!("migrations/0004-sessions.sql")),
    ])
});

/// How many migrations there are: the schema version of a database this build has opened.
pub(super) const SCHEMA: usize = 4;

/// Why the database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its folder or file cannot be used.
    #[error("opening database {path}: {source}; check that the folder exists and is writable, or set CLAUDE_PEERS_DB")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Another broker has it.
    #[error("database {path} is in use by another claude-peersd (process {holder}); stop that one, or set CLAUDE_PEERS_DB")]
    InUse {
        /// The database.
        path: PathBuf,
        /// The process that holds it, as far as known.
        holder: String,
    },
    /// A newer version wrote it.
    #[error(
        "database {path} was written by a newer claude-peers (schema {found}, this version knows up to {known}) and is left \
         untouched; upgrade claude-peers, or set CLAUDE_PEERS_DB to another file"
    )]
    TooNew {
        /// The database.
        path: PathBuf,
        /// Its schema version.
        found: usize,
        /// The newest this build knows.
        known: usize,
    },
    /// SQLite or a migration failed.
    #[error("opening database {path}: {source}")]
    Sqlite {
        /// The database.
        path: PathBuf,
        /// SQLite's reason.
        source: rusqlite::Error,
    },
    /// A migration failed.
    #[error("migrating database {path}: {source}; it is left as it was")]
    Migration {
        /// The database.
        path: PathBuf,
        /// The reason.
        source: rusqlite_migration::Error,
    },
}

/// An open database, and what had to be done to open it that a person should know.
#[derive(Debug)]
pub struct Opened {
    /// The database.
    pub store: Store,
    /// For instance: it was damaged, and what was recovered.
    pub notices: Vec<String>,
}

/// Opens the database at `path`, making or migrating it as needed.
///
/// # Errors
/// See [`OpenError`]; on every one of them the file is as it was.
pub fn open(path: &Path) -> Result<Opened, OpenError> {
    let file_error = |source| OpenError::File { path: path.to_owned(), source };
    if let Some(folder) = path.parent() {
        fs::DirBuilder::new().recursive(true).create(folder).map_err(file_error)?;
    }
    let lock = lock(path)?;
    let mut notices = Vec::new();
    let connection = match prepare(path) {
        Err(OpenError::Sqlite { source, .. }) if damage::is_damage(&source) => {
            let aside = damage::set_aside(path).map_err(file_error)?;
            let fresh = prepare(path)?;
            notices.push(damage::salvage(&aside, &fresh, &source));
            fresh
        }
        other => other?,
    };
    connection.set_prepared_statement_cache_capacity(64);
    for file in side_files(path).iter().filter(|file| file.exists()) {
        fs::set_permissions(file, fs::Permissions::from_mode(0o600)).map_err(file_error)?;
    }
    let store = Store::start(connection, path, lock).map_err(file_error)?;
    Ok(Opened { store, notices })
}

fn lock(path: &Path) -> Result<File, OpenError> {
    let file_error = |source| OpenError::File { path: path.to_owned(), source };
    let name = path.with_extension("lock");
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&name).map_err(file_error)?;
    file.set_permissions(fs::Permissions::from_mode(0o600)).map_err(file_error)?; // whoever can open it can lock it
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let holder = fs::read_to_string(&name).ok().filter(|pid| !pid.is_empty()).unwrap_or_else(|| "unknown".to_owned());
            return Err(OpenError::InUse { path: path.to_owned(), holder: holder.trim().to_owned() });
        }
        Err(TryLockError::Error(e)) => return Err(file_error(e)),
    }
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(file_error)?;
    Ok(file)
}

fn prepare(path: &Path) -> Result<Connection, OpenError> {
    let sqlite = |source| OpenError::Sqlite { path: path.to_owned(), source };
    let made = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    drop(made.map_err(|source| OpenError::File { path: path.to_owned(), source })?);
    refuse_newer(path)?;
    let mut connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(sqlite)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(sqlite)?;
    let pragmas = || {
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", "full")?;
        connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
        connection.pragma_update(None, "journal_size_limit", WAL_LIMIT)?;
        connection.pragma_update(None, "temp_store", "memory")
    };
    pragmas().map_err(sqlite)?;
    MIGRATIONS.to_latest(&mut connection).map_err(|source| match source {
        rusqlite_migration::Error::RusqliteError { err, .. } => sqlite(err),
        source => OpenError::Migration { path: path.to_owned(), source },
    })?;
    // Damage that the header does not show is met here, while it can still be set aside, and not by the first session.
    damage::probe(&connection).map_err(sqlite)?;
    Ok(connection)
}

/// Looks at the version through a connection that cannot write: a newer database stays untouched to the byte.
fn refuse_newer(path: &Path) -> Result<(), OpenError> {
    let sqlite = |source| OpenError::Sqlite { path: path.to_owned(), source };
    if fs::metadata(path).is_ok_and(|meta| meta.len() == 0) {
        return Ok(());
    }
    let connection = reader(path).map_err(sqlite)?;
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(sqlite)?;
    let (found, known) = (usize::try_from(found).unwrap_or(usize::MAX), SCHEMA);
    if found > known {
        return Err(OpenError::TooNew { path: path.to_owned(), found, known });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_migrations_are_sound_and_counted() {
        MIGRATIONS.validate().unwrap();
        let mut connection = Connection::open_in_memory().unwrap();
        MIGRATIONS.to_latest(&mut connection).unwrap();
        let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
        assert_eq!(usize::try_from(version), Ok(SCHEMA));
    }
}
