//! The settings with which a user lets the end of a background command wake an idle session of an agent. Setup leaves them to the user.

use super::{
    files::{Unreadable, parse_lenient, read},
    folder,
};
use serde_json::Value;

pub struct Wake {
    /// The agent's folder, as in [`super::agent::Agent`].
    pub folder: [&'static str; 3],
    /// The file there with the settings.
    pub file: &'static str,
    /// The place of each setting, as a JSON pointer, and its value in JSON.
    pub settings: &'static [(&'static str, &'static str)],
}

impl Wake {
    /// Whether all are set.
    pub fn is_on(&self) -> Result<bool, Unreadable> {
        let file = folder::of(self.folder)?.join(self.file);
        let all: Value = parse_lenient(&file, &read(&file)?.unwrap_or_default())?;
        let has = |place: &str, value: &str| {
            all.pointer(place).is_some_and(|set| serde_json::from_str(value).is_ok_and(|value: Value| *set == value))
        };
        Ok(self.settings.iter().all(|(place, value)| has(place, value)))
    }
}
