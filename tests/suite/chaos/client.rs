//! The client's side of a session, whatever the route of its messages.

use crate::support::{
    Broker, Session,
    agent::{Agent, Frame},
    mcp::{SERVER, Start},
};
use serde_json::json;
use std::{fs, path::Path};

/// The start flag of a session that bypasses permission prompts.
const BYPASS: &str = "--dangerously-skip-permissions";

/// How a session's messages reach it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    Channel,
    Pull,
    Inbox,
    /// An inbox whose session bypasses permission prompts, so messages of the others are held.
    HeldInbox,
}

pub enum Client {
    Plain(Session),
    Inbox(Agent),
}

impl Client {
    /// Starts a process of the session and does its handshake.
    pub fn launch(route: Route, under_claude: bool, broker: &Broker, directory: &Path, session_id: &str) -> Self {
        let delivery = match route {
            Route::Channel => "channel",
            Route::Pull => "pull",
            Route::Inbox => return Self::with_inbox(broker, directory, session_id, &[]),
            Route::HeldInbox => return Self::with_inbox(broker, directory, session_id, &[BYPASS]),
        };
        let start = Start { broker, directory, session_id, delivery, env: Vec::new() };
        let command = if under_claude { start.claude("\"$SERVER\"", &[]) } else { start.command() };
        let mut session = Session::spawn(command);
        session.handshake();
        Self::Plain(session)
    }

    fn with_inbox(broker: &Broker, directory: &Path, session_id: &str, flags: &[&str]) -> Self {
        let mut agent = Agent::launch(broker, directory, session_id, flags, &[], &[SERVER]);
        // An idle client has let in all that it will let in, so the broker need not wait for a lost frame.
        let sessions = broker.folder().join(".claude/sessions");
        fs::create_dir_all(&sessions).unwrap();
        fs::write(sessions.join(format!("{}.json", agent.pid())), json!({"status": "idle"}).to_string()).unwrap();
        agent.session.handshake();
        Self::Inbox(agent)
    }

    pub fn session(&mut self) -> &mut Session {
        match self {
            Self::Plain(session) => session,
            Self::Inbox(agent) => &mut agent.session,
        }
    }
}

/// Runs the prompt hook as a client that lets this frame in. Does not wait for it, as no client does.
pub fn let_in(agent: &Agent, route: Route, session_id: &str, frame: &Frame) {
    let mode = if route == Route::HeldInbox { "bypassPermissions" } else { "default" };
    let input = json!({
        "session_id": session_id, "hook_event_name": "UserPromptSubmit", "permission_mode": mode, "prompt": frame.content,
    });
    let cli = env!("CARGO_BIN_EXE_claude-peers");
    agent.run(&format!("'{cli}' hook UserPromptSubmit"), &input.to_string());
}
