//! Who a session is: the same peer after a reconnect, a restart of the broker, `/clear` and `--resume`.
//!
//! `/clear` keeps the process and changes the session id; `--resume` keeps the id and changes the process. So neither alone
//! identifies a session, and a registration is matched, in this order, by
//! 1. the secret of an earlier registration (the same process reconnects), or the process with its own name for itself (the
//!    answer with the secret was lost: the broker was killed behind the commit);
//! 2. the session id, unless that peer is alive in another Claude process (a second `--resume` beside the first is a
//!    session of its own);
//! 3. the Claude process, if the process that served it is gone (the MCP server was restarted after a `/clear`).
//!
//! `/resume` and `/clear` change the session id under a process that goes on; its hook tells ([`Broker::turn_to`]).

use super::{Broker, door::Door, names, roster::Roster};
use crate::{
    db::{self, peers::PeerRow},
    mailbox,
    mailbox::holds::Rule,
    platform::{clock, process, random},
    wire::{
        self, Code, Error, PeerId, Process, Register, Registered, Status, SummarySource, Timestamp, VERSION, text::printable_line,
    },
};
use sha2::{Digest, Sha256};

/// Length of a secret: 31³² possibilities.
const SECRET_LENGTH: usize = 32;
/// Longest instance name and session id accepted.
const LONGEST_TOKEN: usize = 128;
/// Longest path accepted, in bytes (Linux's PATH_MAX).
const LONGEST_PATH: usize = 4_096;

/// What is stored of a secret.
pub(super) fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

