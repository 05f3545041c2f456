//! Our hooks in the user's `settings.json` of Claude Code: found, put in, taken out.
//!
//! Promises: only what is ours is touched, byte for byte (an object or array on one line into which it goes is spread over
//! several); a file that is not understood as a whole is an error that names it with
//! line and column, and never written. What is ours is a command that runs `claude-peers hook`, whichever copy.

use super::{Unreadable, config_folder};
use crate::{cli::call::quoted, hook::Event};
use jsonc_parser::{
    ParseOptions,
    cst::{CstInputValue, CstNode, CstRootNode},
};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

/// For how long Claude Code lets a hook wait, in seconds: 23 days. Its clock counts milliseconds in 31 bits.
const WAIT_TIMEOUT: u32 = 2_000_000;
/// How long Claude Code waits for a hook that is gone within a second, in seconds.
const SHORT_TIMEOUT: u32 = 5;
/// The mark at the beginning that some editors write, and Claude Code reads past.
const BYTE_ORDER_MARK: &str = "\u{feff}";

/// The user's settings of Claude Code.
#[derive(Debug, Clone)]
pub struct HooksFile {
    /// The file.
    pub path: PathBuf,
    /// What it holds; none if it is not there.
    pub text: Option<String>,
    hooks: Vec<Hook>,
    /// It switches the user's hooks off.
    pub disabled: bool,
}

/// A hook that is ours.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hook {
    event: String,
    command: String,
    waits: bool,
    timeout: Option<u32>,
}

/// How our hooks stand in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Installed {
    /// None of ours.
    None,
    /// All of them, as they are to be.
    Whole,
    /// Some are missing, or other than they are to be; with what they run.
    Other(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    hooks: Option<BTreeMap<String, Vec<Group>>>,
    disable_all_hooks: Option<bool>,
}

#[derive(Deserialize)]
struct Group {
    matcher: Option<serde_json::Value>,
    #[serde(default)]
    hooks: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    command: Option<String>,
    async_rewake: Option<bool>,
    timeout: Option<serde_json::Number>,
}

impl HooksFile {
    /// Reads it.
    ///
    /// # Errors
    /// If it cannot be read or understood.
    pub fn read() -> Result<Self, Unreadable> {
        Self::read_at(config_folder()?.join("settings.json"))
    }

    fn read_at(path: PathBuf) -> Result<Self, Unreadable> {
        let text = match fs::read(&path) {
            Ok(text) => String::from_utf8(text)
                .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is no text in UTF-8"))
                .map_err(|source| Unreadable::System { file: path.clone(), source })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self { path, text: None, hooks: Vec::new(), disabled: false });
            }
            Err(source) => return Err(Unreadable::System { file: path, source }),
        };
        Self::of(path, text)
    }

    /// The file with this text.
    ///
    /// # Errors
    /// If that cannot be understood.
    pub fn of(path: PathBuf, text: String) -> Result<Self, Unreadable> {
        let (hooks, disabled) = understand(&text).map_err(|source| Unreadable::Broken { file: path.clone(), source })?;
        Ok(Self { path, text: Some(text), hooks, disabled })
    }

    /// How our hooks stand in it, if they are to run `program`.
    pub fn installed(&self, program: &Path) -> Installed {
        let wanted = wanted(program);
        match self.hooks.as_slice() {
            [] => Installed::None,
            hooks if hooks.len() == wanted.len() && wanted.iter().all(|hook| hooks.contains(hook)) => Installed::Whole,
            hooks => {
                let mut commands: Vec<_> = hooks.iter().map(|hook| program_of(&hook.command).to_owned()).collect();
                commands.sort_unstable();
                commands.dedup();
                Installed::Other(commands.join(", "))
            }
        }
    }

    /// Whether what is ours there runs `program`, or a program that is not there any more.
    pub fn is_of(&self, program: &Path) -> bool {
        self.hooks.iter().all(|hook| {
            let named = Path::new(program_of(&hook.command));
            named == program || named.is_absolute() && !named.exists()
        })
    }

    /// Its text with our hooks for `program`, in place of what is ours there.
    pub fn with(&self, program: &Path) -> Option<String> {
        let base = self.without()?;
        edit(&base, |root| {
            let hooks = root.object_value_or_set().object_value_or_set("hooks");
            for hook in wanted(program) {
                hooks.array_value_or_set(&hook.event).append(hook.group());
            }
        })
    }

    /// Its text without our hooks, and without what held nothing else.
    pub fn without(&self) -> Option<String> {
        let text = self.text.as_deref().unwrap_or_default();
        if self.hooks.is_empty() { Some(text.to_owned()) } else { edit(text, take_out) }
    }
}

