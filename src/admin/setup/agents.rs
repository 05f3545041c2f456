//! Setup's changes to agents other than Claude Code: the registration of our MCP server, our plugin file, and our hooks.
//!
//! An agent's own command adds and removes the registration; where it has none, setup takes our entry out of the file. What belongs to
//! another copy of these programs that still exists, or to other people, stays.

use super::{
    files::{Change, Draft, Found, found, write_theirs},
    step::Step,
};
use crate::{
    admin::place::Place,
    agents::{
        agent::{Agent, Mcp, Plugin, Registration},
        files::read,
        hooks::{Hooks, Installed},
        program::Program,
        server::{NAME, Owner, Server},
    },
    console::Failure,
};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// `named`: the user asks for this agent, so it is an error if it is not installed. `hooks`: adds our hooks, too.
pub fn set_up(agent: &'static Agent, place: &Place, named: bool, hooks: bool) -> Result<Vec<Step>, Failure> {
    let Some(program) = agent.program()? else {
        return if named { Err(missing(agent.title, agent.name.program)) } else { Ok(Vec::new()) };
    };
    let registered = agent.mcp.as_ref().map(|mcp| register(agent, mcp, program, place));
    let plugin = agent.plugin.as_ref().map(|plugin| put_plugin(agent, plugin, place));
    let hooks = agent.hooks.as_ref().filter(|_| hooks).map(|hooks| put_hooks(agent, hooks, place));
    Ok(all([registered, plugin, hooks]))
}

/// Undoes [`set_up`]. If there is nothing to remove, it reports that only for an installed agent, and never if `modest`.
pub fn undo(agent: &'static Agent, place: &Place, modest: bool, hooks: bool) -> Result<Vec<Step>, Failure> {
    let program = agent.program()?;
    let says = !modest && program.is_some();
    let plugin = agent.plugin.as_ref().and_then(|plugin| take_plugin(agent, plugin, place, says).transpose());
    let hooks = agent.hooks.as_ref().filter(|_| hooks).and_then(|hooks| take_hooks(agent, hooks, place, says).transpose());
    let registered = agent.mcp.as_ref().and_then(|mcp| deregister(agent, mcp, program, place, says).transpose());
    Ok(all([plugin, hooks, registered]))
}

pub fn is_installed(agent: &Agent) -> bool {
    matches!(agent.program(), Ok(Some(_)))
}

pub fn missing(title: &str, name: &str) -> Failure {
    let what = format!("{title} is not installed: `{name}` is neither on PATH nor where installers put it");
    Failure::local(what, format!("install it, or leave out `--agent {name}`"))
}

fn all<const N: usize>(steps: [Option<Result<Step, Failure>>; N]) -> Vec<Step> {
    steps.into_iter().flatten().map(|step| step.unwrap_or_else(Step::failed)).collect()
}

fn register(agent: &'static Agent, mcp: &'static Mcp, program: Program, place: &Place) -> Result<Step, Failure> {
    let (title, server) = (agent.title, place.server());
    let what = format!("register {} with {title}", server.display());
    let Registration { file, entry } = agent.registration(mcp)?;
    let owner = entry.as_ref().map(|entry| entry.owner(&server));
    let instead = match (entry, owner) {
        (Some(entry), Some(Owner::This)) if entry.arguments.is_empty() => {
            return Ok(Step::already(what).note(mcp.note.map(str::to_owned)));
        }
        (Some(entry), Some(Owner::OtherCopy)) => return Ok(keep(agent, &entry)),
        (Some(entry), Some(Owner::Stranger)) => {
            let what = format!("{} has {NAME} for another program: {}", file.display(), entry.command_line());
            return Err(Failure::local(what, "rename or remove that entry, then run this again"));
        }
        (Some(entry), _) if !entry.variables.is_empty() => {
            let what = format!("{title} has {NAME} with variables: {}", entry.variables.join(", "));
            let help = "setup does not touch their values, which may be secrets";
            return Err(Failure::local(what, format!("{help}: set its command to {} in {}", server.display(), file.display())));
        }
        (Some(entry), _) => Some(entry.command_line()),
        (None, _) => None,
    };
    let calls: Vec<_> = instead.as_ref().and_then(|_| mcp.deregister(&program)).into_iter().collect();
    let add = mcp.register(&program, &server.to_string_lossy());
    let what = instead.map_or(what.clone(), |line| format!("{what}, in place of {line}"));
    let doing = async move {
        for call in calls.into_iter().chain([add]) {
            call.run().await?;
        }
        let entry = agent.registration(mcp)?.entry;
        let is_there = entry.is_some_and(|entry| entry.starts(&server));
        is_there.then_some(()).ok_or_else(|| unchanged(agent, &file, "has no entry for it"))
    };
    Ok(Step::to_do(what, doing).note(mcp.note.map(str::to_owned)))
}

fn keep(agent: &Agent, entry: &Server) -> Step {
    let (title, name) = (agent.title, agent.name.program);
    let help = format!("it is another copy's: that copy's `claude-peers setup --undo --agent {name}` removes it");
    Step::already(format!("keep {title}'s registration of {}", entry.command_line())).note(Some(help))
}

/// An agent reports success without an effect.
fn unchanged(agent: &Agent, file: &Path, what: &str) -> Failure {
    let what = format!("`{} mcp` reports success, but {} {what}", agent.name.program, file.display());
    Failure::local(what, format!("see whether {} has its configuration elsewhere", agent.title))
}

