//! The registration of our MCP server. Claude Code itself makes and removes it.

use super::{place::Place, settings::version_of, step::Step};
use crate::{
    agents::claude::{Claude, OLDEST, PLUGIN, Registrations, Server, by_hand, has_plugin},
    console::exit::Problem,
    platform::call::Call,
};
use std::path::Path;

pub const NAME: &str = "registration";

/// `modest`: leaves any working entry alone, and says nothing where Claude Code is not installed. `hooks`: the step of the hooks
/// follows, reads the same files, and reports errors in them.
pub async fn put(place: &Place, modest: bool, hooks: bool) -> Result<Option<Step>, Problem> {
    let server = place.server();
    let path = server.to_string_lossy().into_owned();
    let Some(claude) = Claude::find()? else {
        let help = format!("install Claude Code, then run `claude-peers setup` again, or `{}`", by_hand(&path));
        let step = Step::skipped(format!("register {path}: Claude Code is not installed"), help);
        return Ok(Some(step).filter(|_| !modest));
    };
    let registrations = Registrations::read()?;
    let entry = registrations.own();
    let line = entry.map(Server::command_line).unwrap_or_default();
    match has_plugin() {
        Err(_) if hooks => {
            let what = format!("register {path}: whether the plugin {PLUGIN} does so cannot be told");
            return Ok(Some(Step::skipped(what, "correct the file that the hooks need, then run this again")));
        }
        Err(error) => return Err(error.into()),
        Ok(true) => {
            let step = Step::already(format!("leave it to the plugin {PLUGIN}, which brings the MCP server"));
            let twice = || format!("{line} is registered beside it: `claude-peers setup --undo --register-only` removes that");
            return Ok(Some(step.note(entry.map(|_| twice()))));
        }
        Ok(false) => {}
    }
    if let Some(entry) = entry {
        if entry.starts(&server) {
            return Ok(Some(Step::already(format!("register {path}"))));
        }
        if modest && runs(entry) {
            return Ok(Some(Step::already(format!("keep the registration of {line}"))));
        }
        if !entry.variables.is_empty() {
            let what = format!("{line} is registered as claude-peers, with variables: {}", entry.variables.join(", "));
            let file = registrations.file.display();
            let help = format!("setup does not touch their values, which may be secrets: set its `command` to {path} in {file}");
            return Err(Problem::new(what, help));
        }
    }
    let version = version_of(&claude).await?;
    let calls: Vec<Call> = entry.map(|_| claude.deregister()).into_iter().chain([claude.register(&path)]).collect();
    let instead = entry.map(|_| format!(", in place of {line}")).unwrap_or_default();
    let old = (version < OLDEST).then(|| format!("Claude Code {version} is older than {OLDEST} and has no channels: update it"));
    let step = Step::to_do(format!("register {path} with Claude Code {version}{instead}"), async move {
        change(calls, "the entry is not there", |entry| entry.is_some_and(|entry| entry.starts(Path::new(&path)))).await
    });
    Ok(Some(step.note(old.or_else(|| place.passing()))))
}

/// Removes an entry of this copy, or of one that is gone. `modest`: says nothing where `claude` is gone.
pub fn take_back(place: &Place, modest: bool) -> Result<Option<Step>, Problem> {
    let registrations = Registrations::read()?;
    let what = "remove the registration";
    let Some(entry) = registrations.own() else {
        let note = match has_plugin() {
            Ok(plugin) => plugin.then(|| format!("the plugin {PLUGIN} stays: `claude plugin uninstall {PLUGIN}` removes it")),
            Err(error) => Some(format!("whether the plugin {PLUGIN} is there cannot be told: {error}")),
        };
        return Ok(Some(Step::already(what).note(note)));
    };
    let of_this = Path::new(&entry.command) == place.server();
    if !of_this && (runs(entry) || !entry.is_ours()) {
        let what = format!("keep the registration of {}, which is another copy's", entry.command_line());
        return Ok(Some(Step::already(what)));
    }
    let Some(claude) = Claude::find()? else {
        let what = format!("{what}: there is no `claude` to do so");
        let help = format!("take `claude-peers` out of `mcpServers` in {}; nothing starts it", registrations.file.display());
        return Ok(Some(Step::skipped(what, help)).filter(|_| !modest));
    };
    let doing = async move { change(vec![claude.deregister()], "the entry is still there", |entry| entry.is_none()).await };
    Ok(Some(Step::to_do(what, doing)))
}

/// Whether the entry's program exists.
fn runs(entry: &Server) -> bool {
    let path = Path::new(&entry.command);
    // Claude Code looks a bare name up in a search path that is not ours.
    !path.is_absolute() || path.exists()
}

/// Makes the calls, then looks at what became of our entry.
async fn change(calls: Vec<Call>, otherwise: &str, well: impl FnOnce(Option<&Server>) -> bool) -> Result<(), Problem> {
    for call in calls {
        let help = format!("correct that, then run this again, or `{call}`");
        call.run().await.map_err(|error| Problem::new(error.to_string(), help))?;
    }
    let what = format!("`claude mcp` reports success, but {otherwise}");
    well(Registrations::read()?.own()).then_some(()).ok_or_else(|| Problem::new(what, "look with `claude mcp list`"))
}
