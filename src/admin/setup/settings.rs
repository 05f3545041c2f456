//! Changes to the user's settings of Claude Code: our hook, and the rule.
//!
//! Setup first copies the file (as an empty one if there is none). If the file differs from the copy only in our parts, removing the
//! last of them restores the copy byte for byte.

use super::{files, step::Step};
use crate::{
    admin::place::Place,
    agents::{
        claude::{RULES, UserSettings},
        files::Unreadable,
    },
    console::{Failure, UNSET},
};
use std::path::Path;

/// Removes our hooks, if they are of this copy or of one that is gone. `modest`: says nothing where there are none.
pub fn take_hook(file: UserSettings, place: &Place, modest: bool) -> Option<Step> {
    if !file.has_hooks() {
        return (!modest).then(|| Step::already("remove our hook"));
    }
    if !file.is_of(&place.command_line()) {
        return Some(Step::already("keep the hooks, which are another copy's"));
    }
    let base = place.base(&file.path).to_owned();
    let what = format!("remove our hook from {}", file.path.display());
    let doing = async move { take_out(&file, &base, UserSettings::without_hooks) };
    Some(Step::to_do(what, doing))
}

/// Writes the file as changed by `change`, after saving a copy without our parts.
pub fn change(file: &UserSettings, change: impl FnOnce(&UserSettings) -> Option<String>) -> Result<(), Failure> {
    let file = file.again()?;
    let text = changed(&file, change)?;
    let copy = file.copy()?;
    let is_first = copy.text.is_none() || !file.has_hooks() && added_rules(&file)?.is_empty();
    if is_first {
        // Earlier versions made no copy if there was no file.
        let before = changed(&file, UserSettings::without_hooks)?;
        files::write_theirs(&copy.path, if file.has_hooks() && before.trim() == "{}" { "" } else { &before })?;
    }
    files::write_theirs(&file.path, &text).inspect_err(|_| {
        // If this fails, too, the copy is out of date, which does no harm.
        let _ = match &copy.text {
            Some(earlier) if is_first => files::write_theirs(&copy.path, earlier),
            Some(_) => Ok(()),
            None => files::remove_theirs(&copy.path, &copy.path),
        };
    })
}

/// Writes the file as `change` makes it, which has less of ours. Folders that this leaves empty go, up to `base`.
pub fn take_out(file: &UserSettings, base: &Path, change: impl FnOnce(&UserSettings) -> Option<String>) -> Result<(), Failure> {
    let file = file.again()?;
    let copy = file.copy()?;
    let text = changed(&file, change)?;
    let left = file.with_text(text)?;
    let is_last = !left.has_hooks() && RULES.iter().all(|rule| left.has_rule(rule) == copy.has_rule(rule));
    let restores = is_last && copy.text.is_some() && left.is_same_beside_ours(&copy);
    let there_was_none = is_last && copy.text.as_deref().is_none_or(str::is_empty);
    let text = if restores { &copy.text } else { &left.text }.as_deref().unwrap_or_default();
    if there_was_none && ["", "{}"].contains(&text.trim()) {
        files::remove_theirs(&left.path, base)?;
    } else {
        files::write_theirs(&left.path, text)?;
    }
    if restores || there_was_none { files::remove_theirs(&copy.path, base) } else { Ok(()) }
}

fn changed(file: &UserSettings, change: impl FnOnce(&UserSettings) -> Option<String>) -> Result<String, Failure> {
    let what = || format!("{} cannot be changed without touching more than our part", file.path.display());
    change(file).ok_or_else(|| Failure::local(what(), "change it by hand"))
}

/// The rules that are in the file but not in setup's earlier copy.
pub fn added_rules(file: &UserSettings) -> Result<Vec<&'static str>, Unreadable> {
    let copy = file.copy()?;
    let added = |rule: &&str| file.has_rule(rule) && copy.text.is_some() && !copy.has_rule(rule);
    Ok(RULES.into_iter().filter(added).collect())
}

impl From<Unreadable> for Failure {
    fn from(error: Unreadable) -> Self {
        let help = match &error {
            Unreadable::Setting(_) => UNSET,
            Unreadable::System { .. } => "give yourself the right to read it, then run this again",
            Unreadable::Broken { .. } => "correct it, or move it away, and run this again",
        };
        Self::local(error.to_string(), help)
    }
}
