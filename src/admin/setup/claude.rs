//! Setup's changes to Claude Code: the registration of our MCP server, the hook, and the rule that lets sessions use our tools
//! without asking.
//!
//! Claude Code itself adds and removes the registration. Hook and rule are in the user's settings, which setup first copies (as
//! an empty file if there are none). If the file differs from the copy only in our parts, removing the last of them restores the
//! copy byte for byte.

use super::{files, place::Place, step::Step};
use crate::{
    agents::claude::{
        Claude, Installed, OLDEST, OLDEST_WITH_HOOKS, PLUGIN, Policy, RULES, Registrations, Server, Unreadable, UserSettings,
        Version, WITHOUT_HOOK, by_hand, has_plugin, hooks_forbidden_by, rule,
    },
    console::exit::{Problem, UNSET},
    platform::{call::Call, files::resolve},
};
use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// `modest`: leaves any working entry alone, and says nothing where Claude Code is not installed. `hooks`: the step of the hooks
/// follows, reads the same files, and reports errors in them.
pub async fn register(place: &Place, modest: bool, hooks: bool) -> Result<Option<Step>, Problem> {
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
        if modest && runs(entry) {
            return Ok(Some(Step::already(format!("keep the registration of {line}")).note(warning)));
        }
        if !entry.variables.is_empty() {
            let what = format!("{line} is registered as claude-peers, with variables: {}", entry.variables.join(", "));
            let file = registrations.file.display();
            let help = format!("setup does not touch their values, which may be secrets: set its `command` to {path} in {file}");
            return Err(Problem::new(what, help));
        }
    }
    if let Some(barrier) = barrier {
        return Err(Problem::new(format!("register {path}: {barrier} keeps Claude Code from starting it"), barrier.help()));
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
pub fn deregister(place: &Place, modest: bool) -> Result<Option<Step>, Problem> {
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
    if !of_this && (runs(entry) || !entry.is_ours()) {
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

/// Whether the entry's program exists.
fn runs(entry: &Server) -> bool {
    let path = Path::new(&entry.command);
    // Claude Code looks up a bare name in its own search path, which may differ from ours.
    !path.is_absolute() || path.exists()
}

/// Makes the calls, then checks the state of our entry.
async fn call(calls: Vec<Call>, otherwise: &str, well: impl FnOnce(Option<&Server>) -> bool) -> Result<(), Problem> {
    for call in calls {
        let help = format!("correct that, then run this again, or `{call}`");
        call.run().await.map_err(|error| Problem::new(error.to_string(), help))?;
    }
    let what = format!("`claude mcp` reports success, but {otherwise}");
    well(Registrations::read()?.of_user()).then_some(()).ok_or_else(|| Problem::new(what, "look with `claude mcp list`"))
}

pub async fn put_hook(place: &Place) -> Result<Step, Problem> {
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
    let doing = async move { change(|file| file.with_hook(&program)) };
    Ok(Step::to_do(what + &instead, doing).note(disabled))
}

pub async fn version_of(claude: &Claude) -> Result<Version, Problem> {
    claude.version().await.map_err(|error| Problem::new(error, format!("see that {} runs", claude.path.display())))
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
        None => Step::to_do(what, async move { change(|file| file.with_rule(rule)) })
            .note(Some("`claude-peers setup --undo` removes it; `--no-allow` leaves it out".to_owned())),
    }))
}

/// Removes our hooks, if they are of this copy or of one that is gone. `modest`: says nothing where there are none.
pub fn take_hook(place: &Place, modest: bool) -> Result<Option<Step>, Unreadable> {
    let file = UserSettings::read()?;
    if !file.has_hooks() {
        return Ok((!modest).then(|| Step::already("remove our hook")));
    }
    if !file.is_of(&place.command_line()) {
        return Ok(Some(Step::already("keep the hooks, which are another copy's")));
    }
    let base = place.base(&file.path).to_owned();
    let doing = async move { take_out(&base, UserSettings::without_hooks) };
    Ok(Some(Step::to_do(format!("remove our hook from {}", file.path.display()), doing)))
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
    let doing = async move { ours.into_iter().try_for_each(|rule| take_out(&base, |file| file.without_rule(rule))) };
    Ok(Some(Step::to_do(what, doing)))
}

