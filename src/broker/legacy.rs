//! Sessions that still run a legacy client, the MCP server of [`louislva/claude-peers-mcp`]. Each has a bare id without a secret,
//! is bound to the process that registered it, and polls for messages. These sessions and ours see each other.
//!
//! [`louislva/claude-peers-mcp`]: https://github.com/louislva/claude-peers-mcp

use super::{
    core::Broker,
    identity::{check_path, fresh_id, terminal},
    names,
    presence::LOOK,
};
use crate::{
    db::{Durability, PeerRow, peers},
    mailbox::{Message, poll},
    platform::{clock, process},
    wire::{self, Code, Error, PeerId, Process, SummarySource},
};
use serde::Deserialize;
use std::sync::Arc;

/// How many messages one answer to a poll may have; the next poll comes a second later.
const MOST_POLLED: u32 = 100;

/// A legacy client's description of its session.
#[derive(Debug, Clone, Deserialize)]
pub struct LegacyRegister {
    /// Its own process id.
    pub pid: u32,
    pub cwd: String,
    /// The top of its git worktree.
    pub git_root: Option<String>,
    pub tty: Option<String>,
    pub summary: Option<String>,
}

impl Broker {
    /// Registers a new session of a legacy client. `owner` is the process that connected, if the kernel can tell.
    pub async fn legacy_register(self: &Arc<Self>, request: LegacyRegister, owner: Option<u32>) -> wire::Result<PeerId> {
        check_path("cwd", &request.cwd)?;
        if let Some(root) = &request.git_root {
            check_path("git_root", root)?;
        }
        let summary = request.summary.unwrap_or_default();
        self.limits.check_summary(&summary)?;
        let place = request.git_root.as_ref().unwrap_or(&request.cwd).clone();
        let git = self.probes.repositories.ask(place).await.flatten();
        let pid = request.pid;
        let look = move || (bound_process(pid, owner), process::identify(pid));
        let (process, named) = tokio::task::spawn_blocking(look).await.unwrap_or_default();
        self.look(LOOK, |_| true).await; // gone peers free their names
        let now = clock::now();
        let row = {
            let mut roster = self.roster();
            let id = fresh_id(&roster);
            let name = names::free(&roster, &names::wish(git.as_ref(), &request.cwd), &id, None, now);
            let row = PeerRow {
                legacy: true,
                process,
                // Lists show the process id that it claims, as those of the legacy broker do.
                agent: named.or(Some(Process { pid, started: 0 })),
                git,
                tty: terminal(request.tty),
                summary_source: if summary.is_empty() { SummarySource::None } else { SummarySource::Session },
                summary,
                ..PeerRow::new(id, name, request.cwd, now)
            };
            roster.put(row.clone());
            row
        };
        let stored = row.clone();
        self.commit(Durability::Fsync, move |tx| Ok(peers::put(tx, &stored)?)).await?;
        self.changes.hint();
        tracing::info!(peer = %row.id, name = row.name, pid, "{} ({}) has registered through the legacy API, process {pid}", row.name, row.id);
        Ok(row.id)
    }

    /// Checks that a legacy client's session is known and is the caller, and records its sign of life. `owns` tells whether the
    /// connection belongs to a process, if the kernel can tell.
    pub fn legacy_peer(&self, id: &str, owns: impl FnOnce(Process) -> Option<bool>) -> wire::Result<PeerId> {
        let id: PeerId = id.parse()?;
        let (legacy, bound) = self.with_peer(&id, |peer| (peer.row.legacy, peer.row.process))?;
        let forbidden = |what| Err(Error::new(Code::Forbidden, what));
        if !legacy {
            return forbidden(format!("{id} is not a session of a legacy client; it proves itself with its secret"));
        }
        if bound.is_some_and(|process| owns(process) == Some(false)) {
            return forbidden(format!("{id} was registered by another process"));
        }
        let had_ended = self.with_peer(&id, |peer| {
            peer.row.last_seen = clock::now();
            std::mem::take(&mut peer.row.ended)
        })?;
        if had_ended {
            self.changes.hint();
        }
        Ok(id)
    }

    /// Handles a poll: marks the messages of the previous poll as delivered, and returns the waiting ones.
    pub async fn poll(self: &Arc<Self>, id: &PeerId) -> wire::Result<Vec<Message>> {
        if !self.store.glance(|view| poll::is_due(view, id))? {
            return Ok(Vec::new());
        }
        let peer = id.clone();
        self.commit(Durability::Fsync, move |tx| poll::poll(tx, &peer, MOST_POLLED)).await
    }
}

/// The process that a session is bound to: the one it claims, if that process or its descendant connected; otherwise the one that
/// connected.
fn bound_process(claimed: u32, owner: Option<u32>) -> Option<Process> {
    let bound = match owner {
        Some(owner) if owner != claimed && !process::ancestors(owner).contains(&claimed) => owner,
        _ => claimed,
    };
    process::identify(bound)
}
