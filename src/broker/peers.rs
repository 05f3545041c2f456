//! Lists of the peers in a scope.

use super::{
    core::{Broker, Caller},
    identity::check_path,
    peer::Peer,
};
use crate::{
    db::PeerRow,
    mailbox::history,
    platform::clock,
    wire::{self, Activity, Code, Doing, Error, ListPeers, PeerId, Peers, Scope, Status, Timestamp},
};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    path::{Path, PathBuf},
    time::Duration,
};

/// What a session does whose user has left, as far as anybody sees.
const UNATTENDED: Activity = Activity { doing: Doing::Unattended, since: None, needs: None };

impl Broker {
    /// The live peers in a scope, by name, without the caller.
    pub async fn list(&self, caller: &Caller, request: &ListPeers) -> wire::Result<Peers> {
        let me = caller.peer();
        let scope = request.scope.parse()?;
        let in_scope = self.in_scope(me, scope, request.cwd.as_deref()).await?;
        let mut shown = self.shown(|row| Some(&row.id) != me && in_scope(row), me).await?;
        if matches!(scope, Scope::Everywhere | Scope::RepoEverywhere) {
            let roster = self.roster();
            shown.machines = roster.linked(clock::now());
            shown.linked = (!shown.machines.is_empty()).then(|| roster.gateway.is_attended());
        }
        Ok(shown)
    }

    /// A test for peers in `scope`, relative to `cwd` or, by default, to the directory of `me`.
    pub(super) async fn in_scope(
        &self,
        me: Option<&PeerId>,
        scope: Scope,
        cwd: Option<&str>,
    ) -> wire::Result<impl Fn(&PeerRow) -> bool + use<>> {
        let own = me.and_then(|id| self.roster().peers.get(id).map(|peer| peer.row.clone()));
        let container = own.as_ref().and_then(|own| own.container.clone());
        let own = own.map(|own| (own.cwd, own.git));
        let (cwd, git) = match (cwd, own) {
            (Some(cwd), _) => {
                check_path("cwd", cwd)?;
                let looks = matches!(scope, Scope::Repo | Scope::RepoEverywhere) && container.is_none(); // a path inside a container means nothing here
                let git = if looks { self.probes.repositories.ask(cwd.to_owned()).await.flatten() } else { None };
                (cwd.to_owned(), git)
            }
            (None, Some(own)) => own,
            (None, None) if [Scope::Machine, Scope::Everywhere].contains(&scope) => Default::default(),
            (None, None) => {
                let what = format!("scope {:?} needs to know the directory it is seen from", scope.as_str());
                return Err(Error::new(Code::InvalidRequest, what).help("give cwd"));
            }
        };
        let has_repository = git.is_some();
        let repository: HashSet<String> = match git.map(|git| git.common_dir) {
            Some(common_dir) if scope == Scope::RepoEverywhere && container.is_none() => self.same_repository(common_dir).await,
            common_dir => common_dir.into_iter().collect(),
        };
        let is_in_repository = move |row: &PeerRow| row.git.as_ref().is_some_and(|git| repository.contains(&git.common_dir));
        Ok(move |row: &PeerRow| match scope {
            Scope::Everywhere => true,
            Scope::RepoEverywhere if row.machine.is_some() => is_in_repository(row),
            _ if row.machine.is_some() => false,
            Scope::Machine => true,
            _ if row.container != container => false,
            Scope::Repo | Scope::RepoEverywhere if has_repository => is_in_repository(row),
            Scope::Directory | Scope::Repo | Scope::RepoEverywhere => row.cwd == cwd,
        })
    }

