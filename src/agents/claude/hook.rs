//! Our hook in the user's settings: found, put in, taken out.
//!
//! One is wanted: beside each prompt, held up by nothing. What is ours is a command that runs `claude-peers hook`, whichever copy and
//! for whichever event: earlier versions put in six. Other people's hooks stay.

use super::user_settings::{UserSettings, prune};
use crate::{agents::claude::prompt_hook::EVENT, platform::call::quoted};
use jsonc_parser::{
    cst::{CstNode, CstRootNode},
    json,
};
use serde::Deserialize;
use serde_json::Value;
use std::path::Path;

pub const WITHOUT_HOOK: &str = "messages still arrive, and count as delivered only once a reply proves it";
/// How long Claude Code lets the hook run, in seconds. It is gone within milliseconds.
const TIMEOUT: u32 = 5;

#[derive(Deserialize)]
pub(super) struct Group {
    matcher: Option<Value>,
    #[serde(default)]
    hooks: Vec<Entry>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    command: Option<String>,
    r#async: Option<bool>,
    async_rewake: Option<bool>,
    timeout: Option<serde_json::Number>,
}

#[derive(Debug, Clone)]
pub(super) struct Hook {
    event: String,
    /// A matcher is somebody's wish: such a hook is ours and not as it is to be.
    matched: bool,
    command: String,
    entry: Entry,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Installed {
    None,
    /// It is there as it is to be, and no other.
    Whole,
    /// There are others; with what they run.
    Other(String),
}

impl UserSettings {
    /// How our hook stands in it, if it is to run `program`.
    pub fn installed(&self, program: &Path) -> Installed {
        match self.hooks.as_slice() {
            [] => Installed::None,
            [hook] if hook.is_for(program) => Installed::Whole,
            hooks => {
                let mut commands: Vec<_> = hooks.iter().map(|hook| program_of(&hook.command).to_owned()).collect();
                commands.sort_unstable();
                commands.dedup();
                Installed::Other(commands.join(", "))
            }
        }
    }

    pub fn has_hooks(&self) -> bool {
        !self.hooks.is_empty()
    }

    /// Whether what is ours there runs `program`, or a program that is not there any more.
    pub fn is_of(&self, program: &Path) -> bool {
        self.hooks.iter().all(|hook| {
            let named = Path::new(program_of(&hook.command));
            named == program || named.is_absolute() && !named.exists()
        })
    }

    /// Its text with our hook for `program`, in place of what is ours there.
    pub fn with_hook(&self, program: &Path) -> Option<String> {
        self.edit(|root| {
            take_out(root);
            let hooks = root.object_value_or_set().object_value_or_set("hooks");
            let hook = json!({ "type": "command", "command": (command(program)), "async": true, "timeout": TIMEOUT });
            hooks.array_value_or_set(EVENT).append(json!({ "hooks": [hook] }));
            Some(())
        })
    }

    /// Its text without our hooks, and without what held nothing else.
    pub fn without_hooks(&self) -> Option<String> {
        if self.has_hooks() { self.edit(take_out) } else { Some(self.text.clone().unwrap_or_default()) }
    }
}

impl Hook {
    fn is_for(&self, program: &Path) -> bool {
        let Entry { r#async, async_rewake, timeout, .. } = &self.entry;
        let waits = *r#async != Some(true) || *async_rewake == Some(true);
        let in_time = timeout.as_ref().and_then(serde_json::Number::as_u64) == Some(TIMEOUT.into());
        self.event == EVENT && !self.matched && !waits && in_time && self.command == command(program)
    }
}

pub(super) fn ours(event: &str, groups: Vec<Group>) -> Vec<Hook> {
    let of_group = |Group { matcher, hooks }: Group| {
        let matched = matcher.is_some();
        hooks.into_iter().filter_map(move |entry| {
            let command = entry.command.clone().filter(|command| is_ours(command))?;
            Some(Hook { event: event.to_owned(), matched, command, entry })
        })
    };
    groups.into_iter().flat_map(of_group).collect()
}

/// What the hook runs: harmless where the program is gone, and without a shell that stays beside it.
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

/// Takes out what is ours, and what is empty for that.
fn take_out(root: &CstRootNode) -> Option<()> {
    let object = root.object_value()?;
    let hooks = object.object_value("hooks")?;
    let is_ours = |entry: &CstNode| {
        let command = || entry.as_object()?.get("command")?.value()?.as_string_lit()?.decoded_value().ok();
        command().is_some_and(|command| is_ours(&command))
    };
    for event in hooks.properties() {
        let groups = event.array_value().map(|groups| groups.elements()).unwrap_or_default();
        let mut took = false;
        for group in groups {
            let Some(entries) = group.as_object().and_then(|group| group.array_value("hooks")) else { continue };
            let (ours, others): (Vec<_>, Vec<_>) = entries.elements().into_iter().partition(is_ours);
            took |= !ours.is_empty();
            if !ours.is_empty() && others.is_empty() {
                group.remove();
            } else {
                ours.into_iter().for_each(CstNode::remove);
            }
        }
        if took {
            prune(event);
        }
    }
    prune(object.get("hooks")?);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, path::PathBuf};