/// Our hooks that the text holds, and whether it switches all off. An empty file counts as one that sets nothing.
fn understand(text: &str) -> serde_json::Result<(Vec<Hook>, bool)> {
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    if text.trim().is_empty() {
        return Ok((Vec::new(), false));
    }
    let file: File = serde_json::from_str(text)?;
    let mut ours = Vec::new();
    for (event, groups) in file.hooks.into_iter().flatten() {
        for Group { matcher, hooks } in groups {
            // A matcher is somebody's wish: such a hook is ours and not as it is to be.
            let event = if matcher.is_some() { format!("{event} (matched)") } else { event.clone() };
            ours.extend(hooks.into_iter().filter_map(|entry| {
                let command = entry.command.filter(|command| is_ours(command))?;
                let timeout = entry.timeout.and_then(|timeout| timeout.as_u64()?.try_into().ok());
                Some(Hook { event: event.clone(), command, waits: entry.async_rewake == Some(true), timeout })
            }));
        }
    }
    Ok((ours, file.disable_all_hooks == Some(true)))
}

/// Whether a command runs one of our hooks.
fn is_ours(command: &str) -> bool {
    command.rsplit(' ').nth(1) == Some("hook")
        && Path::new(program_of(command)).file_name().is_some_and(|name| name == "claude-peers")
}

fn program_of(command: &str) -> &str {
    let program = command.rsplitn(3, ' ').nth(2).unwrap_or(command);
    program.strip_prefix("exec ").unwrap_or(program).trim_matches(['\'', '"'])
}

/// The hooks as they are to be.
fn wanted(program: &Path) -> Vec<Hook> {
    let program = quoted(&program.to_string_lossy()).into_owned();
    let hook = |event: Event| Hook {
        event: event.name().to_owned(),
        // Without a shell that stays beside each hook that waits.
        command: format!("exec {program} hook {}", event.word()),
        waits: event.waits(),
        timeout: Some(if event.waits() { WAIT_TIMEOUT } else { SHORT_TIMEOUT }),
    };
    Event::ALL.map(hook).into()
}

impl Hook {
    fn group(self) -> CstInputValue {
        let text = |text: &str| CstInputValue::String(text.to_owned());
        let mut entry = vec![("type".to_owned(), text("command")), ("command".to_owned(), text(&self.command))];
        if self.waits {
            entry.push(("asyncRewake".to_owned(), CstInputValue::Bool(true)));
        }
        entry.extend(self.timeout.map(|timeout| ("timeout".to_owned(), CstInputValue::Number(timeout.to_string()))));
        let hooks = CstInputValue::Array(vec![CstInputValue::Object(entry)]);
        CstInputValue::Object(vec![("hooks".to_owned(), hooks)])
    }
}

/// The text, changed; none if it cannot be changed.
fn edit(text: &str, change: impl FnOnce(&CstRootNode)) -> Option<String> {
    let (mark, text) = text.strip_prefix(BYTE_ORDER_MARK).map_or(("", text), |rest| (BYTE_ORDER_MARK, rest));
    let root = CstRootNode::parse(text, &ParseOptions::default()).ok()?;
    change(&root);
    let mut changed = format!("{mark}{root}");
    if text.trim().is_empty() {
        changed.push('\n');
    }
    // Nothing is written that would not be read again.
    understand(&changed).ok().map(|_| changed)
}

