//! The registration of our MCP server with Claude Code, made and unmade by Claude Code itself.

use super::{place::Place, settings::see_that_it_runs, step::Step};
use crate::{
    agents::claude::{Claude, OLDEST, PLUGIN, Registrations, Server, by_hand, has_plugin},
    console::exit::Problem,
    platform::call::Call,
};
use std::path::Path;

pub const NAME: &str = "registration";

/// The step that registers. `modest`: an entry that works is left alone, whatever it is, and nothing is said where Claude Code
/// is not installed. `hooks`: the step that follows is that of the hooks, which needs the same files and says what is wrong in them.
pub async fn register(place: &Place, modest: bool, hooks: bool) -> Option<Step> {
    plan(place, modest, hooks).await.unwrap_or_else(|problem| Some(Step::impossible(NAME, problem)))
}

async fn plan(place: &Place, modest: bool, hooks: bool) -> Result<Option<Step>, Problem> {
    let already = |what: String| Ok(Some(Step::already(NAME, what)));
    let server = place.server();
    let path = server.to_string_lossy().into_owned();
    let Some(claude) = Claude::find()? else {
        let what = format!("register {path}, but Claude Code is not installed");
        let help = format!("after installing it run `claude-peers setup` again, or `{}`", by_hand(&path));
        return Ok(Some(Step::left_out(NAME, what, help)).filter(|_| !modest));
    };
    let registrations = Registrations::read()?;
    let entry = registrations.own();
    let line = entry.map(Server::command_line).unwrap_or_default();
    let plugin = match has_plugin() {
        Err(_) if hooks => {
            let what = format!("register {path}, if the plugin {PLUGIN} does not bring it, which cannot be told");
            return Ok(Some(Step::left_out(NAME, what, "mend what the hooks need, then run this again")));
        }
        plugin => plugin?,
    };
    if plugin {
        let step = Step::already(NAME, format!("leave it to the plugin {PLUGIN}, which brings the MCP server"));
        let twice = || format!("{line} is registered beside it: `claude-peers setup --undo --register-only` takes that out");
        return Ok(Some(step.note(entry.map(|_| twice()))));
    }
    if let Some(entry) = entry {
        if entry.starts(&server) {
            return already(format!("register {path}"));
        }
        if modest && runs(entry) {
            return already(format!("leave the registration of {line} as it is"));
        }
        if !entry.variables.is_empty() {
            let what = format!("{line} is registered as claude-peers, with variables: {}", entry.variables.join(", "));
            let file = registrations.file.display();
            let help =
                format!("their values may be secrets that setup will not handle: change its `command` to {path} in {file}");
            return Err(Problem::new(what, help));
        }
    }
    let version = claude.version().await.map_err(|error| see_that_it_runs(error, &claude))?;
    let calls: Vec<Call> = entry.map(|_| claude.deregister()).into_iter().chain([claude.register(&path)]).collect();
    let instead = entry.map(|_| format!(", in place of {line}")).unwrap_or_default();
    let old = (version < OLDEST).then(|| format!("Claude Code {version} is older than {OLDEST} and has no channels: update it"));
    let step = Step::to_do(NAME, format!("register {path} with Claude Code {version}{instead}"), async move {
        change(calls).await?;
        match Registrations::read()?.own() {
            Some(entry) if entry.starts(Path::new(&path)) => Ok(()),
            _ => {
                let claude = claude.path.display();
                let what = format!("{claude} says that it has registered {path}, and its settings do not show it");
                Err(Problem::new(what, "look with `claude mcp list`"))
            }
        }
    });
    Ok(Some(step.note(old.or_else(|| place.passing()))))
}

/// The step that takes the registration out again, where it is of this copy or of one that is gone.
pub fn deregister(place: &Place, modest: bool) -> Option<Step> {
    plan_back(place, modest).unwrap_or_else(|problem| Some(Step::impossible(NAME, problem)))
}

fn plan_back(place: &Place, modest: bool) -> Result<Option<Step>, Problem> {
    let registrations = Registrations::read()?;
    let what = "take the registration out";
    let Some(entry) = registrations.own() else {
        let note = match has_plugin() {
            Ok(plugin) => plugin.then(|| format!("the plugin {PLUGIN} stays: `claude plugin uninstall {PLUGIN}` takes it out")),
            Err(error) => Some(format!("whether the plugin {PLUGIN} is there cannot be told: {error}")),
        };
        return Ok(Some(Step::already(NAME, what).note(note)));
    };
    let of_this = Path::new(&entry.command) == place.server();
    if !of_this && (runs(entry) || !entry.is_ours()) {
        let what = format!("leave the registration of {}, which is not this copy's", entry.command_line());
        return Ok(Some(Step::already(NAME, what)));
    }
    let Some(claude) = Claude::find()? else {
        let what = format!("{} names claude-peers, and there is no `claude` to take it out", registrations.file.display());
        let step = Step::left_out(NAME, what, "take `claude-peers` out of `mcpServers` there; nothing starts it");
        return Ok(Some(step).filter(|_| !modest));
    };
    Ok(Some(Step::to_do(NAME, what, async move {
        change(vec![claude.deregister()]).await?;
        let what = "`claude mcp remove` succeeded, and the entry is still there";
        let gone = Registrations::read()?.own().is_none();
        if gone { Ok(()) } else { Err(Problem::new(what, "look with `claude mcp list`")) }
    })))
}

/// Whether the entry's program is there to be started.
fn runs(entry: &Server) -> bool {
    let path = Path::new(&entry.command);
    // A bare name is looked up by Claude Code in a search path that is not ours to know.
    !path.is_absolute() || path.exists()
}

async fn change(calls: Vec<Call>) -> Result<(), Problem> {
    for call in calls {
        let help = format!("mend what it says, then run this again, or `{call}`");
        call.run().await.map_err(|error| Problem::new(error.to_string(), help))?;
    }
    Ok(())
}
