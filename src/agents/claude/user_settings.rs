//! The user's `settings.json` of Claude Code, read and changed: our hook, and the rule by which sessions use our tools without
//! asking.
//!
//! Promises: only what is ours is touched, byte for byte (an object or array on one line into which it goes is spread over
//! several); a file that is not understood as a whole is an error that names it with line and column, and never written.

use super::{
    Unreadable,
    files::{BYTE_ORDER_MARK, config_folder, parse_or_default, read},
    hook::{Group, Hook},
};
use jsonc_parser::{
    ParseOptions,
    cst::{CstNode, CstObjectProp, CstRootNode},
    json,
};
use serde::Deserialize;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// The rules for all tools of a server: as setup registers it, and as the plugin brings it. Without it a session that asks for
/// permission and is woken by a message stops at a question as soon as it wants to answer.
pub const RULES: [&str; 2] = ["mcp__claude-peers", "mcp__plugin_peers_claude-peers"];

pub fn rule(plugin: bool) -> &'static str {
    RULES[usize::from(plugin)]
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allowed {
    /// Sessions may use them without asking.
    Yes,
    /// Nothing: sessions ask.
    Unsaid,
    /// The user forbids them or some of them (`deny`), or wants to be asked (`ask`), by this rule.
    Ruled(&'static str, String),
}

#[derive(Debug, Clone)]
pub struct UserSettings {
    pub path: PathBuf,
    /// What it holds; none if it is not there.
    pub text: Option<String>,
    pub disabled: bool,
    pub(super) hooks: Vec<Hook>,
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
    hooks: Option<BTreeMap<String, Vec<Group>>>,
    disable_all_hooks: Option<bool>,
    permissions: Option<Permissions>,
}

impl UserSettings {
    pub fn read() -> Result<Self, Unreadable> {
        Self::read_at(config_folder()?.join("settings.json"))
    }

    pub fn read_at(path: PathBuf) -> Result<Self, Unreadable> {
        let text = read(&path)?;
        Self::of(path, text)
    }

    pub fn of(path: PathBuf, text: Option<String>) -> Result<Self, Unreadable> {
        let File { hooks, disable_all_hooks, permissions } = parse_or_default(&path, text.as_deref().unwrap_or_default())?;
        let hooks = hooks.into_iter().flatten().flat_map(|(event, groups)| super::hook::ours(&event, groups)).collect();
        Ok(Self { path, text, disabled: disable_all_hooks == Some(true), hooks, permissions: permissions.unwrap_or_default() })
    }

    /// What it says about the tools that `rule` allows.
    pub fn allowed(&self, rule: &str) -> Allowed {
        let find = |rules: &Option<Vec<Value>>| texts(rules).find(|theirs| touches(theirs, rule)).map(str::to_owned);
        let covers = |theirs: &str| theirs.strip_prefix(rule).is_some_and(|rest| rest.is_empty() || rest == "__*");
        let Permissions { allow, ask, deny } = &self.permissions;
        match find(deny).map(|theirs| ("deny", theirs)).or_else(|| Some(("ask", find(ask)?))) {
            Some((list, theirs)) => Allowed::Ruled(list, theirs),
            None if texts(allow).any(covers) => Allowed::Yes,
            None => Allowed::Unsaid,
        }
    }

    pub fn has_rule(&self, rule: &str) -> bool {
        texts(&self.permissions.allow).any(|theirs| theirs == rule)
    }

    pub fn with_rule(&self, rule: &str) -> Option<String> {
        self.edit(|root| {
            if !self.has_rule(rule) {
                let permissions = root.object_value_or_set().object_value_or_set("permissions");
                permissions.array_value_or_set("allow").append(json!(rule));
            }
            Some(())
        })
    }

    /// Its text without the rule, and without what held nothing else.
    pub fn without_rule(&self, rule: &str) -> Option<String> {
        let is_it = |node: &CstNode| node.as_string_lit().and_then(|text| text.decoded_value().ok()).as_deref() == Some(rule);
        self.edit(|root| {
            let object = root.object_value().filter(|_| self.has_rule(rule))?;
            let permissions = object.object_value("permissions")?;
            permissions.array_value("allow")?.elements().into_iter().filter(is_it).for_each(CstNode::remove);
            prune(permissions.get("allow")?);
            prune(object.get("permissions")?);
            Some(())
        })
    }

    /// Whether both say the same beside what is ours, however it is laid out.
    pub fn is_same_beside_ours(&self, other: &Self) -> bool {
        // With all of it put in, both have what is empty without it.
        let full = |file: &Self| -> Option<Value> {
            let mut file = file.clone();
            for rule in RULES {
                file.text = Some(file.with_rule(rule)?);
            }
            serde_json::from_str(file.with_hook(Path::new("x"))?.trim_start_matches(BYTE_ORDER_MARK)).ok()
        };
        full(self).is_some_and(|this| full(other) == Some(this))
    }

    /// Its text, changed; none if it cannot be changed. `change` gives none where there is nothing to change.
    pub(super) fn edit(&self, change: impl FnOnce(&CstRootNode) -> Option<()>) -> Option<String> {
        let text = self.text.as_deref().unwrap_or_default();
        let (mark, text) = text.strip_prefix(BYTE_ORDER_MARK).map_or(("", text), |rest| (BYTE_ORDER_MARK, rest));
        let root = CstRootNode::parse(text, &ParseOptions::default()).ok()?;
        change(&root);
        let mut changed = format!("{mark}{root}");
        if text.trim().is_empty() {
            changed.push('\n');
        }
        // Nothing is written that would not be read again.
        parse_or_default::<File>(&self.path, &changed).ok().map(|_| changed)
    }
}

pub(super) fn prune(property: CstObjectProp) {
    if property.object_value().is_some_and(|object| object.properties().is_empty())
        || property.array_value().is_some_and(|array| array.elements().is_empty())
    {
        property.remove();
    }
}

fn texts(rules: &Option<Vec<Value>>) -> impl Iterator<Item = &str> {
    rules.iter().flatten().filter_map(Value::as_str)
}

/// Whether a rule of somebody's says something about a tool that `rule` is for. It may end with a `*`.
fn touches(theirs: &str, rule: &str) -> bool {
    let tools = format!("{rule}__");
    match theirs.split_once('*') {
        Some((start, _)) => tools.starts_with(start) || start.starts_with(&tools),
        None => theirs == rule || theirs.starts_with(&tools),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agents::claude::Installed;

    const RULE: &str = RULES[0];

    fn file(text: &str) -> UserSettings {
        UserSettings::of(PathBuf::new(), Some(text.to_owned())).expect("understood")
    }

    #[test]
    fn what_is_said_about_our_tools_is_found() {
        let unsaid = ["", "{}", r#"{"permissions": null}"#, r#"{"permissions": {"allow": null, "deny": []}}"#];
        for text in unsaid {
            assert_eq!(file(text).allowed(RULE), Allowed::Unsaid, "{text}");
        }
        let said =
            |list: &str, theirs: &str| file(&serde_json::json!({"permissions": {list: [theirs, 1]}}).to_string()).allowed(RULE);
        for theirs in [RULE, "mcp__claude-peers__*"] {
            assert_eq!(said("allow", theirs), Allowed::Yes, "{theirs}");
        }
        // The last two allow nothing: Claude Code takes no such rule.
        for theirs in ["mcp__claude-peers__send_message", "mcp__claude-peers-2", RULES[1], "Bash(*)", "mcp__*", "*"] {
            assert_eq!(said("allow", theirs), Allowed::Unsaid, "{theirs}");
        }
        for theirs in [RULE, "mcp__claude-peers__*", "mcp__claude-peers__send_message", "mcp__claude-peers__send*", "mcp__*", "*"]
        {
            assert_eq!(said("deny", theirs), Allowed::Ruled("deny", theirs.to_owned()));
            assert_eq!(said("ask", theirs), Allowed::Ruled("ask", theirs.to_owned()));
        }
        for theirs in ["mcp__claude-peers-2", "mcp__claude-peers-2__*", RULES[1], "Bash(*)", "mcp__other__*"] {
            assert_eq!(said("deny", theirs), Allowed::Unsaid, "{theirs}");
        }
        let both = r#"{"permissions": {"allow": ["mcp__claude-peers"], "ask": ["mcp__claude-peers__ask"]}}"#;
        assert_eq!(file(both).allowed(RULE), Allowed::Ruled("ask", "mcp__claude-peers__ask".to_owned()));
    }

    /// The text without the blanks between its words: where ours begins and ends, those may change.
    fn dense(text: &str) -> String {
        text.split_whitespace().collect()
    }

    #[test]
    fn what_others_wrote_is_kept_to_the_byte() {
        let program = Path::new("/usr/bin/claude-peers");
        for (text, theirs) in [
            ("{\"permissions\": {\"allow\": [\"Bash(ls  -l)\"], \"deny\" : [ \"X\" ]}}", "\"deny\" : [ \"X\" ]"),
            ("{\"permissions\": {\"ask\": []}}", "\"ask\": []"),
            ("{}", ""),
            ("{\n}\n", ""),
            ("{\n  \"model\": \"opus\"\n}\n", "\n  \"model\": \"opus\""),
            ("{ \"a\" :  [ 1,2 ]}", "\"a\" :  [ 1,2 ]"),
            (
                "{\"x\":1.50,\"hooks\":{\"Stop\":[{\"hooks\":[{\"type\":\"command\",\"command\":\"beep\"}]}]}}",
                "[{\"hooks\":[{\"type\":\"command\",\"command\":\"beep\"}]}",
            ),
            (
                "{\n\t\"hooks\": {\n\t\t\"Stop\": [\n\t\t\t{ \"hooks\": [{ \"type\": \"command\",   \"command\": \"beep\" }] }\n\t\t]\n\t},\n\t\"x\" : \"\\u00e9\"\n}\n",
                "{\n\t\"hooks\": {\n\t\t\"Stop\": [\n\t\t\t{ \"hooks\": [{ \"type\": \"command\",   \"command\": \"beep\" }] }",
            ),
            (
                "{\r\n  \"a\": 1,\r\n  \"hooks\": {\r\n    \"PreToolUse\": []\r\n  }\r\n}\r\n",
                "{\r\n  \"a\": 1,\r\n  \"hooks\": {\r\n    \"PreToolUse\": []",
            ),
            (
                "\u{feff}{\n    \"permissions\": {\n        \"ask\": []\n    }\n}",
                "\u{feff}{\n    \"permissions\": {\n        \"ask\": []",
            ),
        ] {
            let changed = |changed: Option<String>| file(&changed.unwrap_or_else(|| panic!("{text:?}")));
            let hook = changed(file(text).with_hook(program));
            assert_eq!(hook.installed(program), Installed::Whole, "{hook:?}");
            let both = changed(hook.with_rule(RULE));
            assert_eq!((both.allowed(RULE), both.with_rule(RULE)), (Allowed::Yes, both.text.clone()), "once is enough");
            let rule = changed(both.without_hooks());
            let none = changed(rule.without_rule(RULE));
            for file in [&hook, &both, &rule, &none] {
                assert!(file.text.as_ref().is_some_and(|text| text.contains(theirs)), "{theirs:?}: {file:?}");
            }
            assert_eq!(dense(&none.text.unwrap_or_default()), dense(text));
        }
    }

    #[test]
    fn what_is_not_understood_is_not_changed() {
        for text in [
            "{",
            "[]",
            "{\"hooks\": []}",
            "{\"hooks\": {\"Stop\": {}}}",
            "{\"hooks\": {\"Stop\": [1]}}",
            "{\"permissions\": []}",
            "{\"permissions\": {\"allow\": \"Bash\"}}",
            "{\"a\": 1,}",
            "// x\n{}",
        ] {
            let error = UserSettings::of(PathBuf::new(), Some(text.to_owned())).map(drop).expect_err(text);
            assert!(matches!(error, Unreadable::Broken { .. }), "{text}: {error}");
        }
    }

    #[test]
    fn what_differs_only_in_ours_is_told_from_what_differs() {
        let old = r#"{"x": 1, "hooks": {"Stop": [{"hooks": [{"command": "/x/claude-peers hook Stop"}]}]}}"#;
        for (one, other, same) in [
            ("", "{}", true),
            (old, "{\n\"x\":1}", true),
            (old, "{\"x\": 2}", false),
            ("{\"permissions\": {\"allow\": []}}", "{\"hooks\": {}}", true),
            ("{\"permissions\": {\"allow\": [\"Bash\"]}}", "{}", false),
            ("{\"permissions\": {\"allow\": [\"mcp__claude-peers\"]}}", "{}", true),
        ] {
            assert_eq!(file(one).is_same_beside_ours(&file(other)), same, "{one} {other}");
        }
    }
}
