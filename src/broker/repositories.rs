//! Which repositories are the same. On this machine those with the same git directory; across machines those that come from the same remote.
//!
//! What comes from one remote has one name everywhere: a digest of the remote's host and path. So the name is short, is no text of a
//! stranger, and tells nothing of the URL. Such names are looked up when they are needed and stored only for peers of other machines.

use super::{core::Broker, peer::Peer};
use crate::{
    platform::clock,
    wire::{self, AnnouncedPeer, Present, RepositoryName, Status},
};
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet};

impl Broker {
    /// The live peers of this machine, as other machines are told of them.
    pub async fn announcement(&self) -> wire::Result<Present> {
        let peers = self.shown(|row| row.machine.is_none(), None).await?.peers;
        let places = self.places();
        let names = self.names(places.values().cloned()).await;
        let told = |peer: wire::Peer| {
            let repository = places.get(&peer.id).and_then(|place| names.get(place)).cloned();
            AnnouncedPeer { peer: peer.into(), repository }
        };
        Ok(Present { peers: peers.into_iter().map(told).collect() })
    }

    /// The repository with this git directory, its clones on this machine, and its name on others.
    pub(super) async fn same_repository(&self, common_dir: String) -> HashSet<String> {
        let dirs = self.places().into_values().chain([common_dir.clone()]);
        let names = self.names(dirs).await;
        let name = names.get(&common_dir).cloned();
        let clones = names.into_iter().filter(|(_, other)| Some(other) == name.as_ref()).map(|(dir, _)| dir);
        clones.chain(name.iter().map(ToString::to_string)).chain([common_dir]).collect()
    }

    /// The git directories of the live peers of this machine, without those of containers: a path inside means nothing here.
    fn places(&self) -> HashMap<wire::PeerId, String> {
        let now = clock::now();
        let is_outside = |peer: &&Peer| peer.row.container.is_none() && peer.row.machine.is_none();
        let is_here = |peer: &&Peer| is_outside(peer) && peer.status(now) != Status::Gone;
        let place = |peer: &Peer| Some((peer.row.id.clone(), peer.row.git.as_ref()?.common_dir.clone()));
        self.roster().peers.values().filter(is_here).filter_map(place).collect()
    }

    /// The names of the repositories with these git directories, as far as they come from a remote.
    async fn names(&self, dirs: impl IntoIterator<Item = String>) -> HashMap<String, RepositoryName> {
        let sources = self.probes.sources.ask_all(dirs).await;
        sources.into_iter().filter_map(|(dir, source)| Some((dir, name(&source?)))).collect()
    }
}

/// The name of what comes from `source`.
fn name(source: &str) -> RepositoryName {
    let digest = Sha256::digest(source.as_bytes());
    RepositoryName::from(std::array::from_fn(|at| digest[at]))
}
