//! Who is there, and who am I.

use super::{Broker, Caller, register::check_path, roster};
use crate::mailbox;
use crate::{
    db::peers::PeerRow,
    platform::{clock, git, process},
    wire::{
        self, API, BrokerStatus, Code, DatabaseStatus, Error, ListPeers, ListenerStatus, Peer, PeerId, Peers, Scope, Status,
        Timestamp, VERSION, WhoAmI,
    },
};
use std::{collections::HashMap, path::Path};

/// Where a list is seen from.
struct View {
    cwd: Option<String>,
    common_dir: Option<String>,
}

impl Broker {
    /// The live peers in a scope, by name; the caller left out.
    ///
    /// # Errors
    /// [`Code::UnknownScope`], [`Code::InvalidPath`]; a missing `cwd` where the scope needs one.
    pub async fn list(&self, caller: &Caller, request: &ListPeers) -> wire::Result<Peers> {
        let me = match caller {
            Caller::Peer(id) => Some(id),
            Caller::User => None,
        };
        let in_scope = self.in_scope(me, request.scope.parse()?, request.cwd.as_deref())?;
        Ok(self.shown(|row| Some(&row.id) != me && in_scope(row), me).await)
    }

    /// What tells the peers in `scope`, as seen from `cwd`, by default from where `me` is.
    ///
    /// # Errors
    /// [`Code::InvalidPath`]; a missing `cwd` where the scope needs one.
    pub(super) fn in_scope(
        &self,
        me: Option<&PeerId>,
        scope: Scope,
        cwd: Option<&str>,
    ) -> wire::Result<impl Fn(&PeerRow) -> bool + use<>> {
        if let Some(cwd) = cwd {
            check_path("cwd", cwd)?;
        }
        let own = me.and_then(|id| self.state().peers.get(id).map(|peer| peer.row.clone()));
        let view = match (cwd, own) {
            (Some(cwd), _) => {
                View { common_dir: git::discover(Path::new(cwd)).map(|git| git.common_dir), cwd: Some(cwd.to_owned()) }
            }
            (None, Some(row)) => View { common_dir: row.git.map(|git| git.common_dir), cwd: Some(row.cwd) },
            (None, None) => View { cwd: None, common_dir: None },
        };
        if view.cwd.is_none() && scope != Scope::Machine {
            let what = format!("scope {:?} needs to know the directory it is seen from", scope.as_str());
            return Err(Error::new(Code::InvalidRequest, what).help("give cwd"));
        }
        Ok(move |row: &PeerRow| match (scope, &view.common_dir) {
            (Scope::Machine, _) => true,
            (Scope::Repo, Some(common)) => row.git.as_ref().is_some_and(|git| git.common_dir == *common),
            (Scope::Directory, _) | (Scope::Repo, None) => Some(&row.cwd) == view.cwd.as_ref(),
        })
    }

    /// The live peers that `wanted` picks, and `me`, as lists show them. Reads each peer's branch and process afresh, off
    /// the threads that serve requests: files may lie on slow disks.
    async fn shown(&self, wanted: impl Fn(&PeerRow) -> bool, me: Option<&PeerId>) -> Peers {
        let now = clock::now();
        let (mut peers, mut myself) = (Vec::new(), None);
        {
            let state = self.state();
            for peer in state.peers.values() {
                if Some(&peer.row.id) == me {
                    myself = Some((as_listed(peer, now), peer.row.git.clone()));
                } else if wanted(&peer.row) && peer.status(now) != Status::Gone {
                    peers.push((as_listed(peer, now), peer.row.git.clone()));
                }
            }
        }
        let refresh = move || {
            let branch = |(peer, git): (Peer, Option<wire::Git>)| match git {
                Some(git) if Path::new(&git.head).exists() => Peer { git_branch: git::branch(Path::new(&git.head)), ..peer },
                _ => peer,
            };
            let mut peers: Vec<Peer> = peers.into_iter().map(branch).collect();
            peers.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
            Peers { peers, myself: myself.map(branch) }
        };
        match tokio::task::spawn_blocking(refresh).await {
            Ok(peers) => peers,
            Err(error) => {
                tracing::error!(%error, "reading the peers' branches failed");
                Peers { peers: Vec::new(), myself: None }
            }
        }
    }

