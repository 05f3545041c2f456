//! The agents other than Claude Code: for each that is installed, whether its sessions start our MCP server, and whether our plugin or
//! our hooks are there.

use super::finding::{Finding, Fix, failed, ok, warning};
use crate::{
    admin::{
        place::beside,
        setup::{Found, found},
    },
    agents::{
        agent::{Agent, Mcp, Registration},
        files::{Unreadable, read},
        hooks::Installed,
        known::KNOWN,
        program::Program,
        server::{NAME, Owner},
    },
};

pub async fn check() -> Vec<Finding> {
    let mut findings = Vec::new();
    for agent in KNOWN {
        if let Ok(Some(program)) = agent.program() {
            findings.push(of(agent, &program).await);
        }
    }
    findings
}

async fn of(agent: &Agent, program: &Program) -> Finding {
    let title = agent.title;
    let version = match program.version().await {
        Ok(version) => version,
        Err(error) => return failed(error, format!("see that `{} --version` runs", program.path.display())),
    };
    let wrong = agent.mcp.as_ref().map(|mcp| registered(agent, mcp, program)).transpose();
    match wrong.and_then(|wrong| Ok(wrong.flatten().or(files(agent)?))) {
        Ok(Some(finding)) => finding,
        Ok(None) => ok(format!("{title} {version} is set up; messages arrive {}{}", agent.arrival, wake(agent))),
        Err(error) => failed(format!("{title}'s configuration cannot be understood: {error}"), "correct it, or move it away"),
    }
}

fn setup(agent: &Agent) -> String {
    format!("`claude-peers setup --agent {}`", agent.name.program)
}

/// Whether idle sessions are woken, if that is up to the user.
fn wake(agent: &Agent) -> &'static str {
    match agent.wake_is_on() {
        Some(Ok(true)) => "; waking idle sessions is on",
        Some(Ok(false)) => "; waking idle sessions is off (docs/agents.md says how to turn it on)",
        None | Some(Err(_)) => "", // what cannot be understood is reported above
    }
}

/// What is wrong with the registration.
fn registered(agent: &Agent, mcp: &Mcp, program: &Program) -> Result<Option<Finding>, Unreadable> {
    let (title, name) = (agent.title, agent.name.program);
    let Registration { file, entry } = agent.registration(mcp)?;
    let (setup, server) = (setup(agent), beside("claude-peers-mcp"));
    let Some(entry) = entry else {
        let what = format!("{title} has no registration of the MCP server: its sessions do not start it");
        let register = server.as_ref().and_then(|server| Some(Fix::Run(mcp.register(program, server.to_str()?))));
        return Ok(Some(warning(what, setup).fixes(register)));
    };
    let line = entry.command_line();
    let (what, help) = match server.map(|server| entry.owner(&server)) {
        Some(Owner::This) if entry.arguments.is_empty() => return Ok(None),
        Some(Owner::This) => ("with arguments that it does not take", setup),
        Some(Owner::Gone) => ("but there is no such program", setup),
        Some(Owner::Stranger) => ("which is another program", format!("rename or remove that entry, then {setup}")),
        _ => ("which is another copy", format!("that copy's `claude-peers setup --undo --agent {name}`, then {setup}")),
    };
    Ok(Some(failed(format!("{NAME} is registered with {title} as {line}, {what} ({})", file.display()), help)))
}

/// What is wrong with our plugin.
fn files(agent: &Agent) -> Result<Option<Finding>, Unreadable> {
    if let Some(plugin) = &agent.plugin {
        let path = agent.folder()?.join(plugin.file);
        let what = match found(&path) {
            Ok(Found::Nothing) => "is missing",
            Ok(Found::Foreign) => "was not written by setup",
            Ok(Found::Changed) => "was changed after setup wrote it",
            Ok(Found::Ours) => "",
            Err(_) => "cannot be read",
        };
        if !what.is_empty() {
            let what = format!("{} {what}, so messages may not arrive by themselves in {}", path.display(), agent.title);
            return Ok(Some(warning(what, format!("move it away if it is there, then {}", setup(agent)))));
        }
    }
    hooks(agent)
}

/// What is wrong with our hooks.
fn hooks(agent: &Agent) -> Result<Option<Finding>, Unreadable> {
    let (Some(hooks), Some(program)) = (&agent.hooks, beside("claude-peers")) else { return Ok(None) };
    let path = agent.folder()?.join(hooks.file);
    let text = read(&path)?.unwrap_or_default();
    let what = match hooks.installed(&path, &text, &program)? {
        Installed::Whole if hooks.are_off(&path, &text)? => "switches hooks off".to_owned(),
        Installed::Whole => return Ok(None),
        Installed::None => "has no claude-peers hooks".to_owned(),
        Installed::Other => "has outdated claude-peers hooks".to_owned(),
        Installed::OtherCopy(other) => format!("has the hooks of {}", other.display()),
    };
    let what = format!("{} {what}: in {}, messages come only with the results of our tools", path.display(), agent.title);
    Ok(Some(warning(what, setup(agent))))
}
