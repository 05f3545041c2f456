//! Sessions that still run a legacy client, the MCP server of [`louislva/claude-peers-mcp`]: known by a bare id, bound to the
//! process that registered them, and fetching by polls. They and our own sessions see each other.
//!
//! [`louislva/claude-peers-mcp`]: https://github.com/louislva/claude-peers-mcp

use super::{
    core::{Broker, unknown_peer},
    identity::{check_path, fresh_id},
    names,
    presence::LOOK,
};
use crate::{
    db::peers::{self, PeerRow},
    mailbox::{Effects, Message, poll},
    platform::{clock, process},
    wire::{self, Code, Error, PeerId, Process, SummarySource},
};
use std::sync::Arc;

/// Most messages in one answer to a poll; the next poll comes a second later.
const MOST_POLLED: u32 = 100;

/// How a legacy client describes its session.
#[derive(Debug, Clone)]
pub struct LegacyRegister {
    /// Its own process id.
    pub pid: u32,
    pub cwd: String,
    /// The top of its git worktree.
    pub git_root: Option<String>,
    pub tty: Option<String>,
    pub summary: String,
}

impl Broker {
    /// A new session of a legacy client. `owner` is the process the kernel saw connecting, if it could tell.
    pub async fn legacy_register(self: &Arc<Self>, request: LegacyRegister, owner: Option<u32>) -> wire::Result<PeerId> {
        check_path("cwd", &request.cwd)?;
        if let Some(root) = &request.git_root {
            check_path("git_root", root)?;
        }
        self.limits.check_summary(&request.summary)?;
        let place = request.git_root.as_ref().unwrap_or(&request.cwd).clone();
        let git = self.probes.repositories.ask(place).await.flatten();
        let pid = request.pid;
        let look = move || (bound_process(pid, owner), process::identify(pid));
        let (process, named) = tokio::task::spawn_blocking(look).await.unwrap_or_default();
        self.look(LOOK, |_| true).await; // for the name
        let now = clock::now();
        let row = {
            let mut roster = self.roster();
            let id = fresh_id(&roster);
            let name = names::free(&roster, &names::wish(git.as_ref(), &request.cwd), &id, now);
            let row = PeerRow {
                legacy: true,
                process,
                // Lists show the number that it claims, as those of its own broker do.
                agent: named.or(Some(Process { pid, started: 0 })),
                git,
                tty: request.tty,
                summary_source: if request.summary.is_empty() { SummarySource::None } else { SummarySource::Session },
                summary: request.summary,
                ..PeerRow::new(id, name, request.cwd, now)
            };
            roster.put(row.clone());
            row
        };
        let stored = row.clone();
        self.commit(move |tx| Ok((peers::put(tx, &stored)?, Effects::default()))).await?;
        self.changes.hint();
        tracing::info!(peer = %row.id, name = row.name, pid, "registered through the legacy API");
        Ok(row.id)
    }

    /// Checks that a legacy client's session is known and that this caller is it, and notes its sign of life. `owns` says
    /// whether the connection belongs to a process, where the kernel can tell.
    pub fn legacy_peer(&self, id: &str, owns: impl FnOnce(Process) -> Option<bool>) -> wire::Result<PeerId> {
        let id: PeerId = id.parse()?;
        let bound = {
            let roster = self.roster();
            let peer = roster.peers.get(&id).ok_or_else(|| unknown_peer(&id))?;
            if !peer.row.legacy {
                let what = format!("{id} is not a session of a legacy client; it proves itself with its secret");
                return Err(Error::new(Code::Forbidden, what));
            }
            peer.row.process
        };
        if bound.is_some_and(|process| owns(process) == Some(false)) {
            return Err(Error::new(Code::Forbidden, format!("{id} was registered by another process")));
        }
        if let Some(peer) = self.roster().peers.get_mut(&id) {
            peer.row.last_seen = clock::now();
            if std::mem::take(&mut peer.row.ended) {
                self.changes.hint();
            }
        }
        Ok(id)
    }

    /// A poll: what the poll before handed out has arrived; returns what waits.
    pub async fn poll(self: &Arc<Self>, id: &PeerId) -> wire::Result<Vec<Message>> {
        if !self.store.glance(|view| poll::is_due(view, id))? {
            return Ok(Vec::new());
        }
        let (peer, now) = (id.clone(), clock::now());
        self.commit(move |tx| Ok(poll::poll(tx, &peer, MOST_POLLED, now)?)).await
    }
}

/// The process that a session is bound to: the one it names, if that is the one that connected or one that started it;
/// else the one that connected, whatever it says of itself.
fn bound_process(claimed: u32, owner: Option<u32>) -> Option<Process> {
    let bound = match owner {
        Some(owner) if owner != claimed && !process::ancestors(owner).contains(&claimed) => owner,
        _ => claimed,
    };
    process::identify(bound)
}
