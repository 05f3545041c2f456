//! The doorbell of an idle session: a background command, which the model starts and which ends when mail waits. Its end begins a turn,
//! if the user has opted in with two settings of Gemini CLI.
//!
//! Gemini CLI shows the model what the command has printed as the user's words. So the command prints one fixed line, and the messages
//! come beside that turn, by our hook. The model has to start the command again each time; the hook asks it to.

use crate::{
    agents::wake::Wake,
    platform::{call::quoted, process},
};
use serde_json::Value;

/// Gemini CLI's folder, as setup takes it.
pub const FOLDER: [&str; 3] = [".gemini", "GEMINI_CLI_HOME", ".gemini"];
/// Its file with all settings, hooks and servers.
pub const SETTINGS: &str = "settings.json";
/// The user's opt-in.
pub static WAKE: Wake = Wake {
    folder: FOLDER,
    file: SETTINGS,
    settings: &[("/experimental/modelSteering", "true"), ("/tools/shell/backgroundCompletionBehavior", "\"inject\"")],
};

/// The words of the command, after the program.
const WORDS: &str = "doorbell --print";
/// How the request to the model begins.
pub const REQUEST: &str = "No doorbell is running:";
/// The start flags of a run that ends after one prompt.
const ONE_PROMPT: [&str; 2] = ["-p", "--prompt"];

/// What asks the model to start a doorbell, if the user has opted in and the session of this agent process can be woken.
pub fn wanted(agent: u32) -> Option<String> {
    let is_on = WAKE.is_on().is_ok_and(|is_on| is_on);
    let is_one_prompt = |word: &String| ONE_PROMPT.contains(&word.split('=').next().unwrap_or_default());
    if !is_on || process::terminal(agent).is_none() || process::command_line(agent).iter().any(is_one_prompt) {
        return None;
    }
    let program = std::env::current_exe().ok()?;
    let command = format!("{} {WORDS}", quoted(program.to_str()?));
    Some(format!(
        "{REQUEST} the user wants messages from other sessions to wake this one while it is idle. Start it with run_shell_command, \
         is_background: true, command: {command}\nIt ends when messages wait; then start it again."
    ))
}

/// Whether a tool called with this starts a doorbell.
pub fn is_started_by(input: &Value) -> bool {
    input["command"].as_str().is_some_and(|command| command.trim_end().ends_with(WORDS))
}
