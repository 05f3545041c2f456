//! Finds the session that a process belongs to.

use super::{
    core::{Broker, Caller},
    presence::LOOK,
};
use crate::{
    platform::{clock, process},
    wire::{self, Code, Error, PeerId, Process, Status, WhoAmI},
};
use std::collections::HashMap;

impl Broker {
    /// The peer that a process belongs to, found by its secret, its session id, or one of its ancestors.
    pub async fn whoami(&self, caller: &Caller, request: &WhoAmI) -> wire::Result<wire::Peer> {
        let found = match caller {
            Caller::Peer(id) => Some(id.clone()),
            Caller::User => match self.by_session(request.session_id.as_ref()).await {
                None => self.by_ancestor(request.pids.as_deref().unwrap_or_default()).await,
                found => found,
            },
        };
        let shown = match found {
            Some(id) => self.shown(|_| false, Some(&id)).await?.myself,
            None => None,
        };
        shown.ok_or_else(|| {
            Error::new(Code::PeerNotFound, "this process belongs to no session that is registered here")
                .help("run it inside a session of a coding agent that has the claude-peers MCP server")
        })
    }

    /// The present peer of this session, if there is exactly one.
    async fn by_session(&self, session: Option<&String>) -> Option<PeerId> {
        let ids: Vec<PeerId> = self.roster().of_session(session?).iter().map(|peer| peer.row.id.clone()).collect();
        self.look(LOOK, |peer| ids.contains(&peer.row.id)).await;
        let (roster, now) = (self.roster(), clock::now());
        let there = roster.of_session(session?).into_iter().filter(|peer| peer.status(now) != Status::Gone);
        match there.collect::<Vec<_>>().as_slice() {
            [one] => Some(one.row.id.clone()),
            _ => None,
        }
    }

    /// The peer of the first of these processes that runs one.
    async fn by_ancestor(&self, pids: &str) -> Option<PeerId> {
        let pids: Vec<u32> = pids.split(',').filter_map(|pid| pid.trim().parse().ok()).collect();
        let agents: Vec<(Process, PeerId)> = {
            let roster = self.roster();
            let of_agent = |agent: Process| pids.contains(&agent.pid).then_some(agent);
            let agents = roster.peers.values().filter_map(|peer| Some((of_agent(peer.row.agent?)?, peer.row.id.clone())));
            agents.collect()
        };
        let alive = self.probes.processes.ask_all(agents.iter().map(|(agent, _)| *agent)).await;
        let runs = |pid: &u32| agents.iter().find(|(agent, _)| agent.pid == *pid && alive.get(agent) == Some(&true));
        pids.iter().find_map(runs).map(|(_, id)| id.clone())
    }

    /// The session in which a process runs: that of the nearest registered agent process above it, as the kernel reports.
    pub fn session_of(&self, pid: impl FnOnce() -> Option<u32>) -> Option<PeerId> {
        // If the agent process is unknown, the process that started the MCP server counts as the agent. It counts only inside
        // another session: any program may have started a server on its own.
        let (mut some_run, mut unknown) = (false, Vec::new());
        for peer in self.roster().peers.values().filter(|peer| !peer.row.legacy) {
            some_run |= peer.row.agent.is_some();
            let server = peer.row.process.filter(|_| peer.row.agent.is_none() && !peer.row.ended);
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
            let agent = process::identify(above);
            if let Some(session) = agent.and_then(|agent| self.roster().by_agent(agent).map(|peer| peer.row.id.clone())) {
                return Some(visitor.unwrap_or(session));
            }
            visitor = visitor.or_else(|| visitors.get(&above).cloned());
        }
        None
    }
}
