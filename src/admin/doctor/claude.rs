//! Claude Code: whether it is there, whether it is new enough, whether it starts our MCP server under the name that its channel
//! flag says, and what is ours in its settings: the hook, which is to run this program, and the rule that lets sessions use our
//! tools.

use super::{Finding, failed, fix::Fix, ok, programs, scene::Scene, skipped, warning};
use crate::{
    agents::claude::{
        Allowed, Claude, Installed, NAME, OLDEST, OLDEST_WITH_INBOX, OLDEST_WITH_INBOX_ALWAYS, PLUGIN, Scope, Server, Unreadable,
        UserSettings, WITHOUT_HOOK, WITHOUT_INBOX, by_hand, hooks_forbidden_by, rule,
    },
    console::exit::UNSET,
    platform::settings::InvalidSetting,
};
use std::path::PathBuf;

const SETUP: &str = "`claude-peers setup`";
const PUTS_IN: &str = "`claude-peers setup` puts it in";

pub async fn registration(scene: &Scene, claude: Option<Claude>) -> Vec<Finding> {
    let all = match &scene.registrations {
        Ok(all) => all,
        Err(error) => {
            let help = "correct that place in the file, or move the file away; nothing else changes it";
            return vec![failed(format!("Claude Code's file cannot be understood: {error}"), help)];
        }
    };
    let others: Vec<&Server> = all.others().collect();
    let finding = match (all.own(), &scene.plugin) {
        // Sessions start the server twice: as the plugin's and as the user's.
        (Some(own), Ok(true)) => {
            let line = own.command_line();
            let what =
                format!("the plugin {PLUGIN} brings the MCP server, and {line} is registered beside it: sessions start both");
            warning(what, one_of_both())
        }
        (Some(own), _) => registered(own).await,
        (None, Ok(true)) => ok(format!("the plugin {PLUGIN} brings the MCP server")),
        (None, Ok(false)) => unregistered(&others, claude),
        // What is wrong there the check of the hooks says.
        (None, Err(_)) => {
            skipped(format!("the MCP server is not registered; whether the plugin {PLUGIN} brings it cannot be told"))
        }
    };
    let others = others.into_iter().filter(|_| all.own().is_some() || matches!(scene.plugin, Ok(true)));
    std::iter::once(finding).chain(others.map(twice)).collect()
}

pub async fn program(claude: &Result<Option<Claude>, InvalidSetting>) -> Finding {
    let upgrade = "upgrade it: `claude update`, or the way you installed it";
    let claude = match claude {
        Ok(Some(claude)) => claude,
        Ok(None) => {
            return failed(
                "Claude Code was not found: there is no `claude` on PATH, nor where installers put it",
                "install Claude Code; if it lies elsewhere, say where with CLAUDE_PEERS_CLAUDE=/path/to/claude",
            );
        }
        Err(error) => return failed(error.to_string(), UNSET),
    };
    let path = claude.path.display();
    let version = match claude.version().await {
        Ok(version) => version,
        Err(error) => return failed(error, format!("see what `{path} --version` says, and install Claude Code again")),
    };
    let program = format!("Claude Code {version} ({path})");
    if version < OLDEST {
        failed(format!("{program} is too old: channels need {OLDEST}"), upgrade)
    } else if version < OLDEST_WITH_INBOX {
        let what = format!("sessions of {program} have no inbox, which needs {OLDEST_WITH_INBOX}: {WITHOUT_INBOX}");
        warning(what, upgrade)
    } else if version < OLDEST_WITH_INBOX_ALWAYS {
        ok(format!(
            "{program}; with Bedrock, Vertex or Foundry, and with its feature flags off, sessions have no inbox before \
             {OLDEST_WITH_INBOX_ALWAYS}: {WITHOUT_INBOX}"
        ))
    } else {
        ok(program)
    }
}

fn server() -> Option<PathBuf> {
    programs::beside("claude-peers-mcp")
}

fn unregistered(others: &[&Server], claude: Option<Claude>) -> Finding {
    if let Some(Server { name, .. }) = others.iter().find(|server| server.scope == Scope::User) {
        let flag = format!("but the channel flag says server:{NAME}: messages do not arrive by themselves");
        let help = format!("`claude mcp remove --scope user {name}`, then {SETUP}");
        return failed(format!("the MCP server is registered under the name {name}, {flag}"), help);
    }
    let what = match others.first() {
        Some(Server { scope: Scope::Project(project), .. }) => {
            format!("the MCP server is registered for {} only, not for all projects", project.display())
        }
        _ => "the MCP server is not registered with Claude Code: its sessions do not know it".to_owned(),
    };
    let register = || Some(Fix::Run(claude?.register(server()?.to_str()?)));
    failed(what, SETUP).fixes(register())
}

