//! What setup does in the user's settings of Claude Code: the hook, and the rule by which sessions use our tools without asking.
//!
//! Before the first change a copy of the file is laid beside it, an empty one if there was no file. If nothing but ours has changed
//! when the last of it is taken out again, the file becomes what the copy is, to the byte.

use super::{files, place::Place, step::Step};
use crate::{
    agents::claude::{
        Claude, Installed, OLDEST_WITH_HOOKS, PLUGIN, RULES, Unreadable, UserSettings, WITHOUT_HOOK, has_plugin,
        hooks_forbidden_by, rule,
    },
    console::exit::Problem,
};
use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

const HOOK: &str = "hooks";
const RULE: &str = "allow_rule";
const COPY: &str = ".before-claude-peers";

/// Which parts of it a step is for. What keeps the settings from being read is said once, by the first.
#[derive(Clone, Copy)]
pub struct Parts {
    pub hook: bool,
    pub rule: bool,
}

pub async fn put(place: &Place, parts: Parts) -> Vec<Step> {
    let mut steps = Vec::new();
    if parts.hook {
        steps.push(put_hook(place).await.unwrap_or_else(|problem| Step::impossible(HOOK, problem)));
    }
    if parts.rule {
        match put_rule() {
            Ok(step) => steps.extend(step),
            Err(_) if parts.hook => {}
            Err(error) => steps.push(Step::impossible(RULE, error)),
        }
    }
    steps
}

async fn put_hook(place: &Place) -> Result<Step, Problem> {
    let (file, program) = (UserSettings::read()?, place.command_line());
    let path = file.path.display();
    let what = format!("put a hook into {path}, which proves that messages arrived");
    let Some(claude) = Claude::find()? else {
        let what = format!("{what}, but Claude Code is not installed");
        return Ok(Step::left_out(HOOK, what, "after installing it run this again"));
    };
    let disabled = match hooks_forbidden_by() {
        _ if file.disabled => Some(format!("{path} says `disableAllHooks`: it will not run; {WITHOUT_HOOK}")),
        Ok(managed) => managed.map(|managed| format!("{} lets none of a user's hooks run; {WITHOUT_HOOK}", managed.display())),
        Err(error) => Some(format!("whether an administrator lets it run cannot be told: {error}")),
    };
    if has_plugin()? {
        let step = Step::already(HOOK, format!("leave the hook to the plugin {PLUGIN}, which brings its own"));
        let twice = || format!("{path} has ours beside it: `claude-peers setup --undo --register-only` takes that out");
        return Ok(step.note(file.has_hooks().then(twice).or(disabled)));
    }
    let instead = match file.installed(&program) {
        Installed::Whole => return Ok(Step::already(HOOK, what).note(disabled)),
        Installed::Other(programs) => format!(", in place of those of {programs}"),
        Installed::None => String::new(),
    };
    let version = claude.version().await.map_err(|error| see_that_it_runs(error, &claude))?;
    if version < OLDEST_WITH_HOOKS {
        let what = format!("{what}, but Claude Code {version} is older than {OLDEST_WITH_HOOKS}");
        return Ok(Step::left_out(HOOK, what, "update it (`claude update`) and run this again"));
    }
    let doing = async move { change(|file| file.with_hook(&program)) };
    Ok(Step::to_do(HOOK, what + &instead, doing).note(disabled))
}

pub fn see_that_it_runs(error: String, claude: &Claude) -> Problem {
    Problem::new(error, format!("see that {} runs", claude.path.display()))
}

/// None where Claude Code is not installed.
fn put_rule() -> Result<Option<Step>, Unreadable> {
    // Without the plugin's file no step registers, and that one says so.
    let Ok(plugin) = has_plugin() else { return Ok(None) };
    let file = UserSettings::read()?;
    if !matches!(Claude::find(), Ok(Some(_))) {
        return Ok(None);
    }
    let (rule, path) = (rule(plugin), file.path.display());
    let what = format!("let sessions use our tools without asking: {rule} in {path}");
    Ok(Some(match file.permission(rule) {
        Some(("allow", _)) => Step::already(RULE, what),
        Some((list, theirs)) => {
            let whose = format!("{path}, which has {theirs} in `permissions.{list}`");
            Step::already(RULE, format!("leave it to {whose}, whether sessions may use our tools"))
        }
        None => Step::to_do(RULE, what, async move { change(|file| file.with_rule(rule)) })
            .note(Some("`claude-peers setup --undo` takes it out again; with `--no-allow` it is not put in".to_owned())),
    }))
}