/// Takes out what is ours, and what is empty for that.
fn take_out(root: &CstRootNode) {
    let Some(object) = root.object_value() else { return };
    let Some(hooks) = object.object_value("hooks") else { return };
    let command = |entry: &CstNode| {
        let value = entry.as_object()?.get("command")?.value()?;
        value.as_string_lit()?.decoded_value().ok()
    };
    for event in hooks.properties() {
        let Some(groups) = event.array_value() else { continue };
        let mut took = false;
        for group in groups.elements() {
            let Some(entries) = group.as_object().and_then(|group| group.array_value("hooks")) else { continue };
            let ours: Vec<_> =
                entries.elements().into_iter().filter(|entry| command(entry).is_some_and(|c| is_ours(&c))).collect();
            if ours.is_empty() {
                continue;
            }
            took = true;
            if ours.len() == entries.elements().len() {
                group.remove();
            } else {
                ours.into_iter().for_each(CstNode::remove);
            }
        }
        if took && groups.elements().is_empty() {
            event.remove();
        }
    }
    if hooks.properties().is_empty()
        && let Some(hooks) = object.get("hooks")
    {
        hooks.remove();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> HooksFile {
        HooksFile::of(PathBuf::new(), text.to_owned()).expect("understood")
    }

    /// The text without the blanks between its words: where our hooks begin and end, those may change.
    fn dense(text: &str) -> String {
        text.split_whitespace().collect()
    }

    #[test]
    fn what_others_wrote_is_kept_to_the_byte() {
        let program = Path::new("/usr/bin/claude-peers");
        for (text, theirs) in [
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
                "\u{feff}{\n    \"permissions\": {\n        \"allow\": []\n    }\n}",
                "\u{feff}{\n    \"permissions\": {\n        \"allow\": []\n    }",
            ),
        ] {
            let with = file(text).with(program).unwrap_or_else(|| panic!("{text:?}"));
            assert!(with.contains(theirs), "{text:?}: {with}");
            assert_eq!(file(&with).installed(program), Installed::Whole, "{with}");
            let without = file(&with).without().expect("taken out");
            assert!(without.contains(theirs) && dense(&without) == dense(text), "{text:?}: {without:?}");
        }
    }

    #[test]
    fn what_is_ours_is_told_from_what_is_not() {
        for ours in [
            "/usr/bin/claude-peers hook Stop",
            "exec '/opt/my tools/claude-peers' hook Stop",
            "claude-peers hook Old",
            "exec claude-peers hook Old",
        ] {
            assert!(is_ours(ours), "{ours}");
        }
        for other in ["claude-peers", "claude-peers peers", "echo hook Stop", "/x/claude-peers-mcp hook Stop", "", "a b c"] {
            assert!(!is_ours(other), "{other}");
        }
        let program = Path::new("/usr/bin/claude-peers");
        let whole = file("{}").with(program).expect("changed");
        for (from, to) in [
            ("/usr/bin/claude-peers hook Stop", "/opt/claude-peers hook Stop"),
            ("exec /usr/bin/claude-peers hook Stop", "/usr/bin/claude-peers hook Stop"),
            ("\"asyncRewake\": true", "\"asyncRewake\": false"),
            ("hook SessionEnd", "hook Sneeze"),
            ("2000000", "600"),
        ] {
            let other = file(&whole.replacen(from, to, 1));
            assert!(matches!(other.installed(program), Installed::Other(_)), "{to}");
            assert_eq!(file(&other.with(program).expect("changed")).installed(program), Installed::Whole, "{to}");
        }
        // Beside somebody else's in one group.
        let mixed =
            "{\"hooks\": {\"Stop\": [{\"hooks\": [{\"command\": \"beep\"}, {\"command\": \"/x/claude-peers hook Stop\"}]}]}}";
        assert_eq!(
            dense(&file(mixed).without().expect("changed")),
            dense("{\"hooks\": {\"Stop\": [{\"hooks\": [{\"command\": \"beep\"}]}]}}")
        );
    }

    /// The plugin is for those who do not want setup's hooks: it brings the same.
    #[test]
    fn the_plugins_hooks_are_the_same() {
        let plugin = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/plugin/peers");
        let text = |file: &str| fs::read_to_string(plugin.join(file)).expect("read");
        let search = "PATH=\"$PATH:/usr/local/bin:/usr/bin:/opt/homebrew/bin:$HOME/.cargo/bin:$HOME/.local/bin\"; ";
        let escaped = serde_json::json!(search).to_string();
        let hooks = text("hooks/hooks.json").replace(escaped.trim_matches('"'), "");
        let hooks: serde_json::Value = serde_json::from_str(&hooks).expect("JSON");
        let setups = HooksFile::of(PathBuf::new(), "{}".to_owned()).expect("understood").with(Path::new("claude-peers"));
        assert_eq!(hooks, serde_json::from_str::<serde_json::Value>(&setups.expect("changed")).expect("JSON"));
        let json = |file: &str| serde_json::from_str::<serde_json::Value>(&text(file)).expect("JSON");
        assert_eq!(json(".claude-plugin/plugin.json")["version"], crate::wire::VERSION);
        let server = &json(".mcp.json")["mcpServers"][crate::cli::claude::NAME];
        assert_eq!(server["args"], serde_json::json!(["-c", format!("{search}exec claude-peers-mcp")]));
    }

    #[test]
    fn what_is_not_understood_is_not_changed() {
        for text in [
            "{",
            "[]",
            "{\"hooks\": []}",
            "{\"hooks\": {\"Stop\": {}}}",
            "{\"hooks\": {\"Stop\": [1]}}",
            "{\"a\": 1,}",
            "// x\n{}",
        ] {
            let error = understand(text).map(drop).expect_err(text);
            assert!(error.line() > 0, "{text}: {error}");
        }
    }
}