/// There is an entry under our name: whether it starts our program.
async fn registered(own: &Server) -> Finding {
    let server = server();
    let shown = server.as_ref().map_or_else(|| "claude-peers-mcp".into(), |server| server.to_string_lossy());
    let by_hand = format!("`claude mcp remove --scope user {NAME}`, then `{}`", by_hand(&shown));
    // Setup does not handle what may be secret.
    let again = if own.variables.is_empty() { format!("{SETUP}, or by hand: {by_hand}") } else { by_hand };
    let command = own.command_line();
    if !own.is_ours() {
        return failed(format!("{NAME} is registered, but for another program: {command}"), again);
    }
    if !own.arguments.is_empty() {
        return failed(format!("{NAME} is registered with arguments that the program does not take: {command}"), again);
    }
    let registered = format!("{NAME} is registered as {command}");
    let Ok(path) = which::which(&own.command) else {
        return failed(format!("{registered}, but there is no such program, or it may not be executed"), again);
    };
    if let Some(variable) = own.variables.iter().find(|name| *name == "CLAUDE_PEERS_SOCKET") {
        let what =
            format!("{NAME} is registered with {variable} of its own: its sessions may look for another broker than this shell");
        return warning(what, again);
    }
    let Some(server) = server.as_ref().filter(|server| !programs::same(server, &path)) else { return ok(registered) };
    let what = format!("{registered}, which is not the one beside this program ({})", server.display());
    match programs::version(&path).await {
        Ok(version) if version == crate::wire::VERSION => warning(format!("{what}, though of the same version"), again),
        Ok(version) => failed(format!("{what}, but version {version}"), again),
        Err(why) => failed(format!("{what}: {why}"), again),
    }
}

fn one_of_both() -> String {
    let undo = "`claude-peers setup --undo --register-only` takes out what setup did";
    format!("keep one: {undo}, `claude plugin uninstall {PLUGIN}` the plugin")
}

/// Another entry beside the right one: sessions would start two servers.
fn twice(other: &Server) -> Finding {
    let Server { name, scope, .. } = other;
    let (place, help) = match scope {
        Scope::User => (String::new(), format!("`claude mcp remove --scope user {name}`")),
        Scope::Project(project) => {
            let project = project.display();
            (format!(" for {project}"), format!("in {project}: `claude mcp remove --scope local {name}`"))
        }
    };
    warning(format!("the MCP server is registered a second time{place}, as {name} ({})", other.command_line()), help)
}

pub fn settings(scene: &Scene) -> [Finding; 2] {
    let not_understood = |error: &Unreadable| {
        let help = match error {
            Unreadable::Broken { .. } => "correct that place in the file, or move the file away; nothing else changes it",
            _ => "give yourself the right to read it, or correct the variable",
        };
        let what = "Claude Code's settings cannot be understood";
        [failed(format!("{what}: {error}"), help), skipped(what)]
    };
    match (UserSettings::read(), &scene.plugin) {
        (Err(error), _) => not_understood(&error),
        (_, Err(error)) => not_understood(error),
        (Ok(file), Ok(plugin)) => [hook(&file, *plugin), allow_rule(&file, *plugin)],
    }
}

fn hook(file: &UserSettings, plugin: bool) -> Finding {
    let path = file.path.display();
    let Some(program) = programs::beside("claude-peers") else {
        return skipped("this program does not know its own place");
    };
    let place = if plugin { format!("the plugin {PLUGIN}") } else { path.to_string() };
    match file.installed(&program) {
        installed if plugin && installed != Installed::None => {
            let what = format!("the plugin {PLUGIN} brings the hook, and {path} has ours as well: every prompt runs both");
            warning(what, one_of_both())
        }
        Installed::None if !plugin => warning(format!("{path} has none of ours: {WITHOUT_HOOK}"), PUTS_IN),
        Installed::Other(programs) => {
            let what = format!("those in {path} are of another version or of another copy ({programs}): {WITHOUT_HOOK}");
            warning(what, "`claude-peers setup` puts the one that is needed in their place")
        }
        _ if file.disabled => {
            let what = format!("{place} has ours, and {path} switches all hooks off (`disableAllHooks`): {WITHOUT_HOOK}");
            warning(what, format!("take `disableAllHooks` out of {path}, or leave it so"))
        }
        _ => match hooks_forbidden_by() {
            Ok(Some(managed)) => {
                let managed = managed.display();
                let what = format!("{place} has ours, and {managed} lets none of a user's hooks run: {WITHOUT_HOOK}");
                warning(what, "ask your administrator to allow them, or leave it so")
            }
            Ok(None) => ok(format!("{place} has ours")),
            Err(error) => {
                let what = format!("{place} has ours, and whether an administrator lets it run cannot be told: {error}");
                warning(what, "tell your administrator")
            }
        },
    }
}

fn allow_rule(file: &UserSettings, plugin: bool) -> Finding {
    let (rule, path) = (rule(plugin), file.path.display());
    match file.allowed(rule) {
        Allowed::Yes => ok(format!("{path} lets sessions use our tools without asking")),
        Allowed::Ruled("ask", theirs) => {
            ok(format!("sessions ask before they use our tools: {path} has {theirs} in `permissions.ask`"))
        }
        Allowed::Ruled(_, theirs) => warning(
            format!("{path} forbids sessions to use our tools: it has {theirs} in `permissions.deny`"),
            format!("take {theirs} out of `permissions.deny` there, if that is not meant"),
        ),
        Allowed::Unsaid => {
            let stops = "a session that asks for permission stops before it answers";
            let what = format!("{path} does not have {rule} in `permissions.allow`: {stops}");
            warning(what, PUTS_IN)
        }
    }
}
