//! Who a session is: the same peer after a reconnect, a restart of the broker, `/clear` and `--resume`.
//!
//! `/clear` keeps the process and changes the session id; `--resume` keeps the id and changes the process. So neither alone
//! identifies a session, and a registration is matched, in this order, by
//! 1. the secret of an earlier registration (the same process reconnects), or the process with its own name for itself (the
//!    answer with the secret was lost: the broker was killed behind the commit);
//! 2. the session id, unless that peer is alive in another agent process (a second `--resume` beside the first is a session of
//!    its own);
//! 3. the agent process, if the process that served it is gone (the MCP server was restarted after a `/clear`).

use super::{
    core::Broker,
    identity::{LONGEST_TOKEN, check_path, check_token, fresh_id, hash},
    inbox::Inbox,
    names,
    peer::Peer,
    presence::LOOK,
    roster::Roster,
};
use crate::{
    db::{
        Tx,
        peers::{self, PeerRow},
    },
    mailbox::{self, Effects, history, lease, proof, release},
    platform::{clock, process, random},
    wire::{self, PeerId, Process, Register, Registered, Status, Timestamp, VERSION, text::printable_line},
};
use std::{collections::HashMap, sync::Arc};

/// Length of a secret: 31³² possibilities.
const SECRET_LENGTH: usize = 32;

/// The process that registers. The kernel's word counts more than the process's own.
struct Registering {
    pid: u32,
    process: Option<Process>,
    /// The agent process above it.
    agent: Option<Process>,
}

/// The changes that a registration makes.
struct Registration {
    row: PeerRow,
    session: Option<String>,
    /// The peer was known before.
    resumed: bool,
    /// The agent process that ran the session before, if another one does now.
    gone_agent: Option<String>,
}

