//! The prompt hook of a session's client: it proves which messages were let in, and brings what only hooks know.
//!
//! A hook is of the session that its agent process runs; the edges have made sure that it descends from that process.

use super::{
    Broker, MessageChange,
    register::{check_path, check_token, hash},
};
use crate::{
    db,
    mailbox::outcomes,
    platform::{clock, git},
    wire::{self, Code, Error, Git, Hook, Hooked, MessageId, MessageState, PeerId, Process, Route, text::printable_line},
};
use std::path::Path;

/// Longest problem of a hook that the log repeats, in characters.
const LONGEST_PROBLEM: usize = 300;
/// Most messages that one hook proves.
const MOST_MESSAGES: usize = 1_000;
/// The permission mode that asks for nothing, as Claude Code names it. Every other one, known or not, counts as asking.
const BYPASS: &str = "bypassPermissions";

impl Broker {
    /// The peer that this agent process runs.
    pub fn peer_of(&self, host: Process) -> Option<PeerId> {
        self.state().by_host(host).map(|peer| peer.row.id.clone())
    }

    /// The agent process whose hooks are given this token by their client.
    pub fn host_by_token(&self, token: &str) -> Option<Process> {
        let hash = hash(token);
        let state = self.state();
        let of_token = state.peers.values().filter(|peer| peer.row.hook_token == Some(hash));
        of_token.max_by_key(|peer| (peer.link.is_some(), peer.row.last_seen)).and_then(|peer| peer.row.host)
    }

    /// A prompt hook runs, of the session that `host` runs.
    ///
    /// # Errors
    /// [`Code::InvalidRequest`], [`Code::InvalidPath`] for facts out of shape; the store's.
    pub async fn hook(&self, host: Option<Process>, request: Hook) -> wire::Result<Hooked> {
        if let Some(problem) = &request.problem {
            let short = |text: &str| printable_line(text).chars().take(LONGEST_PROBLEM).collect::<String>();
            tracing::warn!(event = short(&request.event), "a hook says: {}", short(problem));
        }
        if request.messages.len() > MOST_MESSAGES {
            return Err(Error::new(Code::InvalidRequest, format!("more than {MOST_MESSAGES} messages in one prompt")));
        }
        let Some((host, mut id)) = host.and_then(|host| Some((host, self.peer_of(host)?))) else { return Ok(Hooked {}) };
        if let Some(session) = request.session_id {
            check_token("sessionId", &session)?;
            id = self.turn_to(session, id).await?;
        }
        let place = match request.cwd {
            Some(cwd) => Some(self.place(&id, cwd).await?).flatten(),
            None => None,
        };
        let bypasses = request.permission_mode.map(|mode| mode == BYPASS);
        self.note_hook(&id, host, place, bypasses, request.messages).await?;
        Ok(Hooked {})
    }

    /// The directory that the session is in now, and what git says of it; none if it is where it was.
    async fn place(&self, id: &PeerId, cwd: String) -> wire::Result<Option<(String, Option<Git>)>> {
        check_path("cwd", &cwd)?;
        if self.state().peers.get(id).is_none_or(|peer| peer.row.cwd == cwd) {
            return Ok(None);
        }
        let directory = cwd.clone();
        let git = tokio::task::spawn_blocking(move || git::discover(Path::new(&directory))).await;
        Ok(Some((cwd, git.unwrap_or_default())))
    }

    /// Takes note of all that a hook has said, in one transaction.
    async fn note_hook(
        &self,
        id: &PeerId,
        host: Process,
        place: Option<(String, Option<Git>)>,
        bypasses: Option<bool>,
        messages: Vec<MessageId>,
    ) -> wire::Result<()> {
        let now = clock::now();
        let (row, rule_before) = {
            let mut state = self.state();
            let Some(peer) = state.peers.get_mut(id).filter(|peer| peer.row.host == Some(host)) else { return Ok(()) };
            let (before, rule) = (peer.row.clone(), peer.rule());
            let agent = peer.agent_key();
            if let Some((cwd, git)) = place {
                (peer.row.cwd, peer.row.git) = (cwd, git);
            }
            peer.row.bypasses = bypasses.unwrap_or(peer.row.bypasses);
            if !messages.is_empty() && !peer.has_proved() {
                peer.row.proved = Some((agent.clone(), now));
            }
            peer.row.hooked = Some(agent);
            ((peer.row != before).then(|| peer.row.clone()), rule)
        };
        let (peer, prompt) = (id.clone(), messages.clone());
        let let_in = if row.is_none() && messages.is_empty() {
            Vec::new()
        } else {
            let job = move |c: &rusqlite::Connection| {
                if let Some(row) = row {
                    db::peers::put(c, &row)?;
                }
                let mut let_in = Vec::new();
                for id in prompt {
                    let change = outcomes::let_in(c, &peer, &id, now)?;
                    let_in.extend(change.sender.map(|sender| (id, sender, change.waiting)));
                }
                Ok(let_in)
            };
            self.store.write(job).await?
        };
        let waited: i64 = let_in.iter().map(|(_, _, waiting)| waiting).sum();
        let rule = {
            let mut state = self.state();
            let Some(peer) = state.peers.get_mut(id) else { return Ok(()) };
            peer.waiting = peer.waiting.saturating_add_signed(i32::try_from(waited).unwrap_or_default());
            messages.iter().for_each(|id| peer.door.has_let_in(id));
            if messages.is_empty() {
                peer.door.prompted();
            }
            peer.wake(); // the next frame may be written
            peer.rule()
        };
        if rule != rule_before {
            self.apply_rule(id).await?;
        }
        let told = let_in.into_iter().map(|(message, sender, _)| {
            tracing::info!(message = %message, peer = %id, route = "inbox", "let in");
            MessageChange {
                id: message,
                from: PeerId::lenient(&sender),
                to: id.clone(),
                state: MessageState::Delivered,
                route: Some(Route::Inbox),
            }
        });
        self.changes.messages(told.collect::<Vec<_>>());
        Ok(())
    }
}
