//! Who is there. A peer with a stream is connected; of the others the kernel tells whether their processes live. It is asked outside
//! the lock, and what a look showed is good for a moment.

use super::{Broker, peer::Peer, probe::Probe};
use crate::{
    platform::{clock, git, process},
    wire::{Git, Process, Status, Timestamp},
};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::Duration,
};

/// For how long a look at a living process is good enough.
pub(super) const LOOK: Duration = Duration::from_millis(500);

/// The questions to the system.
#[derive(Debug)]
pub(super) struct Probes {
    processes: Probe<Process, bool>,
    /// The branch that a `HEAD` file names; none if there is no such file.
    pub branches: Probe<String, Option<Option<String>>>,
    pub repositories: Probe<String, Option<Git>>,
    /// The top of a worktree.
    pub tops: Probe<String, Option<PathBuf>>,
}

impl Default for Probes {
    fn default() -> Self {
        Self {
            processes: Probe::new(|process| process::is_alive(*process)),
            branches: Probe::new(|head| Path::new(head).exists().then(|| git::branch(Path::new(head)))),
            repositories: Probe::new(|directory| git::discover(Path::new(directory))),
            tops: Probe::new(|cwd| Path::new(cwd).ancestors().find(|top| top.join(".git").exists()).map(Path::to_path_buf)),
        }
    }
}

/// What the looks at a peer's processes showed.
#[derive(Debug, Default)]
pub(super) struct Life {
    looked: Option<Timestamp>,
    is_over: bool,
}

impl Life {
    /// One of the processes that it needs is gone.
    pub fn is_over(&self) -> bool {
        self.is_over
    }
}

impl Peer {
    /// The processes by whose end it is gone.
    fn processes(&self) -> impl Iterator<Item = Process> + use<> {
        // A legacy client names a process of its own beside the one that the kernel saw.
        let named = self.row.agent.filter(|named| self.row.legacy && named.started != 0);
        self.row.process.into_iter().chain(named)
    }

    /// Whether only a look can tell if it is there.
    fn needs_look(&self, age: Duration, now: Timestamp) -> bool {
        let is_known = self.life.is_over || self.life.looked.is_some_and(|at| at.plus(age) > now);
        self.stream.is_none() && !self.row.ended && !is_known
    }
}

impl Broker {
    /// Looks at the processes of the peers that `which` picks, unless that was done within `age`: before [`Peer::status`] is asked.
    pub(super) async fn look(&self, age: Duration, which: impl Fn(&Peer) -> bool) {
        let now = clock::now();
        let processes: Vec<Process> = {
            let roster = self.roster();
            let picked = roster.peers.values().filter(|peer| peer.needs_look(age, now) && which(peer));
            picked.flat_map(Peer::processes).collect()
        };
        if processes.is_empty() {
            return;
        }
        let lives: HashMap<Process, bool> = self.probes.processes.ask_all(processes).await;
        for peer in self.roster().peers.values_mut().filter(|peer| peer.needs_look(age, now)) {
            let known: Vec<bool> = peer.processes().filter_map(|process| lives.get(&process).copied()).collect();
            if !known.is_empty() {
                (peer.life.looked, peer.life.is_over) = (Some(now), known.contains(&false));
            }
        }
    }

    /// Whether these processes live.
    pub(super) async fn alive(&self, processes: impl IntoIterator<Item = Process>) -> HashMap<Process, bool> {
        self.probes.processes.ask_all(processes).await
    }

    /// How many peers are there now.
    pub async fn peer_count(&self) -> u32 {
        self.look(Duration::ZERO, |_| true).await;
        let now = clock::now();
        let count = self.roster().peers.values().filter(|peer| peer.status(now) != Status::Gone).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }
}
