//! The facts that a session registers: its directory, its agent process, that process's inbox, and its start flags.

use super::{controls, log};
use crate::{
    agents::{
        claude::inbox,
        clients::{Client, SessionId},
    },
    platform::{
        git, process, random,
        settings::{self, InvalidSetting},
    },
    wire::{ClientInfo, Code, DeliveryChoice, Error, InboundRule, Register, Result, VERSION},
};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};

/// This program's name for the broker.
pub const PROGRAM: &str = "claude-peers-mcp";
/// The name under which this server must be registered for its channel to work.
pub const SERVER: &str = "claude-peers";
/// The environment variables in which Claude Code passes the path of its inbox and a token to its child processes.
const INBOX: &str = "CLAUDE_CODE_MESSAGING_SOCKET";
const TOKEN: &str = "CLAUDE_CODE_MESSAGING_TOKEN";
/// The first Claude Code whose prompt hook also runs for messages in the middle of a turn. Tests with published versions show
/// that 2.1.257 does not do so and 2.1.263 does.
const OLDEST_THAT_PROVES_ALL: [u32; 3] = [2, 1, 263];
/// Programs that may stand between an agent and this process.
const SHELLS: [&str; 7] = ["sh", "bash", "dash", "zsh", "ksh", "fish", "env"];
/// Length of the random name of this process.
const INSTANCE_LENGTH: usize = 24;
/// How long a look at the working directory may take.
const LOOK_PATIENCE: Duration = Duration::from_secs(2);
/// How many such looks may hang, each with a thread.
const MOST_LOOKS: usize = 4;
/// The plugin that contains this server.
const PLUGIN: &str = "peers@claude-peers";
/// The flags whose values name channels.
const CHANNEL_FLAGS: [&str; 2] = ["--channels", "--dangerously-load-development-channels"];

/// Facts that never change during the life of this process.
pub struct Session {
    instance: String,
    delivery: DeliveryChoice,
    session_id: Option<String>,
    cwd: PathBuf,
    parent: Option<u32>,
    client: &'static Client,
    hook_proves_all: bool,
}

/// The inbox of this session's client, and the agent process that listens there.
#[derive(Clone)]
pub struct Inbox {
    pub path: PathBuf,
    pub agent: u32,
}

impl Session {
    /// The session of a client of this version. `parent` is the process that started this one.
    pub fn new(client: &'static Client, version: &str, parent: Option<u32>) -> Result<Self> {
        let delivery = settings::DELIVERY.read(DeliveryChoice::parse).map_err(unusable)?;
        let cwd = std::env::current_dir().map_err(|error| {
            Error::new(Code::InvalidPath, format!("the working directory of this session cannot be read: {error}"))
                .help("start the session again in a directory that exists")
        })?;
        inbound()?;
        Ok(Self {
            instance: random::token(INSTANCE_LENGTH),
            delivery,
            session_id: session_id(client)?,
            cwd,
            parent,
            client,
            hook_proves_all: client.is_claude_code() && proves_all(version),
        })
    }

    /// The facts to register now, and the client's inbox. Both may change after this process has started.
    pub async fn facts(&self) -> Result<(Register, Option<Inbox>)> {
        // Other clients' environments are not trusted, because a session of Claude Code may have started them.
        let is_claude_code = self.client.is_claude_code();
        let (agent, inbox) = if is_claude_code { self.agent().await } else { (None, None) };
        let command_line = agent.or(self.parent).filter(|_| is_claude_code).map(process::command_line).unwrap_or_default();
        let cwd = self.cwd.clone();
        let git = in_time(move || git::discover(&cwd)).await.flatten();
        let facts = Register {
            client: ClientInfo { name: PROGRAM.to_owned(), version: VERSION.to_owned() },
            instance: self.instance.clone(),
            session_id: self.session_id.clone(),
            adopts: false,
            pid: std::process::id(),
            host: agent.and_then(process::identify),
            git,
            cwd: self.cwd.to_string_lossy().into_owned(),
            tty: agent.or(self.parent).and_then(process::terminal),
            channel: names_our_channel(&command_line),
            delivery: self.delivery,
            inbox: inbox.as_ref().map(|inbox| inbox.path.to_string_lossy().into_owned()),
            hook_token: inbox.as_ref().and_then(|_| settings::text(TOKEN).ok()?),
            hook_proves_all: self.hook_proves_all,
            bypasses: controls::bypasses(&command_line),
            inbound: inbound()?,
        };
        Ok((facts, inbox))
    }

