use super::{
    connect,
    error::{Error, Fault, Result},
    index::Index,
    lock::Lock,
    place::Place,
    tx::{Met, Tx, View},
    writer::{self, Durability, Faults},
};
use prometheus_client::metrics::histogram::Histogram;
use rusqlite::Connection;
use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};
use tokio::sync::{mpsc, oneshot};

/// How many reading connections are kept for reuse. More are opened on demand and closed after use.
const IDLE_READERS: usize = 4;
/// The upper bounds by which commits are counted, in seconds: from a fast SSD to a disk on which people notice the wait.
const COMMIT_SECONDS: [f64; 11] = [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];

/// An open database: one writing thread, and connections for reading.
#[derive(Debug)]
pub struct Store {
    jobs: mpsc::Sender<Box<dyn writer::Job>>,
    readers: Arc<Readers>,
    index: Arc<Index>,
    commits: Histogram,
    path: PathBuf,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
    lock: Lock,
}

/// Connections that only read, and the faults found so far.
#[derive(Debug)]
struct Readers {
    /// The path with all links followed.
    real: PathBuf,
    idle: Mutex<Vec<Connection>>,
    faults: Faults,
}

impl Store {
    /// Starts the writing thread on `connection`. `real` is `path` with all links followed; the file stays locked as long as the
    /// store lives.
    pub(super) fn start(connection: Connection, place: Place, path: &Path, real: &Path, lock: Lock) -> std::io::Result<Self> {
        let (jobs, queue) = mpsc::channel(writer::QUEUE);
        let readers = Arc::new(Readers { real: real.to_owned(), idle: Mutex::default(), faults: Faults::new(None) });
        let commits = Histogram::new(COMMIT_SECONDS);
        let (faults, observed) = (readers.faults.clone(), commits.clone());
        let thread = std::thread::Builder::new()
            .name("writer".to_owned())
            .stack_size(512 * 1024)
            .spawn(move || writer::run(&connection, place, &faults, &observed, queue))?;
        let index = Arc::new(Index::of(real));
        Ok(Self { jobs, readers, index, commits, path: path.to_owned(), thread: Mutex::new(Some(thread)), lock })
    }

    /// Resolves once the database can no longer be used.
    pub async fn failed(&self) -> Fault {
        let mut faults = self.readers.faults.subscribe();
        match faults.wait_for(Option::is_some).await.ok().and_then(|fault| fault.clone()) {
            Some(fault) => fault,
            None => std::future::pending().await, // this store holds the sender
        }
    }

