//! Finds the door through which messages get into the running session.
//!
//! - Claude Code and Qwen Code have an inbox socket, which they name in our environment.
//! - Codex's daemon takes messages for its threads.
//! - In other agents our plugin listens on a socket that is named after the agent's process.
//!
//! A door counts only if the process behind it is the agent that started this process, directly or not. Doors may appear, and a plugin's
//! session may change, while this process runs.

use super::log;
use crate::{
    agents::{
        clients::Client,
        codex::{daemon::Daemon, place},
        names::SERVER,
        plugin::Plugin,
        qwen, socket,
    },
    platform::{paths, process, settings},
    wire,
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{Mutex, watch},
    time::{sleep, timeout},
};

/// The first pause before checking again for a missing door; it doubles each time.
const FIRST_LOOK: Duration = Duration::from_secs(1);
/// The first pause after a plugin's change; it doubles each time, up to the pause above.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// How long a daemon may take to introduce our session.
const INTRODUCTION: Duration = Duration::from_secs(2);
/// Programs that may stand between an agent and this process.
const SHELLS: [&str; 7] = ["sh", "bash", "dash", "zsh", "ksh", "fish", "env"];

/// An inbox socket, and the agent process that listens there.
#[derive(Clone)]
pub struct Inbox {
    pub path: PathBuf,
    pub agent: u32,
}

#[derive(Clone)]
pub enum Door {
    Claude(Inbox),
    Qwen(qwen::inbox::Inbox),
    /// Our plugin, and the session into which it puts messages.
    Plugin(Arc<Plugin>, String),
    /// The daemon of Codex, and the thread.
    Codex(Arc<Daemon>, String),
}

impl Door {
    /// The kind to report to the broker. None for Claude Code's inbox: the broker already has its path.
    pub fn kind(&self) -> Option<wire::Door> {
        match self {
            Self::Claude(_) => None,
            Self::Qwen(_) => Some(wire::Door::Inbox),
            Self::Plugin(..) => Some(wire::Door::Plugin),
            Self::Codex(..) => Some(wire::Door::Daemon),
        }
    }
}

/// What we know about the agent.
#[derive(Default)]
pub struct Found {
    /// The agent process, if its inbox or its name shows it.
    pub agent: Option<u32>,
    pub door: Option<Door>,
    /// The session into which the door leads, by the agent's own id, if the door tells it.
    pub session: Option<String>,
}

/// The doors that this session may have.
pub struct Doors {
    client: &'static Client,
    own: Option<String>,
    cwd: PathBuf,
    /// Whether the user wants messages to be let in.
    is_wanted: bool,
    plugin: Mutex<Option<Arc<Plugin>>>,
    /// The connection to the daemon that runs the session, or why there is none.
    daemon: Mutex<Result<Arc<Daemon>, String>>,
    /// The session that a call has named.
    named: watch::Receiver<Option<String>>,
}

impl Doors {
    /// `own` is the session that the environment names, as the broker knows it.
    pub fn new(
        client: &'static Client,
        own: Option<String>,
        cwd: PathBuf,
        is_wanted: bool,
        named: watch::Receiver<Option<String>>,
    ) -> Self {
        Self { client, own, cwd, is_wanted, plugin: Mutex::default(), daemon: Mutex::new(Err(String::new())), named }
    }

    /// The agent and the door that is open now.
    pub async fn find(&self) -> Found {
        if self.client.inbox.is_some() {
            return self.inbox().await;
        }
        if self.client.has_daemon {
            return Found { door: self.thread().await, ..Found::default() };
        }
        if let Some(shared) = self.client.hooks {
            return Found { agent: process::parent().filter(|pid| self.has_hooks(*pid, shared)), ..Found::default() };
        }
        let plugin = self.plugin().await;
        let session = plugin.as_ref().and_then(|plugin| plugin.session()).filter(|session| self.is_own(session));
        let door = plugin.zip(session.clone()).map(|(plugin, session)| Door::Plugin(plugin, session));
        Found { agent: None, door, session }
    }

    /// Whether this process is our client's and starts the hooks of our session alone. `shared`: the flags with which it runs several.
    fn has_hooks(&self, pid: u32, shared: &[&str]) -> bool {
        let words = process::command_line(pid);
        self.client.runs(&words) && !words.iter().any(|word| shared.contains(&&**word))
    }

    /// Whether a plugin with this session may be ours. While a new session begins, the plugin of the last one may still be there.
    fn is_own(&self, session: &str) -> bool {
        self.own.is_none() || self.client.peer_session(session) == self.own
    }

    /// Resolves when another door than `known` is open, or `known` leads elsewhere.
    pub async fn change(&self, known: Option<&Door>) {
        match known {
            Some(Door::Plugin(plugin, session)) => plugin.leaves(Some(session)).await,
            Some(Door::Codex(daemon, _)) => daemon.closed().await,
            None if self.may_appear() => self.appears().await,
            _ => std::future::pending().await,
        }
    }

    async fn appears(&self) {
        let (mut look, mut pause) = (FIRST_LOOK, FIRST_PAUSE);
        loop {
            let plugin = self.plugin.lock().await.clone().filter(|plugin| !plugin.is_closed());
            let session = plugin.as_ref().and_then(|plugin| plugin.session()); // before the look, so that no change is missed
            if self.find().await.door.is_some() {
                return;
            }
            if let Some(plugin) = plugin {
                plugin.leaves(session.as_deref()).await;
                sleep(pause).await; // it may open and close again and again
                pause = (pause * 2).min(FIRST_LOOK);
            } else {
                sleep(look).await;
                look *= 2;
            }
        }
    }

    fn may_appear(&self) -> bool {
        self.is_wanted
            && (self.client.has_plugin
                || self.client.has_daemon
                || self.client.inbox.is_some_and(|inbox| settings::raw(inbox).is_some()))
    }

