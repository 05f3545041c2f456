//! The writing thread: runs all waiting jobs in one transaction, commits once, then answers them all.

use super::{
    error::{Error, Fault, Result},
    place::Place,
    tx::{Met, Tx},
};
use prometheus_client::metrics::histogram::Histogram;
use rusqlite::{Connection, ErrorCode, config::DbConfig};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};
use tokio::sync::{mpsc, oneshot, watch};

/// How many jobs may be queued before senders must wait. Bounds memory; 64 busy senders fill a fraction of the queue.
pub(super) const QUEUE: usize = 1_024;
/// How many jobs may share a commit, so that the first one does not wait for an endless stream of others.
const GROUP: usize = 256;

/// The faults that a change survives once its job is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Even a power cut: the commit is fsynced.
    Fsync,
    /// The end of any process. A power cut may lose the change, and with it all later commits: the log ends earlier, but has no
    /// gaps.
    Process,
}

/// The first fault of a database, if there is one.
pub(super) type Faults = watch::Sender<Option<Fault>>;

/// Records `fault` if it is the first.
pub(super) fn note(faults: &Faults, fault: Fault) {
    faults.send_if_modified(|first| {
        let is_first = first.is_none();
        first.get_or_insert(fault);
        is_first
    });
}

/// Whether a commit's changes are kept. Each job turns a failure into an [`Error`] of its own.
type Commit = std::result::Result<(), Failure>;

/// Why nothing was committed, or why the outcome is unknown.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    Commit(Arc<rusqlite::Error>),
    /// A job failed after it had changed something.
    Undone,
    Moved(String),
    /// Another process holds the lock of this database, so nothing was begun.
    Locked(PathBuf),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Commit(Arc::new(error))
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Commit(error) => Self::Commit(error),
            Failure::Undone => Self::Undone,
            Failure::Moved(file) => Self::Moved(file),
            Failure::Locked(file) => Self::Locked(file),
        }
    }
}

/// Work whose result a caller awaits.
pub(super) trait Job: Send {
    /// The faults that the job's change must survive.
    fn durability(&self) -> Durability;
    /// Does the work. Returns false if it failed.
    fn run(&mut self, tx: &Tx<'_>) -> bool;
    /// Answers the caller after the commit.
    fn answer(self: Box<Self>, commit: &Commit);
}

struct Work<T, E, F> {
    durability: Durability,
    work: Option<F>,
    /// None if the transaction could not begin.
    result: Option<Result<T, E>>,
    reply: oneshot::Sender<Result<T, E>>,
}

/// Packs `work` with the channel on which its result is awaited.
pub(super) fn job<T, E, F>(durability: Durability, work: F, reply: oneshot::Sender<Result<T, E>>) -> Box<dyn Job>
where
    T: Send + 'static,
    E: From<Error> + Send + 'static,
    F: FnOnce(&Tx<'_>) -> Result<T, E> + Send + 'static,
{
    Box::new(Work { durability, work: Some(work), result: None, reply })
}

impl<T: Send, E: From<Error> + Send, F: FnOnce(&Tx<'_>) -> Result<T, E> + Send> Job for Work<T, E, F> {
    fn durability(&self) -> Durability {
        self.durability
    }

    fn run(&mut self, tx: &Tx<'_>) -> bool {
        if let Some(work) = self.work.take() {
            self.result = Some(work(tx));
        }
        self.result.as_ref().is_some_and(Result::is_ok)
    }

    fn answer(self: Box<Self>, commit: &Commit) {
        let result = match (commit, self.result) {
            (Err(Failure::Commit(_) | Failure::Undone), Some(Err(own))) => Err(own),
            (Err(failure), _) => Err(Error::from(failure.clone()).into()),
            (Ok(()), result) => result.unwrap_or_else(|| Err(Error::Closed.into())),
        };
        // The caller may have given up; the change is kept even so.
        drop(self.reply.send(result));
    }
}

/// Runs until every [`super::Store`] handle is gone and the queue is empty. Reports success only while the open files are still
/// the ones at their paths. Once they are not, every job fails. `commits` gets the seconds of each transaction that changed something.
pub(super) fn run(
    connection: &Connection,
    mut place: Place,
    faults: &Faults,
    commits: &Histogram,
    mut jobs: mpsc::Receiver<Box<dyn Job>>,
) {
    let (mut group, mut moved): (Vec<Box<dyn Job>>, _) = (Vec::with_capacity(GROUP), None);
    // Whether commits are fsynced now, as the connection is opened.
    let mut is_full = true;
    while jobs.blocking_recv_many(&mut group, GROUP) > 0 {
        let (met, began, before) = (Met::default(), Instant::now(), connection.total_changes());
        let commit = || {
            place.check(connection).map_err(Failure::Moved)?;
            let committed = commit(connection, &met, &mut is_full, &mut group).map_err(|failure| locked(failure, place.path()));
            place.check(connection).map_err(Failure::Moved)?;
            committed
        };
        let commit = moved.clone().map_or_else(commit, Err);
        match &commit {
            Ok(()) if connection.total_changes() != before => commits.observe(began.elapsed().as_secs_f64()),
            Ok(()) => {}
            Err(Failure::Undone) => {
                tracing::error!(jobs = group.len(), "a change failed halfway; the whole transaction is undone")
            }
            Err(Failure::Commit(error)) => {
                tracing::error!(%error, jobs = group.len(), "committing to the database failed: {error}");
                Fault::of(error).into_iter().for_each(|fault| note(faults, fault));
            }
            Err(Failure::Locked(file)) => {
                // Those that came meanwhile would wait as long again.
                group.extend(std::iter::from_fn(|| jobs.try_recv().ok()));
                tracing::warn!(jobs = group.len(), "another process holds the lock of the database {}", file.display());
            }
            Err(failure @ Failure::Moved(file)) => {
                note(faults, Fault::Moved(file.clone()));
                moved = Some(failure.clone());
            }
        }
        met.into_inner().into_iter().for_each(|fault| note(faults, fault));
        for job in group.drain(..) {
            job.answer(&commit);
        }
    }
    // Another database with its own log may be at that path by now.
    if faults.borrow().is_some()
        && let Err(error) = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
    {
        tracing::error!(%error, "the database's log may be deleted: {error}");
    }
}

/// A transaction that waited in vain for the lock, if that is why it failed.
fn locked(failure: Failure, database: &Path) -> Failure {
    match &failure {
        Failure::Commit(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
            Failure::Locked(database.to_owned())
        }
        _ => failure,
    }
}

fn commit(connection: &Connection, met: &Met, is_full: &mut bool, group: &mut [Box<dyn Job>]) -> Commit {
    let say = |sql: &str| connection.prepare_cached(sql)?.execute([]).map(drop);
    let tx = Tx::new(connection, met);
    let fsyncs = group.iter().any(|job| job.durability() == Durability::Fsync);
    if *is_full != fsyncs {
        connection.pragma_update(None, "synchronous", if fsyncs { "full" } else { "normal" })?;
        *is_full = fsyncs;
    }
    say("BEGIN IMMEDIATE")?;
    let mut body = || {
        for job in group.iter_mut() {
            let before = connection.total_changes();
            // After some errors, such as a full disk, SQLite itself rolls back.
            if !job.run(&tx) && (connection.is_autocommit() || connection.total_changes() != before) {
                return Err(Failure::Undone);
            }
        }
        Ok(say("COMMIT")?)
    };
    let result = body();
    if result.is_err() && !connection.is_autocommit() {
        say("ROLLBACK")?;
    }
    result
}
