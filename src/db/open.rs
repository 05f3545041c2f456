//! Opens the database: lock, kind of file, version, migrations, damage, permissions.

use super::{
    connect::{in_the_way, is_filled, make_folder, share, side_files, wal, writer},
    damage::{faults, probe},
    error::{OpenError, damage, is_damage},
    header, kind,
    lock::Lock,
    place::Place,
    salvage, schema,
    store::Store,
};
use crate::platform::files;
use rusqlite::{Connection, ErrorCode, config::DbConfig};
use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::Path,
};

/// How much of the database is searched for damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// The rows that the broker needs first.
    UnderWay,
    /// All of it.
    Whole,
}

/// An open database, and notices for people about how it was opened.
#[derive(Debug)]
pub struct Opened {
    /// The database.
    pub store: Store,
    /// For instance, that it was damaged, and which rows were recovered.
    pub notices: Vec<String>,
}

/// Opens the database at `path`; creates, migrates or salvages it as needed.
///
/// # Errors
/// See `OpenError`. The contents of the file are kept in every case.
pub fn open(path: &Path, extent: Extent) -> Result<Opened, OpenError> {
    let failed = |source| OpenError::File { path: path.to_owned(), source };
    let mut notices = Vec::new();
    if let Some(folder) = path.parent() {
        make_folder(folder).map_err(failed)?;
    }
    let real = files::resolve(path).map_err(failed)?;
    // An existing file is locked first, so that no file is renamed while another broker uses it.
    let mut found = Lock::take(&real, false)?;
    if let Some(why) = in_the_way(&real) {
        return Err(OpenError::InTheWay { path: path.to_owned(), why });
    }
    let salvaged = salvage::finish(&real)?;
    if salvaged.is_none() && !is_filled(&real) && is_filled(&wal(&real)) {
        // SQLite would delete it.
        let aside = salvage::dated(&real);
        salvage::set_aside(&real, &aside).map_err(failed)?;
        notices.push(format!(
            "a write-ahead log without its database was set aside as {}: it may hold messages",
            wal(&aside).display()
        ));
        found = None;
    }
    let mut lock = match salvaged.or(found) {
        Some(lock) => lock,
        None => Lock::take(&real, true)?.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?,
    };
    share(&real).map_err(|source| OpenError::NotShared { path: path.to_owned(), source })?;
    let connection = match prepare(&real, extent) {
        Err(OpenError::Sqlite { source, .. }) if is_damage(&source) => {
            salvage::salvage(&real, &source)?;
            lock = salvage::finish(&real)?.unwrap_or(lock);
            prepare(&real, Extent::UnderWay)?
        }
        other => other?,
    };
    notices.extend(salvage::notice(&connection).map_err(|source| OpenError::Sqlite { path: path.to_owned(), source })?);
    for file in side_files(&real).iter().chain([&real]).filter(|file| file.exists()) {
        let private = fs::set_permissions(file, Permissions::from_mode(0o600));
        private.map_err(|source| OpenError::File { path: file.clone(), source })?;
    }
    let place = Place::of(&connection, path, &real).map_err(failed)?;
    let store = Store::start(connection, place, path, &real, lock).map_err(failed)?;
    Ok(Opened { store, notices })
}

fn prepare(real: &Path, extent: Extent) -> Result<Connection, OpenError> {
    let sqlite = |source| OpenError::Sqlite { path: real.to_owned(), source };
    kind::refuse_foreign(real)?;
    if header::is_damaged(real).map_err(|source| OpenError::File { path: real.to_owned(), source })? {
        return Err(sqlite(damage("its header is damaged".to_owned())));
    }
    let mut connection = writer(real).map_err(sqlite)?;
    schema::migrate(&mut connection).map_err(|error| sqlite(unfit(error)))?;
    let whole = || faults(&connection)?.into_iter().next().map_or(Ok(()), |fault| Err(damage(fault)));
    let check = || match probe(&connection) {
        // A damaged length asks for more memory than SQLite gives.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::OutOfMemory) => whole().and(Err(error)),
        Ok(()) if extent == Extent::Whole => whole(),
        probed => probed,
    };
    check().map_err(sqlite)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).map_err(sqlite)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Migrations fit every database of their version and break no rule of its tables, so it is damaged, or its version is.
fn unfit(error: rusqlite::Error) -> rusqlite::Error {
    match error.sqlite_error_code() {
        Some(ErrorCode::ConstraintViolation | ErrorCode::Unknown) => damage(error.to_string()),
        _ => error,
    }
}
