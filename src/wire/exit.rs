//! The exit codes of `claude-peersd`: a contract with scripts and service managers.

/// How the broker's program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum BrokerExit {
    /// Somebody stopped it.
    Stopped = 0,
    /// A reason that no other code names.
    Failure = 1,
    /// A setting or argument cannot be used.
    InvalidSetting = 2,
    /// Another broker uses the socket or database.
    InUse = 3,
    /// The database has a newer schema.
    NewerDatabase = 4,
}

impl BrokerExit {
    /// All of them, in the order of their codes.
    pub const ALL: [Self; 5] = [Self::Stopped, Self::Failure, Self::InvalidSetting, Self::InUse, Self::NewerDatabase];

    /// The exit with this code.
    pub fn of(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|exit| (*exit as u8).to_string() == code)
    }

    /// Its meaning, for people.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Stopped => "stopped as asked",
            Self::Failure => "failure",
            Self::InvalidSetting => "a setting or argument cannot be used",
            Self::InUse => "another broker is at work on this socket or database",
            Self::NewerDatabase => "the database was written by a newer version",
        }
    }
}

impl From<BrokerExit> for std::process::ExitCode {
    fn from(exit: BrokerExit) -> Self {
        Self::from(exit as u8)
    }
}