    /// Whether an inbox may still appear.
    pub fn awaits_inbox(&self) -> bool {
        self.client.is_claude_code() && self.wants_inbox() && settings::raw(INBOX).is_some()
    }

    fn wants_inbox(&self) -> bool {
        matches!(self.delivery, DeliveryChoice::Auto | DeliveryChoice::Inbox)
    }

    /// The agent process and its inbox. The agent is the ancestor at the other end of the inbox socket, whatever its name. If
    /// another agent stands in between, the socket belongs to an outer session, which started this one.
    async fn agent(&self) -> (Option<u32>, Option<Inbox>) {
        let mut found = None;
        if let Some(path) = settings::raw(INBOX).map(PathBuf::from) {
            match inbox::connect(&path).await {
                Ok((_, agent)) => found = Some(Inbox { path, agent }),
                Err(error) => log!("the inbox of this session's client is not used: {error}"),
            }
        }
        for pid in process::ancestors(std::process::id()) {
            if found.as_ref().is_some_and(|inbox| inbox.agent == pid) {
                return (Some(pid), found.filter(|_| self.wants_inbox()));
            }
            let words = process::command_line(pid);
            if self.client.runs(&words) || found.as_ref().is_some_and(|inbox| process::same_program(pid, inbox.agent)) {
                return (Some(pid), None);
            }
            if found.is_none() && !is_shell(&words) {
                break; // a `claude` above a program that is no shell is unrelated
            }
        }
        (None, None)
    }
}

/// The result of looking at files that may lie on a dead network drive; none if it takes too long.
pub async fn in_time<T: Send + 'static>(look: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    static ROOM: Semaphore = Semaphore::const_new(MOST_LOOKS);
    let room = ROOM.try_acquire().ok()?;
    let look = spawn_blocking(move || {
        let _room = room; // held until the look ends, however late
        look()
    });
    timeout(LOOK_PATIENCE, look).await.ok()?.ok()
}

/// Whether this version of Claude Code also runs its prompt hook for a message beside a tool's result.
fn proves_all(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().ok());
    let version = std::array::from_fn(|_| parts.next().flatten().unwrap_or_default());
    version >= OLDEST_THAT_PROVES_ALL
}

/// Which messages from other sessions are let in: by the client's settings, else by `CLAUDE_PEERS_INBOUND`.
///
/// # Errors
/// If that variable cannot be used.
pub fn inbound() -> Result<InboundRule> {
    let choice = settings::INBOUND.read(InboundRule::chosen).map_err(unusable)?;
    Ok(controls::cross_session_inbound().unwrap_or(choice))
}

/// Whether the session's status file says that it is idle. The format is internal to Claude Code, so anything else means no.
pub fn is_idle(agent: u32) -> bool {
    controls::config_folder()
        .is_some_and(|folder| controls::read(folder.join(format!("sessions/{agent}.json")))["status"] == "idle")
}

/// The error of a setting that cannot be used.
pub fn unusable(setting: InvalidSetting) -> Error {
    Error::new(Code::InvalidRequest, setting.to_string())
        .help("correct or unset it where it is set, then start the session again")
}

/// The id of the client's session, if its environment names it.
///
/// # Errors
/// If Claude Code's variable is no text.
fn session_id(client: &Client) -> Result<Option<String>> {
    let SessionId::Variable(variable) = client.session_id else { return Ok(None) };
    if client.is_claude_code() {
        return settings::text(variable).map_err(unusable);
    }
    let id = settings::raw(variable).filter(|_| started_by(client)).and_then(|id| id.into_string().ok());
    Ok(id.and_then(|id| client.peer_session(&id)))
}

