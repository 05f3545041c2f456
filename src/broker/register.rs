//! Registration: a session stays the same peer after a reconnect, a restart of the broker, `/clear` and `--resume`.
//!
//! `/clear` keeps the process and changes the session id; `--resume` keeps the id and changes the process. Neither alone
//! identifies a session, so a registration is matched, in this order, by
//! 1. the secret of an earlier registration (the same process reconnects), or else the process and its instance name (a killed
//!    broker never sent the answer with the secret);
//! 2. the session id, if that peer is gone or runs in the same agent process. A live peer keeps its process: a second `--resume`
//!    beside the first, or a stranger that names the session, gets a new mailbox. If several peers have the session id, a gone
//!    one is resumed, preferably one with waiting messages;
//! 3. the agent process, if the process that served it is gone (the MCP server was restarted after a `/clear`).
//!
//! The agent process counts only if the kernel proves it, which requires the Unix socket.

use super::{
    containers::{check_room, within},
    core::Broker,
    identity::{check_path, check_token, check_words, fresh_id, hash, terminal},
    inbox::Inbox,
    names,
    peer::Peer,
    presence::LOOK,
    roster::Roster,
};
use crate::{
    db::{self, Durability, PeerRow, peers},
    mailbox::{self, Transaction, history, lease, serve},
    platform::{clock, process, random},
    wire::{self, Agent, PeerId, Process, Register, Registered, Status, Timestamp, VERSION, text::printable_line},
};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// Length of a secret: 31³² possibilities.
const SECRET_LENGTH: usize = 32;
/// Longest name and longest version of an agent, in characters.
const LONGEST_NAME: usize = 40;

/// Where a registration comes from.
#[derive(Debug, Clone)]
pub enum Origin {
    /// From a process of this user on this machine, if the kernel shows it.
    Here(Option<u32>),
    Container(String),
}

/// The process that registers. The kernel's facts take precedence over the process's own.
#[derive(Default)]
struct Registering {
    process: Option<Process>,
    /// The agent process above it.
    agent: Option<Process>,
    /// The container through whose socket it came. Then no process is known.
    container: Option<String>,
}

/// Facts about the peers that a registration may match.
struct Known {
    /// Whether the peers' processes run.
    alive: HashMap<Process, bool>,
    /// The peers with waiting messages.
    with_mail: HashSet<PeerId>,
}

/// The changes that a registration makes.
struct Registration {
    row: PeerRow,
    session: Option<String>,
    /// Whether the peer was known before.
    resumed: bool,
}

impl Broker {
    /// Registers a session. `proven` is the peer whose secret it has.
    pub async fn register(
        self: &Arc<Self>,
        request: Register,
        proven: Option<PeerId>,
        origin: Origin,
    ) -> wire::Result<Registered> {
        check(&request)?;
        let request = match &origin {
            Origin::Here(_) => request,
            Origin::Container(name) => within(name, request),
        };
        let by = Registering::new(origin.clone(), &request).await;
        self.look(LOOK, |_| true).await; // shows which peers are gone and which names are free
        let proven = match (proven, &request.session_id) {
            (Some(id), Some(session)) if request.adopts => Some(self.adopt(session.clone(), id).await?),
            (proven, _) => proven,
        };
        let known = self.look_at_known(&request, &by).await?;
        let (secret, version) = (random::token(SECRET_LENGTH), request.client.version.clone());
        let process = match &origin {
            Origin::Here(pid) => format!("process {}", pid.unwrap_or(request.pid)),
            Origin::Container(name) => format!("container {name}"),
        };
        let registration = self.reserve(request, proven, &by, &known, hash(&secret))?;
        let (row, resumed) = (registration.row.clone(), registration.resumed);
        let waiting = self.commit(Durability::Fsync, move |tx| registration.store(tx)).await?;
        self.changes.hint();
        let client = printable_line(&version);
        let how = if resumed { "again" } else { "for the first time" };
        tracing::info!(peer = %row.id, name = row.name, process, resumed, %client, "{} ({}) has registered {how}, {process}, client {client}", row.name, row.id);
        Ok(Registered {
            id: row.id,
            name: row.name,
            secret,
            summary: row.summary,
            summary_source: row.summary_source,
            resumed,
            waiting,
            broker_version: VERSION.to_owned(),
            container: row.container,
        })
    }

    /// Makes the process that serves `id` serve this session. Returns its peer. If `id` never had a session, nobody will resume it, so its
    /// waiting mail moves along.
    async fn adopt(self: &Arc<Self>, session: String, id: PeerId) -> wire::Result<PeerId> {
        let had_session = self.roster().has_session(&id);
        let adopted = self.switch_session(session, id.clone()).await?;
        if adopted != id && !had_session {
            let to = adopted.clone();
            self.commit(Durability::Fsync, move |tx| lease::move_waiting(tx, &id, &to)).await?;
        }
        Ok(adopted)
    }

