//! Peers and the session ids they are known by.

use crate::wire::{DeliveryChoice, Git, InboundRule, PeerId, Process, SummarySource, Timestamp};
use rusqlite::{Connection, Result, Row, params};

/// A peer as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerRow {
    pub id: PeerId,
    pub name: String,
    /// It speaks the reference's HTTP API.
    pub legacy: bool,
    pub secret: Option<[u8; 32]>,
    /// The process that serves it, by its own random name.
    pub instance: String,
    /// The process that serves it; `started` is 0 where unknown.
    pub process: Option<Process>,
    /// The `claude` process.
    pub host: Option<Process>,
    pub cwd: String,
    pub git: Option<Git>,
    pub tty: Option<String>,
    /// Its start flags name our channel.
    pub channel: bool,
    pub delivery: DeliveryChoice,
    /// Which host process's channel has proved itself, and when.
    pub proved: Option<(String, Timestamp)>,
    pub summary: String,
    pub summary_source: SummarySource,
    pub registered_at: Timestamp,
    pub last_seen: Timestamp,
    pub ended: bool,
    /// The path of its client's inbox socket.
    pub inbox: Option<String>,
    /// It bypasses permission prompts.
    pub bypasses: bool,
    /// What is let in from other sessions.
    pub inbound: InboundRule,
    /// Which agent process's prompt hook has run.
    pub hooked: Option<String>,
    /// SHA-256 of the token that its hook shows.
    pub hook_token: Option<[u8; 32]>,
    /// That hook runs for every message that is let in.
    pub hook_proves_all: bool,
}

/// Stores `peer`, new or changed.
pub fn put(connection: &Connection, peer: &PeerRow) -> Result<()> {
    let sql =
        "INSERT OR REPLACE INTO peer (id, name, legacy, secret, instance, pid, pid_started, host_pid, host_started, cwd, git,
                   tty, channel, delivery, proved_by, proved_at, summary, summary_source, registered_at, last_seen, ended,
                   inbox, bypasses, inbound, hooked_by, hook_token,
                   hook_proves_all)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21,
                   ?22, ?23, ?24, ?25, ?26, ?27)";
    let git = peer.git.as_ref().map(|git| serde_json::to_string(git).unwrap_or_default());
    let started = |process: Option<Process>| process.map(|process| process.started.cast_signed());
    connection.prepare_cached(sql)?.execute(params![
        peer.id.as_str(),
        peer.name,
        peer.legacy,
        peer.secret,
        peer.instance,
        peer.process.map(|process| process.pid),
        started(peer.process),
        peer.host.map(|host| host.pid),
        started(peer.host),
        peer.cwd,
        git,
        peer.tty,
        peer.channel,
        word(&peer.delivery),
        peer.proved.as_ref().map(|(by, _)| by),
        peer.proved.as_ref().map(|(_, at)| at.as_millis()),
        peer.summary,
        word(&peer.summary_source),
        peer.registered_at.as_millis(),
        peer.last_seen.as_millis(),
        peer.ended,
        peer.inbox,
        peer.bypasses,
        word(&peer.inbound),
        peer.hooked,
        peer.hook_token,
        peer.hook_proves_all,
    ])?;
    Ok(())
}

/// Every peer.
pub fn all(connection: &Connection) -> Result<Vec<PeerRow>> {
    let mut statement = connection.prepare("SELECT * FROM peer")?;
    statement.query_map([], read)?.collect()
}

/// Notes that `session` is `peer`.
pub fn put_session(connection: &Connection, session: &str, peer: &PeerId, now: Timestamp) -> Result<()> {
    let sql = "INSERT OR REPLACE INTO session (session_id, peer, seen_at) VALUES (?1, ?2, ?3)";
    connection.prepare_cached(sql)?.execute(params![session, peer.as_str(), now.as_millis()])?;
    Ok(())
}

/// Every session id with its peer's id.
pub fn sessions(connection: &Connection) -> Result<Vec<(String, String)>> {
    let mut statement = connection.prepare("SELECT session_id, peer FROM session")?;
    statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// Notes when `id` was last seen.
pub fn seen(connection: &Connection, id: &PeerId, at: Timestamp) -> Result<()> {
    connection
        .prepare_cached("UPDATE peer SET last_seen = max(last_seen, ?2) WHERE id = ?1")?
        .execute(params![id.as_str(), at.as_millis()])?;
    Ok(())
}

/// Forgets peers unseen since `before` for whom nothing waits, at most `most`; their ids. What they said stays in the history.
pub fn forget_unseen(connection: &Connection, before: Timestamp, most: u32) -> Result<Vec<String>> {
    let sql = "DELETE FROM peer WHERE id IN (
                   SELECT id FROM peer WHERE last_seen < ?1
                   AND NOT EXISTS (SELECT 1 FROM message WHERE to_peer = peer.id AND waiting = 1)
                   LIMIT ?2) RETURNING id";
    let mut statement = connection.prepare_cached(sql)?;
    let ids = statement.query_map(params![before.as_millis(), most], |row| row.get(0))?.collect::<Result<Vec<String>>>()?;
    for id in &ids {
        connection.prepare_cached("DELETE FROM session WHERE peer = ?1")?.execute([id])?;
    }
    Ok(ids)
}

fn read(row: &Row<'_>) -> Result<PeerRow> {
    let process = |pid: &str, started: &str| -> Result<Option<Process>> {
        let (pid, started): (Option<u32>, Option<i64>) = (row.get(pid)?, row.get(started)?);
        Ok(pid.map(|pid| Process { pid, started: started.unwrap_or_default().cast_unsigned() }))
    };
    let id: String = row.get("id")?;
    let proved_by: Option<String> = row.get("proved_by")?;
    let proved_at = Timestamp::from_millis(row.get::<_, Option<i64>>("proved_at")?.unwrap_or_default());
    Ok(PeerRow {
        id: id.parse().map_err(|e| rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(e)))?,
        name: row.get("name")?,
        legacy: row.get("legacy")?,
        secret: row.get("secret")?,
        instance: row.get("instance")?,
        process: process("pid", "pid_started")?,
        host: process("host_pid", "host_started")?,
        cwd: row.get("cwd")?,
        git: row.get::<_, Option<String>>("git")?.and_then(|json| serde_json::from_str(&json).ok()),
        tty: row.get("tty")?,
        channel: row.get("channel")?,
        delivery: from_word(&row.get::<_, String>("delivery")?).unwrap_or_default(),
        proved: proved_by.map(|by| (by, proved_at)),
        summary: row.get("summary")?,
        summary_source: from_word(&row.get::<_, String>("summary_source")?).unwrap_or(SummarySource::None),
        registered_at: Timestamp::from_millis(row.get("registered_at")?),
        last_seen: Timestamp::from_millis(row.get("last_seen")?),
        ended: row.get("ended")?,
        inbox: row.get("inbox")?,
        bypasses: row.get("bypasses")?,
        inbound: from_word(&row.get::<_, String>("inbound")?).unwrap_or_default(),
        hooked: row.get("hooked_by")?,
        hook_token: row.get("hook_token")?,
        hook_proves_all: row.get("hook_proves_all")?,
    })
}

/// The word that stands for `value` on the wire, which is also the one in the database.
fn word(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

fn from_word<T: serde::de::DeserializeOwned>(word: &str) -> Option<T> {
    serde_json::from_value(serde_json::Value::String(word.to_owned())).ok()
}
