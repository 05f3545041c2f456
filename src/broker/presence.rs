//! Presence. A peer with a stream is connected; for the others, the kernel tells whether their processes live. The kernel is
//! asked outside the lock, and its answer is reused for a moment.

use super::{core::Broker, peer::Peer};
use crate::{
    platform::clock,
    wire::{Process, Status},
};
use std::{collections::HashMap, time::Duration};

/// How long the result of a look at a living process is reused.
pub(super) const LOOK: Duration = Duration::from_millis(500);
/// How soon a peer without a stream is looked at again: only a look at its process shows that it is gone.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Broker {
    /// Looks at the processes of the peers that `which` picks, unless that was done within `age`. Comes before [`Peer::status`].
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

    /// The number of peers present now.
    pub async fn peer_count(&self) -> u32 {
        self.look(Duration::ZERO, |_| true).await;
        let now = clock::now();
        let count = self.roster().peers.values().filter(|peer| peer.status(now) != Status::Gone).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }
}
