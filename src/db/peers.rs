//! The table of peers, and the table of their session ids.

use super::{Result, Row, Tx, View, params, sqlite};
use crate::wire::{Agent, DeliveryChoice, Door, Git, InboundRule, MachineName, PeerId, Process, SummarySource, Timestamp};
use rusqlite::types::{FromSql, Value};

/// A peer as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerRow {
    pub id: PeerId,
    pub name: String,
    /// Whether it is a legacy client.
    pub legacy: bool,
    /// SHA-256 of the secret that proves a request comes from this peer.
    pub secret: Option<[u8; 32]>,
    /// The random name of the process that serves it; empty while none does.
    pub instance: String,
    /// The process that serves it; `started` is 0 if unknown.
    pub process: Option<Process>,
    /// The agent process that runs the session.
    pub agent: Option<Process>,
    pub cwd: String,
    /// Of a peer of another machine, `common_dir` is the name that its repository has on all machines.
    pub git: Option<Git>,
    pub tty: Option<String>,
    /// Whether the session's start flags name our channel.
    pub channel: bool,
    pub delivery: DeliveryChoice,
    /// The agent process ([`PeerRow::agent_key`]) whose inbox or channel has proved itself, and when.
    pub proved: Option<(String, Timestamp)>,
    pub summary: String,
    pub summary_source: SummarySource,
    pub registered_at: Timestamp,
    pub last_seen: Timestamp,
    /// Whether it has unregistered.
    pub ended: bool,
    /// The path of its client's inbox socket.
    pub inbox: Option<String>,
    /// Whether it bypasses permission prompts.
    pub bypasses: bool,
    /// Its rule for messages from other sessions.
    pub inbound: InboundRule,
    /// The agent process ([`PeerRow::agent_key`]) whose prompt hook has run.
    pub hooked: Option<String>,
    /// SHA-256 of the token that its hook presents.
    pub hook_token: Option<[u8; 32]>,
    /// Whether that hook runs for every message that is let in.
    pub hook_proves_all: bool,
    /// The coding agent.
    pub kind: Option<Agent>,
    /// The open door into its session, other than `inbox`.
    pub door: Option<Door>,
    /// The container that it runs in. Its paths are then those inside, which nobody here opens.
    pub container: Option<String>,
    /// The other machine that it runs on. A gateway speaks for it; its directory is one there.
    pub machine: Option<MachineName>,
}

impl PeerRow {
    /// Whether it counts as one that bypasses permission prompts when it writes to a session in `container`, or outside of all. What a
    /// container lets its sessions do counts only inside it: outside, they count as ones that ask.
    pub fn bypasses_for(&self, container: Option<&str>) -> bool {
        self.bypasses && (self.container.is_none() || self.container.as_deref() == container)
    }

    /// A peer of which only this is known.
    pub fn new(id: PeerId, name: String, cwd: String, now: Timestamp) -> Self {
        Self {
            id,
            name,
            legacy: false,
            secret: None,
            instance: String::new(),
            process: None,
            agent: None,
            cwd,
            git: None,
            tty: None,
            channel: false,
            delivery: DeliveryChoice::Auto,
            proved: None,
            summary: String::new(),
            summary_source: SummarySource::None,
            registered_at: now,
            last_seen: now,
            ended: false,
            inbox: None,
            bypasses: false,
            inbound: InboundRule::default(),
            hooked: None,
            hook_token: None,
            hook_proves_all: false,
            kind: None,
            door: None,
            container: None,
            machine: None,
        }
    }

    /// Whether messages can be let into its running session.
    pub fn has_door(&self) -> bool {
        self.inbox.is_some() || self.door.is_some()
    }

    /// The key of the agent process; the proof of its inbox or channel is tied to it. If the agent process is unknown, the
    /// process that registered stands in for it.
    pub fn agent_key(&self) -> String {
        match self.agent {
            Some(agent) => format!("{}:{}", agent.pid, agent.started),
            None => self.instance.clone(),
        }
    }

    /// Whether the inbox or channel of its current agent process has proved itself.
    pub fn has_proved(&self) -> bool {
        self.proved.as_ref().is_some_and(|(by, _)| *by == self.agent_key())
    }

    /// Whether something confirms every message that is let in: the door, or a prompt hook that has already run in the current agent
    /// process.
    pub fn confirms_each(&self) -> bool {
        self.door.is_some() || self.hook_proves_all && self.hooked.as_ref().is_some_and(|by| *by == self.agent_key())
    }

