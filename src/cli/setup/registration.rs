//! The registration of our MCP server with Claude Code, made and unmade by Claude Code itself.

use super::{
    place::Place,
    step::{Ended, Problem, Step},
};
use crate::cli::{
    call::Call,
    claude::{Claude, OLDEST, PLUGIN, Registrations, Server, Unreadable, by_hand, has_plugin},
};
use std::path::Path;

/// The step's name.
pub const NAME: &str = "registration";

/// The step that registers. `modest`: an entry that works is left alone, whatever it is, and nothing is said where Claude Code
/// is not installed. `hooks`: the step that follows is that of the hooks, which needs the same files and says what is wrong in them.
pub async fn register(place: &Place, modest: bool, hooks: bool) -> Option<Step> {
    match plan(place, modest, hooks).await {
        Ok(step) => step,
        Err(problem) => Some(Step::impossible(NAME, problem)),
    }
}

async fn plan(place: &Place, modest: bool, hooks: bool) -> Result<Option<Step>, Problem> {
    let server = place.server();
    let path = server.to_string_lossy().into_owned();
    let Some(claude) = Claude::find()? else {
        let step = Step::left_out(
            NAME,
            format!("register {path}, but Claude Code is not installed"),
            format!("after installing it run `claude-peers setup` again, or `{}`", by_hand(&path)),
        );
        return Ok(Some(step).filter(|_| !modest));
    };
    let registrations = Registrations::read()?;
    let entry = registrations.own();
    let plugin = match has_plugin() {
        Err(_) if hooks => {
            let what = format!("register {path}, if the plugin {PLUGIN} does not bring it, which cannot be told");
            return Ok(Some(Step::left_out(NAME, what, "mend what the hooks need, then run this again")));
        }
        plugin => plugin?,
    };
    if plugin {
        let step = Step::already(NAME, format!("leave it to the plugin {PLUGIN}, which brings the MCP server"));
        let twice = entry.map(|entry| {
            format!(
                "{} is registered beside it: `claude-peers setup --undo --register-only` takes that out",
                entry.command_line()
            )
        });
        return Ok(Some(step.note(twice)));
    }
    if let Some(entry) = entry {
        if entry.starts(&server) {
            return Ok(Some(Step::already(NAME, format!("register {path}"))));
        }
        if modest && runs(entry) {
            return Ok(Some(Step::already(NAME, format!("leave the registration of {} as it is", entry.command_line()))));
        }
        if !entry.variables.is_empty() {
            let what =
                format!("{} is registered as claude-peers, with variables: {}", entry.command_line(), entry.variables.join(", "));
            let help = format!(
                "their values may be secrets that setup will not handle: change its `command` to {path} in {}",
                registrations.file.display()
            );
            return Err(Problem::new(what, help));
        }
    }
    let version =
        claude.version().await.map_err(|e| Problem::new(e.to_string(), format!("see that {} runs", claude.path.display())))?;
    let mut calls: Vec<Call> = entry.map(|_| claude.deregister()).into_iter().collect();
    calls.push(claude.register(&path));
    let instead = entry.map(|entry| format!(", in place of {}", entry.command_line())).unwrap_or_default();
    let old = (version < OLDEST).then(|| format!("Claude Code {version} is older than {OLDEST} and has no channels: update it"));
    let step = Step::to_do(NAME, format!("register {path} with Claude Code {version}{instead}"), async move {
        change(calls).await?;
        match Registrations::read()?.own() {
            Some(entry) if entry.starts(Path::new(&path)) => Ok(Ended::Well(String::new())),
            _ => {
                let what =
                    format!("{} says that it has registered {path}, and its settings do not show it", claude.path.display());
                Err(Problem::new(what, "look with `claude mcp list`"))
            }
        }
    });
    Ok(Some(step.note(old.or_else(|| place.passing()))))
}

/// The step that takes the registration out again, where it is of this copy or of one that is gone.
pub async fn deregister(place: &Place, modest: bool) -> Option<Step> {
    let registrations = match Registrations::read() {
        Ok(registrations) => registrations,
        Err(error) => return Some(Step::impossible(NAME, error.into())),
    };
    let what = "take the registration out";
    let Some(entry) = registrations.own() else {
        return Some(Step::already(NAME, what).note(match has_plugin() {
            Ok(plugin) => plugin.then(|| format!("the plugin {PLUGIN} stays: `claude plugin uninstall {PLUGIN}` takes it out")),
            Err(error) => Some(format!("whether the plugin {PLUGIN} is there cannot be told: {error}")),
        }));
    };
    let of_this = Path::new(&entry.command) == place.server();
    if !of_this && (runs(entry) || !entry.is_ours()) {
        return Some(Step::already(
            NAME,
            format!("leave the registration of {}, which is not this copy's", entry.command_line()),
        ));
    }
    let claude = match Claude::find() {
        Ok(Some(claude)) => claude,
        Ok(None) if modest => return None,
        Ok(None) => {
            let what = format!("{} names claude-peers, and there is no `claude` to take it out", registrations.file.display());
            return Some(Step::left_out(NAME, what, "take `claude-peers` out of `mcpServers` there; nothing starts it"));
        }
        Err(error) => return Some(Step::impossible(NAME, error.into())),
    };
    Some(Step::to_do(NAME, what, async move {
        change(vec![claude.deregister()]).await?;
        match Registrations::read()?.own() {
            None => Ok(Ended::Well(String::new())),
            Some(_) => {
                Err(Problem::new("`claude mcp remove` succeeded, and the entry is still there", "look with `claude mcp list`"))
            }
        }
    }))
}

/// Whether the entry's program is there to be started.
fn runs(entry: &Server) -> bool {
    let path = Path::new(&entry.command);
    // A bare name is looked up by Claude Code in a search path that is not ours to know.
    !path.is_absolute() || path.exists()
}

async fn change(calls: Vec<Call>) -> Result<(), Problem> {
    for call in calls {
        call.run()
            .await
            .map_err(|e| Problem::new(e.to_string(), format!("mend what it says, then run this again, or `{call}`")))?;
    }
    Ok(())
}

impl From<Unreadable> for Problem {
    fn from(error: Unreadable) -> Self {
        let help = match &error {
            Unreadable::Setting(_) => "correct or unset the variable",
            Unreadable::System { .. } => "give yourself the right to read it, then run this again",
            Unreadable::Broken { .. } => "it is left as it is: correct it, or move it away, and run this again",
        };
        Self::new(error.to_string(), help)
    }
}
