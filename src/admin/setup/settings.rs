//! The user's settings of Claude Code: the hook, and the rule that lets sessions use our tools without asking.
//!
//! Setup first copies the file beside itself, as an empty file where there is none. If only our parts differ when the last of them is
//! removed, the file becomes what the copy is, to the byte.

use super::{files, place::Place, step::Step};
use crate::{
    agents::claude::{
        Claude, Installed, OLDEST_WITH_HOOKS, PLUGIN, RULES, Unreadable, UserSettings, Version, WITHOUT_HOOK, has_plugin,
        hooks_forbidden_by, rule,
    },
    console::exit::{Problem, UNSET},
};
use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

pub const HOOK: &str = "hooks";
pub const RULE: &str = "allow_rule";
const COPY: &str = ".before-claude-peers";

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

/// `reported`: the step of the hook reports a file that cannot be read. None where Claude Code is not installed, and where the step of
/// the registration reports that the plugin's file cannot be read.
pub fn put_rule(reported: bool) -> Result<Option<Step>, Unreadable> {
    let (Ok(plugin), Some(file)) = (has_plugin(), read_once(reported)?) else { return Ok(None) };
    if !matches!(Claude::find(), Ok(Some(_))) {
        return Ok(None);
    }
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

fn read_once(reported: bool) -> Result<Option<UserSettings>, Unreadable> {
    let read = UserSettings::read().map(Some);
    if reported { Ok(read.unwrap_or_default()) } else { read }
}

/// Removes the rule if setup has added it, which the copy shows, and if the hooks are not another copy's. `modest`: keeps the plugin's
/// rule, and says nothing where there is none.
pub fn take_rule(place: &Place, modest: bool, reported: bool) -> Result<Option<Step>, Unreadable> {
    let Some(file) = read_once(reported)? else { return Ok(None) };
    let mut ours = added_rules(&file)?;
    if modest && matches!(has_plugin(), Ok(true)) {
        ours.retain(|theirs| *theirs != rule(true));
    }
    let path = file.path.display();
    if ours.is_empty() || !file.is_of(&place.command_line()) {
        let theirs = RULES.into_iter().find(|rule| file.has_rule(rule));
        let what = theirs.map_or_else(
            || "remove the rule that spares sessions a question".to_owned(),
            |rule| format!("keep {rule} in {path}, which this setup has not added"),
        );
        return Ok((!modest).then(|| Step::already(what)));
    }
    let what = format!("remove the rule that spares sessions a question: {} in {path}", ours.join(" and "));
    let base = place.base(&file.path).to_owned();
    let doing = async move { ours.into_iter().try_for_each(|rule| take_out(&base, |file| file.without_rule(rule))) };
    Ok(Some(Step::to_do(what, doing)))
}

/// Writes the file as `change` makes it.
fn change(change: impl FnOnce(&UserSettings) -> Option<String>) -> Result<(), Problem> {
    let file = UserSettings::read()?;
    let text = change(&file).ok_or_else(|| unchangeable(&file))?;
    let copy = copy(&file)?;
    let nothing_of_ours = !file.has_hooks() && added_rules(&file)?.is_empty();
    if copy.text.is_none() || nothing_of_ours {
        // Earlier versions made no copy where there was no file.
        let before = file.without_hooks().ok_or_else(|| unchangeable(&file))?;
        write(&copy.path, if file.has_hooks() && before.trim() == "{}" { "" } else { &before })?;
    }
    write(&file.path, &text)
}

/// Writes the file as `change` makes it, which has less of ours. Folders that this leaves empty go, up to `base`.
fn take_out(base: &Path, change: impl FnOnce(&UserSettings) -> Option<String>) -> Result<(), Problem> {
    let file = UserSettings::read()?;
    let copy = copy(&file)?;
    let text = change(&file).ok_or_else(|| unchangeable(&file))?;
    let left = UserSettings::of(file.path, Some(text))?;
    let is_last = !left.has_hooks() && RULES.iter().all(|rule| left.has_rule(rule) == copy.has_rule(rule));
    let restores = is_last && copy.text.is_some() && left.is_same_beside_ours(&copy);
    let there_was_none = copy.text.as_deref().is_none_or(str::is_empty);
    let text = if restores { &copy.text } else { &left.text }.as_deref().unwrap_or_default();
    if is_last && there_was_none && ["", "{}"].contains(&text.trim()) {
        files::remove(&left.path, base)?;
    } else {
        write(&left.path, text)?;
    }
    if restores || is_last && there_was_none { files::remove(&copy.path, base) } else { Ok(()) }
}

/// The rules that the file has and its copy from before setup has not.
fn added_rules(file: &UserSettings) -> Result<Vec<&'static str>, Unreadable> {
    let copy = copy(file)?;
    let added = |rule: &&str| file.has_rule(rule) && copy.text.is_some() && !copy.has_rule(rule);
    Ok(RULES.into_iter().filter(added).collect())
}

fn copy(file: &UserSettings) -> Result<UserSettings, Unreadable> {
    let mut name = file.path.as_os_str().to_owned();
    name.push(COPY);
    UserSettings::read_at(PathBuf::from(name))
}

fn unchangeable(file: &UserSettings) -> Problem {
    Problem::new(format!("{} cannot be changed without touching more than our part", file.path.display()), "change it by hand")
}

/// Writes a file of the user's through a link, and keeps its mode.
fn write(path: &Path, text: &str) -> Result<(), Problem> {
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let rights = fs::metadata(&target).map_or_else(|_| Permissions::from_mode(0o600), |meta| meta.permissions());
    files::write(&target, text.as_bytes(), 0o700, rights)
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