    /// Every column except those of the proof, which only [`put_proof`] writes.
    fn columns(&self) -> [(&'static str, Value); 30] {
        let started = |process: Option<Process>| process.map(|process| process.started.cast_signed()).into();
        let pid = |process: Option<Process>| process.map(|process| i64::from(process.pid)).into();
        let bytes = |hash: Option<[u8; 32]>| hash.map(|hash| hash.to_vec()).into();
        let git = self.git.as_ref().map(|git| serde_json::to_string(git).unwrap_or_default());
        [
            ("id", self.id.to_string().into()),
            ("name", self.name.clone().into()),
            ("legacy", self.legacy.into()),
            ("secret", bytes(self.secret)),
            ("instance", self.instance.clone().into()),
            ("pid", pid(self.process)),
            ("pid_started", started(self.process)),
            ("host_pid", pid(self.agent)),
            ("host_started", started(self.agent)),
            ("cwd", self.cwd.clone().into()),
            ("git", git.into()),
            ("tty", self.tty.clone().into()),
            ("channel", self.channel.into()),
            ("delivery", self.delivery.to_string().into()),
            ("summary", self.summary.clone().into()),
            ("summary_source", self.summary_source.to_string().into()),
            ("registered_at", self.registered_at.as_millis().into()),
            ("last_seen", self.last_seen.as_millis().into()),
            ("ended", self.ended.into()),
            ("inbox", self.inbox.clone().into()),
            ("bypasses", self.bypasses.into()),
            ("inbound", self.inbound.to_string().into()),
            ("hooked_by", self.hooked.clone().into()),
            ("hook_token", bytes(self.hook_token)),
            ("hook_proves_all", self.hook_proves_all.into()),
            ("agent", self.kind.as_ref().map(|kind| kind.name.clone()).into()),
            ("agent_version", self.kind.as_ref().map(|kind| kind.version.clone()).into()),
            ("door", self.door.map(|door| door.to_string()).into()),
            ("container", self.container.clone().into()),
            ("machine", self.machine.as_ref().map(ToString::to_string).into()),
        ]
    }

    /// Reads a row of all columns, in the order of the table.
    fn read(row: &Row<'_>) -> sqlite::Result<Self> {
        let mut columns = Columns { row, next: 0 };
        let id: String = columns.next()?;
        let id = id.parse().map_err(|e| sqlite::Error::FromSqlConversionFailure(0, sqlite::types::Type::Text, Box::new(e)))?;
        Ok(Self {
            id,
            name: columns.next()?,
            legacy: columns.next()?,
            secret: columns.next()?,
            instance: columns.next()?,
            process: columns.process()?,
            agent: columns.process()?,
            cwd: columns.next()?,
            git: columns.next::<Option<String>>()?.and_then(|json| serde_json::from_str(&json).ok()),
            tty: columns.next()?,
            channel: columns.next()?,
            delivery: columns.word(DeliveryChoice::parse)?.unwrap_or_default(),
            proved: {
                let (by, at): (Option<String>, Option<i64>) = (columns.next()?, columns.next()?);
                by.map(|by| (by, Timestamp::from_millis(at.unwrap_or_default())))
            },
            summary: columns.next()?,
            summary_source: columns.word(SummarySource::parse)?.unwrap_or(SummarySource::None),
            registered_at: columns.time()?,
            last_seen: columns.time()?,
            ended: columns.next()?,
            inbox: columns.next()?,
            bypasses: columns.next()?,
            inbound: columns.word(InboundRule::parse)?.unwrap_or_default(),
            hooked: columns.next()?,
            hook_token: columns.next()?,
            hook_proves_all: columns.next()?,
            kind: {
                let (name, version): (Option<String>, Option<String>) = (columns.next()?, columns.next()?);
                name.map(|name| Agent { name, version: version.unwrap_or_default() })
            },
            door: columns.next::<Option<String>>()?.and_then(|door| Door::parse(&door)),
            container: columns.next()?,
            machine: columns.next::<Option<String>>()?.and_then(|machine| machine.parse().ok()),
        })
    }
}

/// The columns of a row, one after the other. Looking each up by its name would cost a send more than the query.
struct Columns<'r> {
    row: &'r Row<'r>,
    next: usize,
}

impl Columns<'_> {
    fn next<T: FromSql>(&mut self) -> sqlite::Result<T> {
        self.next += 1;
        self.row.get(self.next - 1)
    }

    fn process(&mut self) -> sqlite::Result<Option<Process>> {
        let (pid, started): (Option<u32>, Option<i64>) = (self.next()?, self.next()?);
        Ok(pid.map(|pid| Process { pid, started: started.unwrap_or_default().cast_unsigned() }))
    }

    fn time(&mut self) -> sqlite::Result<Timestamp> {
        self.next().map(Timestamp::from_millis)
    }

    fn word<T>(&mut self, parse: impl FnOnce(&str) -> Option<T>) -> sqlite::Result<Option<T>> {
        Ok(parse(&self.next::<String>()?))
    }
}

