//! The hooks in Claude Code's settings, put in and taken out.
//!
//! Before the first change of a file that was there, a copy is laid beside it. If nothing but ours has changed when they are taken
//! out again, the file becomes what the copy is, to the byte.

use super::{
    files,
    place::Place,
    step::{Ended, Problem, Step},
};
use crate::cli::claude::{Claude, HooksFile, Installed, OLDEST_WITH_HOOKS, PLUGIN, has_plugin, hooks_forbidden_by};
use std::{
    fs::{self, DirBuilder, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// The step's name.
pub const NAME: &str = "hooks";
/// What the name of the copy ends with.
const COPY: &str = ".before-claude-peers";

/// The step that puts them in.
pub async fn put(place: &Place) -> Step {
    plan(place).await.unwrap_or_else(|problem| Step::impossible(NAME, problem))
}

async fn plan(place: &Place) -> Result<Step, Problem> {
    let (file, program) = (HooksFile::read()?, place.command_line());
    let what = format!("put hooks into {}", file.path.display());
    let Some(claude) = Claude::find()? else {
        return Ok(Step::left_out(
            NAME,
            format!("{what}, but Claude Code is not installed"),
            "after installing it run this again",
        ));
    };
    let disabled = match hooks_forbidden_by() {
        _ if file.disabled => Some(format!("{} says `disableAllHooks`: none of them will run", file.path.display())),
        Ok(managed) => managed.map(|managed| format!("{} lets none of a user's hooks run", managed.display())),
        Err(error) => Some(format!("whether an administrator lets them run cannot be told: {error}")),
    };
    if has_plugin()? {
        let step = Step::already(NAME, format!("leave them to the plugin {PLUGIN}, which brings its own"));
        let twice = (file.installed(&program) != Installed::None).then(|| {
            format!("{} has ours beside them: `claude-peers setup --undo --register-only` takes those out", file.path.display())
        });
        return Ok(step.note(twice.or(disabled)));
    }
    let instead = match file.installed(&program) {
        Installed::Whole => return Ok(Step::already(NAME, what).note(disabled)),
        Installed::Other(programs) => format!(", in place of those of {programs}"),
        Installed::None => String::new(),
    };
    match claude.version().await {
        Ok(version) if version < OLDEST_WITH_HOOKS => {
            let what = format!("{what}, but Claude Code {version} is older than {OLDEST_WITH_HOOKS}");
            return Ok(Step::left_out(NAME, what, "update it (`claude update`) and run this again"));
        }
        Ok(_) => {}
        Err(e) => return Err(Problem::new(e.to_string(), format!("see that {} runs", claude.path.display()))),
    }
    let step = Step::to_do(NAME, what + &instead, async move {
        let file = HooksFile::read()?; // as it is now
        let text = file.with(&program).ok_or_else(|| unchangeable(&file))?;
        if let Some(before) = file.text.as_deref().filter(|_| file.installed(&program) == Installed::None) {
            write(&copy(&file.path), before)?;
        }
        write(&file.path, &text)?;
        Ok(Ended::Well(String::new()))
    });
    Ok(step.note(disabled))
}

/// The step that takes them out, where they are of this copy or of one that is gone. `modest`: nothing is said where none are.
pub fn take_back(place: &Place, modest: bool) -> Option<Step> {
    let file = match HooksFile::read() {
        Ok(file) => file,
        Err(error) => return Some(Step::impossible(NAME, error.into())),
    };
    let (program, what) = (place.command_line(), "take the hooks out");
    if file.installed(&program) == Installed::None {
        return (!modest).then(|| Step::already(NAME, what));
    }
    if !file.is_of(&program) {
        return Some(Step::already(NAME, "leave the hooks, which are not this copy's"));
    }
    let base = place.base(&file.path).to_owned();
    Some(Step::to_do(NAME, format!("{what} of {}", file.path.display()), async move {
        let file = HooksFile::read()?; // as it is now
        let copy = copy(&file.path);
        let before = fs::read_to_string(&copy).ok().filter(|before| {
            let before = HooksFile::of(copy.clone(), before.clone()).ok();
            before.and_then(|before| before.with(&program)) == file.text
        });
        let unchanged = before.is_some();
        let text = before.or_else(|| file.without()).ok_or_else(|| unchangeable(&file))?;
        if text.trim() == "{}" && !copy.exists() {
            files::remove(&file.path, &base)?; // nothing was there before
        } else {
            write(&file.path, &text)?;
        }
        if unchanged {
            files::remove(&copy, &base)?;
        }
        Ok(Ended::Well(String::new()))
    }))
}

fn copy(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(COPY);
    PathBuf::from(name)
}

fn unchangeable(file: &HooksFile) -> Problem {
    Problem::new(format!("{} cannot be changed without touching more than is ours", file.path.display()), "change it by hand")
}

/// Writes a file of the user's: whole or not at all, with the rights it has, and where a link points to.
fn write(path: &Path, text: &str) -> Result<(), Problem> {
    let write = || -> io::Result<()> {
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let folder = target.parent().unwrap_or(Path::new("/"));
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let rights = fs::metadata(&target).map_or_else(|_| Permissions::from_mode(0o600), |meta| meta.permissions());
        let mut file = tempfile::Builder::new().prefix(".claude-peers-").tempfile_in(folder)?;
        file.write_all(text.as_bytes())?;
        file.as_file().set_permissions(rights)?;
        file.as_file().sync_all()?;
        file.persist(&target).map(drop).map_err(|error| error.error)
    };
    write().map_err(|e| {
        Problem::new(format!("writing {}: {e}", path.display()), "make room or give yourself the right to write there")
    })
}
