//! Finds, adds and removes our hook in the user's settings.
//!
//! One hook is wanted: an asynchronous one at each prompt. Any command that runs `claude-peers hook` counts as ours, whichever copy
//! it runs and at whichever event: earlier versions put in six. Other people's hooks stay.

use super::prompt_hook::EVENT;
use crate::platform::call::quoted;
use jsonc_parser::{
    cst::{CstNode, CstObject, CstObjectProp, CstRootNode},
    json,
};
use serde_json::Value;
use std::{collections::BTreeMap, path::Path};

pub const WITHOUT_HOOK: &str = "messages still arrive, but count as delivered only after a reply";

/// How long Claude Code lets the hook run, in seconds. It ends within milliseconds.
const TIMEOUT: u32 = 5;

/// One of our hooks.
#[derive(Debug, Clone)]
pub(super) struct Hook {
    /// It is at the right event and has the right fields, whatever program it runs.
    is_right: bool,
    command: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Installed {
    None,
    /// The wanted hook is there, and no other one of our hooks.
    Whole,
    /// Other hooks of claude-peers are there; with the programs that they run.
    Other(String),
}

/// The groups of hooks by their event.
pub(super) type Groups = BTreeMap<String, Option<Vec<Value>>>;

impl Hook {
    /// Our hooks in `groups`.
    pub(super) fn ours(groups: &Groups) -> Vec<Self> {
        let all = groups.iter().flat_map(|(event, groups)| groups.iter().flatten().map(move |group| (event, group)));
        let entries = all.flat_map(|(event, group)| {
            let in_place = event == EVENT && group["matcher"].is_null();
            group["hooks"].as_array().into_iter().flatten().map(move |entry| (in_place, entry))
        });
        let hook = |(in_place, entry): (bool, &Value)| {
            let command = entry["command"].as_str().filter(|command| is_ours(command))?.to_owned();
            let is_right = in_place && entry["async"] == true && entry["asyncRewake"].is_null() && entry["timeout"] == TIMEOUT;
            Some(Self { is_right, command })
        };
        entries.filter_map(hook).collect()
    }

    /// Whether it runs `program`, or a program that is gone.
    pub(super) fn is_of(&self, program: &Path) -> bool {
        let named = Path::new(program_of(&self.command));
        named == program || named.is_absolute() && !named.exists()
    }
}

impl Installed {
    /// Judges `hooks`, if the wanted one runs `program`.
    pub(super) fn of(hooks: &[Hook], program: &Path) -> Self {
        match hooks {
            [] => Self::None,
            [hook] if hook.is_right && hook.command == command(program, EVENT) => Self::Whole,
            hooks => {
                let mut programs: Vec<_> = hooks.iter().map(|hook| program_of(&hook.command)).collect();
                programs.sort_unstable();
                programs.dedup();
                Self::Other(programs.join(", "))
            }
        }
    }
}

/// Puts the hook that runs `program` in place of our hooks there.
pub(super) fn put_in(root: &CstRootNode, program: &Path) -> Option<()> {
    take_out(root);
    let object = root.object_value_or_set();
    let hooks =
        property(&object, "hooks").map_or_else(|| object.object_value_or_set("hooks"), |hooks| hooks.object_value_or_set());
    let event = property(&hooks, EVENT).map_or_else(|| hooks.array_value_or_set(EVENT), |event| event.array_value_or_set());
    let hook = json!({ "type": "command", "command": (command(program, EVENT)), "async": true, "timeout": TIMEOUT });
    event.append(json!({ "hooks": [hook] }));
    Some(())
}

/// The hook's command. It does nothing if the program is gone, and `exec` leaves no shell beside the program.
pub(in crate::agents) fn command(program: &Path, word: &str) -> String {
    let program = quoted(&program.to_string_lossy()).into_owned();
    format!("[ ! -x {program} ] || exec {program} hook {word}")
}

pub(in crate::agents) fn is_ours(command: &str) -> bool {
    command.rsplit(' ').nth(1) == Some("hook")
        && Path::new(program_of(command)).file_name().is_some_and(|name| name == "claude-peers")
}

/// The program that one of our commands runs: `[ ! -x P ] || exec P hook EVENT`, `exec P hook EVENT` or `P hook EVENT`.
pub(in crate::agents) fn program_of(command: &str) -> &str {
    let program = command.rsplitn(3, ' ').nth(2).unwrap_or(command);
    let program = program.rsplit_once(" ] || exec ").map_or(program, |(_, rest)| rest);
    program.strip_prefix("exec ").unwrap_or(program).trim_matches(['\'', '"'])
}

/// Removes our hooks, and the groups, lists and objects that are then empty.
pub(in crate::agents) fn take_out(root: &CstRootNode) -> Option<()> {
    let object = root.object_value()?;
    let hooks = property(&object, "hooks")?;
    let is_ours = |entry: &CstNode| {
        let command = || entry.as_object()?.get("command")?.value()?.as_string_lit()?.decoded_value().ok();
        command().is_some_and(|command| is_ours(&command))
    };
    for event in hooks.object_value()?.properties() {
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
    prune(hooks);
    Some(())
}

/// The property `name`: the last where it is repeated, as for Claude Code.
pub(in crate::agents) fn property(object: &CstObject, name: &str) -> Option<CstObjectProp> {
    object.properties().into_iter().rev().find(|property| property.decoded_name().as_deref() == Some(name))
}

/// Removes an object or list that is empty.
pub(super) fn prune(property: CstObjectProp) {
    if property.object_value().is_some_and(|object| object.properties().is_empty())
        || property.array_value().is_some_and(|array| array.elements().is_empty())
    {
        property.remove();
    }
}
