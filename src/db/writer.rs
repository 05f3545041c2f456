//! The writing thread: runs all jobs that wait in one transaction, commits once, answers all.

use super::{
    error::{Error, Result},
    tx::Tx,
};
use rusqlite::Connection;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// How many jobs may wait for the writer before senders wait: a bound on memory; 64 busy senders fill a fraction of it.
pub(super) const QUEUE: usize = 1_024;
/// How many jobs share a commit at most, so that the first of them does not wait for an endless row of others.
const GROUP: usize = 256;

/// The faults that a change survives once its job is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// A power cut, too: the commit is fsynced.
    Fsync,
    /// The end of any process. After a power cut it is there or not, like all that was committed behind it: the log ends earlier,
    /// and has no holes.
    Process,
}

type Commit = std::result::Result<(), Arc<rusqlite::Error>>;

/// A piece of work whose result somebody awaits.
pub(super) trait Job: Send {
    /// The faults that its change must survive.
    fn durability(&self) -> Durability;
    /// Does the work; false if it failed and its changes must be undone.
    fn run(&mut self, tx: &Tx<'_>) -> bool;
    /// Tells whoever waits, after the commit.
    fn answer(self: Box<Self>, commit: &Commit);
}

struct Work<T, E, F> {
    durability: Durability,
    work: Option<F>,
    result: Result<T, E>,
    reply: oneshot::Sender<Result<T, E>>,
}

/// Packs `work` with the channel on which its result is awaited.
pub(super) fn job<T, E, F>(durability: Durability, work: F, reply: oneshot::Sender<Result<T, E>>) -> Box<dyn Job>
where
    T: Send + 'static,
    E: From<Error> + Send + 'static,
    F: FnOnce(&Tx<'_>) -> Result<T, E> + Send + 'static,
{
    Box::new(Work { durability, work: Some(work), result: Err(Error::Closed.into()), reply })
}

impl<T: Send, E: From<Error> + Send, F: FnOnce(&Tx<'_>) -> Result<T, E> + Send> Job for Work<T, E, F> {
    fn durability(&self) -> Durability {
        self.durability
    }

    fn run(&mut self, tx: &Tx<'_>) -> bool {
        if let Some(work) = self.work.take() {
            self.result = work(tx);
        }
        self.result.is_ok()
    }

    fn answer(self: Box<Self>, commit: &Commit) {
        let result = match commit {
            Err(error) if self.result.is_ok() => Err(Error::Commit(error.clone()).into()),
            _ => self.result,
        };
        // The request may have been given up; the work stands all the same.
        drop(self.reply.send(result));
    }
}

/// Runs until every [`super::Store`] handle is gone and the queue is empty.
pub(super) fn run(connection: &Connection, mut jobs: mpsc::Receiver<Box<dyn Job>>) {
    let mut group: Vec<Box<dyn Job>> = Vec::with_capacity(GROUP);
    while jobs.blocking_recv_many(&mut group, GROUP) > 0 {
        let commit = commit(connection, &mut group).map_err(Arc::new);
        if let Err(error) = &commit {
            tracing::error!(%error, jobs = group.len(), "committing to the database failed");
        }
        for job in group.drain(..) {
            job.answer(&commit);
        }
    }
}

fn commit(connection: &Connection, group: &mut [Box<dyn Job>]) -> rusqlite::Result<()> {
    let say = |sql: &str| connection.prepare_cached(sql)?.execute([]).map(drop);
    let tx = Tx::new(connection);
    let fsyncs = group.iter().any(|job| job.durability() == Durability::Fsync);
    connection.pragma_update(None, "synchronous", if fsyncs { "full" } else { "normal" })?;
    say("BEGIN IMMEDIATE")?;
    let mut body = || {
        for job in group.iter_mut() {
            say("SAVEPOINT job")?;
            if !job.run(&tx) {
                say("ROLLBACK TO job")?;
            }
            say("RELEASE job")?;
        }
        say("COMMIT")
    };
    let result = body();
    if result.is_err() && !connection.is_autocommit() {
        say("ROLLBACK")?;
    }
    result
}