fn deregister(
    agent: &'static Agent,
    mcp: &'static Mcp,
    program: Option<Program>,
    place: &Place,
    says: bool,
) -> Result<Option<Step>, Failure> {
    let what = format!("remove the registration from {}", agent.title);
    let Registration { file, entry } = agent.registration(mcp)?;
    let Some(entry) = entry else { return Ok(says.then(|| Step::already(what))) };
    if matches!(entry.owner(&place.server()), Owner::OtherCopy | Owner::Stranger) {
        return Ok(Some(Step::already(format!("keep {}'s registration of {}", agent.title, entry.command_line()))));
    }
    let (call, has_verb) = (program.and_then(|program| mcp.deregister(&program)), mcp.remove.is_some());
    if has_verb && call.is_none() {
        let what = format!("{what}: there is no `{}` to do so", agent.name.program);
        let help = format!("take {NAME} out of `{}` in {}; nothing starts it", mcp.key, file.display());
        return Ok(Some(Step::skipped(what, help)));
    }
    Ok(Some(Step::to_do(what, async move {
        match call {
            Some(call) => drop(call.run().await?),
            None => take_out(agent, mcp)?,
        }
        let is_gone = agent.registration(mcp)?.entry.is_none();
        is_gone.then_some(()).ok_or_else(|| unchanged(agent, &file, "still has the entry"))
    })))
}

/// Takes our entry out of all files of an agent that has no command for it.
fn take_out(agent: &Agent, mcp: &Mcp) -> Result<(), Failure> {
    for (file, text) in agent.texts(mcp)? {
        if let Some(text) = mcp.without_ours(&text) {
            write_theirs(&file, &text)?;
        }
    }
    Ok(())
}

fn put_plugin(agent: &Agent, plugin: &Plugin, place: &Place) -> Result<Step, Failure> {
    let path = agent.folder()?.join(plugin.file);
    let what = format!("write {}, through which messages arrive in {}", path.display(), agent.title);
    if let Some(other) = other_copy(&path, &place.server())? {
        return Ok(Step::already(format!("keep {}, which belongs to {}", path.display(), other.display())));
    }
    Ok(change(plugin, path, place, true, what)?.note(plugin.needs.map(str::to_owned)))
}

fn take_plugin(agent: &Agent, plugin: &Plugin, place: &Place, says: bool) -> Result<Option<Step>, Failure> {
    let path = agent.folder()?.join(plugin.file);
    let what = format!("remove {}", path.display());
    let other = other_copy(&path, &place.server())?;
    Ok(Some(match found(&path)? {
        Found::Nothing => return Ok(says.then(|| Step::already(what))),
        Found::Foreign => Step::already(format!("keep {}, which was not written by setup", path.display())),
        _ if other.is_some() => Step::already(format!("keep {}, which is another copy's", path.display())),
        Found::Ours | Found::Changed => change(plugin, path, place, false, what)?,
    }))
}

fn put_hooks(agent: &Agent, hooks: &'static Hooks, place: &Place) -> Result<Step, Failure> {
    let (path, program) = (agent.folder()?.join(hooks.file), place.command_line());
    let what = format!("add hooks to {}, through which messages arrive in {}", path.display(), agent.title);
    let text = read(&path)?.unwrap_or_default();
    let off = hooks.are_off(&path, &text)?.then(|| format!("{} switches hooks off, so they do not run", path.display()));
    let step = match hooks.installed(&path, &text, &program)? {
        Installed::Whole => Step::already(what),
        Installed::OtherCopy(other) => {
            Step::already(format!("keep the hooks in {}, which run {}", path.display(), other.display()))
        }
        Installed::None | Installed::Other => {
            Step::to_do(what, async move { rewrite(&path, |text| hooks.put_in(text, &program)) })
        }
    };
    Ok(step.note(off))
}

fn take_hooks(agent: &Agent, hooks: &'static Hooks, place: &Place, says: bool) -> Result<Option<Step>, Failure> {
    let path = agent.folder()?.join(hooks.file);
    let what = format!("remove our hooks from {}", path.display());
    let text = read(&path)?.unwrap_or_default();
    Ok(Some(match hooks.installed(&path, &text, &place.command_line())? {
        Installed::None => return Ok(says.then(|| Step::already(what))),
        Installed::OtherCopy(other) => {
            Step::already(format!("keep the hooks in {}, which run {}", path.display(), other.display()))
        }
        Installed::Whole | Installed::Other => Step::to_do(what, async move { rewrite(&path, Hooks::take_out) }),
    }))
}

/// Writes the file as `change` makes it from what it has now.
fn rewrite(path: &Path, change: impl FnOnce(&str) -> Option<String>) -> Result<(), Failure> {
    let text = read(path)?.unwrap_or_default();
    let what = || format!("{} cannot be changed without touching more than our part", path.display());
    write_theirs(path, &change(&text).ok_or_else(|| Failure::local(what(), "change it by hand"))?)
}

/// Writes or removes the plugin's file.
fn change(plugin: &Plugin, path: PathBuf, place: &Place, wanted: bool, what: String) -> Result<Step, Failure> {
    let mut change = Change::default();
    change.add([Draft::script(path, &plugin.text(&place.server()))], wanted)?;
    if let Some(kept) = change.in_the_way.pop() {
        return Ok(kept);
    }
    let place = place.clone();
    Ok(if change.count() == 0 { Step::already(what) } else { Step::to_do(what, async move { change.make(&place) }) })
}

/// The server of another copy that still exists, for which setup wrote the file at `path`.
fn other_copy(path: &Path, server: &Path) -> Result<Option<PathBuf>, Failure> {
    if found(path)? != Found::Ours {
        return Ok(None);
    }
    let text = fs::read_to_string(path).unwrap_or_default();
    let is_other = |named: &&Path| named.is_absolute() && named.file_name() == server.file_name() && *named != server;
    Ok(text.split('"').map(Path::new).filter(is_other).find(|named| named.exists()).map(Path::to_owned))
}