    /// Looks at the peers that a registration may match.
    async fn look_at_known(&self, request: &Register, by: &Registering) -> wire::Result<Known> {
        let (processes, peers) = {
            let roster = self.roster();
            let of_session = request.session_id.as_ref().map(|session| roster.of_session(session)).unwrap_or_default();
            let of_agent = roster.peers.values().filter(|peer| by.agent.is_some() && peer.row.agent == by.agent);
            let peers: Vec<PeerId> = of_session.iter().map(|peer| peer.row.id.clone()).collect();
            let rows = of_session.into_iter().chain(of_agent).map(|peer| &peer.row);
            (rows.flat_map(|row| [row.process, row.agent]).flatten().collect::<Vec<_>>(), peers)
        };
        let with_mail = self.store.glance(|view| {
            let waits = |id: PeerId| Ok(history::is_waiting(view, &id)?.then_some(id));
            peers.into_iter().map(waits).filter_map(db::Result::transpose).collect::<db::Result<_>>()
        })?;
        Ok(Known { alive: self.probes.processes.ask_all(processes).await, with_mail })
    }

    /// Reserves the id and name before the commit, so that no other registration takes them in the meantime.
    fn reserve(
        &self,
        mut request: Register,
        proven: Option<PeerId>,
        by: &Registering,
        known: &Known,
        secret: [u8; 32],
    ) -> wire::Result<Registration> {
        let (mut roster, now, same_process) = (self.roster(), clock::now(), proven.is_some());
        let found = proven.or_else(|| find(&roster, &request, by, known, now));
        let resumed = found.is_some();
        if let Some(container) = &by.container {
            check_room(&roster, container, found.as_ref())?;
        }
        let id = found.unwrap_or_else(|| fresh_id(&roster));
        // A process that has switched to another conversation still names its first one.
        let is_anothers = |session: &String| {
            let peers = roster.of_session(session);
            same_process && !peers.is_empty() && peers.iter().all(|peer| peer.row.id != id)
        };
        let session = request.session_id.take().filter(|session| !is_anothers(session));
        let old = roster.peers.get(&id).map(|peer| peer.row.clone());
        let status_file = request.status_file.take();
        let row = PeerRow { secret: Some(secret), ..row(&roster, request, id, old.as_ref(), by, now) };
        roster.put(row.clone());
        if let Some(session) = &session {
            roster.put_session(session.clone(), row.id.clone());
        }
        let is_displaced = old.as_ref().is_some_and(|old| old.instance != row.instance) && !same_process;
        let has_new_agent = old.is_some_and(|old| old.agent_key() != row.agent_key());
        if let Some(peer) = roster.peers.get_mut(&row.id) {
            peer.status_file = status_file;
            if is_displaced {
                peer.cut_off();
            }
            if has_new_agent {
                peer.inbox = Inbox::default();
            }
        }
        Ok(Registration { row, session, resumed })
    }
}

impl Registering {
    async fn new(origin: Origin, request: &Register) -> Self {
        let (claimed, agent) = (request.pid, request.host);
        match origin {
            Origin::Here(pid) => tokio::task::spawn_blocking(move || Self::look(pid, claimed, agent)).await.unwrap_or_default(),
            Origin::Container(name) => Self { container: Some(name), ..Self::default() },
        }
    }

    fn look(kernel_pid: Option<u32>, claimed: u32, agent: Option<Process>) -> Self {
        let pid = kernel_pid.unwrap_or(claimed);
        let is_above = |agent: &Process| kernel_pid.is_some_and(|pid| process::ancestors(pid).contains(&agent.pid));
        Self { process: process::identify(pid), agent: agent.filter(is_above), container: None }
    }
}

impl Registration {
    /// Stores the registration; returns how many messages wait. Messages leased to earlier processes wait again.
    fn store(self, tx: &mut Transaction<'_>) -> mailbox::Result<u32> {
        let (row, id) = (&self.row, &self.row.id);
        serve::serve(tx, row)?;
        if let Some(session) = &self.session {
            peers::put_session(tx, session, id, tx.now)?;
        }
        Ok(history::waiting(tx, id)?)
    }
}

