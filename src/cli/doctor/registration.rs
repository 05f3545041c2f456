//! Claude Code: whether it is there, whether it is new enough, and whether it starts our MCP server under the name that its channel
//! flag says.

use super::{Finding, fix::Fix, hooks::WITHOUT_HOOKS, programs, scene::Scene};
use crate::{
    cli::claude::{Claude, NAME, OLDEST, OLDEST_WITH_HOOKS, PLUGIN, Scope, Server, by_hand},
    settings::InvalidSetting,
};
use std::path::PathBuf;

const CLAUDE: &str = "claude";
const REGISTRATION: &str = "registration";

/// Claude Code, and its registration of our server.
pub async fn check(scene: &Scene) -> Vec<Finding> {
    let claude = Claude::find();
    let mut findings = vec![program(&claude).await];
    let all = match &scene.registrations {
        Ok(all) => all,
        Err(error) => {
            let what = format!("Claude Code's file cannot be understood: {error}");
            findings.push(Finding::failed(
                REGISTRATION,
                what,
                "correct that place in the file, or move the file away; nothing else changes it",
            ));
            return findings;
        }
    };
    let others: Vec<&Server> = all.others().collect();
    let plugin = matches!(scene.plugin, Ok(true));
    findings.push(match (all.own(), &scene.plugin) {
        (Some(own), Ok(true)) => beside_plugin(own),
        (Some(own), _) => registered(own).await,
        (None, Ok(true)) => Finding::ok(REGISTRATION, format!("the plugin {PLUGIN} brings the MCP server")),
        (None, Ok(false)) => unregistered(&others, claude.ok().flatten()),
        // What is wrong there the check of the hooks says.
        (None, Err(_)) => Finding::skipped(
            REGISTRATION,
            format!("the MCP server is not registered; whether the plugin {PLUGIN} brings it cannot be told"),
        ),
    });
    if plugin || all.own().is_some() {
        findings.extend(others.into_iter().map(twice));
    }
    findings
}

async fn program(claude: &Result<Option<Claude>, InvalidSetting>) -> Finding {
    let claude = match claude {
        Ok(Some(claude)) => claude,
        Ok(None) => {
            return Finding::failed(
                CLAUDE,
                "Claude Code was not found: there is no `claude` on PATH, nor where installers put it",
                "install Claude Code; if it lies elsewhere, say where with CLAUDE_PEERS_CLAUDE=/path/to/claude",
            );
        }
        Err(error) => return Finding::failed(CLAUDE, error.to_string(), "correct or unset the variable"),
    };
    let path = claude.path.display();
    match claude.version().await {
        Ok(version) if version < OLDEST => Finding::failed(
            CLAUDE,
            format!("Claude Code {version} ({path}) is too old: channels need {OLDEST}"),
            "upgrade it: `claude update`, or the way you installed it",
        ),
        Ok(version) if version < OLDEST_WITH_HOOKS => Finding::warning(
            CLAUDE,
            format!("Claude Code {version} ({path}) is too old for our hooks, which need {OLDEST_WITH_HOOKS}: {WITHOUT_HOOKS}"),
            "upgrade it: `claude update`, or the way you installed it",
        ),
        Ok(version) => Finding::ok(CLAUDE, format!("Claude Code {version} ({path})")),
        Err(error) => {
            Finding::failed(CLAUDE, error.to_string(), format!("see what `{path} --version` says, and install Claude Code again"))
        }
    }
}

fn server() -> Option<PathBuf> {
    programs::beside("claude-peers-mcp")
}

fn shown_server() -> String {
    server().map_or_else(|| "claude-peers-mcp".to_owned(), |server| server.to_string_lossy().into_owned())
}