/// The steps that take them out. `modest`: nothing is said where there is nothing, and the plugin keeps its rule.
pub fn take_back(place: &Place, parts: Parts, modest: bool) -> Vec<Step> {
    let file = match UserSettings::read() {
        Ok(file) => file,
        Err(error) => {
            let name = [(parts.hook, HOOK), (parts.rule, RULE)].into_iter().find_map(|(is_for, name)| is_for.then_some(name));
            return name.map(|name| Step::impossible(name, error)).into_iter().collect();
        }
    };
    let hook = if parts.hook { take_hook(place, &file, modest) } else { None };
    let rule = if parts.rule { take_rule(place, &file, modest) } else { None };
    hook.into_iter().chain(rule).collect()
}

/// Takes out what is ours, where it is of this copy or of one that is gone.
fn take_hook(place: &Place, file: &UserSettings, modest: bool) -> Option<Step> {
    let what = "take our hooks out";
    if !file.has_hooks() {
        return (!modest).then(|| Step::already(HOOK, what));
    }
    if !file.is_of(&place.command_line()) {
        return Some(Step::already(HOOK, "leave the hooks, which are not this copy's"));
    }
    let base = place.base(&file.path).to_owned();
    let doing = async move { take_out(&base, UserSettings::without_hooks) };
    Some(Step::to_do(HOOK, format!("{what} of {}", file.path.display()), doing))
}

/// Takes the rule out where setup has put it in: where the copy from before setup does not have it. Beside the hooks of another copy
/// it stays.
fn take_rule(place: &Place, file: &UserSettings, modest: bool) -> Option<Step> {
    let what = "take the rule out that lets sessions use our tools without asking";
    let mut ours = match rules_put_in(file) {
        Ok(ours) => ours,
        Err(error) => return Some(Step::impossible(RULE, error)),
    };
    if modest && matches!(has_plugin(), Ok(true)) {
        ours.retain(|theirs| *theirs != rule(true));
    }
    let path = file.path.display();
    if ours.is_empty() || !file.is_of(&place.command_line()) {
        let theirs = RULES.into_iter().find(|rule| file.has_rule(rule));
        let leave = |rule| format!("leave {rule} in {path}, which this setup has not put in");
        return (!modest).then(|| Step::already(RULE, theirs.map_or_else(|| what.to_owned(), leave)));
    }
    let base = place.base(&file.path).to_owned();
    Some(Step::to_do(RULE, format!("{what}: {} of {path}", ours.join(" and ")), async move {
        ours.into_iter().try_for_each(|rule| take_out(&base, |file| file.without_rule(rule)))
    }))
}

/// Puts in what `change` makes of the file as it is now.
fn change(change: impl FnOnce(&UserSettings) -> Option<String>) -> Result<(), Problem> {
    let file = UserSettings::read()?;
    let text = change(&file).ok_or_else(|| unchangeable(&file))?;
    let copy = copy(&file)?;
    let nothing_of_ours = !file.has_hooks() && rules_put_in(&file)?.is_empty();
    if copy.text.is_none() || nothing_of_ours {
        // Earlier versions laid none where there was no file.
        let before = file.without_hooks().ok_or_else(|| unchangeable(&file))?;
        write(&copy.path, if file.has_hooks() && before.trim() == "{}" { "" } else { &before })?;
    }
    write(&file.path, &text)
}

/// Takes out what is missing in what `change` makes of the file as it is now. Folders that are empty then go, up to `base`.
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

/// Our rules in the file that were not there before setup.
fn rules_put_in(file: &UserSettings) -> Result<Vec<&'static str>, Unreadable> {
    let copy = copy(file)?;
    let put_in = |rule: &&str| file.has_rule(rule) && copy.text.is_some() && !copy.has_rule(rule);
    Ok(RULES.into_iter().filter(put_in).collect())
}

fn copy(file: &UserSettings) -> Result<UserSettings, Unreadable> {
    let mut name = file.path.as_os_str().to_owned();
    name.push(COPY);
    UserSettings::read_at(PathBuf::from(name))
}

fn unchangeable(file: &UserSettings) -> Problem {
    Problem::new(format!("{} cannot be changed without touching more than is ours", file.path.display()), "change it by hand")
}

/// Writes a file of the user's with the rights it has, and where a link points to.
fn write(path: &Path, text: &str) -> Result<(), Problem> {
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let rights = fs::metadata(&target).map_or_else(|_| Permissions::from_mode(0o600), |meta| meta.permissions());
    files::write(&target, text.as_bytes(), 0o700, rights)
}

impl From<Unreadable> for Problem {
    fn from(error: Unreadable) -> Self {
        let help = match &error {
            Unreadable::Setting(_) => crate::console::exit::UNSET,
            Unreadable::System { .. } => "give yourself the right to read it, then run this again",
            Unreadable::Broken { .. } => "it is left as it is: correct it, or move it away, and run this again",
        };
        Self::new(error.to_string(), help)
    }
}
