use super::Timestamp;
use serde::{Deserialize, Serialize};

/// What `claude-peersd --check-database` prints as one line of JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseReport {
    /// The file.
    pub path: String,
    /// How it is.
    pub state: DatabaseState,
    /// Its schema version, as far as it can be read; 0 where no broker of this system has opened it yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<u64>,
    /// The newest schema version that this broker knows.
    pub known_schema: u64,
    /// Its size in bytes, side files included.
    pub bytes: u64,
    /// Its permissions in octal, such as `0600`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// When the newest of its messages was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_message_at: Option<Timestamp>,
    /// What is wrong with it, in words.
    pub problems: Vec<String>,
}

/// How a database is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DatabaseState {
    /// The broker can use it.
    Ok,
    /// There is none yet; the broker makes it when it starts.
    Missing,
    /// A newer version wrote it.
    TooNew,
    /// What SQLite reads of it is not as it must be.
    Damaged,
    /// The file, or its folder, cannot be written by this user.
    NotWritable,
    /// It cannot be read at all.
    Unreadable,
}
