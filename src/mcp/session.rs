//! The facts with which a session registers: its directory, its `claude` process, what that was started with.

use crate::{
    git, paths, process,
    settings::{self, InvalidSetting},
    wire::{ClientInfo, Code, DeliveryChoice, Error, Register, Result, VERSION, random_token},
};
use std::path::{Path, PathBuf};

/// This program, as the broker is told.
pub const PROGRAM: &str = "claude-peers-mcp";
/// The name under which this server has to be registered for its channel to work.
pub const SERVER: &str = "claude-peers";
/// Length of the text that names this process.
const INSTANCE_LENGTH: usize = 24;
/// Our plugin, which brings that server.
const PLUGIN: &str = "peers@claude-peers";
/// The flags whose values name channels.
const CHANNEL_FLAGS: [&str; 2] = ["--channels", "--dangerously-load-development-channels"];

/// The broker's socket, and what this session says of itself. `parent` is the process that started this one.
///
/// # Errors
/// A setting that cannot be used, or a working directory that cannot be read.
pub fn facts(parent: Option<u32>) -> Result<(PathBuf, Register)> {
    let socket = paths::socket().map_err(unusable)?;
    let delivery = settings::parsed("CLAUDE_PEERS_DELIVERY", "auto, hook, channel, pull", |text| text.parse().ok());
    let delivery: DeliveryChoice = delivery.map_err(unusable)?.unwrap_or_default();
    let cwd = std::env::current_dir().map_err(|error| {
        Error::new(Code::InvalidPath, format!("the working directory of this session cannot be read: {error}"))
            .help("start the session again in a directory that exists")
    })?;
    let command_line = parent.map(process::command_line).unwrap_or_default();
    let facts = Register {
        client: ClientInfo { name: PROGRAM.to_owned(), version: VERSION.to_owned() },
        instance: random_token(INSTANCE_LENGTH),
        session_id: settings::text("CLAUDE_CODE_SESSION_ID").map_err(unusable)?,
        pid: std::process::id(),
        host: parent.filter(|_| is_claude_code(&command_line)).and_then(process::identify),
        git: git::discover(&cwd),
        cwd: cwd.to_string_lossy().into_owned(),
        tty: parent.and_then(process::terminal),
        channel: names_our_channel(&command_line),
        delivery,
    };
    Ok((socket, facts))
}

fn unusable(setting: InvalidSetting) -> Error {
    Error::new(Code::InvalidRequest, setting.to_string())
        .help("correct or unset it where this session gets it from, then start the session again")
}

/// Whether the command line is Claude Code's: the `claude` program, or a JavaScript runtime that runs it.
fn is_claude_code(words: &[String]) -> bool {
    let name = |word: &str| Path::new(word).file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let Some(program) = words.first() else { return false };
    // A session in the background has a title of two words in place of its name: `claude bg-spare`.
    match name(program).split(' ').next() {
        Some("claude") => true,
        Some("node" | "bun") => {
            let script = words.iter().skip(1).find(|word| !word.starts_with('-'));
            script.is_some_and(|script| name(script) == "claude" || script.contains("claude-code"))
        }
        _ => false,
    }
}

/// Whether a start flag names this server as a channel: `--channels server:claude-peers`, several values, `=` or commas.
fn names_our_channel(words: &[String]) -> bool {
    let mut in_values = false;
    for word in words.iter().take_while(|word| *word != "--") {
        let values = if let Some((flag, values)) = word.split_once('=').filter(|(flag, _)| flag.starts_with("--")) {
            in_values = false;
            if CHANNEL_FLAGS.contains(&flag) { values } else { "" }
        } else if word.starts_with('-') {
            in_values = CHANNEL_FLAGS.contains(&word.as_str());
            ""
        } else {
            word
        };
        if (in_values || word.starts_with("--")) && values.split(',').any(|value| is_our_channel(value.trim())) {
            return true;
        }
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

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn start_flags_that_name_our_channel_are_found() {
        for line in [
            "claude --dangerously-load-development-channels server:claude-peers",
            "claude --dangerously-load-development-channels=server:claude-peers --continue",
            "claude --model opus --channels server:other server:claude-peers -c",
            "claude --channels server:other,server:claude-peers",
            "claude --channels=plugin:claude-peers@market",
            "claude --channels plugin:tools:claude-peers",
            "claude --dangerously-load-development-channels plugin:peers@claude-peers",
            "node /usr/lib/claude-code/cli.js --channels server:claude-peers hello",
        ] {
            assert!(names_our_channel(&words(line)), "{line}");
        }
        for line in [
            "",
            "claude",
            "claude server:claude-peers",
            "claude --channels server:other",
            "claude --channels server:claude-peers-2",
            "claude --channels plugin:tools@claude-peers",
            "claude --channels --model server:claude-peers",
            "claude --append-system-prompt=server:claude-peers",
            "claude -- --channels server:claude-peers",
        ] {
            assert!(!names_our_channel(&words(line)), "{line}");
        }
    }

    #[test]
    fn only_claude_code_is_a_host() {
        for line in
            ["claude", "/opt/claude/2.1/claude -p", "node /x/@anthropic-ai/claude-code/cli.js", "bun --smol /usr/bin/claude"]
        {
            assert!(is_claude_code(&words(line)), "{line}");
        }
        assert!(is_claude_code(&["claude bg-spare".to_owned(), "--bg-spare".to_owned()]));
        for line in ["", "bash -c claude", "node server.js claude-code", "/opt/claude/bin/other", "claude-peers demo"] {
            assert!(!is_claude_code(&words(line)), "{line}");
        }
    }
}
