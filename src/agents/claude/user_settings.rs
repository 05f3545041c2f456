//! The user's `settings.json` of Claude Code, read and changed: our hook, and the rule that lets sessions use our tools without
//! asking.
//!
//! Promises: every byte that is not ours stays, except that an object or array on one line is spread over several when something of
//! ours goes into it. A file of another shape is an error with line and column, and is never written.

use super::{
    files::config_folder,
    hook::{self, Groups, Hook, Installed, property, prune},
};
use crate::agents::{
    files::{BYTE_ORDER_MARK, Unreadable, edit, parse_or_default, read},
    halves,
};
use jsonc_parser::{
    cst::{CstNode, CstRootNode},
    json,
};
use serde::Deserialize;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The rules that allow all tools of a server: the one that setup registers, and the plugin's. Without its rule, a session that asks
/// for permission and is woken by a message stops at a question before it can answer.
pub const RULES: [&str; 2] = ["mcp__claude-peers", "mcp__plugin_peers_claude-peers"];

pub fn rule(plugin: bool) -> &'static str {
    RULES[usize::from(plugin)]
}

#[derive(Debug, Clone)]
pub struct UserSettings {
    pub path: PathBuf,
    /// Its content; none if there is no such file.
    pub text: Option<String>,
    /// It switches all hooks off.
    pub disabled: bool,
    hooks: Vec<Hook>,
    permissions: Permissions,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Permissions {
    allow: Option<Vec<Value>>,
    ask: Option<Vec<Value>>,
    deny: Option<Vec<Value>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    hooks: Option<Groups>,
    disable_all_hooks: Option<bool>,
    permissions: Option<Permissions>,
}

impl UserSettings {
    pub fn read() -> Result<Self, Unreadable> {
        Self::read_at(config_folder()?.join("settings.json"))
    }

    fn read_at(path: PathBuf) -> Result<Self, Unreadable> {
        let text = read(&path)?;
        Self::of(path, text)
    }

    fn of(path: PathBuf, text: Option<String>) -> Result<Self, Unreadable> {
        let File { hooks, disable_all_hooks, permissions } = parse_or_default(&path, text.as_deref().unwrap_or_default())?;
        let (disabled, hooks) = (disable_all_hooks == Some(true), Hook::ours(&hooks.unwrap_or_default()));
        Ok(Self { path, text, disabled, hooks, permissions: permissions.unwrap_or_default() })
    }

    /// The file as it is now.
    pub fn again(&self) -> Result<Self, Unreadable> {
        Self::read_at(self.path.clone())
    }

    /// The copy of the file that setup makes.
    pub fn copy(&self) -> Result<Self, Unreadable> {
        Self::read_at(self.path.with_added_extension("before-claude-peers"))
    }

    /// The same file with this text.
    pub fn with_text(self, text: String) -> Result<Self, Unreadable> {
        Self::of(self.path, Some(text))
    }

    /// Which of our hooks it has, if the wanted one runs `program`.
    pub fn installed(&self, program: &Path) -> Installed {
        Installed::of(&self.hooks, program)
    }

    pub fn has_hooks(&self) -> bool {
        !self.hooks.is_empty()
    }

    /// Whether our hooks there run `program`, or programs that are gone.
    pub fn is_of(&self, program: &Path) -> bool {
        self.hooks.iter().all(|hook| hook.is_of(program))
    }

    /// Its text with the hook that runs `program` in place of our hooks there.
    pub fn with_hook(&self, program: &Path) -> Option<String> {
        self.edit(|root| hook::put_in(root, program))
    }

    /// Its text without our hooks, and without the lists and objects that then are empty.
    pub fn without_hooks(&self) -> Option<String> {
        if self.has_hooks() { self.edit(hook::take_out) } else { Some(self.text.clone().unwrap_or_default()) }
    }

    /// The list in `permissions` that decides about the tools that `rule` allows, and the user's rule there; none if sessions ask
    /// because no rule is about our tools.
    pub fn permission(&self, rule: &str) -> Option<(&'static str, &str)> {
        let Permissions { allow, ask, deny } = &self.permissions;
        let covers = |theirs: &&str| theirs.strip_prefix(rule).is_some_and(|rest| ["", "__*"].contains(&rest));
        let find = |list, rules| Some((list, texts(rules).find(|theirs| touches(theirs, rule))?));
        find("deny", deny).or_else(|| find("ask", ask)).or_else(|| Some(("allow", texts(allow).find(covers)?)))
    }

    pub fn has_rule(&self, rule: &str) -> bool {
        texts(&self.permissions.allow).any(|theirs| theirs == rule)
    }

    pub fn with_rule(&self, rule: &str) -> Option<String> {
        self.edit(|root| {
            if !self.has_rule(rule) {
                let object = root.object_value_or_set();
                let permissions = property(&object, "permissions")
                    .map_or_else(|| object.object_value_or_set("permissions"), |list| list.object_value_or_set());
                let allow = property(&permissions, "allow")
                    .map_or_else(|| permissions.array_value_or_set("allow"), |list| list.array_value_or_set());
                allow.append(json!(rule));
            }
            Some(())
        })
    }

    /// Its text without the rule, and without the list and object that then are empty.
    pub fn without_rule(&self, rule: &str) -> Option<String> {
        let is_it = |node: &CstNode| node.as_string_lit().and_then(|text| text.decoded_value().ok()).as_deref() == Some(rule);
        self.edit(|root| {
            let object = root.object_value().filter(|_| self.has_rule(rule))?;
            let permissions = property(&object, "permissions")?;
            let allow = property(&permissions.object_value()?, "allow")?;
            allow.array_value()?.elements().into_iter().filter(is_it).for_each(CstNode::remove);
            prune(allow);
            prune(permissions);
            Some(())
        })
    }

    /// Whether both are equal apart from our parts and the layout.
    pub fn is_same_beside_ours(&self, other: &Self) -> bool {
        // With ours put into both, neither lacks an object or list that only ours needs.
        let full = |file: &Self| -> Option<Value> {
            let mut file = file.clone();
            for rule in RULES {
                file.text = Some(file.with_rule(rule)?);
            }
            parse_or_default(&file.path, &file.with_hook(Path::new("x"))?).ok()
        };
        full(self).is_some_and(|this| full(other) == Some(this))
    }

    /// Its text after `change`, which gives none where it has nothing to change; none if the text cannot be edited.
    fn edit(&self, change: impl FnOnce(&CstRootNode) -> Option<()>) -> Option<String> {
        let text = self.text.as_deref().unwrap_or_default();
        let hidden = halves::hidden(text);
        let mut changed = edit(&hidden, |root| {
            change(root);
            Some(())
        })?;
        if hidden != text {
            changed = halves::shown(&changed, text)?;
        }
        if text.trim_start_matches(BYTE_ORDER_MARK).trim().is_empty() {
            changed.push('\n');
        }
        // A text that could not be read again is not written.
        parse_or_default::<File>(&self.path, &changed).ok().map(|_| changed)
    }
}

fn texts(rules: &Option<Vec<Value>>) -> impl Iterator<Item = &str> {
    rules.iter().flatten().filter_map(Value::as_str)
}

/// Whether a user's rule, which may end with a `*`, is about a tool that `rule` allows.
fn touches(theirs: &str, rule: &str) -> bool {
    let tools = format!("{rule}__");
    match theirs.split_once('*') {
        Some((start, _)) => tools.starts_with(start) || start.starts_with(&tools),
        None => theirs == rule || theirs.starts_with(&tools),
    }
}