impl Broker {
    /// A session presents itself. `peer` is who its secret says it is, `kernel_pid` the process the kernel saw connecting.
    ///
    /// # Errors
    /// [`Code::InvalidPath`], [`Code::InvalidRequest`] for facts out of shape; the store's.
    pub async fn register(&self, request: Register, peer: Option<PeerId>, kernel_pid: Option<u32>) -> wire::Result<Registered> {
        check_path("cwd", &request.cwd)?;
        if let Some(git) = &request.git {
            check_path("git.commonDir", &git.common_dir)?;
            check_path("git.head", &git.head)?;
        }
        check_token("instance", &request.instance)?;
        if let Some(session) = &request.session_id {
            check_token("sessionId", session)?;
        }
        if let Some(token) = &request.hook_token {
            check_token("hookToken", token)?;
        }
        if let Some(inbox) = &request.inbox {
            check_path("inbox", inbox)?;
        }
        let now = clock::now();
        // What the kernel says counts more than what the process says of itself.
        let pid = kernel_pid.unwrap_or(request.pid);
        let process = process::identify(pid);
        let host = request.host.filter(|host| kernel_pid.is_none() || process::ancestors(pid).contains(&host.pid));

        let (row, session, resumed, secret, gone_agent, rule) = {
            let mut state = self.state();
            let same_process = peer.is_some();
            let known = peer.or_else(|| find(&state, &request, process, host, now));
            let resumed = known.is_some();
            let id = known.unwrap_or_else(|| fresh_id(&state));
            let old = state.peers.get(&id).map(|peer| peer.row.clone());
            let old_agent = state.peers.get(&id).map(super::roster::Peer::agent_key);
            // Its hook has told where the process is now, and in which mode: the process itself knows only how it began.
            let kept = old.as_ref().filter(|old| old.instance == request.instance && old.hooked.is_some()).cloned();
            let (cwd, git, bypasses) = match kept {
                Some(kept) => (kept.cwd, kept.git, kept.bypasses),
                None => (request.cwd, request.git, request.bypasses),
            };
            let secret = random::token(SECRET_LENGTH);
            // A name is kept for the session's life, unless somebody alive took it while the session was away.
            let wish = old.as_ref().map_or_else(|| names::wish(git.as_ref(), &cwd), |old| old.name.clone());
            let row = PeerRow {
                name: names::free(&state, &wish, &id, now),
                id: id.clone(),
                legacy: false,
                secret: Some(hash(&secret)),
                instance: request.instance,
                process,
                host,
                cwd,
                git,
                tty: request.tty.filter(|tty| tty.len() <= LONGEST_TOKEN),
                channel: request.channel,
                delivery: request.delivery,
                proved: old.as_ref().and_then(|old| old.proved.clone()),
                summary: old.as_ref().map(|old| old.summary.clone()).unwrap_or_default(),
                summary_source: old.as_ref().map_or(SummarySource::None, |old| old.summary_source),
                registered_at: old.as_ref().map_or(now, |old| old.registered_at),
                last_seen: now,
                ended: false,
                inbox: request.inbox.filter(|_| host.is_some()),
                bypasses,
                inbound: request.inbound,
                hooked: old.as_ref().and_then(|old| old.hooked.clone()),
                hook_proves_all: request.hook_proves_all,
                hook_token: request.hook_token.filter(|_| host.is_some()).map(|token| hash(&token)),
            };
            // Reserve id and name before the commit: another registration must not take them meanwhile.
            state.put(row.clone());
            // A process that has turned to another conversation still names the one it was started with.
            let is_anothers = |session: &String| same_process && state.sessions.get(session).is_some_and(|peer| *peer != id);
            let session = request.session_id.filter(|session| !is_anothers(session));
            if let Some(session) = &session {
                state.sessions.insert(session.clone(), id);
            }
            let displaced = old.is_some_and(|old| old.instance != row.instance) && !same_process;
            if displaced && let Some(peer) = state.peers.get_mut(&row.id) {
                peer.link = None; // its stream sees that it is not the peer's any more
                peer.takers = 0;
                peer.wake();
            }
            let (mut gone, mut rule) = (None, Rule::default());
            if let Some(peer) = state.peers.get_mut(&row.id) {
                (gone, rule) = (old_agent.filter(|old| *old != peer.agent_key()), peer.rule());
                if gone.is_some() {
                    peer.door = Door::default();
                }
            }
            (row, session, resumed, secret, gone, rule)
        };

        let stored = row.clone();
        let job = move |c: &rusqlite::Connection| {
            db::peers::put(c, &stored)?;
            if let Some(session) = &session {
                db::peers::put_session(c, session, &stored.id, now)?;
            }
            mailbox::leases::lapse(c, &stored.id, &stored.instance)?;
            mailbox::holds::apply(c, &stored.id, rule, now)?;
            let doubted = gone_agent.map(|agent| mailbox::outcomes::doubt_pushed(c, &stored.id, &agent)).transpose()?;
            Ok(doubted.unwrap_or_default())
        };
        let doubted = self.store.write(job).await?;
        if let Some(peer) = self.state().peers.get_mut(&row.id) {
            peer.waiting = peer.waiting.saturating_add(u32::try_from(doubted).unwrap_or(u32::MAX));
        }
        self.changes.hint();
        tracing::info!(peer = %row.id, name = row.name, pid, resumed, client = %printable_line(&request.client.version), "registered");
        let waiting = self.state().peers.get(&row.id).map_or(0, |peer| peer.waiting);
        Ok(Registered {
            id: row.id,
            name: row.name,
            secret,
            summary: row.summary,
            summary_source: row.summary_source,
            resumed,
            waiting,
            broker_version: VERSION.to_owned(),
        })
    }

    /// The process that serves `id` has turned to the conversation `session` (`/clear`, `/resume`, a branch), as its hook says:
    /// whose process it is from now on. A conversation that is nobody's is that peer's, one that runs elsewhere stays where it
    /// runs, and with one of a peer that is gone it is that peer, which has its mailbox back, and the one it was is gone.
    pub(super) async fn turn_to(&self, session: String, id: PeerId) -> wire::Result<PeerId> {
        let now = clock::now();
        let moved = {
            let mut state = self.state();
            match state.sessions.get(&session).cloned() {
                None => {
                    state.sessions.insert(session.clone(), id.clone());
                    None
                }
                Some(other) if other == id => return Ok(id),
                Some(other) => match move_process(&mut state, &id, &other, now) {
                    None => return Ok(id),
                    moved => moved,
                },
            }
        };
        let Some((left, taken)) = moved else {
            let peer = id.clone();
            self.store.write(move |c| Ok(db::peers::put_session(c, &session, &peer, now)?)).await?;
            return Ok(id);
        };
        let other = taken.id.clone();
        let job = move |c: &rusqlite::Connection| {
            db::peers::put(c, &left)?;
            db::peers::put(c, &taken)?;
            Ok(mailbox::leases::lapse(c, &left.id, &left.instance)?)
        };
        self.store.write(job).await?;
        self.changes.hint();
        tracing::info!(peer = %other, before = %id, "a session has turned to another conversation");
        Ok(other)
    }

