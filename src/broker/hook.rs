//! The prompt hook of a session's client: it proves which messages were let in, and brings what only hooks know.
//!
//! A hook is of the session that its agent process runs; the edges have made sure that it descends from that process.

use super::{
    core::Broker,
    identity::{check_path, check_token, hash},
};
use crate::{
    db::peers::{self, PeerRow},
    mailbox::{
        acknowledge,
        release::{Rule, apply_rule},
    },
    platform::clock,
    wire::{self, Code, Error, Git, Hook, Hooked, PeerId, Process, text::printable_line},
};
use std::sync::Arc;

/// Longest problem of a hook that the log repeats, in characters.
const LONGEST_PROBLEM: usize = 300;
/// Most messages that one hook proves.
const MOST_MESSAGES: usize = 1_000;
/// The permission mode that asks for nothing, as Claude Code names it. Every other one, known or not, counts as asking.
const BYPASS: &str = "bypassPermissions";

impl Broker {
    /// The peer that this agent process runs.
    pub fn peer_of(&self, agent: Process) -> Option<PeerId> {
        self.roster().by_agent(agent).map(|peer| peer.row.id.clone())
    }

    /// The agent process whose hooks are given this token by their client.
    pub fn agent_by_token(&self, token: &str) -> Option<Process> {
        let hash = hash(token);
        let roster = self.roster();
        let of_token = roster.peers.values().filter(|peer| peer.row.hook_token == Some(hash));
        of_token.max_by_key(|peer| (peer.stream.is_some(), peer.row.last_seen)).and_then(|peer| peer.row.agent)
    }

    /// A prompt hook runs, of the session that `agent` runs.
    pub async fn hook(self: &Arc<Self>, agent: Option<Process>, request: Hook) -> wire::Result<Hooked> {
        if let Some(problem) = &request.problem {
            let short = |text: &str| printable_line(text).chars().take(LONGEST_PROBLEM).collect::<String>();
            tracing::warn!(event = short(&request.event), "a hook says: {}", short(problem));
        }
        if request.messages.len() > MOST_MESSAGES {
            return Err(Error::new(Code::InvalidRequest, format!("more than {MOST_MESSAGES} messages in one prompt")));
        }
        let Some((agent, mut id)) = agent.and_then(|agent| Some((agent, self.peer_of(agent)?))) else { return Ok(Hooked {}) };
        if let Some(session) = &request.session_id {
            check_token("sessionId", session)?;
            id = self.switch_session(session.clone(), id).await?;
        }
        let place = match request.cwd.clone() {
            Some(cwd) => self.place(&id, cwd).await?,
            None => None,
        };
        if let Some(row) = self.learn(&id, agent, place, &request) {
            self.note_hook(row, request).await?;
        }
        Ok(Hooked {})
    }

    /// The directory that the session is in now, and what git says of it; none if it is where it was.
    async fn place(&self, id: &PeerId, cwd: String) -> wire::Result<Option<(String, Option<Git>)>> {
        check_path("cwd", &cwd)?;
        if self.roster().peers.get(id).is_none_or(|peer| peer.row.cwd == cwd) {
            return Ok(None);
        }
        let git = self.probes.repositories.ask(cwd.clone()).await;
        Ok(Some((cwd, git.flatten())))
    }

    /// Updates the peer in memory; none if another process runs it by now.
    fn learn(&self, id: &PeerId, agent: Process, place: Option<(String, Option<Git>)>, request: &Hook) -> Option<PeerRow> {
        let mut roster = self.roster();
        let row = &mut roster.peers.get_mut(id).filter(|peer| peer.row.agent == Some(agent))?.row;
        if let Some((cwd, git)) = place {
            (row.cwd, row.git) = (cwd, git);
        }
        if let Some(mode) = &request.permission_mode {
            row.bypasses = mode == BYPASS;
        }
        row.hooked = Some(row.agent_key());
        Some(row.clone())
    }

    /// Takes note of all that a hook has said, in one transaction.
    async fn note_hook(self: &Arc<Self>, learned: PeerRow, request: Hook) -> wire::Result<()> {
        let (now, proves) = (clock::now(), !request.messages.is_empty());
        let job = move |tx: &crate::db::Tx<'_>| {
            let Some(stored) = peers::get(tx, &learned.id)? else { return Ok(Default::default()) };
            let PeerRow { cwd, git, bypasses, hooked, .. } = learned;
            let row = PeerRow { cwd, git, bypasses, hooked, ..stored.clone() };
            if row != stored {
                peers::put(tx, &row)?;
            }
            let mut effects = acknowledge::prompt(tx, &row, request.messages, now)?;
            if Rule::of(&row) != Rule::of(&stored) {
                effects = effects.and(apply_rule(tx, &row, now)?);
            }
            Ok(((), effects))
        };
        // A hook without messages describes a process that no power cut leaves alive.
        if proves { self.commit(job).await } else { self.note(job).await }
    }
}
