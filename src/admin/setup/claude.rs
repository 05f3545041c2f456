//! Setup's changes to Claude Code: the registration of our MCP server, the hook, and the rule that lets sessions use our tools
//! without asking.
//!
//! Claude Code itself adds and removes the registration. Hook and rule are in the user's settings, which setup first copies (as
//! an empty file if there are none). If the file differs from the copy only in our parts, removing the last of them restores the
//! copy byte for byte.

use super::{
    settings::{added_rules, change, take_out},
    step::Step,
};
use crate::{
    admin::place::Place,
    agents::{
        claude::{
            Claude, Installed, OLDEST, OLDEST_WITH_HOOKS, PLUGIN, Policy, RULES, Registrations, UserSettings, WITHOUT_HOOK,
            by_hand, has_plugin, hooks_forbidden_by, rule,
        },
        files::Unreadable,
        program::Version,
        server::Server,
    },
    console::Failure,
    platform::call::Call,
};
use std::path::Path;

/// `modest`: leaves any working entry alone, and says nothing where Claude Code is not installed. `hooks`: the step of the hooks
/// follows, reads the same files, and reports errors in them.
pub async fn register(place: &Place, modest: bool, hooks: bool) -> Result<Option<Step>, Failure> {
    let server = place.server();
    let path = server.to_string_lossy().into_owned();
    let Some(claude) = Claude::find()? else {
        let help = format!("install Claude Code, then run `claude-peers setup` again, or `{}`", by_hand(&path));
        let step = Step::skipped(format!("register {path}: Claude Code is not installed"), help);
        return Ok(Some(step).filter(|_| !modest));
    };
    let registrations = Registrations::read()?;
    let entry = registrations.of_user();
    let barrier = Policy::read().barrier(&registrations, &Server::registered(&server));
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
    if let (Some(file), Some(theirs)) = (&registrations.exclusive, registrations.own()) {
        let what = format!("leave it to {}, which names {}", file.display(), theirs.command_line());
        return Ok(Some(Step::already(what)));
    }
    let warning = barrier.as_ref().map(|barrier| format!("Claude Code does not start it: {barrier} keeps it from that"));
    if let Some(entry) = entry {
        if entry.starts(&server) {
            return Ok(Some(Step::already(format!("register {path}")).note(warning)));
        }
        if modest && entry.runs() {
            return Ok(Some(Step::already(format!("keep the registration of {line}")).note(warning)));
        }
        if !entry.variables.is_empty() {
            let what = format!("{line} is registered as claude-peers, with variables: {}", entry.variables.join(", "));
            let file = registrations.file.display();
            let help = format!("setup does not touch their values, which may be secrets: set its `command` to {path} in {file}");
            return Err(Failure::local(what, help));
        }
    }
    if let Some(barrier) = barrier {
        return Err(Failure::local(format!("register {path}: {barrier} keeps Claude Code from starting it"), barrier.help()));
    }
    let version = version_of(&claude).await?;
    let calls: Vec<Call> = entry.map(|_| claude.deregister()).into_iter().chain([claude.register(&path)]).collect();
    let instead = entry.map(|_| format!(", in place of {line}")).unwrap_or_default();
    let old = (version < OLDEST).then(|| format!("Claude Code {version} is older than {OLDEST} and has no channels: update it"));
    let step = Step::to_do(format!("register {path} with Claude Code {version}{instead}"), async move {
        call(calls, "the entry is not there", |entry| entry.is_some_and(|entry| entry.starts(Path::new(&path)))).await
    });
    Ok(Some(step.note(old.or_else(|| place.passing()))))
}

/// Removes an entry of this copy, or of one that is gone. `modest`: says nothing where `claude` is gone.
pub fn deregister(place: &Place, modest: bool) -> Result<Option<Step>, Failure> {
    let registrations = Registrations::read()?;
    let what = "remove the registration";
    let Some(entry) = registrations.of_user() else {
        let note = match has_plugin() {
            Ok(plugin) => plugin.then(|| format!("the plugin {PLUGIN} stays: `claude plugin uninstall {PLUGIN}` removes it")),
            Err(error) => Some(format!("whether the plugin {PLUGIN} is there cannot be told: {error}")),
        };
        return Ok(Some(Step::already(what).note(note)));
    };
    let of_this = Path::new(&entry.command) == place.server();
    if !of_this && (entry.runs() || !entry.is_ours()) {
        let what = format!("keep the registration of {}, which is another copy's", entry.command_line());
        return Ok(Some(Step::already(what)));
    }
    let Some(claude) = Claude::find()? else {
        let what = format!("{what}: there is no `claude` to do so");
        let help = format!("take `claude-peers` out of `mcpServers` in {}; nothing starts it", registrations.file.display());
        return Ok(Some(Step::skipped(what, help)).filter(|_| !modest));
    };
    let doing = async move { call(vec![claude.deregister()], "the entry is still there", |entry| entry.is_none()).await };
    Ok(Some(Step::to_do(what, doing)))
}

