//! Claude Code: its program, the registration of our MCP server, and our parts of its settings. These are the hook that runs this
//! program and the rule that lets sessions use our tools.

use super::{
    finding::{Finding, Fix, failed, ok, skipped, warning},
    programs,
    scene::Scene,
};
use crate::{
    admin::place::beside,
    agents::{
        claude::{
            Barrier, Claude, Installed, OLDEST, OLDEST_WITH_INBOX, OLDEST_WITH_INBOX_ALWAYS, PLUGIN, Policy, Registrations,
            UserSettings, WITHOUT_HOOK, WITHOUT_INBOX, by_hand, hooks_forbidden_by, rule,
        },
        files::Unreadable,
        server::{NAME, Scope, Server},
    },
    console::UNSET,
    platform::settings::InvalidSetting,
};
use std::{
    fmt::Display,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{sync::mpsc, time::timeout};

const SERVER: &str = "claude-peers-mcp";
const SETUP: &str = "`claude-peers setup`";
const ADDS_IT: &str = "`claude-peers setup` adds it";
/// How long reading a project's files may take: they may be on a network drive that is gone.
const PROJECT_PATIENCE: Duration = Duration::from_secs(2);
const CORRECT: &str = "correct that place in the file, or move the file away; nothing else changes it";

pub async fn program(claude: &Result<Option<Claude>, InvalidSetting>) -> Finding {
    let claude = match claude {
        Ok(Some(claude)) => claude,
        Ok(None) => {
            return failed(
                "Claude Code was not found: `claude` is neither on PATH nor where installers put it",
                "install Claude Code, or set CLAUDE_PEERS_CLAUDE=/path/to/claude",
            );
        }
        Err(error) => return failed(error.to_string(), UNSET),
    };
    let path = claude.0.path.display();
    let version = match claude.0.version().await {
        Ok(version) => version,
        Err(error) => return failed(error, format!("look at the output of `{path} --version`, and install Claude Code again")),
    };
    let program = format!("Claude Code {version} ({path})");
    let upgrade = "upgrade it: `claude update`, or the way you installed it";
    if version < OLDEST {
        failed(format!("{program} is too old: channels need {OLDEST}"), upgrade)
    } else if version < OLDEST_WITH_INBOX {
        warning(format!("sessions of {program} have no inbox, which needs {OLDEST_WITH_INBOX}: {WITHOUT_INBOX}"), upgrade)
    } else if version < OLDEST_WITH_INBOX_ALWAYS {
        ok(format!(
            "{program}; with Bedrock, Vertex or Foundry, or with its feature flags off, sessions have no inbox before \
             {OLDEST_WITH_INBOX_ALWAYS}: {WITHOUT_INBOX}"
        ))
    } else {
        ok(program)
    }
}

pub async fn registration(scene: &Scene, claude: Option<Claude>) -> Vec<Finding> {
    let all = match &scene.registrations {
        Ok(all) => all,
        Err(error) => return vec![failed(format!("Claude Code's file cannot be understood: {error}"), CORRECT)],
    };
    let others: Vec<&Server> = all.others().collect();
    let (servers, policy) = (servers(scene, all), Policy::read());
    let barriers: Option<Vec<Barrier>> = servers.iter().map(|server| policy.barrier(all, server)).collect();
    if let Some(barrier) = barriers.iter().flatten().next() {
        return vec![failed(format!("Claude Code does not start the MCP server: {barrier} keeps it from that"), barrier.help())];
    }
    let finding = match (all.own(), &scene.plugin) {
        (Some(own), Ok(true)) => {
            let line = own.command_line();
            let what = format!("the plugin {PLUGIN} brings the MCP server, and {line} is registered too: sessions start both");
            warning(what, one_of_both())
        }
        (Some(own), _) => registered(own).await,
        (None, Ok(true)) => ok(format!("the plugin {PLUGIN} brings the MCP server")),
        (None, Ok(false)) => return vec![unregistered(&others, claude)],
        // The check of the hooks reports the error.
        (None, Err(_)) => {
            return vec![skipped(format!("the MCP server is not registered; whether the plugin {PLUGIN} brings it is unknown"))];
        }
    };
    let mut findings: Vec<_> = std::iter::once(finding).chain(others.into_iter().map(twice)).collect();
    if let Some(server) = servers.into_iter().next() {
        findings.extend(in_projects(all.clone(), policy, server).await);
    }
    findings
}

/// The servers that sessions should start: setup's and the plugin's, or the one that setup would register.
fn servers(scene: &Scene, all: &Registrations) -> Vec<Server> {
    let plugin = matches!(scene.plugin, Ok(true)).then(Server::of_plugin).flatten();
    let servers: Vec<_> = all.own().cloned().into_iter().chain(plugin).collect();
    if servers.is_empty() { beside(SERVER).iter().map(|program| Server::registered(program)).collect() } else { servers }
}

/// The projects whose sessions do not start `server`: the known ones, and the one around this program.
async fn in_projects(all: Registrations, policy: Policy, server: Server) -> Vec<Finding> {
    let here = std::env::current_dir().ok().filter(|here| !all.projects.contains_key(here));
    let projects: Vec<PathBuf> = all.projects.keys().cloned().chain(here).collect();
    let (tell, mut told) = mpsc::unbounded_channel();
    let theirs = projects.clone();
    // On a separate thread, because reading may hang.
    std::thread::spawn(move || theirs.iter().try_for_each(|project| tell.send(in_project(&all, &policy, &server, project))));
    let mut findings = Vec::new();
    for project in projects {
        match timeout(PROJECT_PATIENCE, told.recv()).await {
            Ok(Some(found)) => findings.extend(found),
            _ => {
                let what = format!("{} could not be read in time; this and later projects are not checked", project.display());
                findings.push(warning(what, "see whether its drive answers"));
                break;
            }
        }
    }
    findings
}

fn in_project(all: &Registrations, policy: &Policy, server: &Server, project: &Path) -> Option<Finding> {
    let place = project.display();
    let silent = |file: &dyn Display| format!("sessions in {place} do not start the MCP server: {file} keeps it from that");
    if all.is_off(server, project) {
        let file = format!("{} (`disabledMcpServers`)", all.file.display());
        return Some(warning(silent(&file), "`/mcp` in a session there switches it on"));
    }
    if let Some(barrier) = policy.barrier_in(project, server) {
        return Some(warning(silent(&barrier), barrier.help()));
    }
    let (other, file) = all.in_place_of_ours(project).filter(|_| !server.is_of_plugin())?;
    let (once, help) = match other.scope {
        Scope::Shared(_) => (" once that is approved", format!("rename that server in {}", file.display())),
        _ => ("", format!("in {place}: `claude mcp remove --scope local {NAME}`")),
    };
    let (line, file) = (other.command_line(), file.display());
    let what = format!("sessions in {place} start {line} instead of our MCP server{once}: {file} (`mcpServers`) defines it");
    Some(warning(what, help))
}

fn unregistered(others: &[&Server], claude: Option<Claude>) -> Finding {
    if let Some(Server { name, .. }) = others.iter().find(|server| server.scope == Scope::User) {
        let what = format!(
            "the MCP server is registered under the name {name}, but the channel flag says server:{NAME}: messages do not arrive by \
             themselves"
        );
        return failed(what, format!("`claude mcp remove --scope user {name}`, then {SETUP}"));
    }
    let what = match others.first() {
        Some(Server { scope: Scope::Project(project) | Scope::Shared(project), .. }) => {
            format!("the MCP server is registered for {} only, not for all projects", project.display())
        }
        _ => "the MCP server is not registered with Claude Code: its sessions do not start it".to_owned(),
    };
    let register = || Some(Fix::Run(claude?.register(beside(SERVER)?.to_str()?)));
    failed(what, SETUP).fixes(register())
}

/// There is an entry under our name; checks that it starts our program.
async fn registered(own: &Server) -> Finding {
    let server = beside(SERVER);
    let shown = server.as_ref().map_or_else(|| SERVER.into(), |server| server.to_string_lossy());
    let by_hand = format!("`claude mcp remove --scope user {NAME}`, then `{}`", by_hand(&shown));
    // Setup leaves values alone that may be secret.
    let again = match own.scope {
        Scope::Managed => "ask your administrator to correct it".to_owned(),
        _ if own.variables.is_empty() => format!("{SETUP}, or by hand: {by_hand}"),
        _ => by_hand,
    };
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
    if own.variables.iter().any(|name| name == "CLAUDE_PEERS_SOCKET") {
        let what =
            format!("{NAME} is registered with its own CLAUDE_PEERS_SOCKET: its sessions may use another broker than this shell");
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
    format!(
        "keep one: `claude-peers setup --undo --register-only` removes setup's, `claude plugin uninstall {PLUGIN}` the plugin's"
    )
}

/// Another entry beside the right one: sessions start two servers.
fn twice(other: &Server) -> Finding {
    let Server { name, scope, .. } = other;
    let (place, help) = match scope {
        Scope::Managed | Scope::User => (String::new(), format!("`claude mcp remove --scope user {name}`")),
        Scope::Project(project) | Scope::Shared(project) => {
            let project = project.display();
            (format!(" for {project}"), format!("in {project}: `claude mcp remove --scope local {name}`"))
        }
    };
    warning(format!("the MCP server is registered a second time{place}, as {name} ({})", other.command_line()), help)
}

pub fn settings(scene: &Scene) -> [Finding; 2] {
    let (file, plugin) = match (UserSettings::read(), &scene.plugin) {
        (Ok(file), Ok(plugin)) => (file, *plugin),
        (Err(error), _) => return not_understood(&error),
        (_, Err(error)) => return not_understood(error),
    };
    [hook(&file, plugin), allow_rule(&file, plugin)]
}

fn not_understood(error: &Unreadable) -> [Finding; 2] {
    let help = if matches!(error, Unreadable::Broken { .. }) { CORRECT } else { "make it readable, or correct the variable" };
    let what = "Claude Code's settings cannot be understood";
    [failed(format!("{what}: {error}"), help), skipped(what)]
}

fn hook(file: &UserSettings, plugin: bool) -> Finding {
    let path = file.path.display();
    let Some(program) = beside("claude-peers") else {
        return skipped("this program does not know its own place");
    };
    let installed = file.installed(&program);
    if plugin && installed != Installed::None {
        let what = format!("the plugin {PLUGIN} brings the hook, and {path} has it, too: every prompt runs both");
        return warning(what, one_of_both());
    }
    match installed {
        Installed::None if !plugin => return warning(format!("{path} has no claude-peers hook: {WITHOUT_HOOK}"), ADDS_IT),
        Installed::Other(programs) => {
            let what = format!("the hooks in {path} are of another version or copy ({programs}): {WITHOUT_HOOK}");
            return warning(what, "`claude-peers setup` replaces them");
        }
        Installed::None | Installed::Whole => {}
    }
    let has_ours = if plugin { format!("the plugin {PLUGIN} has our hook") } else { format!("{path} has our hook") };
    if file.disabled {
        let what = format!("{has_ours}, but {path} switches all hooks off (`disableAllHooks`): {WITHOUT_HOOK}");
        return warning(what, format!("take `disableAllHooks` out of {path}, or leave it so"));
    }
    match hooks_forbidden_by() {
        Ok(None) => ok(has_ours),
        Ok(Some(managed)) => {
            let what = format!("{has_ours}, but {} forbids users' hooks: {WITHOUT_HOOK}", managed.display());
            warning(what, "ask your administrator to allow them, or leave it so")
        }
        Err(error) => {
            warning(format!("{has_ours}; whether an administrator allows it is unknown: {error}"), "tell your administrator")
        }
    }
}

fn allow_rule(file: &UserSettings, plugin: bool) -> Finding {
    let (rule, path) = (rule(plugin), file.path.display());
    match file.permission(rule) {
        Some(("allow", _)) => ok(format!("{path} lets sessions use our tools without asking")),
        Some(("ask", theirs)) => ok(format!("sessions ask before they use our tools: {path} has {theirs} in `permissions.ask`")),
        Some((list, theirs)) => warning(
            format!("{path} forbids sessions to use our tools: it has {theirs} in `permissions.{list}`"),
            format!("take {theirs} out of `permissions.{list}` there, unless you want it"),
        ),
        None => {
            let stops = "a session that asks for permission stops before it answers";
            warning(format!("{path} does not have {rule} in `permissions.allow`: {stops}"), ADDS_IT)
        }
    }
}