fn unregistered(others: &[&Server], claude: Option<Claude>) -> Finding {
    let under_another_name = others.iter().find(|server| server.scope == Scope::User);
    if let Some(server) = under_another_name {
        return Finding::failed(
            REGISTRATION,
            format!(
                "the MCP server is registered under the name {}, but the channel flag says server:{NAME}: messages do not arrive by themselves",
                server.name
            ),
            format!("`claude mcp remove --scope user {}`, then `claude-peers setup`", server.name),
        );
    }
    if let Some(Server { scope: Scope::Project(project), .. }) = others.first() {
        return Finding::failed(
            REGISTRATION,
            format!("the MCP server is registered for {} only, not for all projects", project.display()),
            "`claude-peers setup`",
        )
        .fixes(register(claude));
    }
    Finding::failed(
        REGISTRATION,
        "the MCP server is not registered with Claude Code: its sessions do not know it",
        "`claude-peers setup`",
    )
    .fixes(register(claude))
}

fn register(claude: Option<Claude>) -> Option<Fix> {
    Some(Fix::Run(claude?.register(server()?.to_str()?)))
}

/// There is an entry under our name: whether it starts our program.
async fn registered(own: &Server) -> Finding {
    let by_hand = format!("`claude mcp remove --scope user {NAME}`, then `{}`", by_hand(&shown_server()));
    // Setup does not handle what may be secret.
    let again = if own.variables.is_empty() { format!("`claude-peers setup`, or by hand: {by_hand}") } else { by_hand };
    let command = own.command_line();
    let failed = |what: String| Finding::failed(REGISTRATION, what, again.clone());
    if !own.is_ours() {
        return failed(format!("{NAME} is registered, but for another program: {command}"));
    }
    if !own.arguments.is_empty() {
        return failed(format!("{NAME} is registered with arguments that the program does not take: {command}"));
    }
    let path = match which::which(&own.command) {
        Ok(path) => path,
        Err(_) => {
            return failed(format!("{NAME} is registered as {command}, but there is no such program, or it may not be executed"));
        }
    };
    if let Some(variable) = own.variables.iter().find(|name| *name == "CLAUDE_PEERS_SOCKET") {
        return Finding::warning(
            REGISTRATION,
            format!("{NAME} is registered with {variable} of its own: its sessions may look for another broker than this shell"),
            again,
        );
    }
    match server() {
        Some(server) if !programs::same(&server, &path) => {
            let what =
                format!("{NAME} is registered as {command}, which is not the one beside this program ({})", server.display());
            match programs::version(&path).await {
                Ok(version) if version == crate::wire::VERSION => {
                    Finding::warning(REGISTRATION, format!("{what}, though of the same version"), again)
                }
                Ok(version) => failed(format!("{what}, but version {version}")),
                Err(why) => failed(format!("{what}: {why}")),
            }
        }
        _ => Finding::ok(REGISTRATION, format!("{NAME} is registered as {command}")),
    }
}

/// Sessions start the server twice: as the plugin's and as the user's.
fn beside_plugin(own: &Server) -> Finding {
    Finding::warning(
        REGISTRATION,
        format!(
            "the plugin {PLUGIN} brings the MCP server, and {} is registered beside it: sessions start both",
            own.command_line()
        ),
        one_of_both(),
    )
}

/// How one keeps either the plugin or what setup did.
pub fn one_of_both() -> String {
    format!(
        "keep one: `claude-peers setup --undo --register-only` takes out what setup did, `claude plugin uninstall {PLUGIN}` the plugin"
    )
}

/// Another entry beside the right one: sessions would start two servers.
fn twice(other: &Server) -> Finding {
    let (place, scope) = match &other.scope {
        Scope::User => (String::new(), "user"),
        Scope::Project(project) => (format!(" for {}", project.display()), "local"),
    };
    Finding::warning(
        REGISTRATION,
        format!("the MCP server is registered a second time{place}, as {} ({})", other.name, other.command_line()),
        match &other.scope {
            Scope::User => format!("`claude mcp remove --scope {scope} {}`", other.name),
            Scope::Project(project) => format!("in {}: `claude mcp remove --scope {scope} {}`", project.display(), other.name),
        },
    )
}