    /// The connection to our plugin in the agent, opened if there is none.
    async fn plugin(&self) -> Option<Arc<Plugin>> {
        if !self.is_wanted || !self.client.has_plugin {
            return None;
        }
        let mut plugin = self.plugin.lock().await;
        if plugin.as_ref().is_none_or(|plugin| plugin.is_closed()) {
            *plugin = None;
            if let Some((path, agent)) = plugin_socket(self.client) {
                match Plugin::connect(&path, agent, &self.cwd).await {
                    Ok(opened) => *plugin = Some(opened),
                    Err(error) => log!("the plugin in this session's agent is not used: {}: {error}", path.display()),
                }
            }
        }
        plugin.clone()
    }

    /// The door into our thread, once its daemon has told us which one that is.
    async fn thread(&self) -> Option<Door> {
        let daemon = self.daemon().await?;
        let mut named = self.named.clone();
        if named.borrow().is_none() {
            if let Err(error) = daemon.introduce(SERVER, &self.cwd).await {
                log!("the agent's daemon does not list its threads: {error}");
            }
            _ = timeout(INTRODUCTION, named.wait_for(Option::is_some)).await;
        }
        let session = named.borrow().clone()?;
        Some(Door::Codex(daemon, self.client.own_session(&session).to_owned()))
    }

    /// The connection to the daemon that started this process, opened if there is none.
    async fn daemon(&self) -> Option<Arc<Daemon>> {
        let (path, process) = self.is_wanted.then(place::socket)??;
        let mut daemon = self.daemon.lock().await;
        if daemon.as_ref().map_or(true, |daemon| daemon.is_closed()) {
            let opened = Daemon::connect(&path, process).await.map_err(|error| error.to_string());
            if let Err(error) = &opened
                && daemon.as_ref().err() != Some(error)
            {
                log!("the daemon of this session's agent is not used: {}: {error}", path.display());
            }
            *daemon = opened;
        }
        daemon.as_ref().ok().cloned()
    }

    /// The agent, session and door that this inbox leads to.
    fn behind(&self, inbox: Inbox) -> Found {
        let agent = Some(inbox.agent);
        if self.client.is_claude_code() {
            return Found { agent, door: Some(Door::Claude(inbox)), session: None };
        }
        match qwen::inbox::Inbox::open(inbox.path, inbox.agent) {
            Ok(inbox) => Found { agent, session: Some(inbox.session.clone()), door: Some(Door::Qwen(inbox)) },
            Err(error) => {
                log!("the inbox of this session's client is not used: {error}");
                Found { agent, ..Found::default() }
            }
        }
    }

    /// The agent process and its inbox. The agent is the ancestor at the other end of the inbox socket, whatever its name. If
    /// another agent stands in between, the socket belongs to an outer session, which started this one.
    async fn inbox(&self) -> Found {
        let mut found = None;
        if let Some(path) = self.client.inbox.and_then(settings::raw).map(PathBuf::from) {
            match socket::connect(&path).await {
                Ok((_, agent)) => found = Some(Inbox { path, agent }),
                Err(error) => log!("the inbox of this session's client is not used: {}: {error}", path.display()),
            }
        }
        for pid in process::ancestors(std::process::id()) {
            if found.as_ref().is_some_and(|inbox| inbox.agent == pid) {
                let Some(inbox) = found.filter(|_| self.is_wanted) else { return Found { agent: Some(pid), ..Found::default() } };
                return self.behind(inbox);
            }
            let words = process::command_line(pid);
            if self.client.runs(&words) || found.as_ref().is_some_and(|inbox| process::same_program(pid, inbox.agent)) {
                return Found { agent: Some(pid), ..Found::default() };
            }
            if found.is_none() && !is_shell(&words) {
                break; // an agent above a program that is no shell is unrelated
            }
        }
        Found::default()
    }
}

/// Whether messages will probably be let into this client's session: it has named an inbox to us, our plugin listens in
/// it, or its daemon has started us. The session's opening texts depend on this.
pub fn has_door(client: &Client) -> bool {
    client.is_claude_code()
        || client.inbox.is_some_and(|inbox| settings::raw(inbox).is_some()) && started_by(client)
        || client.has_plugin && plugin_socket(client).is_some()
        || client.has_daemon && place::socket().is_some()
}

/// The socket of our plugin in the client's process above this one, and that process. Beyond another agent, or beyond whatever started
/// the client, it would be an outer session's.
fn plugin_socket(client: &Client) -> Option<(PathBuf, u32)> {
    let broker = paths::socket_of_session().ok()?;
    let mut is_reached = false;
    for pid in process::ancestors(std::process::id()) {
        let words = process::command_line(pid);
        let is_it = client.runs(&words);
        if client.is_another(&words) || is_reached && !is_it {
            return None;
        }
        is_reached |= is_it;
        let path = paths::door(&broker, pid);
        if path.exists() {
            return Some((path, pid));
        }
    }
    None
}

/// Whether this client's program started this process, directly or through shells. Others only inherit its environment.
pub fn started_by(client: &Client) -> bool {
    command_line(client).is_some()
}

/// The command line of this client's program, if it started this process, directly or through shells.
pub fn command_line(client: &Client) -> Option<Vec<String>> {
    let mut lines = process::ancestors(std::process::id()).into_iter().map(process::command_line);
    lines.find(|words| !is_shell(words)).filter(|words| client.runs(words))
}

fn is_shell(words: &[String]) -> bool {
    let program = words.first().map(|word| word.trim_start_matches('-'));
    program.and_then(|word| Path::new(word).file_name()).is_some_and(|name| SHELLS.iter().any(|shell| name == *shell))
}
