//! The facts that a session registers: its directory, its agent process, that process's inbox, and its start flags.

use super::{
    controls,
    doors::{self, Door, Doors, Found, started_by},
    link::Link,
};
use crate::{
    agents::{
        clients::{Client, SessionId},
        names::SERVER,
    },
    platform::{
        git, process, random,
        settings::{self, InvalidSetting},
    },
    wire::{Agent, ClientInfo, Code, DeliveryChoice, Error, InboundRule, Register, Result, VERSION},
};
use std::{path::PathBuf, sync::OnceLock, time::Duration};
use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};

/// This program's name for the broker.
pub const PROGRAM: &str = "claude-peers-mcp";
/// The environment variable in which Claude Code passes a token to its child processes.
const TOKEN: &str = "CLAUDE_CODE_MESSAGING_TOKEN";
/// The first Claude Code whose prompt hook also runs for messages in the middle of a turn. Tests with published versions show
/// that 2.1.257 does not do so and 2.1.263 does.
const OLDEST_THAT_PROVES_ALL: [u32; 3] = [2, 1, 263];
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
    agent: Agent,
    /// The terminal in which the agent was when it was first seen in one; the agent may outlive it.
    tty: OnceLock<String>,
    pub doors: Doors,
}

impl Session {
    /// The session that the client of this link has opened. `parent` is the process that started this one.
    pub async fn new(link: &Link, parent: Option<u32>) -> Result<Self> {
        let opener = link.opener.wait().await;
        let client = opener.client;
        let delivery = settings::DELIVERY.read(DeliveryChoice::parse).map_err(unusable)?;
        let cwd = std::env::current_dir().map_err(|error| {
            Error::new(Code::InvalidPath, format!("the working directory of this session cannot be read: {error}"))
                .help("start the session again in a directory that exists")
        })?;
        inbound(client)?;
        let session_id = session_id(client)?;
        Ok(Self {
            instance: random::token(INSTANCE_LENGTH),
            delivery,
            doors: Doors::new(
                client,
                session_id.clone(),
                cwd.clone(),
                matches!(delivery, DeliveryChoice::Auto | DeliveryChoice::Inbox),
                link.names(),
            ),
            session_id,
            cwd,
            parent,
            client,
            hook_proves_all: !client.is_claude_code() || proves_all(&opener.version),
            agent: Agent { name: opener.name.clone(), version: opener.version.clone() },
            tty: OnceLock::new(),
        })
    }

    /// The facts to register now, and the open door. Both may change after this process has started.
    pub async fn facts(&self) -> Result<(Register, Option<Door>)> {
        let Found { agent, door, session } = self.doors.find().await;
        // Other clients' environments are not trusted, because a session of Claude Code may have started them.
        let is_claude_code = self.client.is_claude_code();
        let command_line = agent.or(self.parent).filter(|_| is_claude_code).map(process::command_line).unwrap_or_default();
        let named = session.and_then(|session| self.client.peer_session(&session));
        if let Some(tty) = agent.or(self.parent).and_then(process::terminal) {
            self.tty.get_or_init(|| tty);
        }
        let cwd = self.cwd.clone();
        let git = in_time(move || git::discover(&cwd)).await.flatten();
        let facts = Register {
            client: ClientInfo { name: PROGRAM.to_owned(), version: VERSION.to_owned() },
            instance: self.instance.clone(),
            adopts: named.is_some(),
            session_id: named.or_else(|| self.session_id.clone()),
            pid: std::process::id(),
            host: agent.and_then(process::identify),
            git,
            cwd: self.cwd.to_string_lossy().into_owned(),
            tty: self.tty.get().cloned(),
            channel: names_our_channel(&command_line),
            delivery: self.delivery,
            inbox: match &door {
                Some(Door::Claude(inbox)) => Some(inbox.path.to_string_lossy().into_owned()),
                _ => None,
            },
            hook_token: matches!(door, Some(Door::Claude(_))).then(|| settings::text(TOKEN).ok().flatten()).flatten(),
            hook_proves_all: self.hook_proves_all,
            bypasses: match is_claude_code {
                true => controls::bypasses(&command_line),
                false => doors::command_line(self.client).is_some_and(|words| self.client.bypasses(&words)),
            },
            inbound: inbound(self.client)?,
            agent: Some(self.agent.clone()),
            door: door.as_ref().and_then(Door::kind),
            status_file: agent
                .filter(|_| is_claude_code)
                .and_then(status_file)
                .and_then(|file| file.into_os_string().into_string().ok()),
        };
        Ok((facts, door))
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

/// Which messages from other sessions are let in: by Claude Code's settings, else by `CLAUDE_PEERS_INBOUND`.
///
/// # Errors
/// If that variable cannot be used.
pub fn inbound(client: &Client) -> Result<InboundRule> {
    let choice = settings::INBOUND.read(InboundRule::chosen).map_err(unusable)?;
    let of_client = client.is_claude_code().then(controls::cross_session_inbound).flatten();
    Ok(of_client.unwrap_or(choice))
}

/// Whether the session's status file says that it is idle. The format is internal to Claude Code, so anything else means no.
pub fn is_idle(agent: u32) -> bool {
    status_file(agent).is_some_and(|file| controls::read(file)["status"] == "idle")
}

/// The file in which Claude Code says what the session of this process does.
fn status_file(agent: u32) -> Option<PathBuf> {
    Some(controls::config_folder()?.join(format!("sessions/{agent}.json")))
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