fn check(request: &Register) -> wire::Result<()> {
    type Check = fn(&str, &str) -> wire::Result<()>;
    let (git, agent) = (request.git.as_ref(), request.agent.as_ref());
    let facts: [(Check, &str, Option<&String>); 14] = [
        (check_path, "cwd", Some(&request.cwd)),
        (check_path, "git.commonDir", git.map(|git| &git.common_dir)),
        (check_path, "git.head", git.map(|git| &git.head)),
        (check_path, "inbox", request.inbox.as_ref()),
        (check_path, "statusFile", request.status_file.as_ref()),
        (check_token, "instance", Some(&request.instance)),
        (check_token, "sessionId", request.session_id.as_ref()),
        (check_token, "hookToken", request.hook_token.as_ref()),
        (check_words, "git.repo", git.map(|git| &git.repo)),
        (check_words, "git.branch", git.and_then(|git| git.branch.as_ref())),
        (check_words, "client.name", Some(&request.client.name)),
        (check_words, "client.version", Some(&request.client.version)),
        (check_words, "agent.name", agent.map(|agent| &agent.name)),
        (check_words, "agent.version", agent.map(|agent| &agent.version)),
    ];
    facts.into_iter().try_for_each(|(check, field, fact)| fact.map_or(Ok(()), |fact| check(field, fact)))
}

/// The row of a registration: its new facts, and those kept from before.
fn row(roster: &Roster, request: Register, id: PeerId, old: Option<&PeerRow>, by: &Registering, now: Timestamp) -> PeerRow {
    // The hook has reported the current directory and mode; the process itself knows only those it started with.
    let told = old.filter(|old| old.instance == request.instance && old.hooked.is_some());
    let (cwd, git, bypasses) = match told {
        Some(told) => (told.cwd.clone(), told.git.clone(), told.bypasses),
        None => (request.cwd, request.git, request.bypasses),
    };
    // A session keeps its name for life, unless a live peer took it while the session was away.
    let wish = old.map_or_else(|| names::wish(git.as_ref(), &cwd), |old| old.name.clone());
    let name = names::free(roster, &wish, &id, by.container.as_deref(), now);
    // The client's inbox and its hook belong to an agent process. In a container the session itself stands in for that.
    let has_agent = by.agent.is_some() || by.container.is_some();
    let kept = old.cloned().unwrap_or_else(|| PeerRow::new(id, name.clone(), cwd.clone(), now));
    PeerRow {
        name,
        legacy: false,
        instance: request.instance,
        process: by.process,
        agent: by.agent,
        cwd,
        git,
        tty: terminal(request.tty),
        channel: request.channel,
        delivery: request.delivery,
        last_seen: now,
        ended: false,
        inbox: request.inbox.filter(|_| has_agent),
        bypasses,
        inbound: request.inbound,
        hook_token: request.hook_token.filter(|_| has_agent).map(|token| hash(&token)),
        hook_proves_all: request.hook_proves_all,
        kind: request.agent.map(clean),
        door: request.door,
        container: by.container.clone(),
        ..kept
    }
}

/// The agent with what may be shown of its name and version.
fn clean(agent: Agent) -> Agent {
    let short = |text: &str| printable_line(text).chars().take(LONGEST_NAME).collect();
    Agent { name: short(&agent.name), version: short(&agent.version) }
}

/// The known peer that matches a registration without a secret, if there is one.
fn find(roster: &Roster, request: &Register, by: &Registering, known: &Known, now: Timestamp) -> Option<PeerId> {
    let is_same_process = |row: &PeerRow| match (&by.container, row.process) {
        (None, Some(_)) => row.process == by.process,
        (None, None) => false,
        (Some(_), _) => row.container == by.container,
    };
    let is_same = |row: &PeerRow| is_same_process(row) && row.instance == request.instance;
    if let Some(peer) = roster.peers.values().find(|peer| is_same(&peer.row)) {
        return Some(peer.row.id.clone());
    }
    let runs = |process: Option<Process>| process.is_some_and(|process| known.alive.get(&process) != Some(&false));
    let is_served = |peer: &Peer| runs(peer.row.process);
    let is_same_agent = |peer: &Peer| by.agent.is_some() && peer.row.agent == by.agent;
    let is_gone = |peer: &Peer| match peer.row.agent {
        Some(agent) if !runs(Some(agent)) => true, // the process that serves it is about to exit
        Some(_) => peer.row.ended,
        None => peer.stream.is_none() && (!is_served(peer) || peer.status(now) == Status::Gone),
    };
    let of_session = request.session_id.as_ref().map(|session| roster.of_session(session)).unwrap_or_default();
    let may_be = of_session.into_iter().filter(|peer| is_same_agent(peer) || is_gone(peer));
    if let Some(peer) = may_be.min_by_key(|peer| (!is_same_agent(peer), !known.with_mail.contains(&peer.row.id))) {
        return Some(peer.row.id.clone());
    }
    let of_agent = |peer: &&Peer| is_same_agent(peer) && !is_served(peer);
    roster.peers.values().filter(of_agent).max_by_key(|peer| peer.row.last_seen).map(|peer| peer.row.id.clone())
}