/// Makes the calls, then checks the state of our entry.
async fn call(calls: Vec<Call>, otherwise: &str, well: impl FnOnce(Option<&Server>) -> bool) -> Result<(), Failure> {
    for call in calls {
        let help = format!("correct that, then run this again, or `{call}`");
        call.run().await.map_err(|error| Failure::local(error.to_string(), help))?;
    }
    let what = format!("`claude mcp` reports success, but {otherwise}");
    well(Registrations::read()?.of_user()).then_some(()).ok_or_else(|| Failure::local(what, "look with `claude mcp list`"))
}

pub async fn put_hook(place: &Place) -> Result<Step, Failure> {
    let (file, program) = (UserSettings::read()?, place.command_line());
    let path = file.path.display();
    let what = format!("add a hook to {path}, which confirms that messages arrive");
    let Some(claude) = Claude::find()? else {
        return Ok(Step::skipped(format!("{what}: Claude Code is not installed"), "install Claude Code, then run this again"));
    };
    let disabled = match hooks_forbidden_by() {
        _ if file.disabled => Some(format!("{path} sets `disableAllHooks`, so it does not run: {WITHOUT_HOOK}")),
        Ok(managed) => managed.map(|managed| format!("{} forbids users' hooks: {WITHOUT_HOOK}", managed.display())),
        Err(error) => Some(format!("whether an administrator allows it cannot be told: {error}")),
    };
    if has_plugin()? {
        let step = Step::already(format!("leave the hook to the plugin {PLUGIN}, which brings its own"));
        let twice = || format!("{path} has ours beside it: `claude-peers setup --undo --register-only` removes that");
        return Ok(step.note(file.has_hooks().then(twice).or(disabled)));
    }
    let instead = match file.installed(&program) {
        Installed::Whole => return Ok(Step::already(what).note(disabled)),
        Installed::Other(programs) => format!(", in place of those of {programs}"),
        Installed::None => String::new(),
    };
    let version = version_of(&claude).await?;
    if version < OLDEST_WITH_HOOKS {
        let what = format!("{what}: Claude Code {version} is older than {OLDEST_WITH_HOOKS}");
        return Ok(Step::skipped(what, "update it (`claude update`) and run this again"));
    }
    let doing = async move { change(&file, |file| file.with_hook(&program)) };
    Ok(Step::to_do(what + &instead, doing).note(disabled))
}

pub async fn version_of(claude: &Claude) -> Result<Version, Failure> {
    claude.0.version().await.map_err(|error| Failure::local(error, format!("see that {} runs", claude.0.path.display())))
}

/// None where Claude Code is not installed, and where the step of the registration reports that the plugin's file cannot be read.
pub fn put_rule() -> Result<Option<Step>, Unreadable> {
    let file = UserSettings::read()?;
    let (Ok(plugin), Ok(Some(_))) = (has_plugin(), Claude::find()) else { return Ok(None) };
    let (rule, path) = (rule(plugin), file.path.display());
    let what = format!("let sessions use the claude-peers tools without asking: {rule} in {path}");
    Ok(Some(match file.permission(rule) {
        Some(("allow", _)) => Step::already(what),
        Some((list, theirs)) => {
            Step::already(format!("leave the tools' permission to {path}, which has {theirs} in `permissions.{list}`"))
        }
        None => Step::to_do(what, async move { change(&file, |file| file.with_rule(rule)) })
            .note(Some("`claude-peers setup --undo` removes it; `--no-allow` leaves it out".to_owned())),
    }))
}

/// Removes the rule if setup has added it, which the copy shows, and if the hooks are not another copy's. `modest`: keeps the plugin's
/// rule, and says nothing where there is none.
pub fn take_rule(place: &Place, modest: bool) -> Result<Option<Step>, Unreadable> {
    let file = UserSettings::read()?;
    let mut ours = added_rules(&file)?;
    if modest && matches!(has_plugin(), Ok(true)) {
        ours.retain(|theirs| *theirs != rule(true));
    }
    let (path, what) = (file.path.display(), "remove the rule that spares sessions a question");
    if ours.is_empty() || !file.is_of(&place.command_line()) {
        let theirs = RULES.into_iter().find(|rule| file.has_rule(rule));
        let kept = theirs.map(|rule| format!("keep {rule} in {path}, which this setup has not added"));
        return Ok((!modest).then(|| Step::already(kept.unwrap_or_else(|| what.to_owned()))));
    }
    let what = format!("{what}: {} in {path}", ours.join(" and "));
    let base = place.base(&file.path).to_owned();
    let doing = async move { ours.into_iter().try_for_each(|rule| take_out(&file, &base, |file| file.without_rule(rule))) };
    Ok(Some(Step::to_do(what, doing)))
}
