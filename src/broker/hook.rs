//! The prompt hook of a session's client. It proves which messages were let in, and reports facts that only hooks know. For
//! instance, `/resume` and `/clear` change the session id of a running process; its hook reports the new one.
//!
//! A hook belongs to the session that its agent process runs; `serve` has verified that the hook descends from that process.

use super::{
    core::Broker,
    identity::{check_path, check_token, hash, session_key},
    names,
    roster::Roster,
};
use crate::{
    agents::shown,
    db::{Durability, PeerRow, peers},
    mailbox::{
        acknowledge, lease,
        release::{Rule, apply_rule},
        serve,
    },
    platform::clock,
    wire::{self, Code, Error, Git, Hook, Hooked, PeerId, Process, Status, Timestamp, text::printable_line},
};
use std::{path::Path, sync::Arc, time::Duration};

/// How many characters of a hook's problem are logged.
const LONGEST_PROBLEM: usize = 300;
/// How many messages one hook may prove.
const MOST_MESSAGES: usize = 1_000;
/// Claude Code's name for the permission mode without prompts. Every other mode, known or not, counts as prompting.
const BYPASS: &str = "bypassPermissions";

/// Whose hook runs.
#[derive(Debug, Clone)]
pub enum HookOf {
    /// The hook of the session that this agent process runs.
    Agent(Process),
    /// The session itself; its door reports what was shown.
    Peer(PeerId),
}

impl Broker {
    /// The peer that this agent process runs.
    pub fn peer_of(&self, agent: Process) -> Option<PeerId> {
        self.roster().by_agent(agent).map(|peer| peer.row.id.clone())
    }

    /// The session whose client gives its hooks this token. In a container no process counts, so the session itself does.
    pub fn hook_by_token(&self, token: &str, container: Option<&str>) -> Option<HookOf> {
        let hash = hash(token);
        let roster = self.roster();
        let is_of_token = |row: &PeerRow| row.hook_token == Some(hash) && row.container.as_deref() == container;
        let of_token = roster.peers.values().filter(|peer| is_of_token(&peer.row));
        let row = &of_token.max_by_key(|peer| (peer.stream.is_some(), peer.row.last_seen))?.row;
        match container {
            Some(_) => Some(HookOf::Peer(row.id.clone())),
            None => row.agent.map(HookOf::Agent),
        }
    }

    /// Handles a prompt hook. `of` is none if the hook could not prove whose it is.
    pub async fn hook(self: &Arc<Self>, of: Option<HookOf>, request: Hook) -> wire::Result<Hooked> {
        if let Some(problem) = &request.problem {
            let short = |text: &str| printable_line(text).chars().take(LONGEST_PROBLEM).collect::<String>();
            tracing::warn!(event = short(&request.event), "a hook says: {}", short(problem));
        }
        if request.messages.len() > MOST_MESSAGES {
            return Err(Error::new(Code::InvalidRequest, format!("more than {MOST_MESSAGES} messages in one prompt")));
        }
        let found = match of {
            Some(HookOf::Agent(agent)) => self.peer_of(agent).map(|id| (Some(agent), id)),
            Some(HookOf::Peer(id)) => Some((self.with_peer(&id, |peer| peer.row.agent)?, id)),
            None => None,
        };
        let Some((agent, mut id)) = found else { return Ok(Hooked { has_doorbell: false }) };
        if let Some(session) = &request.session_id {
            check_token("sessionId", session)?;
            let container = self.with_peer(&id, |peer| peer.row.container.clone())?;
            id = self.switch_session(session_key(container.as_deref(), session.clone()), id).await?;
        }
        let place = match request.cwd.clone() {
            Some(cwd) => self.place(&id, cwd).await?,
            None => None,
        };
        if let Some(row) = self.learn(&id, agent, place, &request) {
            self.note_hook(row, request).await?;
        }
        Ok(Hooked { has_doorbell: self.with_peer(&id, |peer| peer.doorbell.rings())? })
    }

    /// The session's new directory and its git facts, if the session has moved.
    async fn place(&self, id: &PeerId, cwd: String) -> wire::Result<Option<(String, Option<Git>)>> {
        check_path("cwd", &cwd)?;
        let Some(row) = self.roster().peers.get(id).map(|peer| peer.row.clone()).filter(|row| row.cwd != cwd) else {
            return Ok(None);
        };
        if row.container.is_some() {
            // Only the session can look there: a subfolder is in the same repository, of others nothing is known.
            let git = row.git.filter(|_| Path::new(&cwd).starts_with(&row.cwd));
            return Ok(Some((cwd, git)));
        }
        let git = self.probes.repositories.ask(cwd.clone()).await;
        Ok(Some((cwd, git.flatten())))
    }

