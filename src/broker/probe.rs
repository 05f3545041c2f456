//! Lookups in parts of the system that may hang: a file on a dead mount, a process table behind `ps`.

use crate::{
    agents::{claude::activity, codex::attended},
    platform::{git, process, remote},
    wire::{Activity, Git, Process},
};
use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// How long a caller waits for a lookup. A later answer is kept for the next request.
const PATIENCE: Duration = Duration::from_millis(250);
/// How many lookups of one kind run in parallel.
const WORKERS: usize = 8;
/// How many lookups may hang at once, each with a thread. Beyond that, no new lookup starts.
const MOST_HANGING: usize = 64;
/// How long an earlier answer may replace one that does not come in time.
const KEPT: Duration = Duration::from_secs(3_600);
/// How many answers are kept that long. Beyond that, only those of the last minute stay: processes come and go.
const MOST_KEPT: usize = 1_000;
const RECENT: Duration = Duration::from_secs(60);

/// Runs lookups of one kind for many keys, on its own threads, in parallel and with a time limit. A hanging lookup is not started
/// again.
#[derive(Debug)]
pub(super) struct Probe<K, V> {
    look: fn(&K) -> V,
    shared: Arc<Mutex<Shared<K, V>>>,
    answered: watch::Sender<()>,
}

#[derive(Debug)]
struct Shared<K, V> {
    /// Keys whose lookup has not started.
    queue: Vec<K>,
    /// Keys whose lookup has started but not finished.
    under_way: HashSet<K>,
    known: HashMap<K, (Instant, V)>,
}

impl<K: Hash + Eq + Clone + Send + 'static, V: Clone + Send + 'static> Probe<K, V> {
    pub fn new(look: fn(&K) -> V) -> Self {
        let shared = Shared { queue: Vec::new(), under_way: HashSet::new(), known: HashMap::new() };
        Self { look, shared: Arc::new(Mutex::new(shared)), answered: watch::Sender::default() }
    }

    /// Looks up `key`; returns an earlier result if the lookup takes too long.
    pub async fn ask(&self, key: K) -> Option<V> {
        self.ask_all([key.clone()]).await.remove(&key)
    }

    /// Like [`Probe::ask`], for many keys.
    pub async fn ask_all(&self, keys: impl IntoIterator<Item = K>) -> HashMap<K, V> {
        let keys: HashSet<K> = keys.into_iter().collect();
        let begun = Instant::now();
        self.start(&keys);
        let is_fresh = |key: &K| lock(&self.shared).known.get(key).is_some_and(|(at, _)| *at >= begun);
        let mut answered = self.answered.subscribe();
        let all = answered.wait_for(|()| keys.iter().all(is_fresh));
        if tokio::time::timeout(PATIENCE, all).await.is_err() {
            tracing::debug!("a look at the system does not answer in time");
        }
        let known = &lock(&self.shared).known;
        keys.into_iter().filter_map(|key| known.get(&key).map(|(_, value)| (key, value.clone()))).collect()
    }

    pub fn known(&self, key: &K) -> Option<V> {
        lock(&self.shared).known.get(key).map(|(_, value)| value.clone())
    }

    fn start(&self, keys: &HashSet<K>) {
        let mut shared = lock(&self.shared);
        let kept = if shared.known.len() > MOST_KEPT { RECENT } else { KEPT };
        shared.known.retain(|_, (at, _)| at.elapsed() < kept);
        let fresh: Vec<K> =
            keys.iter().filter(|key| !shared.under_way.contains(key) && !shared.queue.contains(key)).cloned().collect();
        let workers = fresh.len().min(WORKERS).min(MOST_HANGING.saturating_sub(shared.under_way.len()));
        shared.queue.extend(fresh);
        drop(shared);
        for _ in 0..workers {
            let (look, shared, answered) = (self.look, self.shared.clone(), self.answered.clone());
            // Not a thread of the runtime: the broker's exit must not wait for a hanging lookup.
            let worker = thread::Builder::new().name("probe".to_owned()).stack_size(256 * 1024);
            if let Err(error) = worker.spawn(move || work(look, &shared, &answered)) {
                tracing::warn!(%error, "starting a thread that looks at the system failed: {error}");
            }
        }
    }
}

/// Takes one key after another from the queue until it is empty.
fn work<K: Hash + Eq + Clone, V>(look: fn(&K) -> V, shared: &Mutex<Shared<K, V>>, answered: &watch::Sender<()>) {
    loop {
        let key = {
            let mut shared = lock(shared);
            let Some(key) = shared.queue.pop() else { return };
            shared.under_way.insert(key.clone());
            key
        };
        let begun = Instant::now();
        let value = look(&key);
        let mut shared = lock(shared);
        shared.under_way.remove(&key);
        shared.known.insert(key, (begun, value));
        drop(shared);
        answered.send_replace(());
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
pub(super) struct Probes {
    pub processes: Probe<Process, bool>,
    /// The branch that a `HEAD` file names; `None` if there is no such file.
    pub branches: Probe<String, Option<Option<String>>>,
    pub repositories: Probe<String, Option<Git>>,
    /// Where the repository with this common git directory comes from.
    pub sources: Probe<String, Option<String>>,
    /// What a session does, by its status file.
    pub activities: Probe<String, Option<Activity>>,
    /// Whether a process has a terminal.
    pub terminals: Probe<Process, bool>,
    /// Whether anybody sits at a terminal of the daemon that has started this MCP server.
    pub daemon_users: Probe<Process, bool>,
    /// The top folder of a worktree.
    pub tops: Probe<String, Option<PathBuf>>,
}

impl Default for Probes {
    fn default() -> Self {
        Self {
            processes: Probe::new(|process| process::is_alive(*process)),
            branches: Probe::new(|head| Path::new(head).exists().then(|| git::branch(Path::new(head)))),
            repositories: Probe::new(|directory| git::discover(Path::new(directory))),
            sources: Probe::new(|common_dir| remote::source(Path::new(common_dir))),
            activities: Probe::new(|file| activity::read(Path::new(file))),
            terminals: Probe::new(|process| process::terminal(process.pid).is_some()),
            daemon_users: Probe::new(attended::has_terminal),
            tops: Probe::new(|cwd| git::top(Path::new(cwd))),
        }
    }
}