/// Whether the row, which begins with all columns of the table, can be read as a peer.
pub(super) fn is_readable(row: &Row<'_>) -> bool {
    PeerRow::read(row).is_ok()
}

/// Inserts or updates `peer`, except for the stored proof of its inbox or channel.
pub fn put(tx: &Tx<'_>, peer: &PeerRow) -> Result<()> {
    let columns = peer.columns();
    let names = columns.each_ref().map(|(name, _)| *name);
    let changed: Vec<String> = names[1..].iter().map(|name| format!("{name} = excluded.{name}")).collect();
    let sql = format!(
        "INSERT INTO peer ({}) VALUES ({}) ON CONFLICT (id) DO UPDATE SET {}",
        names.join(", "),
        names.map(|_| "?").join(", "),
        changed.join(", ")
    );
    tx.run(&sql, sqlite::params_from_iter(columns.map(|(_, value)| value))).map(drop)
}

/// Records that the inbox or channel of `agent`, the agent process of `id`, has proved itself.
pub fn put_proof(tx: &Tx<'_>, id: &PeerId, agent: &str, at: Timestamp) -> Result<()> {
    tx.run("UPDATE peer SET proved_by = ?2, proved_at = ?3 WHERE id = ?1", params![id.as_str(), agent, at.as_millis()]).map(drop)
}

pub fn get(view: &View<'_>, id: &PeerId) -> Result<Option<PeerRow>> {
    view.one("SELECT * FROM peer WHERE id = ?1", [id.as_str()], PeerRow::read)
}

/// Changes the peer with this id, if there is one, and returns it as changed.
pub fn change(tx: &Tx<'_>, id: &PeerId, change: impl FnOnce(&mut PeerRow)) -> Result<Option<PeerRow>> {
    let Some(mut peer) = get(tx, id)? else { return Ok(None) };
    change(&mut peer);
    put(tx, &peer)?;
    Ok(Some(peer))
}

pub fn all(view: &View<'_>) -> Result<Vec<PeerRow>> {
    view.all("SELECT * FROM peer", [], PeerRow::read)
}

/// Records that `session` belongs to `peer`. A peer may have several sessions.
pub fn put_session(tx: &Tx<'_>, session: &str, peer: &PeerId, now: Timestamp) -> Result<()> {
    let sql = "INSERT OR REPLACE INTO session (session_id, peer, seen_at) VALUES (?1, ?2, ?3)";
    tx.run(sql, params![session, peer.as_str(), now.as_millis()]).map(drop)
}

/// Every session id with its peer's id.
pub fn sessions(view: &View<'_>) -> Result<Vec<(String, String)>> {
    view.all("SELECT session_id, peer FROM session", [], |row| Ok((row.get(0)?, row.get(1)?)))
}

/// Records when `id` was last seen.
pub fn seen(tx: &Tx<'_>, id: &PeerId, at: Timestamp) -> Result<()> {
    tx.run("UPDATE peer SET last_seen = max(last_seen, ?2) WHERE id = ?1", params![id.as_str(), at.as_millis()]).map(drop)
}

/// Removes up to `most` peers that were last seen before `before` and have no waiting messages; returns their ids. Their
/// messages stay in the history.
pub fn forget_unseen(tx: &Tx<'_>, before: Timestamp, most: u32) -> Result<Vec<String>> {
    let sql = "DELETE FROM peer WHERE id IN (
                   SELECT id FROM peer WHERE last_seen < ?1
                   AND NOT EXISTS (SELECT 1 FROM message WHERE to_peer = peer.id AND waiting = 1)
                   LIMIT ?2) RETURNING id";
    let ids: Vec<String> = tx.all(sql, params![before.as_millis(), most], |row| row.get(0))?;
    for id in &ids {
        tx.run("DELETE FROM session WHERE peer = ?1", [id])?;
    }
    Ok(ids)
}

/// Removes the first `most` of these peers to and from whom no mail is under way; returns their ids. Their messages stay in the history.
pub fn forget_first(tx: &Tx<'_>, peers: &[PeerId], most: usize) -> Result<Vec<PeerId>> {
    if most == 0 {
        return Ok(Vec::new());
    }
    let sql = "DELETE FROM peer WHERE id IN (
                   SELECT value FROM json_each(?1)
                   WHERE value NOT IN (SELECT to_peer FROM message WHERE state < 2 UNION SELECT from_peer FROM message WHERE state < 2)
                   ORDER BY key LIMIT ?2) RETURNING id";
    let ids: Vec<&str> = peers.iter().map(PeerId::as_str).collect();
    let forgotten: Vec<String> =
        tx.all(sql, params![serde_json::json!(ids).to_string(), i64::try_from(most).unwrap_or(i64::MAX)], |row| row.get(0))?;
    Ok(forgotten.iter().map(|id| PeerId::lenient(id)).collect())
}