    /// The peer says goodbye: it leaves the list at once; its mailbox stays.
    pub async fn unregister(&self, id: &PeerId) -> wire::Result<()> {
        let row = {
            let mut state = self.state();
            let peer = state.peers.get_mut(id).ok_or_else(|| self.unknown_peer(id))?;
            peer.row.ended = true;
            peer.row.last_seen = clock::now();
            peer.link = None;
            peer.wake();
            peer.row.clone()
        };
        self.changes.hint();
        self.store.write(move |c| Ok(db::peers::put(c, &row)?)).await?;
        tracing::info!(peer = %id, "left");
        Ok(())
    }
}

/// Makes the process that serves `from` serve `to`, unless that one is served: the rows of both. The process sees its stream end
/// and registers again, with the secret that it has.
fn move_process(state: &mut Roster, from: &PeerId, to: &PeerId, now: Timestamp) -> Option<(PeerRow, PeerRow)> {
    let to = state.peers.get(to).filter(|peer| peer.status(now) == Status::Gone)?.row.clone();
    let from = state.peers.get_mut(from)?;
    let serving = from.row.clone();
    from.link = None;
    from.wake();
    let unserved = PeerRow {
        secret: None,
        instance: String::new(),
        process: None,
        host: None,
        inbox: None,
        hook_token: None,
        ..serving.clone()
    };
    let left = PeerRow { last_seen: now, ended: true, ..unserved };
    state.put(left.clone());
    let taken = PeerRow {
        name: names::free(state, &to.name, &to.id, now),
        id: to.id,
        proved: to.proved,
        summary: to.summary,
        summary_source: to.summary_source,
        registered_at: to.registered_at,
        last_seen: now,
        ended: false,
        ..serving
    };
    state.put(taken.clone());
    Some((left, taken))
}

/// The peer that a registration without a secret is, if it is a known one.
fn find(state: &Roster, request: &Register, process: Option<Process>, host: Option<Process>, now: Timestamp) -> Option<PeerId> {
    let is_same = |row: &PeerRow| row.process.is_some() && row.process == process && row.instance == request.instance;
    if let Some(peer) = state.peers.values().find(|peer| is_same(&peer.row)) {
        return Some(peer.row.id.clone());
    }
    let by_session =
        request.session_id.as_ref().and_then(|session| state.sessions.get(session)).and_then(|id| state.peers.get(id));
    if let Some(peer) = by_session {
        let same_host = host.is_some() && peer.row.host == host;
        if same_host || peer.status(now) == Status::Gone || !serves(peer.row.process) {
            return Some(peer.row.id.clone());
        }
    }
    let host = host?;
    let of_host = |peer: &&super::roster::Peer| peer.row.host == Some(host) && !serves(peer.row.process);
    state.peers.values().filter(of_host).max_by_key(|peer| peer.row.last_seen).map(|peer| peer.row.id.clone())
}

/// Whether the process that registered a peer still runs.
fn serves(process: Option<Process>) -> bool {
    process.is_some_and(process::is_alive)
}

fn fresh_id(state: &Roster) -> PeerId {
    let taken = |id: &PeerId| state.peers.contains_key(id) || state.peers.values().any(|peer| peer.row.name == id.as_str());
    std::iter::repeat_with(random::peer_id).find(|id| !taken(id)).unwrap_or_else(random::peer_id)
}

/// Refuses a path that is not absolute, too long, or could steer a terminal.
pub(super) fn check_path(field: &str, path: &str) -> wire::Result<()> {
    if !path.starts_with('/') || path.len() > LONGEST_PATH || path.chars().any(char::is_control) {
        let what = format!("{field} is not an absolute path without control characters of at most {LONGEST_PATH} bytes");
        return Err(Error::new(Code::InvalidPath, what).help("give the session's working directory"));
    }
    Ok(())
}

pub(super) fn check_token(field: &str, token: &str) -> wire::Result<()> {
    if token.is_empty() || token.len() > LONGEST_TOKEN || !token.bytes().all(|b| b.is_ascii_graphic()) {
        let what = format!("{field} is not 1 to {LONGEST_TOKEN} visible ASCII characters");
        return Err(Error::new(Code::InvalidRequest, what).help("give a random text that names this process or session"));
    }
    Ok(())
}