    /// The live peers that `wanted` picks, and `me`, as lists show them: each with its current branch. If a lookup takes too
    /// long, the last known branch is shown.
    pub(super) async fn shown(&self, wanted: impl Fn(&PeerRow) -> bool, me: Option<&PeerId>) -> wire::Result<Peers> {
        let picked = |peer: &Peer| Some(&peer.row.id) == me || wanted(&peer.row);
        tokio::join!(self.look(Duration::ZERO, picked), self.look_for_users(picked));
        let waiting = self.store.read(history::waiting_by_peer).await?;
        let now = clock::now();
        let mut shown: Vec<(wire::Peer, Sources)> = {
            let roster = self.roster();
            let there = |peer: &&Peer| Some(&peer.row.id) == me || peer.status(now) != Status::Gone;
            let listed = |peer: &Peer| (as_listed(peer, &waiting, now), Sources::of(peer));
            roster.peers.values().filter(|peer| picked(peer)).filter(there).map(listed).collect()
        };
        let (branches, activities) = tokio::join!(
            self.probes.branches.ask_all(shown.iter().filter_map(|(_, sources)| sources.head.clone())),
            self.probes.activities.ask_all(shown.iter().filter_map(|(_, sources)| sources.status_file.clone())),
        );
        for (peer, sources) in &mut shown {
            if peer.activity.is_none() {
                peer.activity = sources.status_file.as_ref().and_then(|file| activities.get(file).cloned()).flatten();
            }
            if let Some(Some(branch)) = sources.head.as_ref().and_then(|head| branches.get(head)) {
                peer.git_branch.clone_from(branch);
            }
        }
        let (myself, mut peers): (Vec<_>, Vec<_>) =
            shown.into_iter().map(|(peer, _)| peer).partition(|peer| Some(&peer.id) == me);
        peers.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        Ok(Peers { peers, myself: myself.into_iter().next(), machines: Vec::new(), linked: None })
    }

    /// The files in which agents say what their sessions do.
    pub(super) fn status_files(&self) -> BTreeSet<String> {
        self.roster().peers.values().filter_map(|peer| peer.status_file.clone()).collect()
    }

    /// The folders in which agents say what their sessions do, as far as they could be read lately.
    pub(super) fn status_folders(&self) -> HashSet<PathBuf> {
        let roster = self.roster();
        let files = roster.peers.values().filter_map(|peer| peer.status_file.as_ref());
        let read = files.filter(|file| matches!(self.probes.activities.known(file), Some(Some(_))));
        read.filter_map(|file| Some(Path::new(file).parent()?.to_owned())).collect()
    }

    /// The top folders of these peers' worktrees, for lists of the legacy API. Lookups that take too long are left out.
    pub async fn git_roots(&self, peers: impl Iterator<Item = &wire::Peer>) -> HashMap<String, String> {
        let tops = self.probes.tops.ask_all(peers.filter(|peer| peer.container.is_none()).map(|peer| peer.cwd.clone())).await;
        tops.into_iter().filter_map(|(cwd, top)| Some((cwd, top?.to_string_lossy().into_owned()))).collect()
    }
}

/// Where to look for what a list shows as it is now.
struct Sources {
    head: Option<String>,
    status_file: Option<String>,
}

impl Sources {
    fn of(peer: &Peer) -> Self {
        let row = &peer.row;
        let git = row.git.as_ref().filter(|_| row.container.is_none() && row.machine.is_none());
        Self { head: git.map(|git| git.head.clone()), status_file: peer.status_file.clone() }
    }
}

fn as_listed(peer: &Peer, waiting: &HashMap<PeerId, u32>, now: Timestamp) -> wire::Peer {
    let row = &peer.row;
    let status = peer.status(now);
    let (delivery, delivery_reason) = peer.delivery();
    wire::Peer {
        id: row.id.clone(),
        name: row.name.clone(),
        cwd: row.cwd.clone(),
        git_repo: row.git.as_ref().map(|git| git.repo.clone()),
        git_branch: row.git.as_ref().and_then(|git| git.branch.clone()),
        summary: row.summary.clone(),
        last_seen: if status == Status::Connected && !row.legacy && row.machine.is_none() { now } else { row.last_seen },
        status,
        delivery,
        delivery_reason,
        agent: row.kind.clone(),
        activity: peer.attended.is_away().then_some(UNATTENDED),
        waiting: waiting.get(&row.id).copied().unwrap_or_default(),
        pid: row.agent.or(row.process).map(|process| process.pid),
        tty: row.tty.clone(),
        container: row.container.clone(),
        machine: row.machine.as_ref().map(ToString::to_string),
        registered_at: row.registered_at,
    }
}
