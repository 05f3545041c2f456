//! The writing thread: takes all jobs that wait, runs them in one transaction, commits once, answers all.

use super::{Error, Result};
use rusqlite::Connection;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// How many jobs may wait for the writer before senders wait: a bound on memory; 64 busy senders fill a fraction of it.
pub(super) const QUEUE: usize = 1_024;
/// How many jobs share a commit at most, so that the first of them does not wait for an endless row of others.
const GROUP: usize = 256;

/// A piece of work with somebody waiting for its result.
pub(super) trait Job: Send {
    /// Does the work; false if it failed and its changes must be undone.
    fn run(&mut self, connection: &Connection) -> bool;
    /// Tells whoever waits, after the commit.
    fn answer(self: Box<Self>, commit: &std::result::Result<(), Arc<rusqlite::Error>>);
}

struct Work<T, F> {
    work: Option<F>,
    result: Result<T>,
    reply: oneshot::Sender<Result<T>>,
}

/// Packs `work` with the channel on which its result is awaited.
pub(super) fn job<T, F>(work: F, reply: oneshot::Sender<Result<T>>) -> Box<dyn Job>
where
    T: Send + 'static,
    F: FnOnce(&Connection) -> Result<T> + Send + 'static,
{
    Box::new(Work { work: Some(work), result: Err(Error::Closed), reply })
}

impl<T: Send, F: FnOnce(&Connection) -> Result<T> + Send> Job for Work<T, F> {
    fn run(&mut self, connection: &Connection) -> bool {
        if let Some(work) = self.work.take() {
            self.result = work(connection);
        }
        self.result.is_ok()
    }

    fn answer(self: Box<Self>, commit: &std::result::Result<(), Arc<rusqlite::Error>>) {
        let result = match commit {
            Err(error) if self.result.is_ok() => Err(Error::Commit(error.clone())),
            _ => self.result,
        };
        // Nobody waits any more if the request was given up; the work stands all the same.
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
    say("BEGIN IMMEDIATE")?;
    let mut body = || {
        for job in group.iter_mut() {
            say("SAVEPOINT job")?;
            if !job.run(connection) {
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
