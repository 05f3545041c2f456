//! Sessions that still run the reference's MCP server: known by a bare id, bound to the process that registered them, and
//! fetching by polls. They and our own sessions see each other.

use super::{Broker, MessageChange, names, register::check_path, roster};
use crate::{
    db::{self, peers::PeerRow},
    mailbox,
    mailbox::messages::Message,
    platform::{clock, git, process, random},
    wire::{self, Code, DeliveryChoice, Error, InboundRule, MessageState, PeerId, Process, Route, SummarySource},
};
use std::path::Path;

/// Most messages in one answer to a poll; the next poll comes a second later.
const MOST_POLLED: u32 = 100;

/// What a session of the reference says of itself.
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
    /// A new session of the reference. `owner` is the process the kernel saw connecting, if it could tell.
    ///
    /// # Errors
    /// [`Code::InvalidPath`], [`Code::TooLarge`]; the store's.
    pub async fn legacy_register(&self, request: LegacyRegister, owner: Option<u32>) -> wire::Result<PeerId> {
        check_path("cwd", &request.cwd)?;
        if let Some(root) = &request.git_root {
            check_path("git_root", root)?;
        }
        self.limits.check_summary(&request.summary)?;
        let now = clock::now();
        let git = git::discover(Path::new(request.git_root.as_deref().unwrap_or(&request.cwd)));
        let row = {
            let mut state = self.state();
            let id =
                std::iter::repeat_with(random::peer_id).find(|id| !state.peers.contains_key(id)).unwrap_or_else(random::peer_id);
            let row = PeerRow {
                name: names::free(&state, &names::wish(git.as_ref(), &request.cwd), &id, now),
                id,
                legacy: true,
                secret: None,
                instance: String::new(),
                process: bound_process(request.pid, owner),
                // The number it claims is what lists show, as the reference's do.
                host: process::identify(request.pid).or(Some(Process { pid: request.pid, started: 0 })),
                cwd: request.cwd,
                git,
                tty: request.tty,
                channel: false,
                delivery: DeliveryChoice::Auto,
                proved: None,
                summary_source: if request.summary.is_empty() { SummarySource::None } else { SummarySource::Session },
                summary: request.summary,
                registered_at: now,
                last_seen: now,
                ended: false,
                inbox: None,
                bypasses: false,
                inbound: InboundRule::default(),
                hooked: None,
                hook_token: None,
                hook_proves_all: false,
            };
            state.put(row.clone());
            row
        };
        let stored = row.clone();
        self.store.write(move |c| Ok(db::peers::put(c, &stored)?)).await?;
        self.changes.hint();
        tracing::info!(peer = %row.id, name = row.name, pid = request.pid, "registered through the reference's API");
        Ok(row.id)
    }

    /// Checks that a session of the reference is known and that this caller is it, and notes its sign of life. `owns` says
    /// whether the connection belongs to a process, where the kernel can tell.
    ///
    /// # Errors
    /// [`Code::PeerNotFound`] for an id never seen, [`Code::Forbidden`] for somebody else's.
    pub fn legacy_peer(&self, id: &str, owns: impl FnOnce(Process) -> Option<bool>) -> wire::Result<PeerId> {
        let id: PeerId = id.parse()?;
        let bound = {
            let state = self.state();
            let peer = state.peers.get(&id).ok_or_else(|| self.unknown_peer(&id))?;
            if !peer.row.legacy {
                let what = format!("{id} is not a session of the reference system; it proves itself with its secret");
                return Err(Error::new(Code::Forbidden, what));
            }
            peer.row.process
        };
        if bound.is_some_and(|process| owns(process) == Some(false)) {
            return Err(Error::new(Code::Forbidden, format!("{id} was registered by another process")));
        }
        if let Some(peer) = self.state().peers.get_mut(&id) {
            peer.row.last_seen = clock::now();
            if std::mem::take(&mut peer.row.ended) {
                self.changes.hint();
            }
        }
        Ok(id)
    }

    /// A poll: what the poll before handed out has arrived; gives what waits.
    pub async fn poll(&self, id: &PeerId) -> wire::Result<Vec<Message>> {
        let nothing_to_do = |peer: &roster::Peer| peer.waiting == 0 && !peer.polled;
        if self.state().peers.get(id).is_some_and(nothing_to_do) {
            return Ok(Vec::new());
        }
        let (peer, now) = (id.clone(), clock::now());
        let (arrived, messages) = self.store.write(move |c| Ok(mailbox::outcomes::poll(c, &peer, MOST_POLLED, now)?)).await?;
        if let Some(peer) = self.state().peers.get_mut(id) {
            peer.waiting = peer.waiting.saturating_sub(u32::try_from(messages.len()).unwrap_or(u32::MAX));
            peer.polled = !messages.is_empty();
        }
        let to = id;
        let change = |id, from: &str, state| MessageChange {
            id,
            from: PeerId::lenient(from),
            to: to.clone(),
            state,
            route: Some(Route::Poll),
        };
        let arrived = arrived.into_iter().map(|(id, from)| change(id, &from, MessageState::Delivered));
        self.changes.messages(arrived.chain(messages.iter().map(|m| change(m.id.clone(), &m.from, MessageState::Offered))));
        Ok(messages)
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
