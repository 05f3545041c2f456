//! The user's settings of Claude Code.

use super::{files::config_folder, prompt_hook::EVENT};
use crate::agents::{files::Unreadable, hook::Manner, user_settings::UserSettings};

static HOOK: Manner = Manner { event: EVENT, word: EVENT, timeout: 5, is_lenient: false };

pub fn user_settings() -> Result<UserSettings, Unreadable> {
    UserSettings::read(config_folder()?.join("settings.json"), &HOOK)
}
