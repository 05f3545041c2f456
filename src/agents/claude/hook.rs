//! Our hook in the user's settings: found, put in, taken out.
//!
//! One hook is wanted: an asynchronous one at each prompt. Any command that runs `claude-peers hook` counts as ours, whichever copy
//! it runs and at whichever event: earlier versions put in six. Other people's hooks stay.

use super::user_settings::{UserSettings, prune};
use crate::{agents::claude::prompt_hook::EVENT, platform::call::quoted};
use jsonc_parser::{
    cst::{CstNode, CstRootNode},
    json,
};
use serde::Deserialize;
use serde_json::{Number, Value};
use std::path::Path;

pub const WITHOUT_HOOK: &str = "messages still arrive, but count as delivered only after a reply";
/// How long Claude Code lets the hook run, in seconds. It ends within milliseconds.
const TIMEOUT: u32 = 5;

/// Hooks that Claude Code runs at one event.
#[derive(Deserialize)]
pub(super) struct Group {
    matcher: Option<Value>,
    #[serde(default)]
    hooks: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    command: Option<String>,
    r#async: Option<bool>,
    async_rewake: Option<bool>,
    timeout: Option<Number>,
}

/// A hook of ours.
#[derive(Debug, Clone)]
pub(super) struct Hook {
    /// It is at the right event, without a matcher.
    in_place: bool,
    command: String,
    entry: Entry,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Installed {
    None,
    /// The wanted hook is there, and no other of ours.
    Whole,
    /// Others of ours are there; with the programs that they run.
    Other(String),
}

impl UserSettings {
    /// Which hooks of ours it has, if the wanted one runs `program`.
    pub fn installed(&self, program: &Path) -> Installed {
        match self.hooks.as_slice() {
            [] => Installed::None,
            [hook] if hook.in_place && hook.entry == Entry::wanted(program) => Installed::Whole,
            hooks => {
                let mut programs: Vec<_> = hooks.iter().map(|hook| program_of(&hook.command)).collect();
                programs.sort_unstable();
                programs.dedup();
                Installed::Other(programs.join(", "))
            }
        }
    }

    pub fn has_hooks(&self) -> bool {
        !self.hooks.is_empty()
    }

    /// Whether our hooks there run `program`, or programs that are gone.
    pub fn is_of(&self, program: &Path) -> bool {
        self.hooks.iter().all(|hook| {
            let named = Path::new(program_of(&hook.command));
            named == program || named.is_absolute() && !named.exists()
        })
    }

    /// Its text with the hook that runs `program` in place of our hooks there.
    pub fn with_hook(&self, program: &Path) -> Option<String> {
        self.edit(|root| {
            take_out(root);
            let hooks = root.object_value_or_set().object_value_or_set("hooks");
            let hook = json!({ "type": "command", "command": (command(program)), "async": true, "timeout": TIMEOUT });
            hooks.array_value_or_set(EVENT).append(json!({ "hooks": [hook] }));
            Some(())
        })
    }

    /// Its text without our hooks, and without the lists and objects that then are empty.
    pub fn without_hooks(&self) -> Option<String> {
        if self.has_hooks() { self.edit(take_out) } else { Some(self.text.clone().unwrap_or_default()) }
    }
}

impl Entry {
    fn wanted(program: &Path) -> Self {
        Self { command: Some(command(program)), r#async: Some(true), async_rewake: None, timeout: Some(TIMEOUT.into()) }
    }
}

/// Those of the hooks at `event` that are ours.
pub(super) fn ours(event: String, groups: Vec<Group>) -> impl Iterator<Item = Hook> {
    groups.into_iter().flat_map(move |Group { matcher, hooks }| {
        let in_place = event == EVENT && matcher.is_none();
        hooks.into_iter().filter_map(move |entry| {
            let command = entry.command.clone().filter(|command| is_ours(command))?;
            Some(Hook { in_place, command, entry })
        })
    })
}

/// The hook's command: it does nothing where the program is gone, and `exec` leaves no shell beside the program.
fn command(program: &Path) -> String {
    let program = quoted(&program.to_string_lossy()).into_owned();
    format!("[ ! -x {program} ] || exec {program} hook {EVENT}")
}

fn is_ours(command: &str) -> bool {
    command.rsplit(' ').nth(1) == Some("hook")
        && Path::new(program_of(command)).file_name().is_some_and(|name| name == "claude-peers")
}

/// The program that a command of ours runs: `[ ! -x P ] || exec P hook EVENT`, `exec P hook EVENT` or `P hook EVENT`.
fn program_of(command: &str) -> &str {
    let program = command.rsplitn(3, ' ').nth(2).unwrap_or(command);
    let program = program.rsplit_once(" ] || exec ").map_or(program, |(_, rest)| rest);
    program.strip_prefix("exec ").unwrap_or(program).trim_matches(['\'', '"'])
}

/// Takes our hooks out, and the groups, lists and objects that then are empty.
fn take_out(root: &CstRootNode) -> Option<()> {
    let object = root.object_value()?;
    let hooks = object.object_value("hooks")?;
    let is_ours = |entry: &CstNode| {
        let command = || entry.as_object()?.get("command")?.value()?.as_string_lit()?.decoded_value().ok();
        command().is_some_and(|command| is_ours(&command))
    };
    for event in hooks.properties() {
        for group in event.array_value().map(|groups| groups.elements()).unwrap_or_default() {
            let Some(entries) = group.as_object().and_then(|group| group.array_value("hooks")) else { continue };
            let (ours, others): (Vec<_>, Vec<_>) = entries.elements().into_iter().partition(is_ours);
            match (ours.is_empty(), others.is_empty()) {
                (true, _) => continue,
                (false, true) => group.remove(),
                (false, false) => ours.into_iter().for_each(CstNode::remove),
            }
            prune(event.clone());
        }
    }
    prune(object.get("hooks")?);
    Some(())
}
