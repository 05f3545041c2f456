use super::{
    Timestamp,
    define::{object, words},
};

object! {
    /// The report that `claude-peersd --check-database` prints as one line of JSON.
    pub struct DatabaseReport {
        pub path: String,
        pub state: DatabaseState,
        /// Its schema version, as far as it can be read; 0 where no broker of this system has opened it yet.
        pub schema: Option<u64>,
        /// The newest schema version that this broker knows.
        pub known_schema: u64,
        /// Its size in bytes, side files included.
        pub bytes: u64,
        /// Its permissions in octal, such as `0600`.
        pub mode: Option<String>,
        pub newest_message_at: Option<Timestamp>,
        pub problems: Vec<String>,
    }
}

words! {
    pub enum DatabaseState {
        /// The broker can use it.
        Sound = "ok",
        Missing = "missing",
        TooNew = "too_new",
        /// It is another program's file.
        Foreign = "foreign",
        /// SQLite finds its contents damaged.
        Damaged = "damaged",
        /// The file, or its folder, cannot be written by this user.
        NotWritable = "not_writable",
        /// Its file system has no shared memory, which the broker needs.
        NotShared = "not_shared",
        /// It cannot be read at all.
        Unreadable = "unreadable",
    }
}