    /// Runs `work` in a transaction and returns once it is committed and fsynced.
    ///
    /// # Errors
    /// The error of `work`, or a failed commit. Nothing was stored. If `work` fails after it has written, all jobs of the
    /// transaction fail, so it refuses first.
    pub async fn write<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: FnOnce(&Tx<'_>) -> Result<T, E> + Send + 'static,
    {
        self.submit(Durability::Fsync, work).await?.await
    }

    /// Like [`Store::write`], in two steps. Once this returns, the work is queued and runs even if the caller goes away. The
    /// returned future resolves to the result. From then on the change survives the faults that `durability` names.
    ///
    /// # Errors
    /// [`Error::Closed`]; the future fails as [`Store::write`] does.
    pub async fn submit<T, E, F>(
        &self,
        durability: Durability,
        work: F,
    ) -> Result<impl Future<Output = Result<T, E>> + use<T, E, F>>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: FnOnce(&Tx<'_>) -> Result<T, E> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        self.jobs.send(writer::job(durability, work, reply)).await.map_err(|_| Error::Closed)?;
        Ok(async { answer.await.unwrap_or_else(|_| Err(Error::Closed.into())) })
    }

    /// Runs `work` on a connection that only reads, beside the writer.
    ///
    /// # Errors
    /// The error of `work`, or that no connection could be opened.
    pub async fn read<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: FnOnce(&View<'_>) -> Result<T, E> + Send + 'static,
    {
        let readers = self.readers.clone();
        tokio::task::spawn_blocking(move || readers.with(work)).await.unwrap_or_else(|_| Err(Error::Closed.into()))
    }

    /// Like [`Store::read`], but on the calling thread. Only for a few rows that an index finds and that are in memory because
    /// they were just written. Every message needs this read, and two thread switches would cost ten times as much as the read.
    ///
    /// # Errors
    /// The error of `work`, or that no connection could be opened.
    pub fn glance<T, E: From<Error>>(&self, work: impl FnOnce(&View<'_>) -> Result<T, E>) -> Result<T, E> {
        self.readers.with(work)
    }

    /// Runs `work` in a transaction of the search index, which also sees the messages. See [`Index::with`].
    ///
    /// # Errors
    /// The error of `work`, or that the index cannot be used.
    pub async fn search<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: Fn(&Tx<'_>) -> Result<T, E> + Send + 'static,
    {
        let index = self.index.clone();
        tokio::task::spawn_blocking(move || index.with(work)).await.unwrap_or_else(|_| Err(Error::Closed.into()))
    }

    /// Waits until everything passed to [`Store::write`] is committed, then closes the database.
    pub fn close(self) {
        let Self { jobs, readers, thread, lock, .. } = self;
        // The writer closes last: the last connection copies the WAL into the database, which a reader could not do.
        if let Ok(mut idle) = readers.idle.lock() {
            idle.clear();
        }
        drop(jobs);
        if let Some(thread) = thread.lock().ok().and_then(|mut thread| thread.take())
            && thread.join().is_err()
        {
            tracing::error!("the database's writer ended with a panic");
        }
        drop(lock);
    }

    /// How long transactions take that change something, from the begin to the end of the commit.
    pub fn commits(&self) -> &Histogram {
        &self.commits
    }

    /// The path of the database.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The size of the database with its side files, in bytes.
    pub fn size(&self) -> u64 {
        connect::size(&self.readers.real)
    }
}

impl Readers {
    fn not_opened(&self, error: rusqlite::Error) -> Error {
        match self.real.try_exists() {
            Ok(false) => {
                let gone = format!("{} is gone", self.real.display());
                writer::note(&self.faults, Fault::Moved(gone.clone()));
                Error::Moved(gone)
            }
            _ => error.into(),
        }
    }

    /// Runs `work` on an idle connection, or on a new one. All its reads see the same snapshot.
    fn with<T, E: From<Error>>(&self, work: impl FnOnce(&View<'_>) -> Result<T, E>) -> Result<T, E> {
        let idle = self.idle.lock().ok().and_then(|mut idle| idle.pop());
        let connection = match idle {
            Some(connection) => connection,
            None => connect::reader(&self.real).map_err(|error| self.not_opened(error))?,
        };
        let (say, met) = (|sql: &str| connection.prepare_cached(sql)?.execute([]).map(drop), Met::default());
        say("BEGIN").map_err(Error::from)?;
        let result = work(&View::new(&connection, &met));
        if !connection.is_autocommit() {
            say("ROLLBACK").map_err(Error::from)?; // a failed read may have ended it already
        }
        if let Ok(mut idle) = self.idle.lock()
            && idle.len() < IDLE_READERS
        {
            idle.push(connection);
        }
        met.into_inner().into_iter().for_each(|fault| writer::note(&self.faults, fault));
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::Extent;

    #[test]
    fn a_look_sees_one_moment() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.db");
        let store = crate::db::open(&path, Extent::UnderWay).unwrap().store;
        let count = |view: &View<'_>| view.get::<i64>("SELECT count(*) FROM session", []);
        let looks = store.glance(|view| {
            let before = count(view)?;
            Connection::open(&path)?.execute("INSERT INTO session VALUES ('a', 'b', 1)", [])?;
            Ok::<_, Error>((before, count(view)?))
        });
        assert_eq!((looks.unwrap(), store.glance(count).unwrap()), ((0, 0), 1));
    }

    /// Runs these jobs in one transaction: each writes a session or not, then fails or not. Returns their outcomes and the number
    /// of sessions stored.
    async fn share_a_transaction(jobs: [(bool, bool); 2]) -> ([Result<(), Error>; 2], i64) {
        let folder = tempfile::tempdir().unwrap();
        let store = crate::db::open(&folder.path().join("peers.db"), Extent::UnderWay).unwrap().store;
        // The first transaction ends once the jobs of the next are queued.
        let ((begin, begun), (go, gate)) = (std::sync::mpsc::channel(), std::sync::mpsc::channel());
        let wait = move |_: &Tx<'_>| {
            begin.send(()).unwrap();
            gate.recv().map_err(|_| Error::Closed)
        };
        let first = store.submit(Durability::Fsync, wait).await.unwrap();
        begun.recv().unwrap();
        let mut outcomes = Vec::new();
        for (number, (writes, fails)) in jobs.into_iter().enumerate() {
            let work = move |tx: &Tx<'_>| {
                if writes {
                    tx.run("INSERT INTO session VALUES (?1, 'peer', 1)", [number.to_string()])?;
                }
                if fails { Err(Error::Sqlite(rusqlite::Error::InvalidQuery)) } else { Ok(()) }
            };
            outcomes.push(store.submit(Durability::Fsync, work).await.unwrap());
        }
        go.send(()).unwrap();
        first.await.unwrap();
        let [one, other] = <[_; 2]>::try_from(outcomes).ok().unwrap();
        let outcomes = [one.await, other.await];
        (outcomes, store.glance(|view| view.get::<i64>("SELECT count(*) FROM session", [])).unwrap())
    }

    #[tokio::test]
    async fn refusal_before_a_change_disturbs_no_other_job() {
        let (outcomes, stored) = share_a_transaction([(true, false), (false, true)]).await;
        assert!(matches!(outcomes, [Ok(()), Err(Error::Sqlite(_))]), "{outcomes:?}");
        assert_eq!(stored, 1);
    }

    #[tokio::test]
    async fn failure_after_a_change_undoes_the_transaction() {
        let (outcomes, stored) = share_a_transaction([(true, false), (true, true)]).await;
        assert!(matches!(outcomes, [Err(Error::Undone), Err(Error::Sqlite(_))]), "{outcomes:?}");
        assert_eq!(stored, 0);
    }
}
