//! Our hook in the settings of an agent other than Claude Code, which has the same form of hooks.
//!
//! Promises: every byte that is not ours stays, except that an object or array on one line is spread over several when something of
//! ours goes into it.

use super::{
    claude::hook::{command, is_ours, program_of, property, take_out},
    files::{Unreadable, edit, parse_lenient},
};
use jsonc_parser::json;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// How long an agent lets the hook run, in milliseconds. The hook ends earlier.
const TIMEOUT: u32 = 5_000;
/// The name that the agent shows for it.
const NAME: &str = "claude-peers";

pub struct Hooks {
    /// The file with them, in the agent's folder.
    pub file: &'static str,
    /// The word for the hook on our command line.
    pub word: &'static str,
    /// The events, each with a pattern of the tools to which the hook is limited.
    pub events: &'static [(&'static str, Option<&'static str>)],
    /// The object and the key with which the user switches all hooks off.
    pub switch: [&'static str; 2],
}

/// Which of our hooks a file has, for one copy of our programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Installed {
    /// Exactly the wanted ones.
    Whole,
    None,
    /// Not all of them, or others, or those of a program that is gone.
    Other,
    /// Those of another program, which exists.
    OtherCopy(PathBuf),
}

impl Hooks {
    pub fn installed(&self, file: &Path, text: &str, program: &Path) -> Result<Installed, Unreadable> {
        let all: Value = parse_lenient(file, text)?;
        let groups = |event: &Value| event.as_array().cloned().unwrap_or_default();
        let entries = all["hooks"].as_object().into_iter().flatten().flat_map(|(_, event)| groups(event));
        let entries = entries.flat_map(|group| group["hooks"].as_array().cloned().unwrap_or_default());
        let ours: Vec<String> =
            entries.filter_map(|entry| entry["command"].as_str().filter(|command| is_ours(command)).map(str::to_owned)).collect();
        let other =
            |command: &String| Some(PathBuf::from(program_of(command))).filter(|other| other != program && other.exists());
        let wanted: Value = parse_lenient(file, &self.put_in("", program).unwrap_or_default())?;
        let has = |event: &str| groups(&all["hooks"][event]).contains(&wanted["hooks"][event][0]);
        let is_whole = self.events.iter().all(|(event, _)| has(event));
        Ok(match ours.iter().find_map(other) {
            Some(other) => Installed::OtherCopy(other),
            None if ours.is_empty() => Installed::None,
            None if is_whole && ours.len() == self.events.len() => Installed::Whole,
            None => Installed::Other,
        })
    }

    /// Whether the user has switched all hooks off.
    pub fn are_off(&self, file: &Path, text: &str) -> Result<bool, Unreadable> {
        let [object, key] = self.switch;
        Ok(parse_lenient::<Value>(file, text)?[object][key] == false)
    }

    /// The text with the wanted hooks in place of ours there; none if it has another form.
    pub fn put_in(&self, text: &str, program: &Path) -> Option<String> {
        edit(text, |root| {
            take_out(root);
            let object = root.object_value_or_create()?;
            let hooks = match property(&object, "hooks") {
                None => object.object_value_or_set("hooks"),
                Some(hooks) => hooks.object_value()?,
            };
            for (event, tools) in self.events {
                let groups = match property(&hooks, event) {
                    None => hooks.array_value_or_set(event),
                    Some(groups) => groups.array_value()?,
                };
                let hook =
                    json!({ "type": "command", "name": NAME, "command": (command(program, self.word)), "timeout": TIMEOUT });
                groups.append(match tools {
                    None => json!({ "hooks": [hook] }),
                    Some(tools) => json!({ "matcher": (*tools), "hooks": [hook] }),
                });
            }
            Some(())
        })
    }

    /// The text without our hooks, and without the lists and objects that then are empty.
    pub fn take_out(text: &str) -> Option<String> {
        edit(text, take_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOOKS: Hooks = Hooks {
        file: "settings.json",
        word: "gemini",
        events: &[("AfterTool", None), ("BeforeTool", Some("x.*"))],
        switch: ["a", "b"],
    };

    #[test]
    fn other_hooks_stay_byte_for_byte() {
        let (file, program) = (Path::new("settings.json"), Path::new("/opt/a b/claude-peers"));
        for text in [
            "{}\n",
            "{\n  // mine\n  \"model\": { \"name\": \"x\" },\n  \"ui\": {}\n}",
            "{\n\t\"hooks\": {\n\t\t\"AfterTool\": [\n\t\t\t{\"hooks\": [{\"type\": \"command\", \"command\": \"lint hook\"}]}\n\t\t],\n\t\t\"Notification\": []\n\t}\n}\n",
        ] {
            let with = HOOKS.put_in(text, program).expect("it has the right form");
            assert_eq!(HOOKS.installed(file, &with, program).expect("read"), Installed::Whole, "{with}");
            assert_eq!(HOOKS.put_in(&with, program).as_deref(), Some(&*with), "again");
            assert_eq!(Hooks::take_out(&with).as_deref(), Some(text));
            assert_eq!(HOOKS.installed(file, text, program).expect("read"), Installed::None, "{text}");
            let gone = HOOKS.installed(file, &with, Path::new("/opt/claude-peers")).expect("read");
            assert_eq!(gone, Installed::Other, "{with}");
        }
        assert_eq!(HOOKS.put_in("{\"hooks\": []}", program), None);
        assert!(HOOKS.are_off(file, "{\"a\": {\"b\": false}}").expect("read") && !HOOKS.are_off(file, "{}").expect("read"));
    }
}