    /// Updates the peer in memory, if `agent` still runs it.
    fn learn(
        &self,
        id: &PeerId,
        agent: Option<Process>,
        place: Option<(String, Option<Git>)>,
        request: &Hook,
    ) -> Option<PeerRow> {
        let mut roster = self.roster();
        let row = &mut roster.peers.get_mut(id).filter(|peer| peer.row.agent == agent)?.row;
        if let Some((cwd, git)) = place {
            (row.cwd, row.git) = (cwd, git);
        }
        if let Some(mode) = &request.permission_mode {
            row.bypasses = mode == BYPASS;
        }
        row.hooked = Some(row.agent_key());
        Some(row.clone())
    }

    /// Stores everything a hook has reported, in one transaction.
    async fn note_hook(self: &Arc<Self>, learned: PeerRow, request: Hook) -> wire::Result<()> {
        // A hook without messages only describes a process, which does not survive a power cut.
        let durability = if request.messages.is_empty() { Durability::Process } else { Durability::Fsync };
        let job = self.commit(durability, move |tx| {
            let Some(stored) = peers::get(tx, &learned.id)? else { return Ok(()) };
            let PeerRow { cwd, git, bypasses, hooked, .. } = learned;
            let row = PeerRow { cwd, git, bypasses, hooked, ..stored.clone() };
            if row != stored {
                peers::put(tx, &row)?;
            }
            acknowledge::prompt(tx, &row, request.messages, shown::is_brief)?;
            if request.is_complete {
                lease::end_hooks_leases(tx, &row.id)?;
            }
            if Rule::of(&row) == Rule::of(&stored) { Ok(()) } else { apply_rule(tx, &row) }
        });
        job.await
    }

    /// Handles a hook's report that the process serving `id` has switched to the conversation `session`. Returns the peer that
    /// the process serves from now on:
    /// - An unknown conversation (`/clear`, a branch) now belongs to `id`.
    /// - A conversation that runs elsewhere stays there; the process still serves `id`.
    /// - If the conversation's peer is gone (`/resume`), the process becomes that peer with its mailbox, and `id` is gone.
    pub(super) async fn switch_session(self: &Arc<Self>, session: String, id: PeerId) -> wire::Result<PeerId> {
        let ids = |roster: &Roster| roster.of_session(&session).iter().map(|peer| peer.row.id.clone()).collect::<Vec<_>>();
        let others = ids(&self.roster());
        if others.contains(&id) {
            return Ok(id);
        }
        self.look(Duration::ZERO, |peer| others.contains(&peer.row.id)).await;
        let now = clock::now();
        let moved = {
            let mut roster = self.roster();
            let others = ids(&roster);
            if others.contains(&id) {
                return Ok(id);
            }
            let moved = others.iter().find_map(|other| move_process(&mut roster, &id, other, now));
            if moved.is_none() && !others.is_empty() {
                return Ok(id);
            }
            if moved.is_none() {
                roster.put_session(session.clone(), id.clone());
            }
            moved
        };
        let Some((left, taken)) = moved else {
            let peer = id.clone();
            self.commit(Durability::Fsync, move |tx| Ok(peers::put_session(tx, &session, &peer, now)?)).await?;
            return Ok(id);
        };
        let other = taken.id.clone();
        let job = self.commit(Durability::Fsync, move |tx| {
            serve::leave(tx, &left)?;
            serve::serve(tx, &taken)
        });
        job.await?;
        self.changes.hint();
        let (left, taken) = {
            let roster = self.roster();
            (roster.called(&id), roster.called(&other))
        };
        tracing::info!(peer = %other, before = %id, "the session of {left} has switched to the conversation of {taken}");
        Ok(other)
    }
}

/// Makes the process that serves `from` serve `to`, if `to` is gone; returns the rows of both.
/// The process sees its stream end and registers again with the same secret.
fn move_process(roster: &mut Roster, from: &PeerId, to: &PeerId, now: Timestamp) -> Option<(PeerRow, PeerRow)> {
    let to = roster.peers.get(to).filter(|peer| peer.status(now) == Status::Gone)?.row.clone();
    let from = roster.peers.get_mut(from)?;
    let serving = from.row.clone();
    from.cut_off();
    let left = PeerRow {
        secret: None,
        instance: String::new(),
        process: None,
        agent: None,
        inbox: None,
        hook_token: None,
        last_seen: now,
        ended: true,
        ..serving.clone()
    };
    roster.put(left.clone());
    let taken = PeerRow {
        name: names::free(roster, &to.name, &to.id, to.container.as_deref(), now),
        id: to.id,
        proved: to.proved,
        summary: to.summary,
        summary_source: to.summary_source,
        registered_at: to.registered_at,
        last_seen: now,
        ended: false,
        ..serving
    };
    roster.put(taken.clone());
    Some((left, taken))
}