    /// Which peer a process belongs to: by its secret, its session id, or an ancestor of it.
    ///
    /// # Errors
    /// [`Code::PeerNotFound`] if it belongs to none.
    pub async fn whoami(&self, caller: &Caller, request: &WhoAmI) -> wire::Result<Peer> {
        let pids: Vec<u32> =
            request.pids.iter().flat_map(|pids| pids.split(',')).filter_map(|pid| pid.trim().parse().ok()).collect();
        let now = clock::now();
        let found = {
            let state = self.state();
            let live = |id: &PeerId| state.peers.get(id).is_some_and(|peer| peer.status(now) != Status::Gone);
            let by_session =
                || request.session_id.as_ref().and_then(|session| state.sessions.get(session)).filter(|id| live(id)).cloned();
            let by_process = || {
                let host_of = |pid: &u32| {
                    let runs =
                        |peer: &&roster::Peer| peer.row.host.is_some_and(|host| host.pid == *pid && process::is_alive(host));
                    state.peers.values().find(runs).map(|peer| peer.row.id.clone())
                };
                pids.iter().find_map(host_of)
            };
            match caller {
                Caller::Peer(id) => Some(id.clone()),
                Caller::User => by_session().or_else(by_process),
            }
        };
        let id = found.ok_or_else(|| {
            Error::new(Code::PeerNotFound, "this process belongs to no session that is registered here")
                .help("run it inside a Claude Code session that has the claude-peers MCP server")
        })?;
        self.shown(|_| false, Some(&id)).await.myself.ok_or_else(|| self.unknown_peer(&id))
    }

    /// The session inside of which a process runs: the nearest agent above it that has registered, by the kernel's word.
    pub fn session_of(&self, pid: impl FnOnce() -> Option<u32>) -> Option<PeerId> {
        // An agent whose process we do not know is the one that started its MCP server. It counts only inside another session:
        // anything may have started a server that stands alone.
        let (mut some_run, mut unknown) = (false, Vec::new());
        for peer in self.state().peers.values().filter(|peer| !peer.row.legacy) {
            some_run |= peer.row.host.is_some();
            let server = peer.row.process.filter(|_| peer.row.host.is_none() && !peer.row.ended);
            unknown.extend(server.map(|server| (server, peer.row.id.clone())));
        }
        if !some_run {
            return None;
        }
        let pid = pid()?;
        let visitors: HashMap<u32, PeerId> = unknown
            .into_iter()
            .filter(|(server, _)| process::is_alive(*server))
            .filter_map(|(server, id)| Some((*process::ancestors(server.pid).first()?, id)))
            .collect();
        let mut visitor = None;
        for above in process::ancestors(pid) {
            let host = process::identify(above);
            if let Some(session) = host.and_then(|host| self.state().by_host(host).map(|peer| peer.row.id.clone())) {
                return Some(visitor.unwrap_or(session));
            }
            visitor = visitor.or_else(|| visitors.get(&above).cloned());
        }
        None
    }

    /// The top of a peer's worktree as the reference's lists show it: where its `HEAD`'s `.git` lies.
    pub fn git_root(&self, id: &PeerId) -> Option<String> {
        let cwd = self.state().peers.get(id)?.row.cwd.clone();
        let top = Path::new(&cwd).ancestors().find(|top| top.join(".git").exists())?;
        Some(top.to_string_lossy().into_owned())
    }

    /// How many peers are there now.
    pub fn peer_count(&self) -> u32 {
        let now = clock::now();
        let count = self.state().peers.values().filter(|peer| peer.status(now) != Status::Gone).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// The broker's state; `listeners` is what the edges know of their sockets.
    pub async fn status(&self, listeners: Vec<ListenerStatus>) -> wire::Result<BrokerStatus> {
        let messages = self.store.read(|c| Ok(mailbox::history::stored(c)?)).await?;
        let notices = self.notices.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        Ok(BrokerStatus {
            version: VERSION.to_owned(),
            api: API,
            pid: std::process::id(),
            started_at: self.started_at,
            peers: self.peer_count(),
            listeners,
            database: DatabaseStatus {
                path: self.store.path().to_string_lossy().into_owned(),
                bytes: self.store.size(),
                waiting: self.waiting_count(),
                messages,
            },
            notices,
        })
    }
}

fn as_listed(peer: &roster::Peer, now: Timestamp) -> Peer {
    let row = &peer.row;
    let status = peer.status(now);
    let (delivery, delivery_reason) = peer.delivery();
    Peer {
        id: row.id.clone(),
        name: row.name.clone(),
        cwd: row.cwd.clone(),
        git_repo: row.git.as_ref().map(|git| git.repo.clone()),
        git_branch: row.git.as_ref().and_then(|git| git.branch.clone()),
        summary: row.summary.clone(),
        last_seen: if status == Status::Connected && !row.legacy { now } else { row.last_seen },
        status,
        delivery,
        delivery_reason,
        waiting: peer.waiting,
        pid: row.host.or(row.process).map(|process| process.pid),
        tty: row.tty.clone(),
        registered_at: row.registered_at,
    }
}