    fn file(text: &str) -> UserSettings {
        UserSettings::of(PathBuf::new(), Some(text.to_owned())).expect("understood")
    }

    #[test]
    fn what_is_ours_is_told_from_what_is_not() {
        for (ours, program) in [
            ("/usr/bin/claude-peers hook Stop", "/usr/bin/claude-peers"),
            ("exec '/opt/my tools/claude-peers' hook Stop", "/opt/my tools/claude-peers"),
            ("\"/opt/my tools/claude-peers\" hook SessionEnd", "/opt/my tools/claude-peers"),
            ("claude-peers hook Old", "claude-peers"),
            ("exec claude-peers hook TurnStart", "claude-peers"),
            ("[ ! -x /x/claude-peers ] || exec /x/claude-peers hook UserPromptSubmit", "/x/claude-peers"),
            ("[ ! -x '/a ] || b/claude-peers' ] || exec '/a ] || b/claude-peers' hook New", "/a ] || b/claude-peers"),
        ] {
            assert!(is_ours(ours), "{ours}");
            assert_eq!(program_of(ours), program);
        }
        for other in ["claude-peers", "claude-peers peers", "echo hook Stop", "/x/claude-peers-mcp hook Stop", "", "a b c"] {
            assert!(!is_ours(other), "{other}");
        }
        let program = Path::new("/usr/bin/claude-peers");
        let whole = file("{}").with_hook(program).expect("changed");
        for (from, to) in [
            ("exec /usr/bin/claude-peers hook", "exec /opt/claude-peers hook"),
            ("[ ! -x /usr/bin/claude-peers ] || exec ", ""),
            ("\"async\": true", "\"async\": false"),
            ("\"async\": true", "\"async\": true, \"asyncRewake\": true"),
            ("hook UserPromptSubmit", "hook Sneeze"),
            ("\"timeout\": 5", "\"timeout\": 600"),
            ("\"UserPromptSubmit\"", "\"Stop\""),
            ("\"hooks\": [", "\"matcher\": \"\", \"hooks\": ["),
        ] {
            assert!(whole.contains(from), "{from}: {whole}");
            let other = file(&whole.replacen(from, to, 1));
            assert!(matches!(other.installed(program), Installed::Other(_)), "{to}");
            assert_eq!(file(&other.with_hook(program).expect("changed")).installed(program), Installed::Whole, "{to}");
        }
        // Beside somebody else's in one group.
        let mixed =
            "{\"hooks\": {\"Stop\": [{\"hooks\": [{\"command\": \"beep\"}, {\"command\": \"/x/claude-peers hook Stop\"}]}]}}";
        let left: Value = serde_json::from_str(&file(mixed).without_hooks().expect("changed")).expect("JSON");
        assert_eq!(left, serde_json::json!({ "hooks": { "Stop": [{ "hooks": [{ "command": "beep" }] }] } }));
    }

    /// The plugin is for those who do not want setup's hook: it brings the same.
    #[test]
    fn the_plugins_hook_is_the_same() {
        let plugin = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/plugin/peers");
        let text = |file: &str| fs::read_to_string(plugin.join(file)).expect("read");
        let search = "PATH=\"$PATH:/usr/local/bin:/usr/bin:/opt/homebrew/bin:$HOME/.cargo/bin:$HOME/.local/bin\"; ";
        let plugins = text("hooks/hooks.json")
            .replace(serde_json::json!(search).to_string().trim_matches('"'), "")
            .replace("! command -v claude-peers >/dev/null ||", "[ ! -x claude-peers ] ||");
        let setups = file("{}").with_hook(Path::new("claude-peers")).expect("changed");
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
        assert_eq!(value(&plugins), value(&setups));
        let json = |file: &str| serde_json::from_str::<serde_json::Value>(&text(file)).expect("JSON");
        assert_eq!(json(".claude-plugin/plugin.json")["version"], crate::wire::VERSION);
        let server = &json(".mcp.json")["mcpServers"][crate::agents::claude::NAME];
        assert_eq!(server["args"], serde_json::json!(["-c", format!("{search}exec claude-peers-mcp")]));
    }
}