impl Broker {
    /// A session presents itself. `proven` is who its secret says it is, `kernel_pid` the process the kernel saw connecting.
    pub async fn register(
        self: &Arc<Self>,
        request: Register,
        proven: Option<PeerId>,
        kernel_pid: Option<u32>,
    ) -> wire::Result<Registered> {
        check(&request)?;
        let (claimed, agent) = (request.pid, request.host);
        let look = move || Registering::look(kernel_pid, claimed, agent);
        let by = tokio::task::spawn_blocking(look).await.unwrap_or(Registering { pid: claimed, process: None, agent: None });
        self.look(LOOK, |_| true).await; // for names and for those that are gone
        let alive = self.alive_candidates(&request, &by).await;
        let (secret, version, now) = (random::token(SECRET_LENGTH), request.client.version.clone(), clock::now());
        let registration = self.reserve(request, proven, &by, &alive, hash(&secret), now);
        let (row, resumed) = (registration.row.clone(), registration.resumed);
        let waiting = self.commit(move |tx| registration.store(tx, now)).await?;
        self.changes.hint();
        tracing::info!(peer = %row.id, name = row.name, pid = by.pid, resumed, client = %printable_line(&version), "registered");
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

    /// Whether the processes still run that serve the peers which a registration may be.
    async fn alive_candidates(&self, request: &Register, by: &Registering) -> HashMap<Process, bool> {
        let processes: Vec<Process> = {
            let roster = self.roster();
            let session = request.session_id.as_ref().and_then(|session| roster.sessions.get(session));
            let fits = |peer: &&Peer| session == Some(&peer.row.id) || by.agent.is_some() && peer.row.agent == by.agent;
            roster.peers.values().filter(fits).filter_map(|peer| peer.row.process).collect()
        };
        if processes.is_empty() { HashMap::new() } else { self.alive(processes).await }
    }

    /// Takes id and name before the commit, so that no other registration takes them meanwhile.
    fn reserve(
        &self,
        mut request: Register,
        proven: Option<PeerId>,
        by: &Registering,
        alive: &HashMap<Process, bool>,
        secret: [u8; 32],
        now: Timestamp,
    ) -> Registration {
        let mut roster = self.roster();
        let same_process = proven.is_some();
        let known = proven.or_else(|| find(&roster, &request, by, alive, now));
        let resumed = known.is_some();
        let id = known.unwrap_or_else(|| fresh_id(&roster));
        // A process that has switched to another conversation still names the one it was started with.
        let is_anothers = |session: &String| same_process && roster.sessions.get(session).is_some_and(|peer| *peer != id);
        let session = request.session_id.take().filter(|session| !is_anothers(session));
        let old = roster.peers.get(&id).map(|peer| peer.row.clone());
        let row = PeerRow { secret: Some(secret), ..row(&roster, request, id, old.as_ref(), by, now) };
        roster.put(row.clone());
        if let Some(session) = &session {
            roster.sessions.insert(session.clone(), row.id.clone());
        }
        let is_displaced = old.as_ref().is_some_and(|old| old.instance != row.instance) && !same_process;
        let gone_agent = old.map(|old| old.agent_key()).filter(|old| *old != row.agent_key());
        if let Some(peer) = roster.peers.get_mut(&row.id) {
            if is_displaced {
                peer.cut_off();
            }
            if gone_agent.is_some() {
                peer.inbox = Inbox::default();
            }
        }
        Registration { row, session, resumed, gone_agent }
    }
}

impl Registering {
    /// Looks at the process table.
    fn look(kernel_pid: Option<u32>, claimed: u32, agent: Option<Process>) -> Self {
        let pid = kernel_pid.unwrap_or(claimed);
        let is_above = |agent: &Process| kernel_pid.is_none() || process::ancestors(pid).contains(&agent.pid);
        Self { pid, process: process::identify(pid), agent: agent.filter(is_above) }
    }
}

impl Registration {
    /// Stores it; returns how many messages wait. Those that processes before had in hand wait again.
    fn store(self, tx: &Tx<'_>, now: Timestamp) -> mailbox::Result<(u32, Effects)> {
        let (row, id) = (&self.row, &self.row.id);
        peers::put(tx, row)?;
        if let Some(session) = &self.session {
            peers::put_session(tx, session, id, now)?;
        }
        let mut effects = lease::end_leases(tx, id, &row.instance)?.and(release::apply_rule(tx, row, now)?);
        if let Some(agent) = &self.gone_agent {
            effects = effects.and(proof::mark_uncertain(tx, id, agent)?);
        }
        Ok((history::waiting(tx, id)?, effects))
    }
}

/// Refuses facts out of shape.
fn check(request: &Register) -> wire::Result<()> {
    check_path("cwd", &request.cwd)?;
    if let Some(git) = &request.git {
        check_path("git.commonDir", &git.common_dir)?;
        check_path("git.head", &git.head)?;
    }
    check_token("instance", &request.instance)?;
    for (field, token) in [("sessionId", &request.session_id), ("hookToken", &request.hook_token)] {
        token.as_ref().map_or(Ok(()), |token| check_token(field, token))?;
    }
    request.inbox.as_ref().map_or(Ok(()), |inbox| check_path("inbox", inbox))
}

/// The row of a registration: what is told now, and what is kept from before.
fn row(roster: &Roster, request: Register, id: PeerId, old: Option<&PeerRow>, by: &Registering, now: Timestamp) -> PeerRow {
    // Its hook has told where the process is now, and in which mode: the process itself knows only how it began.
    let told = old.filter(|old| old.instance == request.instance && old.hooked.is_some());
    let (cwd, git, bypasses) = match told {
        Some(told) => (told.cwd.clone(), told.git.clone(), told.bypasses),
        None => (request.cwd, request.git, request.bypasses),
    };
    // A name is kept for the session's life, unless somebody alive took it while the session was away.
    let wish = old.map_or_else(|| names::wish(git.as_ref(), &cwd), |old| old.name.clone());
    let name = names::free(roster, &wish, &id, now);
    let kept = old.cloned().unwrap_or_else(|| PeerRow::new(id, name.clone(), cwd.clone(), now));
    PeerRow {
        name,
        legacy: false,
        instance: request.instance,
        process: by.process,
        agent: by.agent,
        cwd,
        git,
        tty: request.tty.filter(|tty| tty.len() <= LONGEST_TOKEN),
        channel: request.channel,
        delivery: request.delivery,
        last_seen: now,
        ended: false,
        inbox: request.inbox.filter(|_| by.agent.is_some()),
        bypasses,
        inbound: request.inbound,
        hook_token: request.hook_token.filter(|_| by.agent.is_some()).map(|token| hash(&token)),
        hook_proves_all: request.hook_proves_all,
        ..kept
    }
}

/// The peer that a registration without a secret is, if it is a known one.
fn find(roster: &Roster, request: &Register, by: &Registering, alive: &HashMap<Process, bool>, now: Timestamp) -> Option<PeerId> {
    let is_same = |row: &PeerRow| row.process.is_some() && row.process == by.process && row.instance == request.instance;
    if let Some(peer) = roster.peers.values().find(|peer| is_same(&peer.row)) {
        return Some(peer.row.id.clone());
    }
    let is_served = |peer: &Peer| peer.row.process.is_some_and(|process| alive.get(&process) != Some(&false));
    let by_session = request.session_id.as_ref().and_then(|session| roster.peers.get(roster.sessions.get(session)?));
    if let Some(peer) = by_session {
        let same_agent = by.agent.is_some() && peer.row.agent == by.agent;
        if same_agent || peer.status(now) == Status::Gone || !is_served(peer) {
            return Some(peer.row.id.clone());
        }
    }
    let agent = by.agent?;
    let of_agent = |peer: &&Peer| peer.row.agent == Some(agent) && !is_served(peer);
    roster.peers.values().filter(of_agent).max_by_key(|peer| peer.row.last_seen).map(|peer| peer.row.id.clone())
}