/// Writes the file as changed by `change`, after saving a copy without our parts.
fn change(change: impl FnOnce(&UserSettings) -> Option<String>) -> Result<(), Problem> {
    let file = UserSettings::read()?;
    let text = changed(&file, change)?;
    let copy = copy(&file)?;
    let is_first = copy.text.is_none() || !file.has_hooks() && added_rules(&file)?.is_empty();
    if is_first {
        // Earlier versions made no copy if there was no file.
        let before = changed(&file, UserSettings::without_hooks)?;
        write(&copy.path, if file.has_hooks() && before.trim() == "{}" { "" } else { &before })?;
    }
    write(&file.path, &text).inspect_err(|_| {
        // If this fails, too, the copy is out of date, which does no harm.
        let _ = match &copy.text {
            Some(earlier) if is_first => write(&copy.path, earlier),
            Some(_) => Ok(()),
            None => remove(&copy.path, &copy.path),
        };
    })
}

/// Writes the file as `change` makes it, which has less of ours. Folders that this leaves empty go, up to `base`.
fn take_out(base: &Path, change: impl FnOnce(&UserSettings) -> Option<String>) -> Result<(), Problem> {
    let file = UserSettings::read()?;
    let copy = copy(&file)?;
    let text = changed(&file, change)?;
    let left = UserSettings::of(file.path, Some(text))?;
    let is_last = !left.has_hooks() && RULES.iter().all(|rule| left.has_rule(rule) == copy.has_rule(rule));
    let restores = is_last && copy.text.is_some() && left.is_same_beside_ours(&copy);
    let there_was_none = is_last && copy.text.as_deref().is_none_or(str::is_empty);
    let text = if restores { &copy.text } else { &left.text }.as_deref().unwrap_or_default();
    if there_was_none && ["", "{}"].contains(&text.trim()) {
        remove(&left.path, base)?;
    } else {
        write(&left.path, text)?;
    }
    if restores || there_was_none { remove(&copy.path, base) } else { Ok(()) }
}

/// Removes a file of the user's. A link to it stays, and so does the folder that the link names.
fn remove(path: &Path, base: &Path) -> Result<(), Problem> {
    if path.is_symlink() {
        let target = target(path)?;
        return files::remove(&target, &target);
    }
    files::remove(path, base)
}

fn changed(file: &UserSettings, change: impl FnOnce(&UserSettings) -> Option<String>) -> Result<String, Problem> {
    let what = || format!("{} cannot be changed without touching more than our part", file.path.display());
    change(file).ok_or_else(|| Problem::new(what(), "change it by hand"))
}

/// The rules that are in the file but not in setup's earlier copy.
fn added_rules(file: &UserSettings) -> Result<Vec<&'static str>, Unreadable> {
    let copy = copy(file)?;
    let added = |rule: &&str| file.has_rule(rule) && copy.text.is_some() && !copy.has_rule(rule);
    Ok(RULES.into_iter().filter(added).collect())
}

fn copy(file: &UserSettings) -> Result<UserSettings, Unreadable> {
    UserSettings::read_at(file.path.with_added_extension("before-claude-peers"))
}

/// Writes a file of the user's through links, and keeps its mode.
fn write(path: &Path, text: &str) -> Result<(), Problem> {
    let target = target(path)?;
    let rights = fs::metadata(&target).map_or_else(|_| Permissions::from_mode(0o600), |meta| meta.permissions());
    files::write(&target, text, 0o700, rights)
}

/// The file itself, behind all links.
fn target(path: &Path) -> Result<PathBuf, Problem> {
    resolve(path).map_err(|error| Problem::io("writing", path, &error, "correct or remove the link, then run this again"))
}

impl From<Unreadable> for Problem {
    fn from(error: Unreadable) -> Self {
        let help = match &error {
            Unreadable::Setting(_) => UNSET,
            Unreadable::System { .. } => "give yourself the right to read it, then run this again",
            Unreadable::Broken { .. } => "correct it, or move it away, and run this again",
        };
        Self::new(error.to_string(), help)
    }
}