/// Whether this client's program started this process, directly or through shells. Others only inherit its environment.
fn started_by(client: &Client) -> bool {
    let mut lines = process::ancestors(std::process::id()).into_iter().map(process::command_line);
    lines.find(|words| !is_shell(words)).is_some_and(|words| client.runs(&words))
}

fn is_shell(words: &[String]) -> bool {
    let program = words.first().map(|word| word.trim_start_matches('-'));
    program.and_then(|word| Path::new(word).file_name()).is_some_and(|name| SHELLS.iter().any(|shell| name == *shell))
}

/// Whether a start flag names this server as a channel: `--channels server:claude-peers`, several values, `=` or commas.
fn names_our_channel(words: &[String]) -> bool {
    let mut in_values = false;
    for word in words.iter().take_while(|word| *word != "--") {
        let (flag, values) = match word.split_once('=') {
            Some((flag, values)) if flag.starts_with("--") => (Some(flag), values),
            _ if word.starts_with('-') => (Some(word.as_str()), ""),
            _ => (None, word.as_str()),
        };
        let are_channels = flag.map_or(in_values, |flag| CHANNEL_FLAGS.contains(&flag));
        if are_channels && values.split(',').any(|value| is_our_channel(value.trim())) {
            return true;
        }
        in_values = are_channels && (flag.is_none() || values.is_empty());
    }
    false
}

/// `server:claude-peers`, or a plugin of that name or with a server of that name: `plugin:PLUGIN[:SERVER][@MARKETPLACE]`.
fn is_our_channel(value: &str) -> bool {
    match value.split_once(':') {
        Some(("server", name)) => name == SERVER,
        Some(("plugin", name)) => {
            name == PLUGIN || name.split('@').next().unwrap_or_default().split(':').any(|part| part == SERVER)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agents::clients;

    #[test]
    fn command_lines_are_understood() {
        let claude = clients::named("claude-code");
        for (line, is_agent, has_channel) in [
            ("", false, false),
            ("claude", true, false),
            ("/opt/claude/2.1/claude -p", true, false),
            ("node /x/@anthropic-ai/claude-code/cli.js --channels server:claude-peers hello", true, true),
            ("bun --smol /usr/bin/claude", true, false),
            ("bash -c claude", false, false),
            ("node server.js claude-code", false, false),
            ("/opt/claude/bin/other", false, false),
            ("claude-peers demo", false, false),
            ("claude --dangerously-load-development-channels server:claude-peers", true, true),
            ("claude --dangerously-load-development-channels=server:claude-peers --continue", true, true),
            ("claude --dangerously-load-development-channels plugin:peers@claude-peers", true, true),
            ("claude --model opus --channels server:other server:claude-peers -c", true, true),
            ("claude --channels server:other,server:claude-peers", true, true),
            ("claude --channels=plugin:claude-peers@market", true, true),
            ("claude --channels plugin:tools:claude-peers", true, true),
            ("claude server:claude-peers", true, false),
            ("claude --channels server:claude-peers-2", true, false),
            ("claude --channels plugin:tools@claude-peers", true, false),
            ("claude --channels --model server:claude-peers", true, false),
            ("claude --append-system-prompt=server:claude-peers", true, false),
            ("claude -- --channels server:claude-peers", true, false),
        ] {
            let words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
            assert_eq!((claude.runs(&words), names_our_channel(&words)), (is_agent, has_channel), "{line}");
        }
        assert!(claude.runs(&["claude bg-spare".to_owned(), "--bg-spare".to_owned()]));
    }

    #[test]
    fn newer_versions_prove_every_message() {
        assert!(["2.1.330", "2.1.263", "2.2.0", "3.0"].iter().all(|version| proves_all(version)));
        assert!(["2.1.248", "2.0.999", "", "x", "2"].iter().all(|version| !proves_all(version)));
    }
}
